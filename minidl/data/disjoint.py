"""Whether sets share what they must not: whom they show, or a file."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations

import numpy as np

from minidl.arguments import wrong
from minidl.data.dataset import Dataset, check_dataset

HEAD = 2**16  # bytes of a file that are compared before all of them are


def check_disjoint(*parts: Dataset, roots: Sequence[str | os.PathLike[str]] | None = None) -> None:
    """That no group is in two of these sets, such as the training and the test set that somebody else made, and no file.

    roots: for each set the folder from which its `names` are files. Then files are the same where their bytes are, whatever
    they are called. Of most files the size tells; few are read whole.

    Raises ValueError where a group or a file is in two sets, or where two sets have groups of different types, TypeError for
    what is no Dataset. Sets without groups pass for them: nothing is known.
    """
    for part in parts:
        check_dataset(part, "parts")
    for a, b in combinations([part for part in parts if part.groups is not None], 2):
        _check_groups(a, b)
    if roots is None:
        return
    if isinstance(roots, str | os.PathLike) or len(roots) != len(parts):
        wrong(ValueError, "roots", f"a folder for each of the {len(parts)} sets", roots)
    files = []
    for part, root in zip(parts, roots, strict=True):
        if part.names is None:
            raise ValueError(f"roots: {part.name} has no names of files; leave roots out")
        files.append([pathlib.Path(root, name) for name in part.names])
    _check_files(parts, files)


def _check_groups(a: Dataset, b: Dataset) -> None:
    assert a.groups is not None and b.groups is not None
    if (a.groups.dtype.kind == "U") != (b.groups.dtype.kind == "U"):
        raise ValueError(f"{a.name} and {b.name}: expected groups of one type, got integers and strings")
    if len(both := np.intersect1d(a.groups, b.groups)):
        raise ValueError(
            f"{a.name} and {b.name}: {len(both)} group{'s' * (len(both) > 1)} ({', '.join(map(str, both[:3]))}"
            f"{', ...' * (len(both) > 3)}) are in both: keep all images of a group on one side, as `Dataset.split` does"
        )


def _check_files(parts: Sequence[Dataset], files: list[list[pathlib.Path]]) -> None:
    """Those whose sizes are the same are told apart by their first bytes, and the rest by all."""
    left = [(k, file) for k, of_part in enumerate(files) for file in of_part]
    for key in (_size, _head, _whole):
        left = _in_two(left, key)
    if left:
        (i, one), *others = left
        j, other = next((j, file) for j, file in others if j != i and _whole(file) == _whole(one))
        more = f", and {len(left) - 2} more files" * (len(left) > 2)
        raise ValueError(
            f"{parts[i].name} and {parts[j].name}: {one} and {other} hold the same bytes{more}: what is tested must not be "
            "trained on; keep one of them, or both on one side"
        )


def _in_two(files: list[tuple[int, pathlib.Path]], key: Callable[[pathlib.Path], Hashable]) -> list[tuple[int, pathlib.Path]]:
    """The files whose key a file of another part has, too."""
    keys, seen = [key(file) for _, file in files], dict[Hashable, set[int]]()
    for (part, _), k in zip(files, keys, strict=True):
        seen.setdefault(k, set()).add(part)
    return [file for file, k in zip(files, keys, strict=True) if len(seen[k]) > 1]


def _size(file: pathlib.Path) -> int:
    return file.stat().st_size


def _head(file: pathlib.Path) -> tuple[int, bytes]:
    with open(file, "rb") as opened:
        return _size(file), hashlib.blake2b(opened.read(HEAD)).digest()


def _whole(file: pathlib.Path) -> bytes:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()
