"""Classes of different sizes: how many images each has, and what a training does about it.

none        the images as they are
weights     class k weighs N / (K n_k) in the loss, n_k of the N images being of it: all classes weigh alike together; of
            several heads, those of each
sample      every epoch draws as many images of each class
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl import metrics
from minidl.array import Array
from minidl.data import Dataset, Loader
from minidl.inference.heads import UNKNOWN
from minidl.io.notes import short, some

NAMED = 10  # classes in a line


def known_labels(dataset: Dataset) -> dict[str, tuple[Array, Sequence[str]]]:
    """Of each head, by its name, the labels that are known and the names of its classes; where there is but one, of ""."""
    if not dataset.heads:
        return {"": (dataset.labels, dataset.classes)}
    return {head: (a[a != UNKNOWN], dataset.classes[head]) for head, a in dataset.labels.items()}


def class_counts(dataset: Dataset) -> Array:
    """How many images each class has, (K,). Raises ValueError for labels of several heads."""
    if dataset.heads:
        heads = ", ".join(dataset.heads)
        raise ValueError(f"{dataset.name}: expected labels of one head, got {heads}; write head({dataset.heads[0]!r})")
    return np.bincount(dataset.labels, minlength=len(dataset.classes))


def counted(dataset: Dataset) -> str:
    """The images of each class in words, those of empty ones last; of several heads, how many are not known."""
    told = []
    for head, (labels, classes) in known_labels(dataset).items():
        counts = np.bincount(labels, minlength=len(classes))
        each = [f"{short(name)} {n:,}" for name, n in zip(classes, counts, strict=True) if n]
        text = some(each, NAMED) or "no label"
        text += f", not known {unknown:,}" if (unknown := len(dataset) - len(labels)) else ""
        empty = _named([name for name, n in zip(classes, counts, strict=True) if not n])
        told.append(f"{head}: {text}" * bool(head) or text)
        told[-1] += f"; no image of {empty}" if empty else ""
    return f"{len(dataset):,} images: {'; '.join(told)}"


def largest_shares(loader: Loader) -> dict[str, float]:
    """Of each head the share of its largest class among the images of an epoch: what it gets for every answer."""
    if isinstance(loader, BalancedLoader):
        return {"": metrics.majority_accuracy(loader.dataset.labels[loader.drawn])}
    return {head: metrics.majority_accuracy(labels) for head, (labels, _) in known_labels(loader.dataset).items()}


def check_classes(dataset: Dataset, name: str) -> None:
    """Raises ValueError that names the classes without images: they cannot be learnt, or say nothing of what was."""
    for head, (labels, classes) in known_labels(dataset).items():
        of_head = f" of {head}" * bool(head)
        if len(labels) == 0:
            raise ValueError(f"{name}: no label of {head} is known among {len(dataset):,} images; leave this head out")
        counts = np.bincount(labels, minlength=len(classes))
        if empty := [of_class for of_class, n in zip(classes, counts, strict=True) if not n]:
            raise ValueError(
                f"{name}: expected images of each of the {len(classes)} classes{of_head}, got none of {_named(empty)} among "
                f"{len(labels):,}; leave these classes out, or give more images"
            )


def _named(names: Sequence[str]) -> str:
    return some([short(name) for name in names], NAMED)


def class_weights(dataset: Dataset) -> Any:
    """N / (K n_k), (K,) float32; of several heads, by their names, of the N images whose label is known."""
    found = {}
    for head, (labels, classes) in known_labels(dataset).items():
        counts = np.bincount(labels, minlength=len(classes))
        found[head] = (counts.sum() / (len(counts) * counts)).astype(np.float32)
    return found if dataset.heads else found[""]


class BalancedLoader(Loader):
    """A `Loader` whose epoch has as many images as the dataset, and of each class as many as of the others, up to one.

    Of a class with enough images no image comes twice in an epoch; of a smaller one all come equally often, up to one. Which,
    depends on seed and epoch alone, so that a resumed run draws the same.
    """

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(self.epoch, 0, 0)))
        self.drawn = balanced(self.dataset.labels, len(self.dataset.classes), rng)
        return super().__iter__()

    def _batch(self, pick: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        return super()._batch(self.drawn[pick], rng)


def balanced(labels: Array, classes: int, rng: np.random.Generator) -> Array:
    """N indices of labels (N,), in which each class comes equally often, up to one."""
    shares = np.full(classes, len(labels) // classes)
    shares[rng.permutation(classes)[: len(labels) % classes]] += 1
    drawn = []
    for k, share in enumerate(shares):
        of_class = rng.permutation(np.flatnonzero(labels == k))
        drawn.append(np.resize(of_class, share))  # over and over where there are too few
    return np.concatenate(drawn)
