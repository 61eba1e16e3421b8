"""Importing this deletes what Numba compiled before the last edit of any file here.

Numba's cache looks at the file of a function alone: it does not see an edit of what that function calls in another file.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

here = Path(__file__).parent
edited = max(source.stat().st_mtime for source in here.glob("*.py"))
for index in (here / "__pycache__").glob("*.nbi"):
    with suppress(FileNotFoundError):  # another process was quicker
        if index.stat().st_mtime < edited:
            index.unlink()
