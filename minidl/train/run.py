"""The folder of a run: begun, resumed, and published after every epoch; it goes on with what it began with or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import pathlib
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
from minidl.optim import Optimizer
from minidl.train import checkpoint
from minidl.train.loss_scale import LossScale
from minidl.train.settings import Settings, check_keys, same_settings

Row = dict[str, Any]  # one line of metrics.jsonl

FILES = ("settings.json", "checkpoint.safetensors", "model.safetensors", "metrics.jsonl")


def check_data(train_set: Dataset, test_set: Dataset, settings: Settings) -> None:
    if settings.batch_size > len(train_set):
        raise ValueError(f"batch_size: {settings.batch_size} is more than the {len(train_set)} training images")
    if train_set.classes != test_set.classes:
        raise ValueError(f"train_set has the classes {train_set.classes}, test_set {test_set.classes}")
    if train_set.images.shape[1:] != test_set.images.shape[1:]:
        raise ValueError(
            f"train_set has images of {train_set.images.shape[1:]} (C,H,W), test_set of {test_set.images.shape[1:]}"
        )


def digests_of(train_set: Dataset, test_set: Dataset) -> dict[str, str]:
    """Of all images and labels, in their order. BLAKE2b takes 0.2 s for the 184 MB of CIFAR-10, on a CPU of any kind."""
    arrays = {f"{of} {name}": getattr(d, name) for of, d in (("training", train_set), ("test", test_set))
              for name in ("images", "labels")}  # fmt: skip
    found = {}
    for name, a in arrays.items():
        digest = hashlib.blake2b(f"{a.dtype.str} {a.shape}".encode(), digest_size=32)
        whole: Array = np.ascontiguousarray(a)
        digest.update(whole.reshape(-1).view(np.uint8).data)
        found[name] = digest.hexdigest()
    return found


@dataclass
class Run:
    """The folder `out`, all whose state its checkpoint holds, and what a resumed run has to find as it was"""

    out: pathlib.Path
    model: Module
    optimizer: Optimizer
    scale: LossScale | None
    settings: Settings
    data: Row  # the classes, the mean and std of the images, and how many there are
    digests: dict[str, str]
    steps: int  # of an epoch

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
        facts = checkpoint.load(path, self.model, self.optimizer, self._check)
        if self.scale is not None:
            self.scale.load_state_dict(facts["loss_scale"])
        rows: list[Row] = facts["rows"]
        self._publish(rows)  # the run may have ended between the checkpoint and these
        return rows

    def save(self, rows: list[Row]) -> None:
        """Write the checkpoint of an epoch, and what is made of it. Raises FloatingPointError where a number is not finite."""
        self._check_finite(rows[-1])
        checkpoint.save(self.out / "checkpoint.safetensors", self.model, self.optimizer, self._facts(rows))
        self._publish(rows)

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
        weights.save_arrays(self.out / "model.safetensors", self.model.state_dict(), {"data": json.dumps(self.data)})
        files.write(self.out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def _check_finite(self, row: Row) -> None:
        bad = [name for name, a in self.model.state_dict().items() if count_nonfinite(a)]
        if bad or not math.isfinite(row["test_loss"]):
            found = f"the test loss is {row['test_loss']}; not finite: {', '.join(bad) or 'no parameter'}"
            raise FloatingPointError(f"after epoch {row['epoch']}, {found}")

    def _check(self, facts: Row) -> None:
        """Raises TypeError or ValueError unless this run wrote these facts."""
        check_keys(facts, "facts", list(self._facts([])))
        same_settings(facts["settings"], self.settings.what())
        self._check_images(facts)
        _check_rows(facts["rows"], self.settings, self.scale is not None)
        if facts["step"] != (expected := len(facts["rows"]) * self.steps) or type(facts["step"]) is not int:
            wrong(ValueError, "step", f"{expected} after {len(facts['rows'])} epochs", facts["step"])
        if self.scale is not None:
            LossScale().load_state_dict(facts["loss_scale"])

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
    "lr": "[0, inf)", "train_loss": "[0, inf)", "train_accuracy": "[0, 1]", "seconds": "[0, inf)",
    "images_per_second": "[0, inf)", "test_loss": "[0, inf)", "test_accuracy": "[0, 1]", "test_balanced_accuracy": "[0, 1]",
}  # fmt: skip


def _check_rows(rows: Any, settings: Settings, scaled: bool) -> None:
    if not isinstance(rows, list) or not 1 <= len(rows) <= settings.epochs:
        came = f"{len(rows)}" if isinstance(rows, list) else repr(rows)
        raise ValueError(f"rows: expected 1 to {settings.epochs}, one for each epoch, got {came}")
    for i, row in enumerate(rows):
        ranges = RANGES | ({"loss_scale": "[1, inf)"} if scaled else {})
        if isinstance(row, dict) and "test_auc" in row:  # of two classes that both come
            ranges |= {"test_auc": "[0, 1]"}
        check_keys(row, f"rows[{i}]", ["epoch", *ranges])
        if count(row["epoch"], f"rows[{i}].epoch") != i + 1:
            wrong(ValueError, f"rows[{i}].epoch", str(i + 1), row["epoch"])
        for name, interval in ranges.items():
            number(row[name], f"rows[{i}].{name}", interval)
