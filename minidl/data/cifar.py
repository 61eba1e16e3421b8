"""CIFAR-10 and CIFAR-100 in the official binary layout.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"; https://www.cs.toronto.edu/~kriz/cifar.html.
A file is a sequence of records: one label byte (CIFAR-100: two, coarse and fine), then the 3,072 bytes of an image, the
red, green and blue planes of 32x32 pixels, row by row.
"""

from __future__ import annotations

import os
import pathlib
from dataclasses import dataclass

import numpy as np

from minidl.arguments import flag, one_of
from minidl.array import Array
from minidl.data.dataset import Dataset
from minidl.data.download import fetch

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """Where a CIFAR set keeps what, and where it comes from."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: tuple[str, ...]  # for each label byte of a record, the file with its class names
    counts: tuple[int, ...]  # and the number of classes
    url: str
    known_hash: str


CIFAR10 = Layout(
    name="CIFAR-10",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test=("test_batch.bin",),
    names=("batches.meta.txt",),
    counts=(10,),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    known_hash="md5:c32a1d4ab5d03f1284b67883e8d87530",
)
CIFAR100 = Layout(
    name="CIFAR-100",
    folder="cifar-100-binary",
    train=("train.bin",),
    test=("test.bin",),
    names=("coarse_label_names.txt", "fine_label_names.txt"),
    counts=(20, 100),
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    known_hash="md5:03b5dce01913d631647c71ecec9e9cb8",
)


def cifar10(root: str | os.PathLike[str], train: bool = True, download: bool = False) -> Dataset:
    """CIFAR-10 from `root/cifar-10-batches-bin`: 50,000 images to train, or 10,000 to test, (N,3,32,32) uint8.

    Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images", section 3.

    Args:
        root: the folder that holds the folder of the archive.
        download: where that folder is missing, fetch the official archive (170 MB) and unpack it into `root`.

    Raises:
        FileNotFoundError: the folder or a file in it is missing.
        OSError: the archive could not be downloaded or written.
        TypeError: `train` or `download` is neither True nor False.
        ValueError: a file is not a whole number of records, or holds a label or a class list that cannot be.
    """
    return read(CIFAR10, root, train, download, label=0)


def cifar100(root: str | os.PathLike[str], train: bool = True, download: bool = False, labels: str = "fine") -> Dataset:
    """CIFAR-100 from `root/cifar-100-binary`, with the 100 "fine" or the 20 "coarse" classes; else as `cifar10`.

    Raises ValueError for another value of `labels`; what else is raised, and the source, are those of `cifar10`.
    """
    one_of(labels, "labels", ("fine", "coarse"))
    return read(CIFAR100, root, train, download, label=1 if labels == "fine" else 0)


def read(layout: Layout, root: str | os.PathLike[str], train: bool, download: bool, label: int) -> Dataset:
    """The set that `layout` describes, with the label byte number `label` of each record."""
    root, train, download = pathlib.Path(root), flag(train, "train"), flag(download, "download")
    folder = root / layout.folder
    if download and not folder.exists():
        fetch(layout.url, layout.known_hash, root, layout.folder)
    files = [folder / name for name in (layout.train if train else layout.test)]
    classes = _class_names(layout, folder / layout.names[label], layout.counts[label])
    records = np.concatenate([_records(layout, file) for file in files])  # (N, label bytes + 3072)
    images = np.ascontiguousarray(records[:, -PIXELS:]).reshape(-1, 3, 32, 32)
    name = f"{layout.name} {'train' if train else 'test'}"
    return Dataset(images, records[:, label].astype(np.int64), classes, name=name)


def _records(layout: Layout, file: pathlib.Path) -> Array:
    """(N, label bytes + 3072) uint8, checked."""
    _must_exist(layout, file)
    data = np.fromfile(file, np.uint8)
    width = len(layout.counts) + PIXELS
    if data.size == 0 or data.size % width:
        raise ValueError(
            f"{file} has {data.size} bytes, expected a whole number of records of {width} bytes: it is cut off or "
            f"altered. {_remedy(layout, file.parent)}"
        )
    records = data.reshape(-1, width)
    for column, count in enumerate(layout.counts):
        bad = np.flatnonzero(records[:, column] >= count)
        if bad.size:
            raise ValueError(
                f"{file} has the label {records[bad[0], column]} in record {bad[0]}, expected 0..{count - 1}: it is "
                f"altered. {_remedy(layout, file.parent)}"
            )
    return records


def _class_names(layout: Layout, file: pathlib.Path, count: int) -> tuple[str, ...]:
    _must_exist(layout, file)
    names = tuple(file.read_text(encoding="utf-8", errors="replace").split())
    if len(names) != count:
        raise ValueError(
            f"{file} lists {len(names)} class names, expected {count}: it is altered. {_remedy(layout, file.parent)}"
        )
    return names


def _must_exist(layout: Layout, file: pathlib.Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. {_remedy(layout, file.parent)}")


def _remedy(layout: Layout, folder: pathlib.Path) -> str:
    away = f"Move {folder} away and " if folder.exists() else "Either "
    return f"{away}pass download=True, or unpack {layout.url} so that it becomes {folder}"
