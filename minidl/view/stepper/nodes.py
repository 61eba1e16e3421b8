"""What the stepper shows of every node, taken from one backward pass for each rule; `pixels` adds what it shows of each pixel.

Nodes are numbered as the walk meets them: 0 is the score, the last one the image. Arrays are reduced at once to what can be
drawn: (M,H,W) maps, or for vectors their strongest units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minidl.array import Array, dot, to_cpu
from minidl.core import Op, Step, Tensor, walk
from minidl.flow.backward_pass import BackwardPass
from minidl.flow.ledger import Line, ledger
from minidl.flow.relevance import NoRuleError, Relevance, account
from minidl.flow.relu_rules import deconvnet, guided

RULES: dict[str, Callable[[Step], None]] = {"guided": guided, "deconvnet": deconvnet}  # besides the gradient and relevance
CHANNELS = 8  # single channels that are shown of each node
UNITS = 24  # of a vector

Maps = Array  # (M,H,W)


@dataclass
class Node:
    """One node.

    op: what made it, None at the image. gates: the share that is open, None without gates. channels: those that count most
    for the score, by |sum a g|; units: the same of a vector. Maps have one over all channels first, then these channels:
    activation (mean), gradient by rule (mean), and their product by rule (sum, so that it adds up to <a, g>). Relevance, "lrp",
    stands in place of the product. Of a vector they are (units,).
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
    score: dict[str, float] = field(default_factory=dict)  # <a, g>, or sum R


@dataclass
class Graph:
    """All of it. row: the number of each op's node, of the image under None.

    relevance: the account of relevance, or why there is none.
    """

    backward_pass: BackwardPass
    nodes: list[Node]
    row: Mapping[Op | None, int]
    lines: list[Line]
    relevance: list[Line] | str


def look(y: Tensor, x: Tensor) -> Graph:
    """Walk from the score y () back to the image x (1,C,H,W) by every rule.

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
    relevance: list[Line] | str
    try:
        rule = Relevance(y)
        shared = BackwardPass(y, y.data, rule)
        relevance = account(shared, rule)
        for node in nodes:
            _add_relevance(node, shared.gradient(node.tensor))
    except NoRuleError as error:
        relevance = error.reason
    return Graph(backward_pass, nodes, row, ledger(backward_pass), relevance)


def maps_of(a: Array) -> Any:
    """(1,C,H,W) -> (C,H,W), and so on; None of what is no image."""
    a = to_cpu(a)
    if a.ndim < 3 or a.shape[-1] * a.shape[-2] == 1:
        return None
    return a.reshape(-1, *a.shape[-2:])


def _shown(tensor: Tensor, g: Array) -> Node:
    op, a, gate = tensor.op, maps_of(tensor.data), None if tensor.op is None else tensor.op.gate()
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
        a, g = maps_of(a), maps_of(g)
        p = a * g
        node.gradient[rule] = np.concatenate([g.mean(0, keepdims=True), g[node.channels]])
        node.product[rule] = np.concatenate([p.sum(0, keepdims=True), p[node.channels]])


def _add_relevance(node: Node, R: Array) -> None:
    R = to_cpu(R)
    node.norm["lrp"] = float(np.sqrt(dot(R, R)))
    node.score["lrp"] = float(R.sum(dtype="float64"))
    if node.units:
        node.product["lrp"] = R.ravel()[node.units]
    else:
        R = maps_of(R)
        node.product["lrp"] = np.concatenate([R.sum(0, keepdims=True), R[node.channels]])
