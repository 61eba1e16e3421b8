"""Files that are either the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import os
import pathlib


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to a temporary file beside `path`, then put it in the place of `path` in one step.

    Raises OSError where that fails, on a full disk for instance; `path` then is as it was, and nothing is left beside it.
    """
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
