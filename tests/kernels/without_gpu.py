"""In the place of a GPU under the CUDA kernels: Numba's simulator, NumPy for cuBLAS, and the arrays of the stand-in for CuPy.

For processes with NUMBA_ENABLE_CUDASIM=1. While the stand-in's stream captures a graph, both are written down and done at each
launch of the graph.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

from minidl import kernels
from minidl.kernels import cublas, cuda
from minidl.kernels.cuda import direct, launch
from tests import strict_cupy

TYPES = {0: np.float32, 1: np.float64, 2: np.float16}  # of library_types.h


def take_place(patch: pytest.MonkeyPatch) -> None:
    sys.setswitchinterval(2e-4)  # s; while the threads of a block run, the simulator asks each all the time whether it waits
    patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    patch.setattr(kernels, "_cuda", lambda: cuda)
    patch.setattr(launch, "start", start)
    patch.setattr(launch, "_grid_and_block", launch._grid_and_block.__wrapped__)  # the tests change its constants
    patch.setattr(cublas, "_library", Library)
    patch.setattr(cublas, "handle_of", lambda xp: ctypes.c_void_p(1))
    patch.setattr(cublas, "WORKSPACE", 16)


def start(kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
    simulated = [FakeCUDAArray(a._bare) if isinstance(a, strict_cupy.ndarray) else a for a in args]
    _now_or_at_the_launch(lambda: kernel[grid, block](*simulated))


def small_direct(patch: pytest.MonkeyPatch) -> None:
    """Blocks of a few threads for the 3x3 convolutions, which on a GPU have as many as their tiles have places"""
    small = {"ROWS": 2, "LANES": 8, "THREADS": 16, "CHANNELS": 2, "PLACES": 4, "PLANE": 64}
    small |= {"WARP": 2, "WARPS": 2, "PIXELS": 8, "FS": 2, "F_LANES": 1, "C_LANES": 2, "F_TILE": 2, "GY_PLANE": 17}
    small |= {"GY_TURNS": 8, "X_TURNS": 28, "X_PLANE": 57, "SHARED": 148, "TURNS": 2, "SUMS": 4, "PIECES": 12}
    for name, value in small.items():
        assert hasattr(direct, name)
        patch.setattr(direct, name, value)
    patch.setattr(direct, "FORWARD", {per: direct._forward(per) for per in direct.FORWARD})


def _now_or_at_the_launch(work: Callable[[], Any]) -> None:
    captured = strict_cupy._streams()[-1].captured
    work() if captured is None else captured.append(work)


class Library:
    """cuBLAS's names and arguments: C = alpha op(A) op(B) + beta C for each matrix of a batch, all column by column"""

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:  # noqa: N802
        assert (stream.value or 0) == strict_cupy._streams()[-1].ptr
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:  # noqa: N802
        return 0

    def cublasGemmStridedBatchedEx(  # type: ignore[no-untyped-def]  # noqa: N802
        self,
        handle,
        ta,
        tb,
        m,
        n,
        k,
        alpha,
        A,
        At,
        lda,
        a_step,
        B,
        Bt,
        ldb,
        b_step,
        beta,
        C,
        Ct,
        ldc,
        c_step,
        count,
        compute,
        algo,
    ) -> int:
        number = ctypes.c_double if compute == 70 else ctypes.c_float
        assert [ctypes.cast(v, ctypes.POINTER(number)).contents.value for v in (alpha, beta)] == [1, 0]
        assert (At, compute) in ((0, 68), (1, 70), (2, 68)) and At == Bt and Ct in (At, {2: 0}.get(At)) and algo == -1
        assert lda >= (k if ta else m) and ldb >= (n if tb else k) and ldc >= m

        def matrix(pointer: Any, kind: int, line: int, step: int, i: int, rows: int, columns: int) -> np.ndarray:
            """(rows, columns) of the i-th matrix, of which each column begins `line` numbers after the one before"""
            dtype = np.dtype(TYPES[kind])
            cells = (ctypes.c_char * (((columns - 1) * line + rows) * dtype.itemsize)).from_address(
                pointer.value + i * step * dtype.itemsize
            )
            return np.lib.stride_tricks.as_strided(
                np.frombuffer(cells, dtype), (rows, columns), (dtype.itemsize, line * dtype.itemsize)
            )

        def multiply() -> None:
            for i in range(count):
                a = matrix(A, At, lda, a_step.value, i, *((k, m) if ta else (m, k)))
                b = matrix(B, Bt, ldb, b_step.value, i, *((n, k) if tb else (k, n)))
                sums = np.float64 if At == 1 else np.float32
                product = (a.T if ta else a).astype(sums) @ (b.T if tb else b).astype(sums)
                matrix(C, Ct, ldc, c_step.value, i, m, n)[...] = product

        _now_or_at_the_launch(multiply)
        return 0
