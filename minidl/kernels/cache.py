"""What Numba keeps of compiled kernels on disk, made sure to be of the files as they are.

Numba looks at the file of a function alone: it does not see an edit of what that function calls in another file.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def delete_if_stale(here: Path) -> None:
    """Delete what was compiled in the folder `here` before the last edit of any file there, or of those in the folder above."""
    edited = max(source.stat().st_mtime for folder in (here, here.parent) for source in folder.glob("*.py"))
    for index in (here / "__pycache__").glob("*.nbi"):
        with suppress(FileNotFoundError):  # another process was quicker
            if index.stat().st_mtime < edited:
                index.unlink()
