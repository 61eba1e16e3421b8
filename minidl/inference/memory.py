"""Running out of memory, told so that it helps: how large the batch was, what was held, and what to do."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MIB = 2**20


class BatchMemoryError(MemoryError):
    """A batch that does not fit into memory."""


@contextmanager
def batch_in_memory(batch_size: int) -> Iterator[None]:
    """Inside, a MemoryError (of NumPy, or CuPy on the GPU) becomes a `BatchMemoryError` that says what would fit.

    All that the computation holds on to is let go of, and CuPy's pool gives its memory back to the GPU: the next, smaller batch
    can have it.
    """
    try:
        yield
    except BatchMemoryError:
        raise
    except MemoryError as error:
        message = _message(batch_size, error)
        traceback.clear_frames(error.__traceback__)  # which hold the activations
        if pool := _pool(error):
            pool.free_all_blocks()
        raise BatchMemoryError(message) from error


def _message(batch_size: int, error: MemoryError) -> str:
    pool, where, held = _pool(error), "in memory", ""
    if pool:
        free, total = sys.modules["cupy"].cuda.runtime.memGetInfo()
        where = "on the GPU"
        held = (
            f" CuPy's pool held {pool.total_bytes() / MIB:,.0f} MiB, of which {pool.used_bytes() / MIB:,.0f} were in use; "
            f"{free / MIB:,.0f} of the GPU's {total / MIB:,.0f} MiB were free."
        )
    smaller = f"Take a smaller batch_size, such as {batch_size // 2}" if batch_size > 1 else "Take smaller images"
    cause = " ".join([str(error).rstrip(".") or "no more memory", *getattr(error, "__notes__", [])[:1]])
    return f"a batch of {batch_size} does not fit {where}: {cause}.{held} {smaller}"


def _pool(error: MemoryError) -> Any:
    """CuPy's memory pool if it was CuPy that found no memory, else None."""
    cupy: Any = sys.modules.get("cupy")
    return cupy.get_default_memory_pool() if cupy and isinstance(error, cupy.cuda.memory.OutOfMemoryError) else None
