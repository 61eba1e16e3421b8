"""The text of the kernels that this process runs, as one number.

What is compiled of a function holds what the function calls, wherever that is written: it can only be used again by a process
that runs the same text in all files of the kernels.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

HERE = Path(__file__).parent


def version() -> str | None:
    """SHA-256 of the files' names and contents.

    None where they cannot be read, and for good once one was edited after this process began: the old text may run, or the new.
    """
    global _version
    try:
        if any(_state(path) != state for path, state in _states.items()):
            _version = None
    except OSError:
        _version = None
    return _version


def _paths() -> list[str]:
    """The modules in this folder and below; where it lies in an archive, the archive."""
    names = (
        os.path.join(folder, name)
        for folder, _, files in os.walk(HERE)
        if os.path.basename(folder) != "__pycache__"
        for name in files
        if name.endswith((".py", ".pyc")) and not name.startswith(".")  # which editors leave
    )
    return sorted(names) or [str(path) for path in HERE.parents if path.is_file()]


def _state(path: str) -> tuple[int, ...]:
    """What an edit changes: enough to see one within the life of a process, but not to know a text again"""
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _read() -> tuple[str | None, dict[str, tuple[int, ...]]]:
    total, states = hashlib.sha256(), dict[str, tuple[int, ...]]()
    try:
        for path in _paths():
            states[path] = _state(path)  # first: of an edit while it is read, one of the two tells
            with open(path, "rb") as file:
                content = file.read()
            total.update(f"{os.path.relpath(path, HERE)} {len(content)}\n".encode())
            total.update(content)
    except OSError:
        states.clear()
    return (total.hexdigest() if states else None), states


_version, _states = _read()
