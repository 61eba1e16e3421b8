"""Classes of different sizes: how many images each has, and what a training does about it.

none        the images as they are
weights     class k weighs N / (K n_k) in the loss, n_k of the N images being of it: all classes weigh alike together
sample      every epoch draws as many images of each class
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from minidl import metrics
from minidl.array import Array
from minidl.data import Dataset, Loader
from minidl.io.notes import short, some

NAMED = 10  # classes in a line


def class_counts(dataset: Dataset) -> Array:
    """How many images each class has, (K,)."""
    return np.bincount(dataset.labels, minlength=len(dataset.classes))


def counted(dataset: Dataset) -> str:
    """The images of each class in words, those of empty ones first."""
    counts = class_counts(dataset)
    empty = _named([name for name, n in zip(dataset.classes, counts, strict=True) if not n])
    each = [f"{short(name)} {n:,}" for name, n in zip(dataset.classes, counts, strict=True) if n]
    text = f"{len(dataset):,} images: {some(each, NAMED)}"
    return text + (f"; no image of {empty}" if empty else "")


def largest_share(loader: Loader) -> float:
    """The share of the largest class among the images of an epoch: what it gets for every answer."""
    labels = loader.dataset.labels
    if isinstance(loader, BalancedLoader):
        labels = labels[loader.drawn]
    return metrics.majority_accuracy(labels)


def check_classes(dataset: Dataset, name: str) -> None:
    """Raises ValueError that names the classes without images: they cannot be learnt, or say nothing of what was."""
    if empty := [name for name, n in zip(dataset.classes, class_counts(dataset), strict=True) if not n]:
        raise ValueError(
            f"{name}: expected images of each of the {len(dataset.classes)} classes, got none of {_named(empty)} among "
            f"{len(dataset):,}; leave these classes out, or give more images"
        )


def _named(names: Sequence[str]) -> str:
    return some([short(name) for name in names], NAMED)


def class_weights(dataset: Dataset) -> Array:
    """N / (K n_k), (K,) float32."""
    counts = class_counts(dataset)
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


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
