"""The arithmetic of a cell as text, for a terminal."""

from __future__ import annotations

from minidl.analysis.facts import formulas
from minidl.array import Array
from minidl.core import Tensor
from minidl.flow.cells import Cell, Window

TERMS = 5  # of a sum that are written one by one


def cell_text(cell: Cell) -> str:
    """The formula of the op, the numbers that enter, and the sum that leaves, on a few lines."""
    head = f"{type(cell.op).__name__}: {formulas(cell.op).backward}"
    window = cell.window()
    lines = _window(window) if window is not None and len(cell.at) > 1 else _terms(cell)
    lines += [cell.note] if cell.note else []
    place = f"{_name(cell.wire.source)}{list(cell.index)}"
    lines.append(f"gradient of {place} = {cell.value:+.6g}, the engine's {cell.engine:+.6g}")
    if cell.others:
        parts = [f"{v:+.6g} by {type(wire.to).__name__}" for wire, v in cell.others.items()]
        lines.append(f"with what its other uses send back: {cell.engine:+.6g} {' '.join(parts)} = {cell.arrived:+.6g}")
    return "\n  ".join([head, *lines])


def _terms(cell: Cell) -> list[str]:
    """factor x gy = product, line by line"""
    products, order = cell.products, cell.largest(TERMS)
    places = [str(cell.at[m].tolist()) for m in order]
    width = max(map(len, places), default=0)
    lines = [
        f"{cell.factor[m]:+10.4g} x gy{place:{width}} {cell.gy[m]:+10.4g} = {products[m]:+10.4g}"
        for m, place in zip(order, places, strict=True)
    ]
    if rest := len(products) - len(order):
        lines.append(f"and {rest:,} more, which add {products.sum() - products[order].sum():+.4g}")
    return lines


def _window(window: Window) -> list[str]:
    """gy x kernel = products of one filter side by side, then what every filter adds"""
    rows, columns = (", ".join(map(str, places)) for places in (window.rows, window.columns))
    grids = _grid("gy", window.gy), _grid("kernel, turned", window.kernel), _grid("products", window.products)
    lines = [f"filter {window.filter}, rows {rows}, columns {columns} of the output:"]
    signs = [" ", " "], *(["x", "="] if i == 0 else [" ", " "] for i in range(len(window.rows)))
    lines += [f"{a}  {x} {b}  {e} {c}" for (x, e), a, b, c in zip(signs, *grids, strict=True)]
    shown = list(window.sums.items())[:TERMS]
    line = "filters: " + ", ".join(f"{f}: {v:+.4g}" for f, v in shown)
    if len(window.sums) > len(shown):
        line += f", {len(window.sums) - len(shown)} others: {sum(list(window.sums.values())[TERMS:]):+.4g}"
    return [*lines, line]


def _grid(name: str, a: Array) -> list[str]:
    lines = ["".join(f"{v:+10.3g}" for v in row) for row in a]
    return [name.rjust(len(lines[0])), *lines]


def _name(x: Tensor) -> str:
    return x.name or ("the input" if x.op is None else f"the {type(x.op).__name__}")
