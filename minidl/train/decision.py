"""From probabilities to a decision: the threshold of the class that must not be missed, chosen on validation images.

The net's own answer, the class of the largest probability, weighs a missed cancer like a false alarm. A rule asks less of one
class, its target: an image is flagged where its calibrated probability of that class is at least the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import metrics
from minidl.arguments import count, number, one_of, wrong
from minidl.array import Array, is_array, to_cpu


@dataclass(frozen=True)
class DecisionRule:
    """When a net says `target`: where p_target >= threshold. Raises TypeError or ValueError for what cannot be.

    Args:
        target: the name of the class that must not be missed.
        threshold: of its probability, calibrated by the temperature of the contract.
        sensitivity, specificity: those that the rule has on the images that it was chosen on, where it looks better than it is.
        images: how many these were.
        wanted: the sensitivity that was asked for; None: the threshold has the largest sensitivity + specificity - 1, which is
            Youden's J. Youden 1950, "Index for rating diagnostic tests".
    """

    target: str
    threshold: float
    sensitivity: float
    specificity: float
    images: int
    wanted: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.target, str) or not self.target:
            wrong(TypeError, "target", "the name of a class", self.target)
        for name, interval in {"threshold": "(0, 1]", "sensitivity": "[0, 1]", "specificity": "[0, 1]"}.items():
            object.__setattr__(self, name, number(getattr(self, name), name, interval))
        object.__setattr__(self, "images", count(self.images, "images"))
        if self.wanted is not None:
            object.__setattr__(self, "wanted", number(self.wanted, "wanted", "(0, 1]"))

    def __str__(self) -> str:
        why = "Youden's J" if self.wanted is None else f"a sensitivity of {self.wanted:g}"
        return (
            f"{self.target!r} where its probability is at least {self.threshold:.4g}: sensitivity {self.sensitivity:.3f}, "
            f"specificity {self.specificity:.3f} on the {self.images:,} validation images that it was chosen on, for {why}"
        )


def decide(p: Array, classes: Sequence[str], rule: DecisionRule | None = None) -> Array:
    """The class of each row of probabilities p (N,K), (N,) int64: the target where it is flagged, else the likeliest other.

    Without a rule it is the likeliest of all. Of equally likely ones it is the first.

    Raises ValueError for another shape, no rows, NaN, rows that do not add up to 1, and a rule of another class; TypeError for
    what is no array of numbers.
    """
    p = _rows(p, len(classes))
    if rule is None:
        return p.argmax(1)
    target = list(classes).index(one_of(rule.target, "target", classes))
    others = p.copy()
    others[:, target] = -1
    return np.where(p[:, target] >= rule.threshold, target, others.argmax(1))


def suspicious(classes: Sequence[str], target: str = "") -> int | None:
    """The number of the class that must not be missed: of that name or, without one, the second of two; else None.

    Raises ValueError for a name that no class has.
    """
    if target:
        return list(classes).index(one_of(target, "target", classes))
    return 1 if len(classes) == 2 else None


def all_of(classes: Any) -> tuple[str, ...]:
    """The names of the classes, of several heads, name -> classes, those of all of them."""
    return tuple(name for names in classes.values() for name in names) if isinstance(classes, Mapping) else tuple(classes)


def targets(classes: Any, target: str = "") -> dict[str, int]:
    """What is `suspicious`, by head, of "" where there is but one: the heads that have a class of that name, or two classes.

    Raises ValueError for a name that no class has.
    """
    if target:
        one_of(target, "target", all_of(classes))
    heads = classes if isinstance(classes, Mapping) else {"": classes}
    found = {head: suspicious(names, target if target in names else "") for head, names in heads.items()}
    return {head: number for head, number in found.items() if number is not None}


def calibrated(logits: Array, labels: Array) -> tuple[float, str]:
    """The temperature of logits (N,K) beside labels (N,), and a sentence about it: 1 where none is best."""
    try:
        temperature = metrics.fit_temperature(logits, labels)
    except ValueError as error:
        return 1.0, f"temperature: 1, as none fits the {len(labels):,} validation images: {error}"
    return temperature, f"temperature: {temperature:.3g}, which fits the {len(labels):,} validation images best"


def chosen(
    p: Array, labels: Array, classes: Sequence[str], target: int, wanted: float | None = None
) -> tuple[DecisionRule | None, str]:
    """The rule that probabilities p (N,K) beside labels (N,) give, and a sentence about it: no rule where none can be.

    wanted: a sensitivity, of which the highest specificity is taken; None: the best of Youden's J.
    """
    try:
        point = metrics.operating_point(p[:, target], labels == target, sensitivity=wanted)
    except ValueError as error:
        return None, f"operating point: none for {classes[target]!r}, so that the likeliest class decides: {error}"
    rule = DecisionRule(classes[target], *point, images=len(labels), wanted=wanted)
    return rule, f"operating point: {rule}"


def _rows(p: Array, K: int) -> Array:
    """(N,K) float64 on the CPU, checked"""
    if not is_array(p) or p.dtype.kind != "f":
        wrong(TypeError, "p", "an array of probabilities", getattr(p, "dtype", p))
    values: Array = to_cpu(p).astype(np.float64)
    if values.ndim != 2 or values.shape[1] != K or not len(values):
        raise ValueError(f"p: expected (N,{K}), a probability for each class, N > 0, got shape {values.shape}")
    wrong_ones = ~((values >= 0) & (values <= 1)).all(1) | ~(abs(values.sum(1) - 1) <= 1e-3)  # NaN is neither
    if wrong_ones.any():
        n = int(wrong_ones.argmax())
        row = np.array2string(values[n], precision=4, threshold=6)
        raise ValueError(f"p: expected rows in [0, 1] that add up to 1, got {row} in row {n}; see TrainedNet.probabilities")
    return values
