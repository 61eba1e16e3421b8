"""The bar that long work shows: tqdm's, with a lock that Ctrl-C cannot leave held."""

from __future__ import annotations

import re
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tqdm import tqdm


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook: IPython is there, and runs as one."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config


def _kind() -> type:
    """The bar of a notebook where widgets can draw it, else that of a terminal."""
    if not in_notebook() or find_spec("ipywidgets") is None:
        return tqdm
    from tqdm.notebook import tqdm_notebook

    return tqdm_notebook


class Bar(tqdm if TYPE_CHECKING else _kind()):  # type: ignore[misc]  # which has no types
    """`tqdm` with a lock that is held inside `with` alone, and without a thread of its own.

    tqdm takes its lock by several lines of Python, and gives it back after drawing, come what may in between. A Ctrl-C there
    leaves it held, and every other thread that opens a bar waits for ever.

    disable=None shows the bar where it is seen: in a terminal, and in a notebook, whose stderr is no terminal.
    """

    monitor_interval = 0

    def __init__(self, *args: Any, disable: bool | None = False, **kwargs: Any) -> None:
        if _kind() is not tqdm and (drawn := kwargs.get("bar_format")):
            kwargs["bar_format"] = re.sub(r"\{bar:\d+\}", "{bar}", drawn)  # the widget, in place of a bar of letters
        super().__init__(*args, disable=False if disable is None and in_notebook() else disable, **kwargs)

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        with self._lock:
            return super().refresh(nolock=True)

    def clear(self, nolock: bool = False, **kwargs: Any) -> None:
        with self._lock:
            super().clear(nolock=True, **kwargs)


Bar.set_lock(threading.RLock())  # C code: no line of it is half done
