"""What the stepper shows of every node, taken from one backward pass for each rule and one forward push for each picked pixel.

Nodes are numbered as the walk meets them: 0 is the score, the last one the image. Arrays are reduced at once to what can be
drawn: (M,H,W) maps, or for vectors their strongest units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.array import Array, dot, to_cpu
from minidl.core import Op, Step, Tensor, pushes, walk
from minidl.flow.backward_pass import BackwardPass
from minidl.flow.cells import Cell, strongest_path
from minidl.flow.ledger import Line, ledger
from minidl.flow.pixel import Index, PixelFlow, PushStep, collect, one_hot, stopped
from minidl.flow.relu_rules import deconvnet, guided

RULES: dict[str, Callable[[Step], None]] = {"guided": guided, "deconvnet": deconvnet}  # besides the gradient itself
CHANNELS = 8  # single channels that are shown of each node
UNITS = 24  # of a vector

Maps = Array  # (M,H,W)


@dataclass
class Node:
    """One node.

    op: what made it, None at the image. gates: the share that is open, None without gates. channels: those that count most
    for the score, by |sum a g|; units: the same of a vector. Maps have one over all channels first, then these channels:
    activation (mean), gradient by rule (mean), and their product by rule (sum, so that it adds up to <a, g>). Of a vector they
    are (units,). reach, counts, stops: by picked pixel sum |t|, sum t g, and sum |t| that goes no further, all (H,W), or
    (units,) of a vector; empty where the pixel has no way here.
    """

    op: Op | None
    tensor: Tensor
    gates: float | None
    channels: list[int]
    units: list[int]
    activation: Maps
    gradient: dict[str, Maps] = field(default_factory=dict)
    product: dict[str, Maps] = field(default_factory=dict)
    norm: dict[str, float] = field(default_factory=dict)
    score: dict[str, float] = field(default_factory=dict)  # <a, g>
    reach: dict[int, Array] = field(default_factory=dict)
    counts: dict[int, Array] = field(default_factory=dict)
    stops: dict[int, Array] = field(default_factory=dict)
    cells: dict[int, Cell] = field(default_factory=dict)


@dataclass
class Graph:
    """All of it. row: the number of each op's node, of the image under None."""

    backward_pass: BackwardPass
    nodes: list[Node]
    row: Mapping[Op | None, int]
    lines: list[Line]
    flows: list[PixelFlow]


def look(y: Tensor, x: Tensor, picks: Sequence[Index]) -> Graph:
    """Walk from the score y () back to the image x (1,C,H,W) by every rule, and push each picked pixel forward.

    Raises ValueError where y does not depend on x, or a parameter requires a gradient.
    """
    backward_pass = BackwardPass(y)
    tensors = [backward_pass.outputs[op] for op in backward_pass.ops] + [x]
    nodes = [_shown(tensor, to_cpu(backward_pass.gradient(tensor))) for tensor in tensors]
    row = {node.op: i for i, node in enumerate(nodes)}
    for node in nodes:
        _add_gradient(node, "gradient", backward_pass.gradient(node.tensor))
    for name, rule in RULES.items():
        leaves: dict[Tensor, Array] = {}
        for step in walk(y, leaves=leaves, apart=False):
            rule(step)
            _add_gradient(nodes[row[step.op]], name, step.gy)
        _add_gradient(nodes[-1], name, leaves[x])
    flows = []
    for number, index in enumerate(picks):
        e = one_hot(x, index)
        _add_tangent(nodes[-1], number, e, backward_pass.gradient(x))
        steps = (_noted(nodes[row[step[0]]], number, step, backward_pass) for step in pushes(y, {x: e}))
        flows.append(collect(backward_pass, x, index, steps))
        for cell in strongest_path(backward_pass, x, index):
            nodes[row[cell.op]].cells[number] = cell
    return Graph(backward_pass, nodes, row, ledger(backward_pass), flows)


def strongest_pixels(g: Array, count: int, taken: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """(row, column) of `count` pixels where max |g| (C,H,W) over the channels is largest, apart from each other and `taken`."""
    size = np.abs(g).max(0)
    H, W = size.shape
    apart = max(H, W) / 10
    found = list(taken)
    for k in np.argsort(-size, axis=None, kind="stable"):
        i, j = divmod(int(k), W)
        if len(found) == len(taken) + count:
            break
        if all(np.hypot(i - y, j - x) > apart for y, x in found):
            found.append((i, j))
    return found[len(taken) :]


def _channels(a: Array) -> Any:
    """(1,C,H,W) -> (C,H,W), and so on; None of what is no image."""
    a = to_cpu(a)
    if a.ndim < 3 or a.shape[-1] * a.shape[-2] == 1:
        return None
    return a.reshape(-1, *a.shape[-2:])


def _shown(tensor: Tensor, g: Array) -> Node:
    op, a, gate = tensor.op, _channels(tensor.data), None if tensor.op is None else tensor.op.gate()
    gates = None if gate is None else float(gate.mean())
    if a is None:
        flat = to_cpu(tensor.data).ravel()
        units = _strongest(flat * g.ravel(), UNITS)
        return Node(op, tensor, gates, [], units, flat[units])
    channels = _strongest((a * g.reshape(a.shape)).sum((1, 2), dtype=np.float64), CHANNELS) if len(a) > 1 else []
    return Node(op, tensor, gates, channels, [], np.concatenate([a.mean(0, keepdims=True), a[channels]]))


def _strongest(counts: Array, n: int) -> list[int]:
    return [int(k) for k in np.argsort(-np.abs(counts), kind="stable")[:n]]


def _add_gradient(node: Node, rule: str, g: Array) -> None:
    a, g = to_cpu(node.tensor.data), to_cpu(g)
    node.norm[rule] = float(np.sqrt(dot(g, g)))
    node.score[rule] = dot(a, g)
    if node.units:
        g = g.ravel()[node.units]
        node.gradient[rule], node.product[rule] = g, node.activation * g
    else:
        a, g = _channels(a), _channels(g)
        p = a * g
        node.gradient[rule] = np.concatenate([g.mean(0, keepdims=True), g[node.channels]])
        node.product[rule] = np.concatenate([p.sum(0, keepdims=True), p[node.channels]])


def _noted(node: Node, number: int, step: PushStep, backward_pass: BackwardPass) -> PushStep:
    op, _, ty = step
    _add_tangent(node, number, ty, backward_pass.gy_of[op])
    lost = stopped(*step)
    if lost is not None and (maps := _channels(lost)) is not None:
        node.stops[number] = maps.sum(0)
    return step


def _add_tangent(node: Node, number: int, t: Array, g: Array) -> None:
    t, g = to_cpu(t), to_cpu(g)
    if node.units:
        t, g = t.ravel()[node.units], g.ravel()[node.units]
        node.reach[number], node.counts[number] = np.abs(t), t * g
    else:
        t, g = _channels(t), _channels(g)
        node.reach[number], node.counts[number] = np.abs(t).sum(0), (t * g).sum(0)
