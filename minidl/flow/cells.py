"""The arithmetic of a single cell: the numbers that enter an op on the way back, its formula, and the sum that leaves.

The gradient of one cell k of an op's input is a sum over the cells m of the output that saw it,

    gx[k] = sum_m J[m,k] gy[m],        J[m,k] = dy[m] / dx[k]

For a convolution the J[m,k] are weights, and as m runs over the window the kernel is read backwards: it is flipped. For a relu
there is one term, with the gate 1 or 0 in front; for a max pooling those of the windows that the cell has won.

The strongest path of a pixel starts there and goes on to the cell m of the largest |J[m,k] gy[m]|, op by op up to the score:
each sum on it is one of the numbers that enter the next one below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.array import Array, to_cpu
from minidl.core import Add, Op, Tensor
from minidl.flow.backward_pass import BackwardPass, Wire
from minidl.flow.pixel import Index, gates, one_hot, place
from minidl.kernels.shapes import conv_size
from minidl.ops.conv import Conv2d
from minidl.ops.linear import Linear
from minidl.ops.norm import BatchNormFrozen
from minidl.ops.pool import MaxPool2d


@dataclass(frozen=True)
class Cell:
    """gx[index] = sum_m factor[m] gy[at[m]], of the input that `wire` carries into its op.

    at: (M, ndim) cells of the output; factor, gy: (M,), the numbers of the sum. value: the sum; engine: what the engine's
    backward has there, the same within rounding. arrived: the gradient of the cell, summed over all uses of the tensor
    (`others` are the parts that came back from other uses). note: what decided the factors, in words.
    """

    wire: Wire
    index: Index
    at: Array
    factor: Array
    gy: Array
    engine: float
    others: dict[Wire, float]
    note: str

    @property
    def op(self) -> Op:
        """The op whose input this is a cell of."""
        assert self.wire.to is not None
        return self.wire.to

    @property
    def products(self) -> Array:
        """factor gy, (M,): the terms of the sum."""
        return self.factor * self.gy

    @property
    def value(self) -> float:
        """sum_m factor[m] gy[m]"""
        return float(self.products.sum())

    @property
    def arrived(self) -> float:
        """The gradient of the cell: what came back here, and from all other uses of the tensor."""
        return self.engine + sum(self.others.values())

    def largest(self, count: int) -> list[int]:
        """Which terms are the largest, at most `count`, largest first; none that is 0."""
        products = self.products
        return [int(m) for m in np.argsort(-abs(products), kind="stable")[:count] if products[m] != 0]

    def leads_to(self, backward_pass: BackwardPass) -> tuple[Tensor, Index] | None:
        """The cell of the output, of any shape, with the largest term: the strongest path goes on there. None if all are 0."""
        strongest = self.largest(1)
        return (backward_pass.outputs[self.op], tuple(int(i) for i in self.at[strongest[0]])) if strongest else None

    def window(self) -> Window | None:
        """The same sum filter by filter, where the op is a convolution; else None."""
        if type(self.op) is not Conv2d or self.wire.input != 0 or len(self.at) == 0:
            return None
        of_filter = self.at[:, 1]
        rows, columns = (list(dict.fromkeys(self.at[of_filter == of_filter[0], axis].tolist())) for axis in (2, 3))
        gy, kernel, products = (a.reshape(-1, len(rows), len(columns)) for a in (self.gy, self.factor, self.products))
        sums = products.sum((1, 2))
        filters = of_filter.reshape(len(sums), -1)[:, 0].tolist()
        best = filters.index(of_filter[abs(self.products).argmax()])
        order = np.argsort(-abs(sums), kind="stable").tolist()
        by_size = {filters[f]: float(sums[f]) for f in order}
        return Window(filters[best], rows, columns, gy[best], kernel[best], products[best], by_size)


@dataclass(frozen=True)
class Window:
    """The sum of a convolution.

    filter: the one with the largest product. rows, columns: of its output, where the cell was seen. gy, kernel, products:
    (rows, columns), the kernel turned around. sums: of each filter the sum of its products, the largest first.
    """

    filter: int
    rows: list[int]
    columns: list[int]
    gy: Array
    kernel: Array
    products: Array
    sums: dict[int, float]


def strongest_path(backward_pass: BackwardPass, x: Tensor, index: Index) -> list[Cell]:
    """The cells from x[index] up to the score, or to where nothing comes back; the pixel's first.

    x is of any shape, index one integer of each axis, from 0. Of several uses of a tensor, the path takes that from which most
    came back. Raises ValueError where x has no such element, TypeError for an index of no integers, ValueError also where the
    score does not depend on x.
    """
    index = place(x, index)
    backward_pass.check(x)
    path: list[Cell] = []
    at: tuple[Tensor, Index] | None = x, index
    while at is not None and at[0].op is not backward_pass.y.op:
        path.append(strongest_cell(backward_pass, *at))
        at = path[-1].leads_to(backward_pass)
    return path


def strongest_cell(backward_pass: BackwardPass, x: Tensor, index: Index) -> Cell:
    """The sum of the use of x from which most came back to x[index], of any shape."""
    parts = {wire: float(backward_pass.gx[wire][index]) for wire in backward_pass.uses[x]}
    wire = max(parts, key=lambda w: abs(parts[w]))
    return arithmetic(backward_pass, wire, index, {w: part for w, part in parts.items() if w is not wire})


def arithmetic(backward_pass: BackwardPass, wire: Wire, index: Index, others: dict[Wire, float] | None = None) -> Cell:
    """The sum that is the gradient of one cell of one use of a tensor, as a `Cell`.

    index: of the cell, one integer of each axis, from 0. Raises ValueError where the tensor has no such element, TypeError for
    an index of no integers.
    """
    op = wire.to
    assert op is not None
    index = place(wire.source, index)
    at, factor, note = COLUMNS.get(type(op), _any_column)(op, wire, index)
    came = np.atleast_1d(to_cpu(backward_pass.gy_of[op])[tuple(at.T)]).astype("float64")
    return Cell(wire, index, at, factor, came, float(backward_pass.gx[wire][index]), others or {}, note)


# ---- a column of J: the cells m that saw cell k, and J[m,k] of each

Column = tuple[Array, Array, str]  # at (M, ndim), factor (M,) float64, note


def _any_column(op: Op, wire: Wire, index: Index) -> Column:
    """J e_k, pushed: whatever is not 0 there, or what the gate of the cell makes of it."""
    ty = to_cpu(op.push(*(one_hot(wire.source, index) if i == wire.input else None for i in range(len(op.inputs)))))
    at, note, gate = np.argwhere(ty), "", gates(op, wire.source.shape)
    if gate is not None:
        x, opened = float(wire.source.data[index]), bool(gate[index])
        at, note = np.array([index], np.int64), f"x = {x:.4g}: the gate is {'open' if opened else 'closed'}"
    return at, np.atleast_1d(ty[tuple(at.T)]).astype("float64"), note


def _conv(op: Conv2d, wire: Wire, index: Index) -> Column:
    """J[f,i',j'; c,i,j] = w[f,c,u,v] where i' s + u d - p = i, and j' likewise; f of c's group"""
    if wire.input != 0:
        return _any_column(op, wire, index)
    n, c, i, j = index
    F, per_group = op.w.shape[0] // op.groups, op.w.shape[1]
    geometry = zip((i, j), op.x.shape[2:], op.w.shape[2:], op.stride, op.padding, op.dilation, strict=True)
    rows, columns = (
        [(u, q // s) for u in reversed(range(k)) if (q := at + p - u * d) % s == 0 and 0 <= q // s < conv_size(H, k, s, p, d)]
        for at, H, k, s, p, d in geometry
    )
    filters = range(c // per_group * F, (c // per_group + 1) * F)
    w = to_cpu(op.w)
    cells = [((n, f, y, z), w[f, c % per_group, u, v]) for f in filters for u, y in rows for v, z in columns]
    at = np.array([place for place, _ in cells], np.int64).reshape(-1, 4)
    return at, np.array([weight for _, weight in cells], np.float64), ""


def _max_pool(op: MaxPool2d, wire: Wire, index: Index) -> Column:
    """J = 1 where the cell is the maximum of the window, else 0"""
    n, c, i, j = index
    rows, columns = (
        [q // s for u in reversed(range(k)) if (q := at + p - u) % s == 0 and 0 <= q // s < out]
        for at, k, s, p, out in zip((i, j), op.kernel_size, op.stride, op.padding, op.argmax.shape[2:], strict=True)
    )
    at = np.array([(n, c, y, z) for y in rows for z in columns], np.int64).reshape(-1, 4)
    won_row, won_column = (to_cpu(a)[tuple(at.T)] for a in np.broadcast_arrays(*map(to_cpu, op.indices())))
    factor = ((won_row == i) & (won_column == j)).astype(np.float64)
    return at, factor, f"the cell wins {int(factor.sum())} of the {len(at)} windows that see it"


def _batch_norm(op: BatchNormFrozen, wire: Wire, index: Index) -> Column:
    c = index[1]
    gamma, var = float(op.inputs[1].data[c]), float(op.var[c])  # type: ignore[union-attr]
    note = f"scale = gamma / sqrt(var + eps) = {gamma:.4g} / sqrt({var:.4g} + {op.eps:g})"
    return np.array([index]), np.array([float(op.scale[c])]), note


def _linear(op: Linear, wire: Wire, index: Index) -> Column:
    """J[o; i] = w[o,i]"""
    if wire.input != 0:
        return _any_column(op, wire, index)
    n, i = index
    at = np.array([(n, o) for o in range(len(op.w))])
    return at, to_cpu(op.w[:, i]).astype("float64"), ""


def _add(op: Add, wire: Wire, index: Index) -> Column:
    if wire.source.shape != op.inputs[1 - wire.input].shape:  # type: ignore[union-attr]
        return _any_column(op, wire, index)  # one of them is repeated
    return np.array([index]), np.ones(1), ""


COLUMNS: dict[type[Op], Any] = {
    Conv2d: _conv,
    MaxPool2d: _max_pool,
    BatchNormFrozen: _batch_norm,
    Linear: _linear,
    Add: _add,
}
