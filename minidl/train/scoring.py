"""What the predictions of a test are worth: every score, with its interval by bootstrap over groups.

accuracy, majority_accuracy, balanced_accuracy   of the likeliest class; the second is what the largest class gets
confusion              (K,K), true classes by the likeliest ones
recall                 of each class, the share of its images whose likeliest class it is
auc                    of two classes; of more the mean over `auc_per_class`, each class against all others
average_precision      of the target; without one the mean over the classes
ece, ece_uncalibrated, brier   of the probabilities; the second as they were without a temperature
operating              by the decisions: accuracy, balanced_accuracy, confusion, and of the target sensitivity and specificity

Whole groups are drawn, as two images of a patient are alike. A score that cannot be had is None, and so is an interval; the
`notes` say why. Efron 1979, "Bootstrap methods: another look at the jackknife"; Field and Welsh 2007, "Bootstrapping clustered
data".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from minidl import metrics
from minidl.array import Array
from minidl.bar import Bar
from minidl.io.notes import some
from minidl.metrics.intervals import numbered, samples
from minidl.train.predictions import Predictions, score_of

LEVEL = 0.95
RESAMPLES, FEWEST = 1000, 200
WORK = 2e8  # numbers to go through: of many images and classes fewer samples are drawn
ABSENT = "cannot be had, for the images lack a class"  # why a score, or its interval, is missing, or not what it seems
ONE_GROUP = "all images are of one group, of which nobody knows how others differ"
LONE = "no interval, for a class has images of one group alone"
MOST = "no interval, for most samples of the groups lack a class"
SAME = "no interval, for all samples give the same, which the bootstrap cannot tell from certainty"
FEWER = "the interval may be too narrow, for samples that lack a class are left out"
Name = tuple[str, ...]  # where a score stands in the whole, ("recall", "benign")
Interval = list[float]  # its two ends


def scored(found: Predictions, target: int | None = None, temperature: float = 1.0, by_rule: bool = True) -> dict[str, Any]:
    """The scores of predictions with known labels, `intervals` by the same names, `target` by its name, and `notes`.

    target: the class that must not be missed, or None. temperature: that of the probabilities. by_rule: whether the decisions
    about the target are those of a rule; without one there is no `operating`.
    """
    measure = _Measure(found, target, temperature, by_rule and target is not None)
    values = measure(slice(None))
    intervals: dict[Name, Interval | None] = dict.fromkeys(values)
    group = np.arange(len(found.labels)) if found.grouped is None else numbered(found.grouped, len(found.labels))
    notes: dict[str, list[str]] = {why: [] for why in (ABSENT, ONE_GROUP, LONE, MOST, SAME, FEWER)}
    notes[ABSENT] += [_told(name) for name, value in values.items() if math.isnan(value)]
    if group.max() == 0:
        notes[ONE_GROUP].append("no intervals")
    else:
        size = len(found.labels) * len(found.classes)
        intervals |= _intervals(values, measure, group, int(np.clip(WORK / size, FEWEST, RESAMPLES)), notes)
    tree: dict[str, Any] = {
        "target": None if target is None else found.classes[target],
        "groups": None if found.grouped is None else int(group.max()) + 1,
        "majority_accuracy": metrics.majority_accuracy(found.labels),
        "confusion": measure.confusion(measure.likeliest).tolist(),
        **_nested({name: None if math.isnan(value) else value for name, value in values.items()}),
    }
    if measure.by_rule:
        tree["operating"] |= {"confusion": measure.confusion(found.decisions).tolist()}
    if tree["auc"] is None:
        del tree["auc"]  # as in the rows of a training
    return tree | {"intervals": _nested(intervals), "notes": [f"{why}: {some(of)}" for why, of in notes.items() if of]}


class _Measure:
    """Callable: f(images) -> every score of these images, NaN for one of a class that is not among them."""

    def __init__(self, found: Predictions, target: int | None, temperature: float, by_rule: bool) -> None:
        self.p, self.labels, self.decisions, self.classes = found.p, found.labels, found.decisions, found.classes
        self.target, self.by_rule = target, by_rule
        self.uncalibrated, self.likeliest = found.uncalibrated(temperature), found.p.argmax(1)
        self.present = np.unique(found.labels)

    def __call__(self, images: Array | slice) -> dict[Name, float]:
        p, labels, K = self.p[images], self.labels[images], len(self.classes)
        found: dict[Name, float] = {}
        aucs = [_of_class(metrics.auc, p, labels, k) for k in range(1 if K == 2 else 0, K)]
        found |= {
            ("recall", name): value for name, value in zip(self.classes, self._recall(self.likeliest, images), strict=True)
        }
        found |= {("auc_per_class", name): value for name, value in zip(self.classes, aucs, strict=True)} if K > 2 else {}
        found |= {("accuracy",): float((self.likeliest[images] == labels).mean())}
        found |= {("balanced_accuracy",): self._balanced(self.likeliest, images), ("auc",): float(np.mean(aucs))}
        ranked = range(K) if self.target is None else [self.target]
        found["average_precision",] = float(np.mean([_of_class(metrics.average_precision, p, labels, k) for k in ranked]))
        found["ece",] = metrics.expected_calibration_error(p, labels)
        found["ece_uncalibrated",] = metrics.expected_calibration_error(self.uncalibrated[images], labels)
        found["brier",] = metrics.brier_score(p, labels)
        if self.by_rule:
            decisions, ones = self.decisions[images], labels == self.target
            flagged = decisions == self.target
            found["operating", "accuracy"] = float((decisions == labels).mean())
            found["operating", "balanced_accuracy"] = self._balanced(self.decisions, images)
            found["operating", "sensitivity"] = float(flagged[ones].mean()) if ones.any() else math.nan
            found["operating", "specificity"] = float((~flagged[~ones]).mean()) if not ones.all() else math.nan
        return found

    def confusion(self, answers: Array, images: Array | slice = slice(None)) -> Array:
        K = len(self.classes)
        return np.bincount(K * self.labels[images] + answers[images], minlength=K * K).reshape(K, K)

    def needs(self, name: Name) -> list[Array]:
        """Of the images (N,) bool, the sets that a score compares, or takes its mean of."""
        every = [self.labels == k for k in self.present]
        if name[0] in ("recall", "auc_per_class"):
            of = self.labels == self.classes.index(name[1])
            return [of] if name[0] == "recall" else [of, ~of]
        if self.target is not None and name[-1] in ("sensitivity", "specificity", "average_precision"):
            of = self.labels == self.target
            return {"sensitivity": [of], "specificity": [~of]}.get(name[-1], [of, ~of])
        return every if name[-1] in ("balanced_accuracy", "auc", "average_precision") else []

    def _recall(self, answers: Array, images: Array | slice) -> Array:
        matrix = self.confusion(answers, images)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
            return np.asarray(matrix.diagonal() / matrix.sum(1))

    def _balanced(self, answers: Array, images: Array | slice) -> float:
        return float(self._recall(answers, images)[self.present].mean())


def _of_class(score: Callable[[Array, Array], float], p: Array, labels: Array, k: int) -> float:
    ones = labels == k
    return score(score_of(p, k), ones) if 0 < ones.sum() < len(ones) else math.nan


def _intervals(
    values: dict[Name, float], measure: _Measure, group: Array, resamples: int, notes: dict[str, list[str]]
) -> dict[Name, Interval | None]:
    drawn = np.empty((resamples, len(values)))
    draws = islice(samples(group, seed=0), resamples)
    with Bar(draws, total=resamples, desc="bootstrap", leave=False, disable=None, delay=1) as bar:
        for row, images in zip(drawn, bar, strict=True):
            row[:] = list(measure(images).values())
    found: dict[Name, Interval | None] = {}
    for (name, value), column in zip(values.items(), drawn.T, strict=True):
        known = column[~np.isnan(column)]
        if math.isnan(value):
            continue
        if any(len(np.unique(group[images])) < 2 for images in measure.needs(name)):
            notes[LONE].append(_told(name))
        elif len(known) <= resamples / 2:
            notes[MOST].append(_told(name))
        else:
            low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            if low == high:
                notes[SAME].append(_told(name))
                continue
            found[name] = [float(low), float(high)]
            if lacking := resamples - len(known):
                notes[FEWER].append(f"{_told(name)} ({lacking / resamples:.1%})")
    return found


def summary(found: Mapping[str, Any]) -> str:
    """Scores in words, as in "accuracy 83.6% [80.1%, 86.9%] (always the largest class: 80.3%), ..."; a line for each kind."""
    lines = [f"{_percent(found, 'accuracy')} (always the largest class: {found['majority_accuracy']:.1%}), "
             f"{_percent(found, 'balanced_accuracy')}"]  # fmt: skip
    lines[0] += f", AUC {with_interval(found, 'auc')}" if "auc" in found else ""
    if "operating" in found:
        each = (f"{name} {with_interval(found, 'operating', name)}" for name in ("sensitivity", "specificity"))
        lines.append(f"at the operating point of {found['target']!r}: {', '.join(each)}, "
                     f"{_percent(found, 'operating', 'balanced_accuracy')}")  # fmt: skip
    return "\n".join(lines)


def with_interval(found: Mapping[str, Any], *name: str) -> str:
    """As in "0.874 [0.852, 0.895]", without an interval where there is none."""
    value, ends = at(found, *name)
    return "none" if value is None else f"{value:.3f}" + ("" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def at(found: Mapping[str, Any], *name: str) -> tuple[float | None, Interval | None]:
    """A score and its interval."""
    value: Any = found
    ends: Any = found["intervals"]
    for part in name:
        value, ends = value[part], ends[part]
    return value, ends


def _percent(found: Mapping[str, Any], *name: str) -> str:
    value, ends = at(found, *name)
    assert value is not None  # of accuracies there is always one
    return f"{name[-1].replace('_', ' ')} {value:.1%}" + ("" if ends is None else f" [{ends[0]:.1%}, {ends[1]:.1%}]")


def _told(name: Name) -> str:
    """In words: "recall of 'benign'", "sensitivity at the operating point"."""
    first, *rest = (word.replace("_", " ") if i == 0 else word for i, word in enumerate(name))
    if not rest:
        return first
    return f"{rest[0].replace('_', ' ')} at the operating point" if first == "operating" else f"{first} of {rest[0]!r}"


def _nested(flat: dict[Name, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (first, *rest), value in flat.items():
        if rest:
            tree.setdefault(first, {})[rest[0]] = value
        else:
            tree[first] = value
    return tree
