"""Files that are either the old ones or the new ones, whatever happens while they are written."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Iterable

from minidl.io.lock import is_alive

Path = str | os.PathLike[str]  # of a file or a folder


def write(path: Path, content: str | bytes) -> None:
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


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that a killed process left in `folder` while it wrote one of `names`; no others."""
    ours = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.([0-9]+)\.tmp")
    for path in pathlib.Path(folder).iterdir():
        found = ours.fullmatch(path.name)
        if found and path.is_file() and not path.is_symlink():
            pid = int(found[2][:20])  # one with more digits is none
            if pid == os.getpid() or not is_alive(pid):  # a pid comes again, in a container at every start
                path.unlink(missing_ok=True)
