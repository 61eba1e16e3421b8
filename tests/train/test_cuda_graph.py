"""CUDA graphs without a GPU: graph_simulated.py, in a process of its own, since Numba chooses its simulator when imported"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_graphs_on_the_stand_in() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "tests/gpu/graph_simulated.py"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
