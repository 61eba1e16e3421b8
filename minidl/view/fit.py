"""Texts that are no wider than the room they have: measured, shortened, broken into lines. Rooms are in inches."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from minidl.view.names import escaped, is_unseen

DPI = 240  # at which they are measured
SPARE = 1.04  # letters are set on whole dots, so that their widths differ by a little from size to size
NO_WIDTH = "\u200b"
LINE = 1.36 / 72  # the height of a line of text, in inches for each point of its size


def width(text: str, size: float, weight: str = "normal") -> float:
    """Of one line, in inches; size in points."""
    from matplotlib import rcParams

    return _width(text, size, weight, tuple(rcParams["font.family"]))


@lru_cache(1 << 14)
def _width(text: str, size: float, weight: str, families: tuple[str, ...]) -> float:
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=list(families), size=size, weight=weight)
    dots, _, _ = _renderer().get_text_width_height_descent(text, font, False)
    return SPARE * float(dots) / DPI


@lru_cache(1)
def _renderer() -> Any:
    from matplotlib.backends import backend_agg

    make: Any = backend_agg.RendererAgg
    return make(8, 8, DPI)


def fitted(texts: Sequence[str], room: float, size: float, weight: str = "normal") -> list[str]:
    """The texts of one line each, shortened by an ellipsis where they are wider than `room`; what differs stays different.

    As a rule two thirds of what is left are the beginning and one third the end. Where that makes two of them equal, other
    parts are kept; where none tells them apart, a number does, that of the text among those that were given.
    """
    pieces = [_pieces(text) for text in texts]
    different = len(set(texts))
    for end in (1 / 3, 1 / 2, 1, 0, 2 / 3):  # the share of what is left that is the end of the text
        shown = [_shortened(p, room, end, size, weight) for p in pieces]
        if len(set(shown)) == different:
            return shown
    numbers = {text: i for i, text in reversed(list(enumerate(texts, start=1)))}
    usual = [_shortened(p, room, 1 / 3, size, weight) for p in pieces]
    meanings: dict[str, set[str]] = {}
    for text, short in zip(texts, usual, strict=True):
        meanings.setdefault(short, set()).add(text)
    return [
        short if len(meanings[short]) == 1 else _shortened([*f"{numbers[text]}: ", *p], room, 0, size, weight)
        for text, short, p in zip(texts, usual, pieces, strict=True)
    ]


def fitted_one(text: str, room: float, size: float, weight: str = "normal") -> str:
    """A single text of one line, see `fitted`."""
    return fitted([text], room, size, weight)[0]


def fitted_lines(texts: Sequence[str], room: float, size: float, weight: str = "normal") -> list[str]:
    """Texts of several lines each; the first lines stay different among themselves, and so do the second ones, and so on."""
    lines = zip_longest(*(text.split("\n") for text in texts), fillvalue="")
    fit = [fitted(line, room, size, weight) for line in lines]
    return ["\n".join(line).rstrip("\n") for line in zip(*fit, strict=True)] if fit else list(texts)


def wrapped(text: str, room: float, size: float, weight: str = "normal", most: int = 4) -> str:
    """A text in as many lines as it takes, broken between words; of more than `most` lines the last one ends in an ellipsis."""
    lines = list[str]()
    for paragraph in "\n".join("".join(_pieces(line)) for line in str(text).split("\n")).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and width(longer, size, weight) > room:
                lines, line = [*lines, line], word
            else:
                line = longer
        lines.append(line)
    if len(lines) > most:
        lines[most - 1 :] = [f"{' '.join(lines[most - 1 :])} …"]
    return "\n".join(_shortened(_pieces(line), room, 0, size, weight) if i == most - 1 else fitted_one(line, room, size, weight)
                     for i, line in enumerate(lines))  # fmt: skip


def height(text: str, size: float) -> float:
    """Of all lines of a text, in inches; 0 where there is none."""
    return (text.count("\n") + 1) * size * LINE if text else 0.0


def _shortened(pieces: Sequence[str], room: float, end: float, size: float, weight: str) -> str:
    whole = "".join(pieces)
    if width(whole, size, weight) <= room:
        return whole

    def kept(n: int) -> str:
        last = round(n * end)
        return "".join(pieces[: n - last]).rstrip() + "…" + "".join(pieces[len(pieces) - last :]).lstrip()

    fits, too_many = 0, len(pieces)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if width(kept(middle), size, weight) <= room:
            fits = middle
        else:
            too_many = middle
    return kept(fits)


def _pieces(text: str) -> list[str]:
    """What is cut as one: a sign with the accents above it, or all of an escape."""
    pieces = list[str]()
    for c in text:
        shown = shown_as(c)
        if pieces and (unicodedata.combining(c) or c == "\u200d" or pieces[-1].endswith("\u200d")):
            pieces[-1] += shown
        else:
            pieces.append(shown)
    return pieces


def shown_as(c: str) -> str:
    """A sign, or its escape where the font lacks it or nobody sees it."""
    return c if is_drawable(c) and (c == NO_WIDTH or not is_unseen(c)) else escaped(c)


def is_drawable(c: str) -> bool:
    """Whether the font has it: of any other matplotlib draws a box, and warns."""
    from matplotlib import rcParams

    return " " <= c <= "~" or ord(c) in _signs(tuple(rcParams["font.family"]))


@lru_cache
def _signs(families: tuple[str, ...]) -> frozenset[int]:
    """The code points that the fonts of these families have."""
    from matplotlib import font_manager

    paths = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in families]
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
