"""A labelled set of images, held in memory or left on disk, and its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.arguments import channels_first, count, counts, mapping, numbers, one_of, wrong
from minidl.array import Array
from minidl.data.lazy import LazyImages
from minidl.data.partition import partition
from minidl.data.windows import checked_window

PART = 2**18  # values that are summed at once
READ = 2**23  # values that are read at once, where images are left on disk


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with one label each, or one for each of several heads, and optional masks that say where something is.

    Args:
        images: (N,C,H,W), uint8 in 0..255, or float32, by convention in [0, 1]; or `LazyImages`, which are left on disk.
        labels: (N,) int64, indices into `classes`. Of several heads, name -> (N,), -1 where a label is not known; the logits
            of a net stand in their order.
        classes: the name of each class; of several heads, name -> these.
        masks: name -> (N,H,W) bool.
        name: what the set is called in messages and plots.
        names: (N,) strings, the file of each image or what it is called.
        window: the grey values that were cut out of the files, (low, high); None where none were, or the files' own.
        groups: (N,) strings or integers, whom each image shows: a patient, a lesion. `split` and `folds` keep groups together.

    Raises:
        TypeError: an array is of another type, or `classes` is a single string.
        ValueError: shapes or heads disagree, the set is empty, a label is out of range, an image has no name or no group, or a
            float image is not finite.
    """

    images: Any
    labels: Any
    classes: Any
    masks: Mapping[str, Array] = field(default_factory=dict)
    name: str = "dataset"
    names: Array | None = None
    groups: Array | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.images, LazyImages):
            _check_images(self.images)
        N, _, H, W = self.images.shape
        if self.heads:
            if not all(isinstance(head, str) for head in self.heads):
                wrong(TypeError, "labels", "a string as the name of each head", self.heads)
            if not isinstance(self.classes, Mapping) or self.classes.keys() != self.labels.keys():
                wrong(ValueError, "classes", f"those of each head, {', '.join(self.heads)}, by its name", self.classes)
            for head in self.heads:
                _check_labels(f"labels[{head!r}]", self.labels[head], f"classes[{head!r}]", self.classes[head], N, -1)
            object.__setattr__(self, "classes", {head: self.classes[head] for head in self.heads})  # in one order
        else:
            _check_labels("labels", self.labels, "classes", self.classes, N, 0)
        for name, mask in mapping(self.masks, "masks", "name -> mask (N,H,W)").items():
            _check_array(f"masks[{name!r}]", mask, 3, (np.bool_,))
            if mask.shape != (N, H, W):
                raise ValueError(f"masks[{name!r}]: expected shape {(N, H, W)}, got {mask.shape}")
        if self.window is not None:
            object.__setattr__(self, "window", checked_window(self.window))
        if self.names is not None:
            object.__setattr__(self, "names", _one_each("names", self.names, N, "U"))
        if self.groups is not None:
            object.__setattr__(self, "groups", _one_each("groups", self.groups, N, "Uiu"))

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape, dtype = self.images.shape, self.images.dtype
        classes = f"{len(self.classes)} {'heads' if self.heads else 'classes'}"
        groups = "" if self.groups is None else f", {len(np.unique(self.groups))} groups"
        return f"Dataset({self.name!r}, images {shape} {dtype}, {classes}, masks {list(self.masks)}{groups})"

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the heads, where there are labels of several."""
        return tuple(self.labels) if isinstance(self.labels, Mapping) else ()

    def head(self, name: str) -> Dataset:
        """The images (n,C,H,W) of which this head's label is known, with these labels (n,) alone, as one-headed nets take them.

        Raises ValueError for a head that is not there, and one of which no label is known.
        """
        one_of(name, "name", self.heads)
        known = np.flatnonzero(self.labels[name] >= 0)
        if len(known) == 0:
            raise ValueError(f"{self.name}: no label of {name} is known")
        return self._picked(known, self.labels[name], self.classes[name])

    def take(self, indices: Sequence[int] | Array) -> Dataset:
        """The images at `indices`, (n,) of 0..N-1, in that order, copied: n images (n,C,H,W), with all that is known of them.

        Raises TypeError for indices that are not integers, IndexError for one out of range, and ValueError for none.
        """
        picked = np.asarray(indices if isinstance(indices, np.ndarray) else counts(indices, "indices", None))
        if picked.ndim != 1 or (picked.size > 0 and not np.issubdtype(picked.dtype, np.integer)):
            raise TypeError(f"indices: expected a flat list of integers, got {picked.ndim}-D {picked.dtype}")
        if picked.size == 0:
            raise ValueError("indices: expected at least one, got none")
        if picked.min() < 0 or picked.max() >= len(self):
            raise IndexError(f"indices: expected 0 to {len(self) - 1}, got {picked.min()} to {picked.max()}")
        return self._picked(picked, self.labels, self.classes)

    def _picked(self, picked: Array, labels: Any, classes: Any) -> Dataset:
        images = self.images.take(picked) if isinstance(self.images, LazyImages) else self.images[picked]
        labels = {head: values[picked] for head, values in labels.items()} if isinstance(labels, Mapping) else labels[picked]
        masks = {name: mask[picked] for name, mask in self.masks.items()}
        names, groups = (None if values is None else values[picked] for values in (self.names, self.groups))
        return Dataset(images, labels, classes, masks, self.name, names, groups, self.window)

    def split(self, fractions: Sequence[float], seed: int = 0, stratify: bool | str | None = None) -> list[Dataset]:
        """Disjoint random parts that together are the whole, `fractions` (summing to 1) of it each.

        All images of a group are in the same part. Where it is stratified, each part has its share of every class, too: up to
        one group's images, if every group is of one class, and there are enough groups for each part to get one.

        Args:
            stratify: True, of several heads for the classes of each; the name of the one head whose classes are shared out; or
                False. None: where there are groups.

        Raises ValueError for fractions that do not sum to 1, or outside (0, 1], a seed below 0, no such head, where a part
        would be empty, and, unless stratify is False, where it would lack a class that the whole has; TypeError for what are
        no numbers.
        """
        parts = np.asarray(numbers(fractions, "fractions", "(0, 1]"))
        if abs(parts.sum() - 1) > 1e-9:
            raise ValueError(f"fractions: expected numbers that sum to 1, got {fractions!r}")
        rng = np.random.default_rng(count(seed, "seed", 0))
        return [self.take(piece) for piece in self._pieces(parts, rng, stratify, f"split into {fractions!r}")]

    def folds(self, k: int, seed: int = 0, stratify: bool | str = True) -> Iterator[tuple[Dataset, Dataset]]:
        """k pairs (train, test) for cross-validation, made one at a time: each image is in the test set of one of them.

        Groups stay together and classes in proportion, as in `split`, which says what `stratify` is.

        Raises ValueError for k below 2, a seed below 0, no such head, where a fold would be empty, and, unless stratify is
        False, where it would lack a class that the whole has; TypeError for what are no integers.
        """
        k = count(k, "k", 2)
        rng = np.random.default_rng(count(seed, "seed", 0))
        pieces = self._pieces(np.full(k, 1 / k), rng, stratify, f"shared out to {k} folds")
        rest = [np.sort(np.concatenate(pieces[:i] + pieces[i + 1 :])) for i in range(k)]
        return ((self.take(train), self.take(test)) for train, test in zip(rest, pieces, strict=True))

    def _pieces(self, fractions: Array, rng: np.random.Generator, stratify: bool | str | None, what: str) -> list[Array]:
        """The indices of each part."""
        heads = self._strata(stratify)
        N = len(self)
        if self.groups is None and not stratify:
            ends = np.rint(np.cumsum(fractions) * N).astype(np.int64)
            pieces = np.split(rng.permutation(N), ends[:-1])
        else:
            groups = np.arange(N) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]
            labels = np.stack([labels for labels, _ in heads] or [np.zeros(N, np.int64)], 1)
            part = partition(labels, groups, fractions, rng)
            pieces = [np.flatnonzero(part == i) for i in range(len(fractions))]
        if any(len(piece) == 0 for piece in pieces):
            of = "" if self.groups is None else f" of {len(np.unique(self.groups))} groups"
            raise ValueError(f"{N} images{of} cannot be {what}: a part would be empty")
        for labels, classes in heads:
            self._check_every_class(labels, classes, pieces, what)
        return pieces

    def _strata(self, stratify: bool | str | None) -> list[tuple[Array, Sequence[str]]]:
        """The labels whose classes no part may lack, with their names; of several heads, those of each."""
        if isinstance(stratify, str):
            one_of(stratify, "stratify", self.heads)
            return [(self.labels[stratify], self.classes[stratify])]
        if stratify is not None and not isinstance(stratify, bool):
            wrong(TypeError, "stratify", "True, False, None or the name of a head", stratify)
        if stratify is False or (self.heads and stratify is None and self.groups is None):
            return []
        return [(self.labels[head], self.classes[head]) for head in self.heads] or [(self.labels, self.classes)]

    def _check_every_class(self, labels: Array, classes: Sequence[str], pieces: list[Array], what: str) -> None:
        for label in np.unique(labels[labels >= 0]):
            missing = [i for i, piece in enumerate(pieces) if not (labels[piece] == label).any()]
            if missing:
                of = labels == label
                many = f"{of.sum()} images" if self.groups is None else f"{len(np.unique(self.groups[of]))} groups"
                advice = "" if self.groups is not None else "pass stratify=True to share every class out, or "
                raise ValueError(
                    f"{self.name}: class {classes[label]!r}, of {many}, would be missing from part {missing[0]} where it is "
                    f"{what}: {advice}stratify=False to allow that"
                )

    def mean_std(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each channel over images and pixels, (C,) float32 each.

        Summed in float64. uint8 images count as x/255, so that the numbers are those that `Normalize` takes. A channel that
        never changes has the std 1, with which `Normalize` makes it 0: it says nothing, and disturbs nothing. Raises ValueError
        where no channel changes.
        """
        x = self.images
        C, count, scale = x.shape[1], x.size // x.shape[1], 255.0 if x.dtype == np.uint8 else 1.0
        total, squares = np.zeros(C), np.zeros(C)
        low, high = np.full(C, np.inf), np.full(C, -np.inf)
        for part in self._parts():
            total += part.sum((0, 2, 3), np.float64)
            low, high = np.minimum(low, part.min((0, 2, 3))), np.maximum(high, part.max((0, 2, 3)))
        mean = total / count
        for part in self._parts():
            off = part - mean[:, None, None]  # float64
            squares += np.einsum("nchw,nchw->c", off, off)
        if (low == high).all():
            raise ValueError(f"{self.name}: every pixel of all {len(self)} images is {low.tolist()}, nothing to learn from")
        std = np.where(low == high, 1, np.sqrt(squares / count) / scale)
        return (mean / scale).astype(np.float32), std.astype(np.float32)

    def _parts(self) -> Iterator[Array]:
        """All pixels, some 2 MiB of float64 at a time: several images, or some rows of one."""
        N, C, H, W = self.images.shape
        images = max(1, PART // (C * H * W))
        rows = max(1, PART // (C * W)) if images == 1 else H
        many = images * max(1, READ // (images * C * H * W))
        for first in range(0, N, many):
            held = self.images[first : first + many]
            for i in range(0, len(held), images):
                for j in range(0, H, rows):
                    yield held[i : i + images, :, j : j + rows]


def _check_images(images: Any) -> None:
    _check_array("images", images, 4, (np.uint8, np.float32))
    if images.size == 0:
        raise ValueError(f"images: expected at least one pixel, got shape {images.shape}")
    channels_first(images, "images")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        bad = np.flatnonzero(~np.isfinite(images).all((1, 2, 3)))
        raise ValueError(f"images: hold NaN or infinity in {len(bad)} of {len(images)} images, first in image {bad[0]}")


def _check_labels(name: str, labels: Any, names: str, classes: Any, N: int, least: int) -> None:
    _check_array(name, labels, 1, (np.int64,))
    if len(labels) != N:
        raise ValueError(f"{name}: expected {N}, one for each of the images, got {len(labels)}")
    if isinstance(classes, str | Mapping) or not all(isinstance(c, str) for c in classes):
        raise TypeError(f"{names}: expected a tuple of strings, got {classes!r}")
    low, high, K = labels.min(), labels.max(), len(classes)
    if low < least or high >= K:
        unknown = ", -1 where it is not known" if least < 0 else ""
        raise ValueError(f"{name}: expected 0 to {K - 1}, as there are {K} classes{unknown}, got {low} to {high}")


def _one_each(name: str, values: Any, N: int, kinds: str) -> Array:
    """(N,) strings, or integers where these are allowed."""
    array: Array = np.asarray(values)
    listed = array.ndim == 1 and not isinstance(values, np.ndarray)
    mixed = array.dtype.kind == "U" and listed and not all(isinstance(v, str) for v in values)
    if mixed or array.ndim != 1 or array.dtype.kind not in kinds:
        came = "a mixture" if mixed else f"{array.ndim}-D {array.dtype}"
        expected = "strings" if kinds == "U" else "strings or integers"
        raise TypeError(f"{name}: expected a flat list of {expected}, one for each image, got {came}")
    if len(array) != N:
        raise ValueError(f"{name}: expected {N}, one for each of the images, got {len(array)}")
    if array.dtype.kind == "U" and (empty := np.flatnonzero(array == "")).size:
        raise ValueError(f"{name}: expected one for each image, got '' for image {empty[0]}")
    return array


def check_dataset(value: object, name: str) -> None:
    """Raises TypeError for what is none."""
    if not isinstance(value, Dataset):
        raise TypeError(f"{name}: expected a minidl.data.Dataset, got {type(value).__name__}")


def _check_array(name: str, value: object, ndim: int, dtypes: tuple[type[np.generic], ...]) -> None:
    names = " or ".join(np.dtype(d).name for d in dtypes)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array of {names}, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {names}, got {value.dtype}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {value.shape}")
