"""What a notebook shows of a result: HTML for its `_repr_html_`, in which every text is what it says. IPython is not needed."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

TEXT, NUMBER = "text-align:left;padding:2px 8px", "text-align:right;padding:2px 8px"
MOST = 200  # rows of a table that are shown


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1, foot: Sequence[str] = ()) -> str:
    """A table whose first `text` columns are text, and the others numbers; of a long one the first and the last rows."""
    rows, omitted = list(rows), 0
    if len(rows) > MOST:
        omitted = len(rows) - MOST
        rows = [*rows[: MOST // 2], (f"… {omitted:,} rows …",), *rows[-(MOST - MOST // 2) :]]
    body = "".join(_row("td", row, text) for row in rows)
    below = f"<tfoot>{_row('th', foot, text)}</tfoot>" if foot else ""
    return f"<table><thead>{_row('th', head, text)}</thead><tbody>{body}</tbody>{below}</table>"


def number(value: float) -> str:
    """In four digits; only what is 0 or 1 is written so, for no share is rounded to none or to all."""
    short = f"{value:,.0f}" if 10_000 <= abs(value) < 1e15 else f"{value:.4g}"
    return repr(float(value)) if float(value) not in (0, 1, -1) and short in ("0", "1", "-1") else short


def image(png: bytes, about: str, width: int) -> str:
    """A picture of so many pixels across at most, and what it shows, for those who cannot see it."""
    style = f"width:{width}px;max-width:100%"
    return f'<img alt="{escape(about)}" style="{style}" src="data:image/png;base64,{b64encode(png).decode()}">'


def frame(page: str, height: int, about: str) -> str:
    """A whole page of HTML in a frame, whose scripts reach nothing of the notebook around it"""
    style = f"width:100%;height:{height}px;border:1px solid #ccc"
    return f'<iframe title="{escape(about)}" sandbox="allow-scripts" style="{style}" srcdoc="{escape(page)}"></iframe>'


def _row(tag: str, cells: Sequence[str], text: int) -> str:
    styled = (f'<{tag} style="{TEXT if i < text else NUMBER}">{escape(cell)}</{tag}>' for i, cell in enumerate(cells))
    return f"<tr>{''.join(styled)}</tr>"
