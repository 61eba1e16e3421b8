"""The rows of a training, as `fit` returns them."""

from __future__ import annotations

from typing import Any

from minidl import notebook


class History(list[dict[str, Any]]):
    """A row for each epoch, a dictionary as in metrics.jsonl. A notebook shows them as a table."""

    def _repr_html_(self) -> str:
        names = list(dict.fromkeys(name for row in self for name in row))
        rows = [[_shown(row[name]) if name in row else "" for name in names] for row in self]
        return notebook.table([name.replace("_", " ") for name in names], rows, text=0)


def _shown(value: Any) -> str:
    return notebook.number(value) if isinstance(value, float) else str(value)
