"""Ranks that are threads of one process: what several compute together, without MPI."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from minidl.array import Array
from minidl.parallel import Communicator, Sum


class Shared:
    """What the threads share"""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: list[Any] = [None] * size


class ThreadRank(Communicator):
    """One of the threads; `started` holds how many bytes each sum had, in the order in which they began."""

    def __init__(self, rank: int, size: int, shared: Shared) -> None:
        self.rank, self.size, self.shared = rank, size, shared
        self.name = f"rank {rank} of {size}"
        self.started: list[int] = []

    def start_sum(self, a: Array) -> Sum:
        self.started.append(a.nbytes)
        a[...] = np.sum(self.gather(a.copy()), axis=0, dtype=a.dtype)
        return Sum(a)

    def gather(self, value: Any) -> list[Any]:
        self.shared.values[self.rank] = value
        self.shared.barrier.wait()
        found = list(self.shared.values)
        self.shared.barrier.wait()
        return found

    def first(self, f: Callable[..., Any], *args: Any) -> Any:
        value = self.gather(f(*args) if self.rank == 0 else None)[0]
        return value if self.rank == 0 else copy.deepcopy(value)  # as MPI does

    @contextmanager
    def block(self, enter: Callable[..., AbstractContextManager[Any]], *args: Any) -> Iterator[Any]:
        with enter(*args) if self.rank == 0 else nullcontext() as inside:
            self.first(int)
            yield inside


def on_ranks(size: int, f: Callable[[ThreadRank], Any]) -> list[Any]:
    """f(rank) of each, one thread a rank; what one raises is raised here."""
    shared, found, errors = Shared(size), [None] * size, list[BaseException]()

    def work(rank: int) -> None:
        try:
            found[rank] = f(ThreadRank(rank, size, shared))
        except BaseException as error:
            errors.append(error)
            shared.barrier.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    assert not errors, errors
    return found
