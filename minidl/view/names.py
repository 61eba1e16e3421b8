"""Names of classes, files and layers as they are shown: sign by sign, whatever they mean to others."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

JOINERS = "\u200c\u200d"  # invisible, but part of how Persian, Hindi and emoji are written


def literal(name: str, room: int = 40, drawable: Callable[[str], bool] = lambda c: True) -> str:
    """The name in one line of at most `room` characters, its middle left out where it is longer.

    What cannot be seen is written as Python does: `\\n` is a line break, `\\xe9` a byte that is no UTF-8, as in the name of a
    file, `\\u202e` a mark that turns the direction of what follows; and so is a character that is not `drawable`.
    """
    text = "".join(c if drawable(c) and not is_unseen(c) else escaped(c) for c in str(name))
    if len(text) <= room:
        return text
    end = (room - 1) // 3
    return f"{text[: room - 1 - end]}…{text[len(text) - end :]}"


def escaped(c: str) -> str:
    """A character as Python writes it; one that stands for a byte that is no UTF-8, as that byte."""
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode()


def is_unseen(c: str) -> bool:
    """Controls, surrogates, format characters, ends of lines and of paragraphs"""
    return unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp") and c not in JOINERS
