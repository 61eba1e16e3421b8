"""The test of a run: once, at its end, with the weights of the chosen epoch."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from minidl import metrics
from minidl.arguments import mapping
from minidl.array import Array
from minidl.data import Dataset
from minidl.data.dataset import check_dataset
from minidl.inference.evaluation import evaluate
from minidl.inference.heads import slices
from minidl.io import files, lock
from minidl.io.files import Path
from minidl.nn import Module
from minidl.train.balance import counted
from minidl.train.contract import Contract
from minidl.train.decision import suspicious
from minidl.train.load import TrainedNet, load_run
from minidl.train.predictions import Predictions
from minidl.train.run import check_same_classes, digests_of
from minidl.train.scoring import scored
from minidl.train.selection import Row, best_epoch, described, is_finished, mean_over, validated
from minidl.train.settings import Settings, check_keys

KEYS = ["epoch", "images", "loss", "accuracy", "majority_accuracy", "balanced_accuracy", "digests"]
ADDED = [  # since the first runs
    *("target", "groups", "temperature", "decision", "recall", "average_precision", "ece", "ece_uncalibrated", "brier"),
    *("intervals", "notes"),
]
SOME = ["auc", "auc_per_class", "operating"]  # that not every test has


def evaluate_run(
    folder: Path, nets: Mapping[str, Callable[..., Module]], test_set: Dataset, device: str = "cpu"
) -> dict[str, Any]:
    """The scores on `test_set` of the net that a finished run has kept, which it writes into test.json.

    They are `epoch` (that of the weights, from 1), `images` (how many), `loss`, `temperature` and `decision` (of the contract),
    `digests` of the images and labels, and all that `minidl.train.scoring` lists: accuracy and balanced accuracy of the
    likeliest class and of the decisions, AUC, sensitivity and specificity, recall of each class, average precision and
    calibration, with intervals over the groups of the test set, or over images where it has none. predictions.csv has a line
    for each image, see `minidl.train.predictions`.

    Of several heads `heads` holds all this of each, by name, on the images whose label is known, with the name of its file of
    predictions; accuracy, majority_accuracy, balanced_accuracy and AUC are the means over the heads.

    A run is tested once, for whoever chooses among runs or settings by their test has no test any more. Asked again with the
    same images it says so, and returns what it has written; to the test of an older minidl it adds what that did not say.
    nets: as in `load_run`, whose errors it raises, too.

    Raises:
        FileNotFoundError: there is no run in the folder.
        FileExistsError: it was tested already, on other images.
        TypeError, ValueError: the run is not finished, or its operating point is missing; the test images are not of its kind,
            or test.json is damaged.
        FloatingPointError: the loss is not finite.
        BlockingIOError, OSError: as of `fit`.
    """
    check_dataset(test_set, "test_set")
    folder, nets = pathlib.Path(folder), mapping(nets, "nets", "name -> what builds that net")
    path = folder / "test.json"
    with lock.hold(folder):
        settings, digests = Settings.of_run(folder), digests_of({"test": test_set})
        if path.exists():
            found = _read(path)
            if found["digests"] != digests:
                raise FileExistsError(
                    f"{folder} was tested already, on other images: expected those, for a run has one test; train another one"
                )
            if "intervals" in found or "heads" in found:
                print(f"{folder} was tested already, these are its scores of then: {told(found)}", flush=True)
                return found
        rows = _rows(folder)
        if not is_finished(rows, settings):
            raise ValueError(f"{folder}: {len(rows)} of {settings.epochs} epochs are done; finish the run before its test")
        net = load_run(folder, nets)
        check_settled(folder, net.contract, rows)
        _check_kind(test_set, net.contract)
        print(f"test: {counted(test_set)}", flush=True)
        model, contract = net.model.to(device), net.contract
        loss, logits, _ = evaluate(model, test_set, settings.batch_size, contract.normalize, contract.test_flips)
        if not math.isfinite(loss):
            raise FloatingPointError(f"{folder}: the test loss is {loss}")
        best = best_epoch(rows, settings.select)
        assert best is not None
        found = {"epoch": best + 1, "images": len(test_set), "loss": loss}
        if net.heads:
            of_heads = {}
            for number, (head, columns) in enumerate(slices(net.classes).items(), start=1):
                file = f"predictions-{number}.csv"
                one = _tested(net.head(head), logits[:, columns], test_set, test_set.labels[head], settings, folder / file)
                of_heads[head] = one | {"predictions": file}
            found |= mean_over(of_heads) | {"heads": of_heads}
        else:
            found |= _tested(net, logits, test_set, test_set.labels, settings, folder / "predictions.csv")
        found |= {"images": len(test_set), "digests": digests}
        files.write(path, json.dumps(found, indent=2) + "\n")
    return found


def told(found: Mapping[str, Any]) -> str:
    """What `evaluate_run` found, in words, of several heads for each."""
    if "heads" in found:
        return "; ".join(f"{head}: {described(row)}" for head, row in found["heads"].items())
    return described(found)


def _tested(
    net: TrainedNet, logits: Array, test_set: Dataset, labels: Array, settings: Settings, path: pathlib.Path
) -> dict[str, Any]:
    """What one head says of the test, by its logits (N,K) and labels (N,), -1 where one is not known; with a file of it."""
    predictions, contract = predictions_of(net, logits, test_set, labels), net.contract
    predictions.write(path)
    known = predictions.known()
    target = suspicious(net.classes, settings.target if settings.target in net.classes else "")
    about = {"images": len(known.labels), "temperature": contract.temperature}
    about |= {"decision": contract.decision and asdict(contract.decision)}
    return about | scored(known, target, contract.temperature, contract.decision is not None)


def check_settled(folder: Path, contract: Contract, rows: Sequence[Row]) -> None:
    """Raises ValueError for a run that ended between its last epoch and its operating point."""
    if rows and validated(rows[-1]) and not contract.validation:
        raise ValueError(
            f"{folder}: its operating point is missing, for it ended after its last epoch; resume it, which takes no more "
            "epochs (examples/train.py --resume --out FOLDER)"
        )


def predictions_of(net: TrainedNet, logits: Array, dataset: Dataset, labels: Array) -> Predictions:
    """What the net says of the images of `dataset`, by its logits (N,K). Images without names have their numbers.

    labels: (N,), those of the dataset, or of the head that is asked.
    """
    p = metrics.probabilities(logits, net.contract.temperature)
    names = [str(n) for n in (range(len(dataset)) if dataset.names is None else dataset.names)]
    groups = [""] * len(dataset) if dataset.groups is None else [str(group) for group in dataset.groups]
    return Predictions(net.classes, names, groups, labels, p, net.decide(p))


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        there = found if isinstance(found, dict) else {}
        added = ["heads"] if "heads" in there else [*ADDED, "confusion"] if "intervals" in there else ["confusion"]
        check_keys(found, "test", [*KEYS, *added, *(name for name in SOME if name in there)])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return found


def _rows(folder: pathlib.Path) -> list[Row]:
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}; to resume the run writes it anew") from error


def _check_kind(test_set: Dataset, contract: Contract) -> None:
    check_same_classes(test_set.classes, contract.classes, "test_set")
    expected = contract.channels, contract.height, contract.width
    if test_set.images.shape[1:] != expected or test_set.images.dtype.name != contract.dtype:
        came = f"{test_set.images.shape[1:]} {test_set.images.dtype}"
        raise ValueError(f"test_set: expected images of {expected} (C,H,W) {contract.dtype}, as in training, got {came}")
    if test_set.window != contract.window:
        came = f"{contract.window}, as in training, got {test_set.window}"
        raise ValueError(f"test_set: expected images that were read through the window {came}")
