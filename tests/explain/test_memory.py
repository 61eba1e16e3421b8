"""How much memory a map takes at most."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import models
from minidl import explain

ROOT = pathlib.Path(__file__).parents[2]
SIDE, WIDEST = 256, 16 * 256**2 * 4  # bytes of a map of the net's first, widest stage


def test_the_walk_back_frees_an_op_before_it_adds_up() -> None:
    """Of ResNet-8: three of the widest maps, one and a half of those behind, and the gradients of two branches."""
    model = models.resnet8(2).eval()
    x = np.random.default_rng(0).normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)
    explain.saliency(model, x)  # compiles, and fills caches
    tracemalloc.start()
    explain.saliency(model, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 5 < peak / WIDEST < 7, f"{peak / WIDEST:.2f}"


@pytest.mark.ci
def test_2048_pixels_a_side_are_explained_in_2_gib() -> None:
    """The whole process, Python and compiled kernels included."""
    script = """if True:
        import numpy as np
        import models
        from minidl import explain
        x = np.random.default_rng(0).normal(size=(1, 3, 2048, 2048)).astype(np.float32)
        explain.saliency(models.resnet8(2).eval(), x)
        status = open("/proc/self/status").read()  # getrusage counts the parent, too, before the child became Python
        print(int(status.split("VmHWM:")[1].split()[0]) / 1024)"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    assert float(done.stdout) < 2048, f"{float(done.stdout):.0f} MiB"
