"""Images in one folder a class: root/CLASS/image.png, in folders of its own, too."""

from __future__ import annotations

import os
import pathlib
import re
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.arguments import flag, wrong
from minidl.data.dataset import Dataset
from minidl.data.decoding import UnreadableError, is_dicom
from minidl.data.files import How, Image, read_alike
from minidl.data.lazy import images_of
from minidl.data.windows import Window

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pbm", ".pgm", ".ppm", ".pfm",
            ".npy", ".dcm")  # fmt: skip
LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems leave in folders, beside names that begin with a dot
SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
HIDDEN = "hidden, or left by the system"
NAMED = 3  # of the files that are passed over, so many are named


@dataclass
class PassedOver:
    """Files and folders that are not read, with the reason."""

    why: dict[str, str] = field(default_factory=dict)  # path -> reason

    def __str__(self) -> str:
        """How many for each reason, the first of them by name."""
        alike: dict[str, list[str]] = {}
        for path, reason in self.why.items():
            alike.setdefault(reason.split(":")[0], []).append(path)
        return "; ".join(
            f"{len(paths)} ({', '.join(paths[:NAMED])}{', ...' * (len(paths) > NAMED)}), {self.why[paths[0]]}"
            for paths in alike.values()
        )


def image_folder(
    root: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    page: int | None = None,
    window: Window | None = None,
    groups: str | None = None,
    lazy: bool = False,
) -> Dataset:
    """The images in `root/CLASS`, in folders in there, too; classes and files sorted by name, which are the set's `names`.

    They are read as `read_image` does, in threads, with a bar where there is a terminal. The images are uint8; where one of
    them has 16 bits, all are float32 in [0, 1], which keeps its depth. Floats and integers with a sign are float32 as they are,
    of any range. A warning counts and names what is passed over: files that are damaged or no images, hidden ones, and what
    systems leave behind (`__MACOSX`, `Thumbs.db`).

    Args:
        size: (H, W) to resize every image to (bilinear, with antialiasing); without it their sizes must agree.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) to convert every image to; without it they must agree.
        page: which image of each file, from 0; without it no file may hold several.
        window: (low, high), the grey values that become black and white, as in `read_image`.
        groups: a regular expression that finds in each name, "CLASS/file.png", whom the image shows: what it matches, or its
            first (...): "/([0-9]+)_" finds the patient 0017 in "benign/0017_left.png".
        lazy: leave the images on disk; see `LazyImages`. Every file is read once here all the same, to be checked, and the same
            batches come as of images in memory.

    Raises:
        FileNotFoundError: there is no such folder, it has no class, or a class has no image that can be read.
        ValueError: sizes, channels or ranges differ, a file holds several pages, CMYK or pixels that are transparent and the
            arguments do not say what to make of that, `root` holds folders of classes, `groups` finds nothing in a name, or an
            argument is none of the above.
        TypeError: these are no integers, or `groups` is no string.
    """
    root, how = pathlib.Path(root), How(size, channels, page, window)
    lazy, pattern = flag(lazy, "lazy"), group_pattern(groups)
    passed = PassedOver()
    classes = _classes(root, passed)
    files = [(file, label) for label, found in enumerate(classes.values()) for file in found]
    images, labels = list[Image](), list[int]()
    read = read_alike([file for file, _ in files], how, f"reading {root.name}", keep=not lazy)
    with closing(read):
        for (file, label), image in zip(files, read, strict=True):
            if isinstance(image, Exception):
                passed.why[_shown(file, root)] = _reason(image, file)
                continue
            images.append(image)
            labels.append(label)

    if passed.why:
        warnings.warn(f"image_folder: passed over in {root}: {passed}", stacklevel=2)
    if empty := [name for label, name in enumerate(classes) if label not in labels]:
        raise FileNotFoundError(f"{root / empty[0]} holds no image that can be read; passed over: {passed}")
    names = [image.file.relative_to(root).as_posix() for image in images]
    whom = None if pattern is None else np.array([group_of(pattern, name) for name in names])
    return Dataset(
        images_of(images, how),
        np.array(labels, np.int64),
        tuple(classes),
        name=root.name,
        names=np.array(names),
        groups=whom,
        window=how.window,
    )


def image_files(folder: str | os.PathLike[str]) -> tuple[list[pathlib.Path], PassedOver]:
    """The files in a folder, and in folders in there, that are named as images are; and what else is there."""
    passed, root = PassedOver(), pathlib.Path(folder)
    return list(_images(root, root, passed)), passed


def group_pattern(groups: Any) -> re.Pattern[str] | None:
    if groups is None:
        return None
    expected = 'a regular expression that finds the group in "CLASS/file.png"'
    if not isinstance(groups, str):
        wrong(TypeError, "groups", expected, groups)
    try:
        return re.compile(groups)
    except re.error as error:
        raise ValueError(f"groups: expected {expected}, got {groups!r}: {error}") from error


def group_of(pattern: re.Pattern[str], name: str) -> str:
    match = pattern.search(name)
    group = match and match[1 if pattern.groups else 0]
    if not group:
        raise ValueError(f"groups: {pattern.pattern!r} finds nothing in {name!r}; expected whom every image shows")
    return group


def _classes(root: pathlib.Path, passed: PassedOver) -> dict[str, list[pathlib.Path]]:
    """The names of the classes, each with its files."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected root/CLASS/image.png")
    classes = {}
    for folder in sorted(root.iterdir()):
        if _is_litter(folder):
            passed.why[folder.name] = HIDDEN
        elif not folder.is_dir():
            passed.why[folder.name] = "beside the folders of the classes, and of none"
        else:
            classes[folder.name] = list(_images(folder, root, passed))
    if not classes:
        raise FileNotFoundError(f"{root} holds no class folder; expected root/CLASS/image.png")
    deep = all(file.parent != root / name for name, files in classes.items() for file in files)
    if deep and any(classes.values()) and (len(classes) == 1 or {name.lower() for name in classes} <= SPLITS):
        raise ValueError(
            f"root: {root} holds {', '.join(classes)}, and the images are in folders in there: if these are the classes, pass "
            f"{root / next(iter(classes))} (examples/train.py takes {root} itself where it holds train and test)"
        )
    for name, files in classes.items():
        if not files:
            because = f"; passed over: {passed}" if passed.why else ""
            raise FileNotFoundError(f"{root / name} holds no image; expected files that end in {', '.join(SUFFIXES)}{because}")
    return classes


def _images(
    folder: pathlib.Path, root: pathlib.Path, passed: PassedOver, above: frozenset[str] = frozenset()
) -> Iterator[pathlib.Path]:
    """The image files in the folder and in all folders in it, sorted by name; no link may lead back to one of those above."""
    above |= {os.path.realpath(folder)}
    for path in sorted(folder.iterdir()):
        if _is_litter(path):
            passed.why[_shown(path, root)] = HIDDEN
        elif path.is_dir():
            if os.path.realpath(path) in above:
                passed.why[_shown(path, root)] = "a link to a folder that it is in"
            else:
                yield from _images(path, root, passed, above)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        elif _holds_dicom(path):
            yield path
        else:
            passed.why[_shown(path, root)] = "not named as an image is"


def _is_litter(path: pathlib.Path) -> bool:
    return path.name.startswith(".") or path.name in LITTER


def _holds_dicom(path: pathlib.Path) -> bool:
    try:
        with open(path, "rb") as file:
            return is_dicom(file.read(132))
    except OSError:
        return False


def _shown(path: pathlib.Path, root: pathlib.Path) -> str:
    return str(path.relative_to(root))


def _reason(error: Exception, file: pathlib.Path) -> str:
    """What the error says, without the name of the file."""
    said = str(error).replace(f"{file} ", "").replace(f": '{file}'", "")
    return said if isinstance(error, UnreadableError) else f"cannot be opened: {said}"
