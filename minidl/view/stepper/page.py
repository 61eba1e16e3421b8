"""The whole backward pass of one image on one page: a file of HTML that needs nothing but a browser."""

from __future__ import annotations

import hashlib
import html
import inspect
import json
import os
import pathlib
import re
import textwrap
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.analysis.cost import forward_calls
from minidl.analysis.facts import facts, formulas
from minidl.arguments import count, pairs, wrong
from minidl.array import Array, array_module, device_of, is_array, is_float, shape_of, to_cpu
from minidl.contexts import contained
from minidl.core import Op, Tensor, gradients
from minidl.flow.backward_pass import Wire
from minidl.flow.cells import Cell
from minidl.io import files
from minidl.nn import Module
from minidl.view.images import for_the_eye
from minidl.view.names import literal
from minidl.view.stepper.lanes import lanes
from minidl.view.stepper.nodes import CHANNELS, Graph, Node, look, strongest_pixels
from minidl.view.stepper.tiles import Blob, block_size, downsample

PICKS = 9  # pixels that can be followed
SIZES = [(48, CHANNELS), (40, CHANNELS), (32, CHANNELS), (24, CHANNELS), (16, CHANNELS), (16, 4), (16, 2), (16, 0)]
IMAGE = 224  # pixels of the image itself, at most
TERMS = 6  # of a sum that are shown one by one
LONG = 200  # characters of a name, at most

_PACKAGE = pathlib.Path(__file__).parents[3]


@contained
def stepper(
    model: Module,
    x: Array,
    target: int | None = None,
    path: str | os.PathLike[str] = "stepper.html",
    *,
    image: Array | None = None,
    classes: Sequence[str] | None = None,
    picks: Sequence[tuple[int, int]] = (),
    title: str = "",
    limit: int = 5_000_000,
) -> pathlib.Path:
    """Write a page that walks from the logit of `target` back to the image x (C,H,W) or (1,C,H,W), and return its path.

    The page shows every op with its activation a, gradient g and product a g, by the rule of the gradient, of guided
    backpropagation and of the deconvnet; the ledger of the score and the way of nine pixels (see `minidl.flow`); and the
    arithmetic of single cells. It is one file that loads nothing. The model comes back as it was.

    Args:
        x: as the model takes it, in the type of its parameters.
        target: the class; None for the one that the model predicts.
        image: (C,H,W), what the eye should see in place of x: uint8, or floats in [0, 1].
        classes: names of all classes. title: a heading.
        picks: (row, column) of pixels to follow, at most 9; the rest are those of the largest gradient, and a corner.
        limit: bytes. Tiles get smaller first, then there are fewer channels.

    Raises:
        TypeError, ValueError: an argument that cannot be, or a page above `limit` whatever is left out.
        OSError: the file cannot be written.
    """
    x, limit = _checked(model, x), count(limit, "limit")
    if image is None:
        low, high = float(x.min()), float(x.max())
        image = to_cpu((x[0] - low) / ((high - low) or 1))
    if not is_array(image) or image.ndim != 3 or image.shape[1:] != x.shape[2:]:
        raise ValueError(f"image: expected (C,H,W) with the height and width of x, {x.shape[2:]}, got {shape_of(image)}")
    image = to_cpu(image)
    picked = _pixels(picks, x.shape)
    if len(picked) > PICKS:
        raise ValueError(f"picks: expected at most {PICKS} pixels, got {len(picked)}")
    leaf = Tensor(x, requires_grad=True, name="image")
    with model.frozen():
        logits, calls = forward_calls(model, leaf)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise ValueError(f"model: expected logits (1,K), got {getattr(logits, 'shape', type(logits).__name__)}")
    K = logits.shape[1]
    if not bool(array_module(x).isfinite(logits.data).all()):
        raise ValueError("model: its logits are not finite")
    if classes is not None and len(classes) != K:
        raise ValueError(f"classes: expected {K} names, got {len(classes)}")
    target = int(logits.data.argmax()) if target is None else count(target, "target", 0)
    if target >= K:
        wrong(ValueError, "target", f"one of the classes 0 to {K - 1}", target)
    score = logits[0, target]
    g = to_cpu(gradients(score, [leaf])[0][0])  # (C,H,W)
    corner = [(0, 0)] if len(picked) < PICKS and (0, 0) not in picked else []
    picked += strongest_pixels(g, PICKS - len(picked) - len(corner), picked + corner) + corner
    graph = look(score, leaf, [(0, int(np.abs(g[:, i, j]).argmax()), i, j) for i, j in picked])
    owners = {op: literal(running[-1].name, LONG) for op, running in calls.items()}
    names = [literal(str(name), LONG) for name in classes] if classes is not None else [f"class {k}" for k in range(K)]
    about = {
        "title": literal(title or f"{type(model).__name__}, step by step", LONG),
        "classes": names,
        "target": target,
        "logits": [_number(v) for v in to_cpu(logits.data)[0]],
        "parameters": sum(p.size for p in model.parameters()),
    }
    path = pathlib.Path(path)
    files.write(path, _within(limit, graph, owners, for_the_eye(image), about))
    return path


# ---- the model, looked at


def _checked(model: Module, x: Array) -> Array:
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    if not is_array(x) or not is_float(x.dtype):
        raise TypeError(f"x: expected an array of floats, as the model takes it, got {getattr(x, 'dtype', type(x).__name__)}")
    x = x[None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) != 1 or 0 in x.shape:
        raise ValueError(f"x: expected one image, (C,H,W) or (1,C,H,W), got shape {x.shape}")
    for p in model.parameters()[:1]:
        if (p.dtype, p.device) != (x.dtype, device_of(x)):
            raise ValueError(f"x: the model is {p.dtype} on the {p.device}, x is {x.dtype} on the {device_of(x)}")
    if not bool(array_module(x).isfinite(x).all()):
        raise ValueError("x: holds NaN or infinity")
    return x


def _pixels(picks: Any, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    H, W = shape[2:]
    for pick in pairs(picks, "picks"):
        if pick[0] >= H or pick[1] >= W:
            wrong(ValueError, "picks", f"a row below {H} and a column below {W}", pick)
    return list(pairs(picks, "picks"))


# ---- the page


def _within(limit: int, graph: Graph, owners: dict[Op, str], image: Array, about: dict[str, Any]) -> str:
    """The page, as large as `limit` lets it be."""
    for px, channels in SIZES:
        blob = Blob()
        data, sizes = _data(graph, owners, image, about, blob, px, channels)
        page = _page(data, blob, about["title"])
        size = len(page.encode())
        if size <= limit:
            return page
    row = int(np.argmax(sizes))
    node = data["nodes"][row]
    raise ValueError(
        f"limit: expected at most {limit:,} bytes, got {size:,} with tiles of {px} pixels and no single channels; the biggest "
        f"node is {node['name']} {node['layer']} with {sizes[row]:,} bytes before compression"
    )


def _page(data: dict[str, Any], blob: Blob, title: str) -> str:
    here = pathlib.Path(__file__)
    style, script, template = (here.with_name(f"stepper.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    parts = {
        "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(title),
        "style": style,
        "script": script,
        "data": json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", r"\u003c"),
        "blob": blob.text(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template)


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(
    graph: Graph, owners: dict[Op, str], image: Array, about: dict[str, Any], blob: Blob, px: int, channels: int
) -> tuple[dict[str, Any], list[int]]:
    """What the script of the page reads, and how many bytes each node takes of it."""
    sources = [list(dict.fromkeys(graph.row[wire.source.op] for wire in _inputs(node))) for node in graph.nodes]
    node_lanes, wire_lanes, width = lanes(sources)
    nodes, sizes = [], []
    for row, node in enumerate(graph.nodes):
        before = blob.size
        shown = _node(node, graph, owners, blob, px, channels)
        shown |= {"lane": node_lanes[row], "sources": sources[row], "lanes": wire_lanes[row]}
        nodes.append(shown)
        sizes.append(blob.size - before + len(json.dumps(shown)))
    wires = list(graph.backward_pass.gx)
    number = {wire: i for i, wire in enumerate(wires)}
    counts = {wire: n for line in graph.lines for wire, n in line.counts.items()}
    pixels = (255 * downsample(np.atleast_3d(image).transpose(2, 0, 1), IMAGE, "mean") + 0.5).astype(np.uint8)
    g = to_cpu(graph.backward_pass.gradient(graph.nodes[-1].tensor))
    data = about | {
        "nodes": nodes,
        "width": width,
        "ops": {name: _op(op) for name, op in {type(n.op).__name__: n.op for n in graph.nodes if n.op is not None}.items()},
        "wires": [
            {
                "from": graph.row[wire.source.op],
                "to": -1 if wire.to is None else graph.row[wire.to],
                "count": _number(counts[wire]),
                "flow": [_number(flow.counts[wire]) for flow in graph.flows],
            }
            for wire in wires
        ],
        "cuts": [
            {
                "wires": [number[wire] for wire in line.counts],
                "biases": _number(line.biases),
                "bias": None if line.bias is None else _number(line.bias),
                "open": None if line.open is None else graph.row[line.open],
            }
            for line in graph.lines
        ],
        "picks": [
            {
                "at": list(flow.index[1:]),
                "x": _number(graph.nodes[-1].tensor.data[flow.index]),
                "derivative": _number(flow.derivative),
                "share": _number(abs(flow.derivative) / float(np.abs(g).max() or 1)),
            }
            for flow in graph.flows
        ],
        "image": {"at": blob.bytes(pixels), "shape": list(pixels.shape)},
    }
    return data, sizes


def _inputs(node: Node) -> list[Wire]:
    op = node.op
    return [] if op is None else [Wire(x, op, i) for i, x in enumerate(op.inputs) if op.needs[i] and x is not None]


def _node(node: Node, graph: Graph, owners: dict[Op, str], blob: Blob, px: int, channels: int) -> dict[str, Any]:
    op = node.op
    layer = "" if op is None else owners.get(op, "")
    name = "the image" if op is None else "the score" if op is graph.backward_pass.y.op else _name(op)
    shown: dict[str, Any] = {
        "op": "" if op is None else type(op).__name__,
        "name": name,
        "layer": layer,
        "where": "" if op is None or op.where is None else _short(op.where[0].co_filename, op.where[1]),
        "shape": list(node.tensor.shape),
        "gates": None if node.gates is None else _number(node.gates),
        "norm": {rule: _number(v) for rule, v in node.norm.items()},
        "score": {rule: _number(v) for rule, v in node.score.items()},
        "cells": {str(pick): _cell(cell, graph) for pick, cell in node.cells.items()},
        "stopped": [_number(flow.stopped.get(op, 0.0)) for flow in graph.flows] if op is not None else [],
    }
    if node.units:
        return shown | {
            "units": node.units,
            "of": node.tensor.size,
            "a": [_number(v) for v in node.activation],
            "g": {rule: [_number(v) for v in values] for rule, values in node.gradient.items()},
            "p": {rule: [_number(v) for v in values] for rule, values in node.product.items()},
            "counts": {str(pick): [_number(v) for v in values] for pick, values in node.counts.items()},
        }

    def tiles(maps: Array, how: str) -> list[tuple[int, float]]:
        return [_tile(blob, m, px, how) for m in maps[: 1 + channels]]

    H, W = node.tensor.shape[-2:]
    fh, fw = block_size(H, W, px)
    return shown | {
        "size": [-(-H // fh), -(-W // fw), H, W, fh, fw],
        "channels": node.channels[:channels],
        "a": tiles(node.activation, "mean"),
        "g": {rule: tiles(maps, "mean") for rule, maps in node.gradient.items()},
        "p": {rule: tiles(maps, "sum") for rule, maps in node.product.items()},
        "reach": {str(pick): _tile(blob, m, px, "sum") for pick, m in node.reach.items()},
        "counts": {str(pick): _tile(blob, m, px, "sum") for pick, m in node.counts.items()},
        "stops": {str(pick): [*_tile(blob, m, px, "sum"), *_size(m, px)] for pick, m in node.stops.items()},
    }


def _tile(blob: Blob, values: Array, px: int, how: str) -> tuple[int, float]:
    at, scale = blob.add(downsample(values, px, how))
    return at, _number(scale)


def _size(m: Array, px: int) -> list[int]:
    H, W = m.shape
    fh, fw = block_size(H, W, px)
    return [-(-H // fh), -(-W // fw), H, W, fh, fw]


def _cell(cell: Cell, graph: Graph) -> dict[str, Any]:
    """A sum with its largest terms; of a convolution the window of the strongest filter, and what the other filters add."""
    products, order, window = cell.products, cell.largest(TERMS), cell.window()
    shown: dict[str, Any] = {
        "index": list(cell.index),
        "from": graph.row[cell.wire.source.op],
        "note": cell.note,
        "value": _number(cell.value),
        "engine": _number(cell.engine),
        "arrived": _number(cell.arrived),
        "others": [[graph.row[wire.to], _number(v)] for wire, v in cell.others.items()],
        "terms": [[cell.at[k].tolist(), *(_number(a[k]) for a in (cell.factor, cell.gy, products))] for k in order],
        "more": [int(np.count_nonzero(products)) - len(order), _number(products.sum() - products[order].sum())],
        "count": len(products),
    }
    if window is not None:
        sums = list(window.sums.items())
        shown |= {
            "filter": window.filter,
            "rows": window.rows,
            "columns": window.columns,
            "window": [[[_number(v) for v in line] for line in grid] for grid in (window.gy, window.kernel, window.products)],
            "filters": [[f, _number(v)] for f, v in sums[:TERMS]],
            "rest": [len(sums[TERMS:]), _number(sum(v for _, v in sums[TERMS:]))],
        }
    return shown


def _op(op: Op) -> dict[str, str]:
    """What is said about a kind of op, and the text of its backward, where there is a file that holds it."""
    known = facts(op)
    try:
        lines, first = inspect.getsourcelines(type(op).backward)
        file = _short(inspect.getsourcefile(type(op).backward) or "", first)
    except (OSError, TypeError):  # typed into a prompt
        lines, file = [], "nobody kept the text"
    return {
        "name": known.name,
        "there": known.there,
        "back": known.back,
        **formulas(op)._asdict(),
        "code": textwrap.dedent("".join(lines)).rstrip(),
        "file": file,
    }


def _name(op: Op) -> str:
    known = facts(op)
    if known.windows is None:
        alone = known.name.startswith("join: ") and sum(op.needs) == 1
        return f"{known.name.removeprefix('join: ')} something fixed" if alone else known.name
    (kh, kw), s, *_ = known.windows(op)
    every = "" if s == (1, 1) else f", every {s[0]}" if s[0] == s[1] else f", every {s[0]}×{s[1]}"
    return f"{known.name} {kh}×{kw}{every}"


def _short(file: str, line: int) -> str:
    """A file by its place in the package, or by its folder and name: a page that is passed on tells nothing about a disk."""
    place = pathlib.Path(file)
    inside = place.is_relative_to(_PACKAGE / "minidl")
    return f"{place.relative_to(_PACKAGE).as_posix() if inside else '/'.join(place.parts[-2:])}:{line}"


def _number(value: Any) -> float:
    """Nine digits, as many as float32 needs, and one to spare."""
    return float(f"{float(value):.10g}")
