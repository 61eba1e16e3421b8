"""What a net says of many images, one line each, in a table that any program reads.

    file,group,label,p_benign,p_malignant,decision
    0017_left.png,0017,malignant,0.31,0.69,malignant

`label` is empty where nobody knows it, `group` where nobody tells. Probabilities have all their digits, so that whoever reads
them decides as the net did.
"""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minidl import metrics
from minidl.array import Array
from minidl.io import files
from minidl.io.files import Path

UNKNOWN = -1  # of labels
TINY = np.finfo(np.float64).tiny  # what stands for 0 in a logarithm


@dataclass(frozen=True, eq=False)
class Predictions:
    """Of N images: their files, groups or "", labels (N,) or -1, probabilities p (N,K), calibrated, and decisions (N,)."""

    classes: tuple[str, ...]
    names: Sequence[str]
    groups: Sequence[str]
    labels: Array
    p: Array
    decisions: Array

    @property
    def columns(self) -> list[str]:
        return ["file", "group", "label", *(f"p_{name}" for name in self.classes), "decision"]

    def rows(self) -> list[list[str]]:
        """Every line, as text."""
        named = {k: name for k, name in enumerate(self.classes)} | {UNKNOWN: ""}
        found = zip(self.names, self.groups, self.labels.tolist(), self.p.tolist(), self.decisions.tolist(), strict=True)
        return [[file, group, named[label], *map(repr, p), named[decision]] for file, group, label, p, decision in found]

    def write(self, path: Path) -> None:
        """Into a CSV file, as it was or whole. Raises OSError where it cannot be written."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows())
        files.write(path, text.getvalue().encode("utf-8", "surrogateescape"))  # the name of a file may be no text

    @staticmethod
    def read(path: Path, classes: Sequence[str]) -> Predictions:
        """Those that `write` wrote. Raises FileNotFoundError, and ValueError for another table or other classes."""
        path, number = pathlib.Path(path), {name: k for k, name in enumerate(classes)} | {"": UNKNOWN}
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            columns, *rows = list(csv.reader(file)) or [[]]
        if columns[3:-1] != [f"p_{name}" for name in classes]:
            raise ValueError(f"{path}: expected predictions of the classes {tuple(classes)}, got the columns {columns}")
        try:
            names, groups, labels, *p, decisions = zip(*rows, strict=True)
            known, said = (np.array([number[name] for name in of]) for of in (labels, decisions))
            return Predictions(tuple(classes), names, groups, known, np.array(p, np.float64).T, said)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def known(self) -> Predictions:
        """Those whose label is known."""
        some = np.flatnonzero(self.labels >= 0).tolist()
        names, groups = ([of[i] for i in some] for of in (self.names, self.groups))
        return Predictions(self.classes, names, groups, self.labels[some], self.p[some], self.decisions[some])

    def uncalibrated(self, temperature: float) -> Array:
        """softmax(logits) of the same logits, where p is softmax(logits / temperature): p^T, made to add up to 1; (N,K)."""
        return metrics.probabilities(temperature * np.log(np.maximum(self.p, TINY)))

    @property
    def grouped(self) -> Array | None:
        """The groups (N,), None where there are none."""
        return np.array(self.groups) if any(self.groups) else None


def score_of(p: Array, target: int) -> Array:
    """How much each row of p (N,K) speaks for the target: of two classes log p_target - log p_other, of more p_target.

    The logarithms tell those apart that are rounded to 1.
    """
    if p.shape[1] != 2:
        return p[:, target]
    logs = np.log(np.maximum(p, TINY))
    return np.asarray(logs[:, target] - logs[:, 1 - target])
