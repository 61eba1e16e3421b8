"""How sure is a mean over images, or a score? The bootstrap: as sure as those of other draws from the same images agree.

Efron 1979, "Bootstrap methods: another look at the jackknife"; the intervals are those of its percentiles.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from minidl.arguments import count, function, number
from minidl.array import Array, is_array, plain_array, to_cpu
from minidl.metrics.answers import array_of


class Interval(NamedTuple):
    """A mean, or the score of all images, and where it may well be."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Array, groups: Array | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values` (N,), and the interval that holds the middle `level` of the means of `resamples` samples of them.

    Each sample is as large as `values` and drawn from them with replacement. Efron 1979, "Bootstrap methods: another look at
    the jackknife", with the interval of the percentiles.

    To compare two methods on the same images, pass the differences: they differ where the interval does not hold 0.

    Args:
        groups: (N,) integers or names. Values with the same one (several nets on one image, several images of one patient)
            depend on each other, so that whole groups are drawn; None: each value is its own.

    Raises TypeError or ValueError: no values, or not finite ones; other groups; level outside (0, 1); no draws.
    """
    if not is_array(values) or values.ndim != 1 or values.dtype.kind not in "fiub":
        got = f"{values.dtype} {values.shape}" if is_array(values) else type(values).__name__
        raise TypeError(f"values: expected a flat array of numbers, got {got}")
    v = to_cpu(values).astype(np.float64)
    if len(v) == 0 or not np.isfinite(v).all():
        raise ValueError(
            f"values: expected at least one, all of them finite, got {v[~np.isfinite(v)][:5] if len(v) else 'none'}"
        )
    level, resamples, seed = number(level, "level", "(0, 1)"), count(resamples, "resamples"), count(seed, "seed", 0)
    group = np.arange(len(v)) if groups is None else numbered(groups, len(v))
    sums, counts = np.bincount(group, v), np.bincount(group)  # of each group
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for d in range(resamples):
        pick = rng.integers(0, len(sums), len(sums))
        means[d] = sums[pick].sum() / counts[pick].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(v.mean()), float(low), float(high))


def bootstrap_score(
    score: Callable[[Array, Array], float],
    answers: Array,
    labels: Array,
    groups: Array | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """score(answers, labels), and the interval that holds the middle `level` of it over `resamples` samples of the images.

        bootstrap_score(metrics.auc, scores, labels, groups=patients)
        bootstrap_score(metrics.sensitivity, point.decide(scores), labels, groups=lesions)

    Each sample has as many groups as there are, drawn with replacement, and all images of these. Images of one patient are
    alike: drawn one by one, they make an interval that is too narrow. What no longer has every class is another question, so
    that such a sample is left out, another one drawn in its place, and a warning counts them. Efron 1979, "Bootstrap methods:
    another look at the jackknife", with the interval of the percentiles; Field and Welsh 2007, "Bootstrapping clustered data".

    Args:
        score: `auc`, `accuracy`, `brier_score` or any other function of answers and labels.
        answers: (N,...), what the score takes first: scores, decisions, logits, probabilities.
        labels: (N,) integers or bools.
        groups: (N,) integers or names, of patients or lesions; None: each image is its own.

    Raises TypeError or ValueError: no arrays of numbers, lengths that disagree, fewer than two groups, classes that most
    samples lack, a score that is no finite number, level outside (0, 1), no draws, and whatever the score raises.
    """
    from minidl.bar import Bar  # not with minidl: tqdm takes its time

    function(score, "score", "f(answers, labels) -> number, such as metrics.accuracy")
    answers, labels = array_of(answers, "answers"), array_of(labels, "labels")
    if labels.ndim != 1 or answers.shape[:1] != labels.shape or len(labels) == 0:
        raise ValueError(f"answers and labels: expected (N,...) and (N,), N > 0, got {answers.shape} and {labels.shape}")
    if labels.dtype.kind not in "iub":
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    level, resamples, seed = number(level, "level", "(0, 1)"), count(resamples, "resamples"), count(seed, "seed", 0)
    group = np.arange(len(labels)) if groups is None else numbered(groups, len(labels))
    if (several := len(np.unique(group))) < 2:
        raise ValueError(f"groups: expected at least two, got {several}: of one group, nobody knows how others differ")
    classes, known = np.unique(labels, return_inverse=True)
    of_all = number(score(answers, labels), "score")

    found = np.empty(resamples)
    lacking = np.zeros(len(classes), np.int64)  # samples without that class
    missed = done = 0
    with Bar(total=resamples, desc="bootstrap", leave=False, disable=None, delay=1) as bar:
        for images in samples(group, seed):
            absent = np.bincount(known[images], minlength=len(classes)) == 0
            if absent.any():
                lacking += absent
                missed += 1
                if missed > max(resamples, 20):
                    raise ValueError(f"groups: too few of them to draw from: {_lack(missed, missed + done, classes, lacking)}")
                continue
            found[done] = number(score(answers[images], labels[images]), "score")
            done += 1
            bar.update()
            if done == resamples:
                break
    if missed:
        lack = _lack(missed, missed + resamples, classes, lacking)
        warnings.warn(f"bootstrap_score: {lack}; they are left out, and the interval may be too narrow", stacklevel=2)
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return Interval(of_all, float(low), float(high))


def samples(group: Array, seed: int) -> Iterator[Array]:
    """One sample after the other, without end: the images of as many groups as there are, drawn with replacement.

    group (N,): 0, 1, ..., that of each image.
    """
    rng, size = np.random.default_rng(seed), np.bincount(group)
    members, start = np.argsort(group, kind="stable"), np.cumsum(size) - size
    while True:
        pick = rng.integers(0, len(size), len(size))
        length = size[pick]
        inside = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
        yield members[np.repeat(start[pick], length) + inside]


def _lack(missed: int, drawn: int, classes: Array, lacking: Array) -> str:
    worst = int(lacking.argmax())
    return f"{missed:,} of {drawn:,} samples lack a class, {lacking[worst]:,} of them class {int(classes[worst])}"


def numbered(groups: Array, n: int) -> Array:
    """The groups, numbered 0, 1, ..."""
    names = plain_array(to_cpu(groups) if is_array(groups) else groups, "groups")
    if names.dtype.kind == "O" and all(isinstance(name, str) for name in names.flat):  # as pandas holds names
        names = names.astype(str)
    if names.dtype.kind not in "fiubUS":
        raise TypeError(f"groups: expected integers or names, got {names.dtype}")
    if names.shape != (n,):
        raise ValueError(f"groups: expected one number for each of the {n} values, got shape {names.shape}")
    if names.dtype.kind == "f" and np.isnan(names).any():
        raise ValueError(f"groups: expected integers or names, got NaN for {np.isnan(names).sum()} of {n} values")
    of_each: Array = np.unique(names, return_inverse=True)[1]
    return of_each
