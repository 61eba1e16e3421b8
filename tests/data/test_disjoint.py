"""Files that are in two sets, whatever they are called."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from minidl.data import Dataset, check_disjoint
from minidl.data.disjoint import HEAD


def of_files(root: pathlib.Path, **contents: bytes) -> Dataset:
    """A set called as the folder, of files with these contents."""
    root.mkdir()
    for name, raw in contents.items():
        (root / name).write_bytes(raw)
    N = len(contents)
    return Dataset(np.zeros((N, 1, 2, 2), np.uint8), np.zeros(N, np.int64), ("x",), name=root.name, names=np.array([*contents]))


def test_a_file_in_two_sets(tmp_path: pathlib.Path) -> None:
    a = of_files(tmp_path / "train", one=b"11", two=b"2" * 2 * HEAD, three=b"33")
    b = of_files(tmp_path / "test", uno=b"1", due=b"2" * (2 * HEAD - 1) + b"3", tre=b"44")
    roots = [tmp_path / "train", tmp_path / "test"]
    check_disjoint(a, b, roots=roots)  # of the same size, and one with the same first bytes
    (tmp_path / "test" / "due").write_bytes(b"2" * 2 * HEAD)
    check_disjoint(a, b)
    with pytest.raises(ValueError, match=r"train and test: .*train/two and .*test/due hold the same bytes: what is tested"):
        check_disjoint(a, b, roots=roots)
    (tmp_path / "test" / "tre").write_bytes(b"33")
    with pytest.raises(ValueError, match=r"hold the same bytes, and 2 more files: .*keep one of them, or both on one side"):
        check_disjoint(a, b, roots=roots)


def test_the_same_file_twice_on_one_side_is_none_of_its_business(tmp_path: pathlib.Path) -> None:
    a, b = of_files(tmp_path / "train", one=b"11", two=b"11"), of_files(tmp_path / "test", one=b"12")
    check_disjoint(a, b, roots=[tmp_path / "train", tmp_path / "test"])


def test_one_of_three(tmp_path: pathlib.Path) -> None:
    sets = [of_files(tmp_path / str(k), x=raw) for k, raw in enumerate((b"1", b"2", b"2"))]
    with pytest.raises(ValueError, match="1 and 2: "):
        check_disjoint(*sets, roots=[tmp_path / str(k) for k in range(3)])


@pytest.mark.parametrize("roots", [["one"], "ab", 3 * ["x"]])
def test_roots_that_are_not_one_each(roots: Any, tmp_path: pathlib.Path) -> None:
    a, b = of_files(tmp_path / "a", x=b""), of_files(tmp_path / "b", x=b"1")
    with pytest.raises(ValueError, match="roots: expected a folder for each of the 2 sets, got"):
        check_disjoint(a, b, roots=roots)


def test_sets_without_names(tmp_path: pathlib.Path) -> None:
    a = of_files(tmp_path / "a", x=b"")
    nameless = Dataset(a.images, a.labels, a.classes)
    with pytest.raises(ValueError, match="roots: dataset has no names of files; leave roots out"):
        check_disjoint(a, nameless, roots=[tmp_path, tmp_path])
