"""Which text the kernels of a process come from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minidl.kernels import sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two kernels, in the place of the real one"""
    (tmp_path / "compiled" / "__pycache__").mkdir(parents=True)
    (tmp_path / "reference.py").write_text("a = 1")
    (tmp_path / "compiled" / "pool.py").write_text("b = 1")
    for path in tmp_path.rglob("*.py"):
        os.utime(path, (315532800, 315532800))  # 1980, as in wheels
    monkeypatch.setattr(sources, "HERE", tmp_path)
    _start(monkeypatch)
    return tmp_path


def _start(patch: pytest.MonkeyPatch) -> str | None:
    """The version of a process that starts now"""
    version, states = sources._read()
    patch.setattr(sources, "_version", version)
    patch.setattr(sources, "_states", states)
    assert sources.version() == version
    return version


def _write(path: Path, text: str, mtime: int = 315532800) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, (mtime, mtime))


@pytest.mark.parametrize("file", ["reference.py", "compiled/pool.py", "compiled/new.py", "cuda/pool.py"])
def test_an_edit_of_any_file_is_seen_whatever_its_time_and_size(tree: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    before = _start(monkeypatch)
    _write(tree / file, "b = 2")
    assert _start(monkeypatch) not in (before, None)


def test_a_name_is_part_of_the_text(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _start(monkeypatch)
    (tree / "compiled" / "pool.py").rename(tree / "compiled" / "pools.py")
    assert _start(monkeypatch) not in (before, None)


def test_the_same_text_has_the_same_version_at_any_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _start(monkeypatch)
    _write(tree / "reference.py", "a = 1", mtime=2_000_000_000)
    _write(tree / "compiled" / "notes.txt", "b = 2")
    _write(tree / "compiled" / "__pycache__" / "pool.cpython-311.pyc", "c")
    (tree / "compiled" / ".#pool.py").symlink_to(tree / "nowhere")  # which some editors leave
    assert _start(monkeypatch) == before


@pytest.mark.parametrize("edit", [lambda path: _write(path, "a = 2"), Path.unlink], ids=["edited", "gone"])
def test_after_an_edit_no_text_is_certain(tree: Path, edit: object) -> None:
    """The process may have read the old text or the new, even where the edit is undone."""
    edit(tree / "reference.py")  # type: ignore[operator]
    assert sources.version() is None
    _write(tree / "reference.py", "a = 1")
    assert sources.version() is None


def test_what_cannot_be_read_has_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "HERE", tmp_path / "nowhere" / "kernels")
    assert _start(monkeypatch) is None


def test_in_an_archive_the_archive_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "minidl.zip"
    monkeypatch.setattr(sources, "HERE", archive / "minidl" / "kernels")
    _write(archive, "one")
    before = _start(monkeypatch)
    _write(archive, "two")
    assert before is not None and _start(monkeypatch) not in (before, None)
