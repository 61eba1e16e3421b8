"""What `--data` of `examples/train.py` reads: training, test and, where these are published or listed, validation images.

    lesions             drawn
    cifar10, cifar100   the published training and test images, fetched into --root
    folder              --root/CLASS/image, of which a fifth is the test; or --root/train and --root/test, and --root/validation
                        if it is there, each of which holds CLASS/image
    csv                 --root is a table, see `minidl.data.csv`; its column split says what is what, else a fifth is the test
    ham10000            --root is the folder of HAM10000, see `minidl.data.ham10000`: benign or malignant
    medmnist            --root is the .npz file of a MedMNIST set, with the splits that are published

No group (a patient, a lesion) and no file is on two sides. An option that says nothing to the data is an error.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl import data
from minidl.arguments import one_of
from minidl.bar import Bar
from minidl.data import Dataset
from minidl.data.table import splits
from minidl.train import Settings

FILES = ("folder", "csv")
OF_DATA = {  # the options that some data alone can take
    "size": ("lesions", *FILES, "ham10000"),
    "channels": FILES,
    "page": FILES,
    "window": FILES,
    "lazy": FILES,
    "groups": ("folder",),
}
PARTS = {"train": ("train",), "validation": ("validation", "val", "valid"), "test": ("test",)}  # folders in --root


class Sets(NamedTuple):
    """Images to train on, to test with, and to choose an epoch by where the data have such."""

    train: Dataset
    test: Dataset
    validation: Dataset | None = None


def load(settings: Settings, **how: Any) -> Sets:
    """The sets that the settings ask for, at most `settings.limit` images of each; `how` goes to the function of these data.

    Raises ValueError for unknown data, for an option that they cannot take, and where a group or a file is in two sets.
    """
    one_of(settings.data, "data", DATA)
    check_options(settings)
    sets = Sets(*DATA[settings.data](settings, **how))
    if sets.validation is not None and settings.validation:
        raise ValueError(
            f"--validation {settings.validation:g}: {settings.root} has {len(sets.validation)} validation images of its own, "
            "which are taken; leave the option out"
        )
    return sets if settings.limit is None else Sets(*(d and few(d, settings) for d in sets))


def few(dataset: Dataset, settings: Settings) -> Dataset:
    """`settings.limit` images: of files any, as these may be sorted by class; else the first."""
    N, limit = len(dataset), settings.limit or 0
    if settings.data in (*FILES, "ham10000", "medmnist"):
        return dataset.take(np.random.default_rng(0).permutation(N)[:limit])
    return dataset.take(np.arange(min(limit, N)))


def check_options(settings: Settings) -> None:
    if settings.size is not None and settings.data.startswith("cifar"):
        raise ValueError(f"--size {text_of(settings.size)}: the images of {settings.data} are 32x32")
    if settings.size is not None and settings.data == "medmnist":
        raise ValueError(f"--size {text_of(settings.size)}: a file of medmnist has one size; get that of another, such as 64")
    for name, kinds in OF_DATA.items():
        value = getattr(settings, name)
        if value is not None and value is not False and settings.data not in kinds:
            option = f"--{name}" if value is True else f"--{name} {text_of(value)}"
            raise ValueError(f"{option}: it is for --data {' and '.join(kinds)} alone, not for {settings.data}")
    if settings.data == "lesions" and settings.root != Settings.root:
        raise ValueError(f"--root {settings.root}: lesions are drawn, and read from no folder; leave it out, or write --data")


def text_of(value: Any) -> str:
    """An option as it is typed: 48, 12x20 (a size) or 40,400 (a window)."""
    if not isinstance(value, tuple):
        return str(value)
    return "x".join(map(str, value)) if isinstance(value[0], int) else ",".join(f"{x:g}" for x in value)


# ---- each kind of data


def lesions(settings: Settings) -> Sets:
    train_count, test_count = (min(n, settings.limit or n) for n in (8000, 2000))
    size = settings.size or 32
    if isinstance(size, tuple):
        raise ValueError(f"--size {text_of(size)}: lesions are drawn square, such as --size 48")
    return Sets(data.lesions(train_count, size, seed=0), data.lesions(test_count, size, seed=1))


def cifar10(settings: Settings) -> Sets:
    return Sets(data.cifar10(settings.root, download=True), data.cifar10(settings.root, train=False))


def cifar100(settings: Settings) -> Sets:
    return Sets(data.cifar100(settings.root, download=True), data.cifar100(settings.root, train=False))


def folder(settings: Settings) -> Sets:
    root, form = pathlib.Path(settings.root), {**how(settings), "groups": settings.groups}
    there = {part: [root / name for name in names if (root / name).is_dir()] for part, names in PARTS.items()}
    if not (there["train"] and there["test"]):
        whole = data.image_folder(root, **form)
        return disjoint(*whole.split([0.8, 0.2], stratify=True), roots=[root, root])
    folders = {part: found[0] for part, found in there.items() if found}
    found = {part: data.image_folder(path, **form).split([1.0])[0] for part, path in folders.items()}
    order = [part for part in ("train", "test", "validation") if part in found]
    return disjoint(*(found[part] for part in order), roots=[folders[part] for part in order])


def csv(settings: Settings) -> Sets:
    path = pathlib.Path(settings.root)
    if not (known := splits(path)):
        sets = data.csv(path, **how(settings)).split([0.8, 0.2], stratify=True)
    elif lacking := {"train", "test"} - set(known):
        raise ValueError(f"{path}: expected lines of the splits train and test, got none of {' and '.join(sorted(lacking))}")
    else:
        order = [part for part in ("train", "test", "validation") if part in known]
        sets = [data.csv(path, split=part, **how(settings)) for part in order]
    return disjoint(*sets, roots=[path.parent] * len(sets))


def ham10000(settings: Settings, labels: str | Sequence[str] = "malignant") -> Sets:
    """labels: as of `minidl.data.ham10000`."""
    size = {} if settings.size is None else {"size": both(settings.size)}
    sets = []
    for train in True, False:
        with Bar(desc=f"reading {pathlib.Path(settings.root).name}", leave=False, disable=None) as bar:

            def tell(done: int, total: int, bar: Bar = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            sets.append(data.ham10000(settings.root, train, labels=labels, progress=tell, **size))
    return disjoint(*sets)


def medmnist(settings: Settings) -> Sets:
    return Sets(*(data.medmnist(settings.root, split) for split in ("train", "test", "validation")))


DATA: dict[str, Callable[..., Sets]] = {
    "lesions": lesions,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": folder,
    "csv": csv,
    "ham10000": ham10000,
    "medmnist": medmnist,
}


def how(settings: Settings) -> dict[str, Any]:
    """The way in which files are read."""
    size = None if settings.size is None else both(settings.size)
    return {"size": size, **{name: getattr(settings, name) for name in ("channels", "page", "window", "lazy")}}


def both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def disjoint(*sets: Dataset, roots: list[pathlib.Path] | None = None) -> Sets:
    """Training, test and perhaps validation images, none of which are, or show, the same."""
    data.check_disjoint(*sets, roots=roots)
    return Sets(*sets)
