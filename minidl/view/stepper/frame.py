"""A page of HTML inside a notebook, as the stepper writes it."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from minidl import notebook
from minidl.arguments import count
from minidl.io.files import Path


@dataclass(frozen=True, repr=False)
class Frame:
    """A page of HTML, which a notebook shows in a frame of `height` pixels; it stays there when the file is gone."""

    page: str
    height: int
    name: str  # of the file

    def _repr_html_(self) -> str:
        return notebook.frame(self.page, self.height, self.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name}, {len(self.page):,} characters, {self.height} pixels high>"


def frame(path: Path, height: int = 800) -> Frame:
    """The page of HTML at `path`, to be shown in a notebook, as the last line of a cell: frame(stepper(model, x)).

    Raises OSError where there is no such file, TypeError or ValueError for a height that is no integer of at least 1.
    """
    path = pathlib.Path(path)
    return Frame(path.read_text(encoding="utf-8"), count(height, "height"), path.name)
