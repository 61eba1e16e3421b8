"""Work done ahead of time, in threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(f: Callable[[A], B], arguments: Iterable[A], depth: int, threads: int = 1) -> Generator[B]:
    """map(f, arguments) that computes up to `depth` results ahead, in threads of its own.

    What f raises is raised here, with its traceback. However the generator ends (exhausted, closed, collected, by
    Ctrl-C), work that has not begun is dropped and the threads are over when the generator is.
    """
    if depth == 0:
        yield from map(f, arguments)
        return
    rest = iter(arguments)
    worker = ThreadPoolExecutor(threads, thread_name_prefix="minidl-loader")
    try:
        waiting: deque[Future[B]] = deque(worker.submit(f, argument) for argument in islice(rest, depth))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(worker.submit(f, argument) for argument in islice(rest, 1))
            yield result
    except RuntimeError as error:  # of a lock of Python's own, where Ctrl-C comes in the midst of a wait
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise
    finally:
        with suppress(RuntimeError):  # a thread cannot wait for itself, should the garbage collector run this in it
            worker.shutdown(wait=True, cancel_futures=True)
