"""A file is the old one or the new one."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import sys

import pytest

from minidl.io import files


def test_text_and_bytes(tmp_path: pathlib.Path) -> None:
    for content in ("naïve ∂\n", b"\x00\xff", "", "shorter"):
        files.write(tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_old_file_stays_where_writing_fails(tmp_path: pathlib.Path) -> None:
    files.write(tmp_path / "f", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError):
            files.write(tmp_path / "f", b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "f").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_no_folder(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "none" / "f", "x")
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError):  # a folder is in the way
        files.write(tmp_path / "d", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_only_our_own_leftovers_are_removed(tmp_path: pathlib.Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone = [f".f.{ended.pid}.tmp", f".g.json.{os.getpid()}.tmp", ".f.99999999999999999999999.tmp"]
    stay = [
        f".f.{os.getppid()}.tmp",
        f".h.{ended.pid}.tmp",
        f".gxjson.{ended.pid}.tmp",
        ".f.tmp",
        f"f.{ended.pid}.tmp",
        ".mine.tmp",
    ]
    for name in gone + stay:
        (tmp_path / name).write_text("")
    (tmp_path / f".f.{ended.pid}0.tmp").mkdir()
    files.remove_leftovers(tmp_path, ["f", "g.json"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*stay, f".f.{ended.pid}0.tmp"])
