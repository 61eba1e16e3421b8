"""The folder of a run: begun, resumed, and published after every epoch; it goes on with what it began with or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from minidl import weights
from minidl.analysis.nonfinite import count_nonfinite
from minidl.arguments import count, number, wrong
from minidl.array import Array
from minidl.data import Dataset
from minidl.io import files
from minidl.nn import Module
from minidl.optim import Optimizer, WeightAverage
from minidl.train import checkpoint
from minidl.train.balance import check_classes
from minidl.train.contract import Contract
from minidl.train.decision import all_of, targets
from minidl.train.loss_scale import LossScale
from minidl.train.selection import PREFIX, Row, best_epoch, names_of_scores, validated
from minidl.train.settings import Settings, check_keys, same_settings

FILES = ("settings.json", "checkpoint.safetensors", "model.safetensors", "metrics.jsonl", "test.json", "predictions.csv")
READ = 2**23  # values that are read at once, where images are left on disk


def hold_out(train_set: Dataset, validation: Dataset | None, settings: Settings) -> tuple[Dataset, Dataset | None]:
    """What is trained on, and what an epoch is chosen by: `validation`, or a share of the training images, or nothing.

    A share keeps groups whole, and classes in proportion, those of each head. Raises ValueError where there are both, where an
    epoch is to be chosen by nothing, and where sets and settings do not go together.
    """
    if validation is not None and settings.validation:
        raise ValueError(f"validation: images are given, and {settings.validation:g} of the training images are to be held out")
    names_of_scores(train_set.heads)
    if train_set.heads and settings.balance == "sample":
        raise ValueError(
            f"balance: 'sample' draws by the classes of one head, got {', '.join(train_set.heads)}; write balance='weights'"
        )
    if settings.validation:
        train_set, validation = train_set.split([1 - settings.validation, settings.validation], settings.seed, stratify=True)
    if validation is None and settings.select != "last":
        raise ValueError(
            f"select: {settings.select!r} chooses an epoch by validation images, and there are none; hold some out with "
            f"validation=0.15, or write select='last'"
        )
    check_data(train_set, validation, settings)
    _check_target(train_set.classes, validation, settings)
    return train_set, validation


def _check_target(classes: Any, validation: Dataset | None, settings: Settings) -> None:
    for head, names in (classes if isinstance(classes, Mapping) else {"": classes}).items():
        if len(names) < 2:
            of_head = f" of {head}" * bool(head)
            raise ValueError(f"train_set: expected at least two classes{of_head} to tell apart, got {tuple(names)}")
    found = targets(classes, settings.target)
    if settings.sensitivity is None:
        return
    if not found:
        raise ValueError(f"sensitivity: {settings.sensitivity:g} of which class? set target, one of {all_of(classes)}")
    if validation is None:
        raise ValueError(
            f"sensitivity: {settings.sensitivity:g} takes a threshold that validation images give, and there are none; hold "
            f"some out with validation=0.15"
        )


def check_data(train_set: Dataset, validation: Dataset | None, settings: Settings) -> None:
    if settings.batch_size > len(train_set):
        raise ValueError(f"batch_size: {settings.batch_size} is more than the {len(train_set)} training images")
    check_classes(train_set, "train_set")
    if validation is None:
        return
    check_same_classes(validation.classes, train_set.classes, "validation")
    if train_set.images.shape[1:] != validation.images.shape[1:]:
        raise ValueError(
            f"train_set has images of {train_set.images.shape[1:]} (C,H,W), validation of {validation.images.shape[1:]}"
        )
    if train_set.images.dtype != validation.images.dtype:
        came = f"{train_set.images.dtype}, validation {validation.images.dtype}"
        raise ValueError(f"train_set is {came}: expected images of the same depth; convert those of one of them")
    if train_set.window != validation.window:
        came = f"{train_set.window}, validation through {validation.window}"
        raise ValueError(f"train_set was read through the window {came}: expected the same for both; read one of them anew")
    check_classes(validation, "validation")


def check_same_classes(classes: Any, expected: Any, name: str) -> None:
    """Raises ValueError for other classes or heads than those of the training, or heads in another order than its logits."""
    if classes != expected:
        raise ValueError(f"{name}: expected the classes {expected}, got {classes}")
    if isinstance(expected, Mapping) and list(classes) != list(expected):
        raise ValueError(f"{name}: expected the heads in the order of training, {list(expected)}, got {list(classes)}")


def digests_of(sets: Mapping[str, Dataset]) -> dict[str, str]:
    """Of all images and labels, in their order. BLAKE2b takes 0.2 s for the 184 MB of CIFAR-10, on a CPU of any kind."""
    found = {}
    for of, d in sets.items():
        found[f"{of} images"] = _digest({"": d.images})
        found[f"{of} labels"] = _digest(d.labels if d.heads else {"": d.labels})
    return found


def _digest(arrays: Mapping[str, Array]) -> str:
    digest = hashlib.blake2b(digest_size=32)
    for name, a in arrays.items():
        digest.update(f"{name}{a.dtype.str} {a.shape}".encode())
        many = max(1, READ // math.prod(a.shape[1:]))
        for first in range(0, len(a), many):
            part: Array = np.ascontiguousarray(a[first : first + many])
            digest.update(part.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@dataclass
class Run:
    """The folder `out`, all whose state its checkpoint holds, and what a resumed run has to find as it was"""

    out: pathlib.Path
    model: Module
    optimizer: Optimizer
    scale: LossScale | None
    settings: Settings
    contract: Contract
    data: Row  # the classes, the mean and std of the images, and how many there are
    digests: dict[str, str]
    steps: int  # of an epoch
    validates: bool  # whether epochs get scores
    average: WeightAverage | None = None  # whose weights are judged and kept, in place of the last
    best: Mapping[str, Array] | None = None  # the weights of the best epoch so far, where an epoch is chosen

    def begin(self) -> list[Row]:
        """No rows, in a folder that holds none."""
        if any((self.out / name).exists() for name in FILES[1:]):
            raise FileExistsError(
                f"{self.out} holds a run already: resume it, delete it, or choose another folder for this one"
            )
        if (self.out / "settings.json").exists():
            try:
                Settings.of_run(self.out)  # of a run that ended in its first epoch
            except (OSError, ValueError) as error:
                other = f"{self.out} holds a settings.json of something else, choose another folder: {error}"
                raise FileExistsError(other) from error
        files.remove_leftovers(self.out, FILES)
        files.write(self.out / "settings.json", json.dumps(asdict(self.settings), indent=2) + "\n")
        return []

    def resume(self) -> list[Row]:
        """The rows of the run in the folder; everything is in its state, or as it was where an error is raised."""
        self.settings.continues(Settings.of_run(self.out))
        path = self.out / "checkpoint.safetensors"
        files.remove_leftovers(self.out, FILES)
        if not path.exists():  # ended in its first epoch
            if left := [name for name in FILES[2:] if (self.out / name).exists()]:
                there = f"{path.name} is missing, but {' and '.join(left)} are there"
                advice = "put it back, or choose another folder to begin anew"
                raise FileNotFoundError(f"nothing to resume in {self.out}: {there}; {advice}")
            return []
        facts, best = checkpoint.load(path, self.model, self.optimizer, self._check, self.average)
        if self.scale is not None:
            self.scale.load_state_dict(facts["loss_scale"])
        rows: list[Row] = facts["rows"]
        self.best = best or (self.weights() if self._last_is_best(rows) else None)
        if self.is_scored(rows[-1]):
            self._publish(rows)  # the run may have ended between the checkpoint and these
        return rows

    def save(self, rows: list[Row]) -> None:
        """Write the checkpoint of an epoch and, once it has its scores, what is made of it.

        Raises FloatingPointError where a number is not finite.
        """
        self._check_finite(rows[-1])
        if self._last_is_best(rows):
            self.best = self.weights()
        best = self.best if self._with_best(rows) else None
        checkpoint.save(self.out / "checkpoint.safetensors", self.model, self.optimizer, self._facts(rows), best, self.average)
        if self.is_scored(rows[-1]):
            self._publish(rows)

    def settle(self, contract: Contract) -> None:
        """Publish the weights with what has been determined on the validation images, when all epochs are done."""
        self.contract = contract
        self._publish_weights()

    def weights(self) -> dict[str, Array]:
        """Those that this epoch gives: the average, or the last."""
        return self.model.state_dict() if self.average is None else self.average.weights()

    def is_scored(self, row: Row) -> bool:
        """Whether the row of an epoch is complete."""
        return validated(row) or not self.validates

    def _last_is_best(self, rows: list[Row]) -> bool:
        return best_epoch(rows, self.settings.select) == len(rows) - 1

    def _with_best(self, rows: list[Row]) -> bool:
        """Whether the best epoch is another than the last."""
        return best_epoch(rows, self.settings.select) not in (None, len(rows) - 1)

    def _facts(self, rows: list[Row]) -> Row:
        return {
            "settings": self.settings.what(),
            "data": self.data,
            "digests": self.digests,
            "step": len(rows) * self.steps,
            "rows": rows,
            **({} if self.scale is None else {"loss_scale": self.scale.state_dict()}),
        }

    def _publish(self, rows: list[Row]) -> None:
        """What the checkpoint holds, in files that are easier to use; metrics.jsonl last, so that its rows have weights."""
        self._publish_weights()
        files.write(self.out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def _publish_weights(self) -> None:
        arrays = self.best if self.best is not None else self.weights()
        weights.save_arrays(self.out / "model.safetensors", arrays, self.contract.metadata())

    def _check_finite(self, row: Row) -> None:
        bad = [name for name, a in self.model.state_dict().items() if count_nonfinite(a)]
        loss = row.get(f"{PREFIX}loss", 0.0)
        if bad or not math.isfinite(loss):
            found = f"the validation loss is {loss}; not finite: " if validated(row) else "not finite: "
            raise FloatingPointError(f"after epoch {row['epoch']}, {found}{', '.join(bad) or 'no parameter'}")

    def _check(self, facts: Row) -> bool:
        """Whether its best epoch is another than the last. Raises TypeError or ValueError unless this run wrote these facts."""
        check_keys(facts, "facts", list(self._facts([])))
        same_settings(facts["settings"], self.settings.what())
        self._check_images(facts)
        heads = tuple(self.contract.heads)
        _check_rows(facts["rows"], self.settings, self.scale is not None, self.validates, heads)
        if facts["step"] != (expected := len(facts["rows"]) * self.steps) or type(facts["step"]) is not int:
            wrong(ValueError, "step", f"{expected} after {len(facts['rows'])} epochs", facts["step"])
        if self.scale is not None:
            LossScale().load_state_dict(facts["loss_scale"])
        return self._with_best(facts["rows"])

    def _check_images(self, facts: Row) -> None:
        """Raises ValueError that tells what differs: the classes, the images, or what they are called."""
        check_keys(facts["data"], "data", list(self.data))
        check_keys(facts["digests"], "digests", list(self.digests))
        differing = [f"the {name} are others" for name, digest in self.digests.items() if facts["digests"][name] != digest]
        if not differing:
            old, new = facts["data"], json.loads(json.dumps(self.data))
            differing = [f"{name} was {old[name]} and now is {value}" for name, value in new.items() if old[name] != value]
        if differing:
            raise ValueError(f"{self.out} was trained on other images or labels: {'; '.join(differing)}")


RANGES = {  # of the numbers in a row, but for its epoch
    "lr": "[0, inf)", "train_loss": "[0, inf)", "train_accuracy": "[0, 1]", "train_majority_accuracy": "[0, 1]",
    "seconds": "[0, inf)", "images_per_second": "[0, inf)",
}  # fmt: skip


def _check_rows(rows: Any, settings: Settings, scaled: bool, validates: bool, heads: tuple[str, ...]) -> None:
    if not isinstance(rows, list) or not 1 <= len(rows) <= settings.epochs:
        came = f"{len(rows)}" if isinstance(rows, list) else repr(rows)
        raise ValueError(f"rows: expected 1 to {settings.epochs}, one for each epoch, got {came}")
    of_heads = {f"train_{head}_{name}": "[0, 1]" for head in heads for name in ("accuracy", "majority_accuracy")}
    scores = {f"{PREFIX}{name}": "[0, inf)" if name == "loss" else "[0, 1]" for name in names_of_scores(heads)}
    for i, row in enumerate(rows):
        ranges = RANGES | of_heads | ({"loss_scale": "[1, inf)"} if scaled else {})
        is_last = i == len(rows) - 1 and isinstance(row, dict)
        if validates and not (is_last and not any(name in row for name in scores)):
            ranges |= scores
        check_keys(row, f"rows[{i}]", ["epoch", *ranges])
        if count(row["epoch"], f"rows[{i}].epoch") != i + 1:
            wrong(ValueError, f"rows[{i}].epoch", str(i + 1), row["epoch"])
        for name, interval in ranges.items():
            number(row[name], f"rows[{i}].{name}", interval)
