"""The bar that long work shows: tqdm's, with a lock that Ctrl-C cannot leave held."""

from __future__ import annotations

import threading
from typing import Any

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[misc]  # which has no types
    """`tqdm` with a lock that is held inside `with` alone, and without a thread of its own.

    tqdm takes its lock by several lines of Python, and gives it back after drawing, come what may in between. A Ctrl-C there
    leaves it held, and every other thread that opens a bar waits for ever.
    """

    monitor_interval = 0

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        with self._lock:
            return super().refresh(nolock=True)

    def clear(self, nolock: bool = False) -> None:
        with self._lock:
            super().clear(nolock=True)


Bar.set_lock(threading.RLock())  # C code: no line of it is half done
