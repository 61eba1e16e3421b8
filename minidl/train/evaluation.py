"""The test of a run: once, at its end, with the weights of the chosen epoch."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from minidl import metrics
from minidl.array import Array
from minidl.data import Dataset
from minidl.inference.evaluation import evaluate
from minidl.io import files, lock
from minidl.io.files import Path
from minidl.nn import Module
from minidl.train.balance import counted
from minidl.train.contract import Contract
from minidl.train.load import load_run
from minidl.train.run import check_same_classes, digests_of
from minidl.train.selection import Row, best_epoch, by_head, described, is_finished, mean_over, scores_of, validated
from minidl.train.settings import Settings, check_keys

KEYS = ["epoch", "images", "loss", "accuracy", "majority_accuracy", "balanced_accuracy", "digests"]


def evaluate_run(
    folder: Path, nets: Mapping[str, Callable[..., Module]], test_set: Dataset, device: str = "cpu"
) -> dict[str, Any]:
    """The scores on `test_set` of the net that a finished run has kept, which it writes into test.json.

    They are `epoch` (that of the weights, from 1), `images` (how many), `loss`, `accuracy`, `majority_accuracy` (what the
    largest class gets for every answer), `balanced_accuracy`, `auc` where every class has images, see
    `minidl.train.selection`, `confusion` (K,K), true classes by predicted ones, and `digests` of the images and labels. Of
    several heads each score is the mean over these, and `heads` holds those of each, by name, with its `confusion` and how many
    `images` have a known label: no other counts.

    A run is tested once, for whoever chooses among runs or settings by their test has no test any more. Asked again with the
    same images it says so, and returns what it has written. nets: as in `load_run`, whose errors it raises, too.

    Raises:
        FileNotFoundError: there is no run in the folder.
        FileExistsError: it was tested already, on other images.
        ValueError: the run is not finished, the test images are not of its kind, or test.json is damaged.
        FloatingPointError: the loss is not finite.
        BlockingIOError, OSError: as of `fit`.
    """
    folder = pathlib.Path(folder)
    path = folder / "test.json"
    with lock.hold(folder):
        settings, digests = Settings.of_run(folder), digests_of({"test": test_set})
        if path.exists():
            found = _read(path)
            if found["digests"] != digests:
                raise FileExistsError(
                    f"{folder} was tested already, on other images: expected those, for a run has one test; train another one"
                )
            print(f"{folder} was tested already, these are its scores of then: {told(found)}", flush=True)
            return found
        rows = _rows(folder)
        if not is_finished(rows, settings):
            raise ValueError(f"{folder}: {len(rows)} of {settings.epochs} epochs are done; finish the run before its test")
        net = load_run(folder, nets)
        if validated(rows[-1]) and not net.contract.validation:
            raise ValueError(
                f"{folder}: its operating point is missing, for it ended after its last epoch; resume it, which takes no more "
                "epochs (examples/train.py --resume --out FOLDER)"
            )
        _check_kind(test_set, net.contract)
        print(f"test: {counted(test_set)}", flush=True)
        loss, logits, labels = evaluate(net.model.to(device), test_set, settings.batch_size, net.contract.normalize)
        if not math.isfinite(loss):
            raise FloatingPointError(f"{folder}: the test loss is {loss}")
        best = best_epoch(rows, settings.select)
        assert best is not None
        found = {"epoch": best + 1, "images": len(test_set), "loss": loss}
        if test_set.heads:
            of_heads = {head: _tested(*known) for head, known in by_head(logits, labels, test_set.classes).items()}
            found |= mean_over(of_heads) | {"heads": of_heads}
        else:
            found |= _tested(logits, labels)
        found |= {"images": len(test_set), "digests": digests}
        files.write(path, json.dumps(found, indent=2) + "\n")
    return found


def told(found: Mapping[str, Any]) -> str:
    """What `evaluate_run` found, in words, of several heads for each."""
    if "heads" in found:
        return "; ".join(f"{head}: {described(row)}" for head, row in found["heads"].items())
    return described(found)


def _tested(logits: Array, labels: Array) -> Row:
    confusion = metrics.confusion_matrix(logits, labels).tolist()
    return {"images": len(labels), **scores_of(logits, labels), "confusion": confusion}


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        some = [name for name in ("auc", "heads") if isinstance(found, dict) and name in found]
        check_keys(found, "test", KEYS + some + ([] if "heads" in some else ["confusion"]))
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
