"""The communicator of several ranks, by MPI.

A rank that waits asks again and again whether it may go on, ever less often, and sleeps in between: its core is free for ranks
that compute, and it notices when another rank has ended and will never come. That one has left a note, see `leave`.
"""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from types import TracebackType
from typing import Any, TypeVar

import mpi4py
import numpy as np

mpi4py.rc.recv_mprobe = False  # as mpi4py.futures wants it where threads share a rank
from mpi4py import MPI  # noqa: E402 - with the import MPI begins
from mpi4py.futures import MPICommExecutor  # noqa: E402

from minidl.arguments import count  # noqa: E402
from minidl.array import Array, array_module  # noqa: E402
from minidl.parallel.communicator import Communicator, Sum  # noqa: E402
from minidl.parallel.nccl import VISIBLE, GPUSums, own_gpu  # noqa: E402
from minidl.parallel.threads import share_of_cores  # noqa: E402

T = TypeVar("T")

EAGER = 50  # how often a rank asks without sleeping
SLEEP = 0.005  # seconds, at most, between two questions
PATIENCE = 0.5  # seconds that other ranks leave rank 0 to tell of an error that all have


_task: Callable[[int], Any]  # of the `map` that goes on: it stays where it is, its numbers travel


def _do(i: int) -> Any:
    """One task; its error ends all at once, which would wait for the others to be done."""
    try:
        return _task(i)
    except Exception:
        sys.excepthook(*sys.exc_info())


class _Pending(Sum):
    """A sum under way"""

    def __init__(self, a: Array, world: World) -> None:
        super().__init__(a)
        self.world = world
        self.request = world.comm.Iallreduce(MPI.IN_PLACE, a, MPI.SUM)

    def go_on(self) -> None:
        self.request.Test()

    def wait(self) -> Array:
        self.world.wait(self.request)
        return self.a


class World(Communicator):
    """All ranks that mpiexec or srun has started. An error that nobody catches ends them all."""

    def __init__(self) -> None:
        self.comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self.comm.Get_rank(), self.comm.Get_size()
        neighbours = self.comm.Split_type(MPI.COMM_TYPE_SHARED)  # the ranks of this machine
        self.threads = share_of_cores(neighbours)
        os.environ[VISIBLE] = own_gpu(neighbours.Get_rank(), os.environ.get(VISIBLE))
        self._gpus: GPUSums | None = None
        self.name = f"rank {self.rank} of {self.size} on {socket.gethostname()}"
        self.waited = 0.0  # seconds
        self._notes = MPI.COMM_WORLD.Dup()
        sys.excepthook = self._uncaught
        atexit.register(self.leave)

    def start_sum(self, a: Array) -> Sum:
        if isinstance(a, np.ndarray):
            return _Pending(a, self)
        if self._gpus is None:
            self._gpus = GPUSums(self, array_module(a))
        return self._gpus.start(a)

    def gather(self, value: T) -> list[T]:
        mine = np.frombuffer(pickle.dumps(value), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        self.wait(self.comm.Iallgather(np.array([len(mine)], np.int64), lengths))
        everything = np.empty(lengths.sum(), np.uint8)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self.wait(self.comm.Iallgatherv(mine, [everything, lengths, starts[:-1], MPI.BYTE]))
        return [pickle.loads(everything[a:b].tobytes()) for a, b in pairwise(starts)]

    def first(self, f: Callable[..., T], *args: Any) -> T:
        mine = self.rank == 0
        value = f(*args) if mine else None
        data = np.frombuffer(pickle.dumps(value), np.uint8) if mine else np.empty(0, np.uint8)
        length = np.array([len(data)], np.int64)
        self.wait(self.comm.Ibcast(length, 0))
        data = data.copy() if mine else np.empty(length[0], np.uint8)
        self.wait(self.comm.Ibcast(data, 0))
        return value if mine else pickle.loads(data.tobytes())  # type: ignore[return-value]

    def in_turn(self, f: Callable[..., T], *args: Any) -> T:
        if self.rank == 0:
            value = f(*args)
            self.first(int)
            return value
        self.first(int)
        return f(*args)

    def map(self, f: Callable[[int], T], n: int) -> list[T]:
        global _task
        _task = f
        found, waiting, todo = dict[int, T](), dict[int, Any](), deque(range(count(n, "n", 0)))
        with MPICommExecutor(self.comm, root=0) as executor:
            while executor is not None and (todo or waiting):
                while todo and len(waiting) < 2 * (self.size - 1):  # one to work at, one to go on with
                    i = todo.popleft()
                    waiting[i] = executor.submit(_do, i)
                if todo:
                    i = todo.popleft()
                    found[i] = _do(i)
                for i, future in list(waiting.items()):
                    if future.done() or not todo:
                        found[i] = future.result()
                        del waiting[i]
        return self.first(lambda: [found[i] for i in range(n)])

    def block(self, enter: Callable[..., AbstractContextManager[Any]], *args: Any) -> AbstractContextManager[Any]:
        @contextmanager
        def inside() -> Iterator[None]:
            if self.rank:
                self.first(int)
                yield
                return
            with enter(*args):
                self.first(int)
                yield

        return inside()

    def say(self, *lines: str) -> None:
        if self.rank == 0:
            super().say(*lines)

    def wait(self, request: Any) -> None:
        """Until the request is done. Raises RuntimeError where another rank has ended instead."""
        began, asked = time.perf_counter(), 0
        while not request.Test():
            asked += 1
            so_far = time.perf_counter() - began
            time.sleep(0 if asked < EAGER else min(so_far / 20, SLEEP))
            if asked > EAGER and self._notes.Iprobe(MPI.ANY_SOURCE):
                self._missing(request)
        self.waited += time.perf_counter() - began

    def _missing(self, request: Any) -> None:
        """Another rank has left; what it had to say here may have come before its note."""
        time.sleep(SLEEP)
        status = MPI.Status()
        if not request.Test() and self._notes.Iprobe(MPI.ANY_SOURCE, status=status):
            raise RuntimeError(f"rank {status.source} of {self.size} has ended, and rank {self.rank} waits for it")

    def leave(self) -> None:
        """At the end of the process: leave the others a note, and wait for theirs."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        sent = [self._notes.Isend(np.zeros(0, np.uint8), rank) for rank in others]
        for rank in others:
            received = self._notes.Irecv(np.empty(0, np.uint8), rank)
            while not received.Test():
                time.sleep(SLEEP)
        for request in sent:
            request.Wait()

    def end(self, code: int, told: str = "") -> None:
        sys.stdout.flush()
        time.sleep(PATIENCE * (self.rank > 0))
        super().end(code, told and f"{self.name}: {told}")
        self.comm.Abort(code)

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self.end(1, "".join(traceback.format_exception(kind, error, trace)))
