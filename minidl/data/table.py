"""Images that a table lists: a line for each, with its label, and who is on it."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from contextlib import closing
from csv import DictReader
from csv import Error as Malformed
from typing import NamedTuple

import numpy as np

from minidl.arguments import flag, one_of, wrong
from minidl.array import Array
from minidl.data.dataset import Dataset
from minidl.data.files import How, Image, read_alike
from minidl.data.lazy import images_of
from minidl.data.windows import Window

SPLITS = {  # how a table may call them
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
ASKED = ("train", "validation", "test", "all")


def csv(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    split: str | None = None,
    labels: str | Sequence[str] = "label",
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    page: int | None = None,
    window: Window | None = None,
    lazy: bool = False,
) -> Dataset:
    """The images (N,C,H,W) that a table lists, in its order. Its first line names the columns:

        file    of the image, from `root` on: the set's `names`
        label   its class; see `labels`
        group   whom the image shows, a patient or a lesion, if there is such a column: the set's `groups`
        split   train, validation (or val) or test, if there is such a column

    Other columns are passed over. Between columns are commas, semicolons or tabs. Classes are those of the whole table,
    whichever split is asked for, sorted, as numbers where all are numbers. The whole table is checked.

    Args:
        root: the folder that files are given from; without it that of the table.
        split: "train", "validation" or "test", where the table has that column, or "all".
        labels: the column of the labels. Several make a set of several heads, where a label that is empty is not known: -1.
        size, channels, page, window, lazy: as in `image_folder`.

    Raises:
        FileNotFoundError: there is no such table, or a file that it lists is not there.
        ValueError: a column is missing, a line has no file, label or group, or a split of another name; a file is listed twice;
            a group is in two splits; there is no image in the split, or the table has splits and none is asked for; a file
            cannot be read, or files differ in size, channels or range; or an argument cannot be.
        TypeError: an argument is of another type.
    """
    path, how = pathlib.Path(path), How(size, channels, page, window)
    root = path.parent if root is None else pathlib.Path(root)
    heads = [labels] if isinstance(labels, str) else list(labels)
    if not heads or not all(isinstance(head, str) for head in heads) or len(set(heads)) < len(heads):
        wrong(ValueError, "labels", "the name of a column, or several", labels)
    rows = _rows(path, ["file", *heads])
    lazy = flag(lazy, "lazy")
    files = _files(path, root, rows, required=heads if isinstance(labels, str) else [])
    splits = _splits(path, rows)
    classes = {head: _classes({row[head] for _, row in rows} - {""}) for head in heads}
    for head, found in classes.items():
        if not found:
            raise ValueError(f"{path}: no line has a {head}")

    picked = _picked(path, splits, split, len(rows))
    images = list[Image]()
    with closing(read_alike([files[i] for i in picked], how, f"reading {path.name}", keep=not lazy)) as read:
        for image in read:
            if isinstance(image, Exception):
                raise image
            images.append(image)
    rows = [rows[i] for i in picked]
    known = {head: _numbers([row[head] for _, row in rows], classes[head]) for head in heads}
    name = path.stem if splits is None or split == "all" else f"{path.stem} {split}"
    several = not isinstance(labels, str)
    return Dataset(
        images_of(images, how),
        known if several else known[heads[0]],
        classes if several else classes[heads[0]],
        name=name,
        names=np.array([row["file"] for _, row in rows]),
        groups=np.array([row["group"] for _, row in rows]) if "group" in rows[0][1] else None,
        window=how.window,
    )


def splits(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Which of train, validation and test the column split of a table names; () of a table without this column.

    Raises FileNotFoundError and ValueError as `csv` does.
    """
    found = _splits(pathlib.Path(path), _rows(pathlib.Path(path), ["file"])) or ()
    return tuple(name for name in ASKED if name in found)


class Line(NamedTuple):
    """An image that a table lists: where it is, what it is called, and "" for a label or a group that nobody tells."""

    file: pathlib.Path
    name: str
    label: str = ""
    group: str = ""


def listed(path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, split: str | None = None) -> list[Line]:
    """The lines of a table as `csv` takes it, without reading an image; labels may be missing, some or all.

    Raises FileNotFoundError and ValueError as `csv` does.
    """
    path = pathlib.Path(path)
    rows = _rows(path, ["file"], ("label", "group", "split"))
    files = _files(path, path.parent if root is None else pathlib.Path(root), rows, required=[])
    picked = _picked(path, _splits(path, rows), split, len(rows))
    return [Line(files[i], row["file"], row.get("label", ""), row.get("group", "")) for i in picked for row in [rows[i][1]]]


Row = tuple[int, dict[str, str]]  # its line in the file, and what is in its columns


def _rows(path: pathlib.Path, needed: Sequence[str], also: Sequence[str] = ("group", "split")) -> list[Row]:
    """What is in the columns that are needed, and in those that may be there."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: expected a table with the columns {', '.join(needed)}")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = DictReader(file, delimiter=max(",;\t", key=header.count), skipinitialspace=True, strict=True)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            found = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, Malformed) as error:
        raise ValueError(f"{path} is no table of text in UTF-8: {error}") from error
    if missing := [name for name in needed if name not in columns]:
        raise ValueError(f"{path}: expected the column {missing[0]}, got {', '.join(columns) or 'an empty file'}")
    used = [*dict.fromkeys([*needed, *also])]
    if twice := [name for name in used if columns.count(name) > 1]:
        raise ValueError(f"{path}: expected one column {twice[0]}, got {columns.count(twice[0])}")
    rows = []
    for line, row in found:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {line}: expected {len(columns)} columns, as in its first line, got more or fewer")
        rows.append((line, {name: row[name].strip() for name in used if name in columns}))
    if not rows:
        raise ValueError(f"{path} lists no image")
    return rows


def _files(path: pathlib.Path, root: pathlib.Path, rows: list[Row], required: Sequence[str]) -> list[pathlib.Path]:
    """The file of each line; every line has what it must have, and a file of its own."""
    lines = dict[str, int]()
    files = []
    for line, row in rows:
        for name in ["file", *required, *(["group"] if "group" in row else [])]:
            if not row[name]:
                raise ValueError(f"{path}, line {line}: expected a {name}, got nothing")
        file = root / row["file"]
        if not file.is_file():
            raise FileNotFoundError(f"{path}, line {line}: {file} is not there; root is the folder that files are given from")
        if (first := lines.setdefault(os.path.realpath(file), line)) != line:
            raise ValueError(f"{path}, line {line}: {row['file']} is listed in line {first} already")
        files.append(file)
    return files


def _splits(path: pathlib.Path, rows: list[Row]) -> list[str] | None:
    """The split of each line, by its name here; None where the table has no such column."""
    if "split" not in rows[0][1]:
        return None
    splits, of_group = [], dict[str, tuple[str, int]]()
    for line, row in rows:
        name = SPLITS.get(row["split"].lower())
        if name is None:
            raise ValueError(f"{path}, line {line}: split: expected train, validation or test, got {row['split']!r}")
        splits.append(name)
        if "group" in row:
            other, first = of_group.setdefault(row["group"], (name, line))
            if other != name:
                raise ValueError(
                    f"{path}, line {line}: group {row['group']!r} is in {name}, and in {other} in line {first}: "
                    "keep all images of a group in one split"
                )
    return splits


def _picked(path: pathlib.Path, splits: list[str] | None, split: str | None, N: int) -> list[int]:
    """The lines of the split that is asked for."""
    if split is not None:
        one_of(split, "split", ASKED)
    if splits is None and split not in (None, "all"):
        raise ValueError(f"split: {path} has no column split, got {split!r}: leave it out, and call split on the set")
    if splits is not None and split is None:
        raise ValueError(f"split: {path} has {', '.join(sorted(set(splits)))}: pass one of these, or 'all'")
    picked = [i for i in range(N) if splits is None or split in ("all", splits[i])]
    if not picked:
        raise ValueError(f"split: {path} lists no image of {split!r}")
    return picked


def _classes(values: set[str]) -> tuple[str, ...]:
    if all(value.isdecimal() for value in values):
        return tuple(sorted(values, key=int))
    return tuple(sorted(values))


def _numbers(values: list[str], classes: tuple[str, ...]) -> Array:
    number = {name: i for i, name in enumerate(classes)} | {"": -1}
    return np.array([number[value] for value in values], np.int64)
