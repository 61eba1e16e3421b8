"""MedMNIST, small medical images of many kinds, in the published layout.

Yang et al. 2023, "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification", Scientific
Data 10. https://zenodo.org/records/10519652: one file a set, such as pneumoniamnist.npz, with {train,val,test}_images
(N,28,28), or (N,28,28,3) in colour, and {train,val,test}_labels (N,1), or (N,L) where each image has several. Sets of 64, 128
and 224 pixels are laid out alike.
"""

from __future__ import annotations

import os
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.arguments import one_of, wrong
from minidl.array import Array
from minidl.data.dataset import Dataset

SPLITS = {"train": "train", "validation": "val", "test": "test"}
ABSENT, PRESENT = "no", "yes"


def medmnist(path: str | os.PathLike[str], split: str = "train", classes: Sequence[str] | None = None) -> Dataset:
    """The images (N,C,H,W) uint8 of one split, C = 1 or 3, in the order of the file.

    Where each image has several labels, as in chestmnist, each is a head of its own, of the classes "no" and "yes". The file
    does not say who is on an image: the set has no groups.
    Yang et al. 2023, "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification".

    Args:
        path: the .npz file.
        split: "train", "validation" or "test", as published.
        classes: their names, or those of the heads, of which the file knows the numbers alone; without them "0", "1", ...

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or laid out in another way, holds volumes, or an argument cannot be.
    """
    path = pathlib.Path(path)
    one_of(split, "split", SPLITS)
    images, labels = _arrays(path, SPLITS[split])
    found = np.concatenate([_labels(path, name) for name in SPLITS.values()])  # of all splits, that all have the same classes
    several = found.shape[1] > 1
    if several and found.max() > 1:
        raise ValueError(f"{path}: expected 0 and 1 where an image has {found.shape[1]} labels, got {found.max()}")
    K = found.shape[1] if several else int(found.max()) + 1
    names = tuple(map(str, range(K))) if classes is None else tuple(classes)
    if isinstance(classes, str) or len(names) != K or len(set(names)) != K or not all(isinstance(name, str) for name in names):
        wrong(ValueError, "classes", f"{K} different names, one for each {'head' if several else 'class'}", classes)
    x = np.ascontiguousarray(images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2))
    name = f"{path.stem} {split}"
    if several:
        heads = {head: np.ascontiguousarray(labels[:, i]) for i, head in enumerate(names)}
        return Dataset(x, heads, dict.fromkeys(names, (ABSENT, PRESENT)), name=name)
    return Dataset(x, labels[:, 0], names, name=name)


def _arrays(path: pathlib.Path, split: str) -> tuple[Array, Array]:
    images, labels = _read(path, f"{split}_images"), _labels(path, split)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3) or images.dtype != np.uint8 or not images.size:
        volumes = ": volumes are not read" if images.ndim in (4, 5) else ""
        raise ValueError(
            f"{path}: {split}_images: expected (N,H,W) or (N,H,W,3) uint8, got {images.shape} {images.dtype}{volumes}"
        )
    if len(labels) != len(images):
        raise ValueError(f"{path}: expected a row of {split}_labels for each of {len(images)} images, got {len(labels)}")
    return images, labels


def _labels(path: pathlib.Path, split: str) -> Array:
    """(N,L) int64"""
    labels = _read(path, f"{split}_labels")
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
        raise ValueError(f"{path}: {split}_labels: expected integers (N,L) of at least 0, got {labels.shape} {labels.dtype}")
    return labels.astype(np.int64)


def _read(path: pathlib.Path, name: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: get it from https://zenodo.org/records/10519652")
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if name not in getattr(file, "files", ()):
                raise ValueError(f"expected {name} in it, got {', '.join(getattr(file, 'files', ())) or 'no names'}")
            return file[name]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no .npz file of MedMNIST: {error}") from error
