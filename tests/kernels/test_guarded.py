"""The guard zones find what is read or written outside an array: by itself, and in kernels whose mends are taken back."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TOUCH = """
import ctypes, numpy as np
from tests.kernels.guarded import Zone
a = Zone(5000).array(np.arange(100, dtype="f"), at_the_end={at_the_end})
assert a.sum() == 4950
ctypes.c_char.from_address(a.ctypes.data + {byte}).value {write}
print("still there")
"""


@pytest.mark.parametrize("write", ["", "= b'x'"], ids=["read", "write"])
@pytest.mark.parametrize(
    ("at_the_end", "byte", "ends"), [(True, 400, True), (True, 399, False), (False, -1, True), (False, 0, False)]
)
def test_what_lies_outside_cannot_be_touched(at_the_end: bool, byte: int, ends: bool, write: str) -> None:
    code = TOUCH.format(at_the_end=at_the_end, byte=byte, write=write)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == ((-signal.SIGSEGV, "") if ends else (0, "still there\n")), done.stderr


@pytest.mark.ci
def test_a_few_draws_between_guard_zones() -> None:
    done = _draws(ROOT, "pooling", 2, 7)
    assert done.returncode == 0, done.stderr
    assert "seed 7\n" in done.stdout and "calls: none wrong" in done.stdout


@pytest.mark.ci
@pytest.mark.parametrize(
    ("file", "mend", "without", "family", "found"),
    [
        ("direct_loops.py", "p.sh == p.sw == 1", "p.sh == 1", "convolution", "touched memory outside its arrays"),
        ("direct_loops.py", "p.yh == p.yw == 1", "p.yh == 1", "convolution", "touched memory outside its arrays"),
        (
            "winograd_loops.py",
            "max(i0, min(H, y0 + height))",
            "min(H, y0 + height)",
            "convolution_by_winograd",
            "touched memory outside its arrays",
        ),
        (
            "dense.py",
            "Source(X, 0, C, *vectors(scale, shift))",
            "Source(X, 0, C, scale, shift)",
            "dense_block_by_winograd",
            "is given an array with strides",
        ),
    ],
)
def test_a_mend_that_is_taken_back_is_found(
    file: str, mend: str, without: str, family: str, found: str, tmp_path: Path
) -> None:
    for folder in ("minidl", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    kernel = tmp_path / "minidl" / "kernels" / "compiled" / file
    assert kernel.read_text().count(mend) == 1
    kernel.write_text(kernel.read_text().replace(mend, without))
    done = _draws(tmp_path, family, 60, 0)
    assert done.returncode == 1, done.stdout
    assert found in done.stderr and "repeat it with --seed 0" in done.stderr, done.stderr


def _draws(folder: Path, family: str, seconds: int, seed: int) -> subprocess.CompletedProcess[str]:
    options = ["--seconds", str(seconds), "--seed", str(seed), "--families", family]
    command = [sys.executable, "-m", "tests.kernels.guarded", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
