"""The compiled kernels where programs go wrong: forks, threads, Ctrl-C, other processors, reads beyond an array."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest

from minidl import kernels
from minidl.kernels import compiled, reference

ROOT = Path(__file__).parents[2]
GEOMETRY = (1, 1), (1, 1), (1, 1), 1


def _convolutions() -> list[np.ndarray]:
    """Results of every kind of parallel loop, for shapes that cut into several tasks"""
    rng = np.random.default_rng(0)
    found = []
    for N, C, F, H in ((9, 5, 7, 19), (2, 3, 4, 70), (33, 16, 24, 8), (33, 24, 32, 13), (2, 64, 128, 3)):
        x, w = rng.standard_normal((N, C, H, H), np.float32), rng.standard_normal((F, C, 3, 3), np.float32)
        y = compiled.conv2d(x, w, None, *GEOMETRY)
        ones = np.ones(F, np.float32)
        found += [y, compiled.conv2d_grad_x(y, w, x.shape, *GEOMETRY), compiled.conv2d_grad_w(y, x, w.shape, *GEOMETRY)]
        found += [
            *compiled.batch_norm(y, ones, ones, 1e-5),
            compiled.relu(y),
            *compiled.max_pool2d(y, *((2, 2),) * 2, (1, 1), (2, 2)),
        ]
    return found


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    most = numba.get_num_threads()
    expected = _convolutions()
    try:
        for count in range(1, most + 1):
            numba.set_num_threads(count)
            for a, b in zip(_convolutions(), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        numba.set_num_threads(most)


def test_threads_compute_at_the_same_time() -> None:
    expected, wrong = _convolutions(), []

    def work() -> None:
        for _ in range(5):
            wrong.extend(i for i, (a, b) in enumerate(zip(_convolutions(), expected, strict=True)) if not np.array_equal(a, b))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_computes_with_the_reference() -> None:
    x, w = np.ones((2, 3, 8, 8), np.float32), np.ones((4, 3, 3, 3), np.float32)
    expected = kernels.of(x).conv2d(x, w, None, *GEOMETRY)  # the threads have started
    pid = os.fork()
    if pid == 0:
        good = kernels.of(x) is reference and np.allclose(kernels.of(x).conv2d(x, w, None, *GEOMETRY), expected)
        others: list[object] = []
        thread = threading.Thread(target=lambda: others.append(kernels.of(x)))
        thread.start()
        thread.join()
        good = good and others == [reference]
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert kernels.of(x) is compiled  # the parent goes on as before
    np.testing.assert_array_equal(kernels.of(x).conv2d(x, w, None, *GEOMETRY), expected)


TOGETHER = """
import threading, numba
import numpy as np
from minidl.kernels import compiled
x, w = np.ones((32, 32, 32, 32), np.float32), np.ones((32, 32, 3, 3), np.float32)
work = lambda: [compiled.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1) for _ in range(20)]
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
print(numba.threading_layer())
"""


def test_threads_take_turns_on_the_work_queue() -> None:
    """Numba's own threads, on machines without OpenMP: two loops at a time would end the program"""
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    command = [sys.executable, "-c", TOGETHER]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "workqueue\n"), done.stderr


FOREVER = """
import numpy as np
from minidl.kernels import compiled
x, w = np.ones((64, 32, 64, 64), np.float32), np.ones((32, 32, 3, 3), np.float32)
compiled.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1)
print("ready", flush=True)
while True:
    compiled.conv2d(x, w, None, (1, 1), (1, 1), (1, 1), 1)
"""


def test_ctrl_c_inside_a_kernel_ends_the_program() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", FOREVER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT


AVX2 = "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+lzcnt,+movbe,+cmov,+cx16,+64bit"


@pytest.mark.ci
@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"NUMBA_BOUNDSCHECK": "1"}, id="bounds checked"),
        pytest.param(
            {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2},
            id="AVX2 alone",
            marks=pytest.mark.skipif(os.uname().machine != "x86_64", reason="no x86"),
        ),
    ],
)
def test_agree_in_other_surroundings(environment: dict[str, str], tmp_path: Path) -> None:
    """All kernels once more, compiled for these surroundings (and kept apart from the usual cache)"""
    tests = ["tests/kernels/test_agree.py", "-k", "test_agrees_with", "-m", "", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = {**os.environ, **environment, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


HASHES = """
import hashlib
import numpy as np
from minidl.kernels import compiled
rng = np.random.default_rng(0)
x, gy, X = (rng.standard_normal((9, C, 15, 13), dtype=np.float32) for C in (5, 7, 12))
w, gamma, beta = (rng.standard_normal(s, dtype=np.float32) for s in ((7, 5, 3, 3), (5,), (5,)))
geometry = (1, 1), (1, 1), (1, 1), 1
y, mean, var = compiled.batch_norm_relu(x, None, gamma, beta, 1e-5)
results = [y, mean, var, *compiled.batch_norm_relu_grad(x, y, x, gamma, mean, var, 1e-5, True)]
results += compiled.channel_sums(x, y, mean)
results += [compiled.conv2d(x, w, None, *geometry), compiled.conv2d_grad_x(gy, w, x.shape, *geometry)]
results += [compiled.conv2d_grad_w(gy, x, w.shape, *geometry), *compiled.channel_statistics(X, 2, 3)]
results += [*compiled.affine_relu_conv_grad(X, 5, X.copy(), gamma, beta, mean, w, (1, 1), X.copy(), True, True)]
print([hashlib.md5(np.ascontiguousarray(a)).hexdigest() for a in results])
"""


@pytest.mark.ci
def test_bits_are_the_same_from_the_cache(tmp_path: Path) -> None:
    """Numba's compiler orders sums one way in a function that it has just compiled, and another way in its cached form."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", HASHES]
    compiled_now, cached = (subprocess.check_output(command, cwd=ROOT, env=environment, text=True) for _ in range(2))
    assert list(tmp_path.rglob("*.nbc"))
    assert compiled_now == cached
