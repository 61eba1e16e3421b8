"""The cache of compiled kernels on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minidl.kernels.cache import delete_if_stale


@pytest.mark.parametrize("edited", ["kernels/cuda/pool.py", "kernels/reference.py", None])
def test_what_was_compiled_before_an_edit_goes(tmp_path: Path, edited: str | None) -> None:
    here = tmp_path / "kernels" / "cuda"
    (here / "__pycache__").mkdir(parents=True)
    index, other = here / "__pycache__" / "pool.max.nbi", here / "__pycache__" / "pool.max.1.nbc"
    sources = [here / "pool.py", here / "windows.py", here.parent / "reference.py"]
    for age, path in enumerate([index, other, *sources]):
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    if edited:
        os.utime(tmp_path / edited, (2000, 2000))
    delete_if_stale(here)
    assert index.exists() == (edited is None) and other.exists()  # without its index it is found no more
