"""What messages say of things that come from files: a name, a kind, a list, none of them longer than a line or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Note:
    """What stands in the place of a value that is not read: `what` it was, and for a tensor, what to do `instead`.

    Two notes are never equal, so that a dictionary may have any number of them as names.
    """

    what: str
    instead: str = ""

    def __repr__(self) -> str:
        return f"<{cut(self.what, 120)}, not read>"


def kind(value: object) -> str:
    """What a value is: the name of its type, for a note what stood there."""
    return repr(value) if isinstance(value, Note) else type(value).__name__


def short(name: object) -> str:
    """A name in quotes, cut after 80 characters; the kind of whatever is no name."""
    return cut(repr(name[:81]), 80) if isinstance(name, str) else kind(name)


def cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[:most] + "..."


def some(items: Sequence[str], most: int = 10, between: str = ", ") -> str:
    """The first of the items, and how many more there are."""
    more = f"{between}and {len(items) - most:,} more" if len(items) > most else ""
    return between.join(items[:most]) + more
