"""In the place of a GPU under the CUDA kernels: Numba's simulator, NumPy for cuBLAS, and the arrays of the stand-in for CuPy.

For processes with NUMBA_ENABLE_CUDASIM=1. While the stand-in's stream captures a graph, both are written down and done at each
launch of the graph.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numba import cuda as numba_cuda
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.cuda.simulator.kernelapi import Dim3

from minidl import kernels
from minidl.kernels import cublas, cuda
from minidl.kernels.cuda import direct, direct_loops, launch
from tests.gpu import strict_cupy

TYPES = {0: np.float32, 1: np.float64, 2: np.float16}  # of library_types.h


def take_place(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simulator, "swapped_cuda_module", simulated_cuda)
    patch.setattr(simulator, "BlockManager", Block)
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


@contextmanager
def simulated_cuda(function: Any, simulated: Any) -> Iterator[None]:
    """From the start of a kernel to its end `cuda` is the simulated module, in every file of the kernels.

    The simulator that Numba itself has swaps it for each call of a device function in each thread of a block, and back at the
    end of that call, while other threads still compute with it.
    """
    swapped = list[dict[str, Any]]()
    if function.__globals__.get("cuda") is numba_cuda:  # else this is a device function, inside a kernel
        files = (vars(file) for name, file in list(sys.modules.items()) if name.startswith("minidl.kernels.cuda."))
        swapped += [file for file in files if file.get("cuda") is numba_cuda]
    for file in swapped:
        file["cuda"] = simulated
    try:
        yield
    finally:
        for file in swapped:
            file["cuda"] = numba_cuda


IDLE = list[Any]()  # lanes of earlier blocks


class Block:
    """The threads of a block, one after the other: each computes until it waits for the others, or ends.

    So a run is always the same, and nobody asks all the time who waits, as the simulator's own BlockManager does.
    """

    def __init__(self, function: Any, grid: tuple[int, ...], block: tuple[int, ...], debug: bool) -> None:
        self.function, self._grid_dim, self._block_dim = function, grid, block
        self.error: BaseException | None = None

    def run(self, place: tuple[int, ...], *args: Any) -> None:
        self.place, self.args, self.indices = Dim3(*place), args, list(np.ndindex(*self._block_dim))[::-1]
        waiting = list[Lane]()
        while self.indices:  # each lane goes on with the next thread until one waits
            waiting += _those_that_wait([IDLE.pop() if IDLE else Lane()], self)
        while waiting:
            waiting = _those_that_wait(waiting, self)
        if self.error is not None:
            raise self.error


class Lane(threading.Thread):
    """Computes what threads of a block do; `cuda.threadIdx` and `cuda.syncthreads` ask the current thread for these names."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.turn, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        while True:
            self.turn.acquire()
            block, self.waits = self.block, False
            while block.indices:
                self.blockIdx, self.threadIdx = block.place, Dim3(*block.indices.pop())
                try:
                    block.function(*block.args)
                except BaseException as error:
                    error.add_note(f"in thread {list(self.threadIdx)} of block {list(block.place)}")
                    block.error, block.indices = block.error or error, []
            self.waits = False
            self.back.release()

    def syncthreads(self) -> None:
        self.waits = True
        self.back.release()
        self.turn.acquire()
        if self.block.error is not None:
            raise SystemExit


def _those_that_wait(lanes: list[Lane], block: Block) -> list[Lane]:
    """After each has had its turn"""
    for lane in lanes:
        lane.block = block
        lane.turn.release()
        lane.back.acquire()
    IDLE.extend(lane for lane in lanes if not lane.waits)
    return [lane for lane in lanes if lane.waits]


def small_direct(patch: pytest.MonkeyPatch) -> None:
    """Blocks of a few threads for the 3x3 convolutions, which on a GPU have as many as their tiles have places"""
    small = {"ROWS": 2, "LANES": 8, "THREADS": 16, "CHANNELS": 2, "PLACES": 4, "PLANE": 64}
    small |= {"WARP": 2, "WARPS": 2, "PIXELS": 8, "FS": 2, "F_LANES": 1, "C_LANES": 2, "F_TILE": 2, "GY_PLANE": 17}
    small |= {"GY_TURNS": 8, "X_TURNS": 28, "X_PLANE": 57, "SHARED": 148, "TURNS": 2, "SUMS": 4}
    for name, value in small.items():
        assert hasattr(direct_loops, name)
        patch.setattr(direct_loops, name, value)
    patch.setattr(direct_loops, "FORWARD", {per: direct_loops._forward(per) for per in direct_loops.FORWARD})
    patch.setattr(direct, "PIECES", 12)


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
