"""The whole backward pass of one image on one page: a file of HTML that needs nothing but a browser."""

from __future__ import annotations

import hashlib
import html
import json
import os
import pathlib
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
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
from minidl.nn.module import Module, check_model
from minidl.view.display import for_the_eye
from minidl.view.names import literal
from minidl.view.stepper.code import code, short
from minidl.view.stepper.lanes import lanes
from minidl.view.stepper.nodes import CHANNELS, Graph, Node, look
from minidl.view.stepper.picks import numbered_pixels, others
from minidl.view.stepper.pixels import COARSE, FINE, Cells, Pixel, can_stop, follow, pack
from minidl.view.stepper.tiles import Blob, block_size, downsample

PICKS = 9  # pixels that have a number
SIZES = [(48, CHANNELS), (40, CHANNELS), (32, CHANNELS), (24, CHANNELS), (16, CHANNELS), (16, 4), (16, 2), (16, 0)]
IMAGE = 224  # pixels of the image itself, at most
ROUNDING = 1e-5  # of a share: less is nothing
TERMS = 6  # of a sum that are shown one by one
LONG = 200  # characters of a name, at most


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
    pixels: int = 1024,
    limit: int = 5_000_000,
) -> pathlib.Path:
    """Write a page that walks from the logit of `target` back to the image x (C,H,W) or (1,C,H,W), and return its path.

    The page shows every op with its activation a, gradient g and product a g, by the rule of the gradient, of guided
    backpropagation and of the deconvnet; its relevance, by the rule "composite" of `minidl.flow.relevance`, where all ops have
    a rule for it; the ledger of the score and the way of every pixel that is picked (see `minidl.flow`); and the arithmetic of
    single cells. It is one file that loads nothing. The model comes back as it was. Of a pixel it follows the channel with the
    largest gradient. `#step=8&pixel=12,7` behind the page's address opens it at a step and a pixel, counted from 0.

    Args:
        x: as the model takes it, in the type of its parameters.
        target: the class; None for the one that the model predicts.
        image: (C,H,W), what the eye should see in place of x: uint8, or floats in [0, 1].
        classes: names of all classes. title: a heading.
        picks: (row, column) of pixels that have a number, at most 9; the rest are those of the largest gradient, and a corner.
        pixels: how many others can be picked, each pushed forward once: all where there are no more, else of each block the one
            with the largest gradient.
        limit: bytes. The maps of pixels without a number go first, then tiles get smaller, then there are fewer channels.

    Raises:
        TypeError, ValueError: an argument that cannot be, or a page above `limit` whatever is left out.
        OSError: the file cannot be written.
    """
    x, limit, pixels = _checked(model, x), count(limit, "limit"), count(pixels, "pixels", 0)
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
    picked = numbered_pixels(g, PICKS, picked)
    numbered = len(picked)
    picked += others(g, pixels, picked)
    graph = look(score, leaf)
    channels = np.abs(g).argmax(0)
    indices = [(0, int(channels[i, j]), i, j) for i, j in picked]
    steps, cells = follow(graph, leaf, indices, numbered, SIZES[0][0])
    from minidl.bar import Bar  # and with it tqdm, which a figure does not need

    with Bar(steps, desc="pixels", total=len(indices), leave=False, disable=None, delay=1) as bar:
        followed = Followed(list(bar), numbered, cells)
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
    files.write(path, _within(limit, graph, followed, owners, for_the_eye(image), about))
    return path


# ---- the model, looked at


def _checked(model: Module, x: Array) -> Array:
    check_model(model)
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


@dataclass
class Followed:
    """The pixels that can be picked. numbered: how many of them, the first, have a number."""

    pixels: list[Pixel]
    numbered: int
    cells: Cells


def _within(limit: int, graph: Graph, followed: Followed, owners: dict[Op, str], image: Array, about: dict[str, Any]) -> str:
    """The page, as large as `limit` lets it be."""
    for (px, channels), whole in [(SIZES[0], True), *((size, False) for size in SIZES)]:
        if whole and sum(len(pixel.packed) for pixel in followed.pixels) > 2 * limit:
            continue
        blob = Blob()
        data, sizes = _data(graph, owners, image, about, blob, px, channels)
        data |= _pixels_data(graph, followed, blob, px, whole)
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
    refused = graph.relevance if isinstance(graph.relevance, str) else None
    accounts = graph.relevance if isinstance(graph.relevance, list) else [None] * len(graph.lines)
    data = about | {
        "nodes": nodes,
        "refused": None if refused is None else literal(refused, 2 * LONG),
        "width": width,
        "ops": {name: _op(op) for name, op in {type(n.op).__name__: n.op for n in graph.nodes if n.op is not None}.items()},
        "wires": [
            {
                "from": graph.row[wire.source.op],
                "to": -1 if wire.to is None else graph.row[wire.to],
                "count": _number(counts[wire]),
            }
            for wire in wires
        ],
        "cuts": [
            {
                "wires": [number[wire] for wire in line.counts],
                "biases": _number(line.biases),
                "bias": None if line.bias is None else _number(line.bias),
                "open": None if line.open is None else graph.row[line.open],
                "relevance": None if shared is None else _number(sum(shared.counts.values())),
                "taken": None if shared is None else _number(shared.biases),
            }
            for line, shared in zip(graph.lines, accounts, strict=True)
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
        "where": "" if op is None or op.where is None else short(op.where[0].co_filename, op.where[1]),
        "shape": list(node.tensor.shape),
        "gates": None if node.gates is None else _number(node.gates),
        "norm": {rule: _number(v) for rule, v in node.norm.items()},
        "score": {rule: _number(v) for rule, v in node.score.items()},
        "stops": can_stop(node),
    }
    if node.units:
        return shown | {
            "units": node.units,
            "of": node.tensor.size,
            "a": [_number(v) for v in node.activation],
            "g": {rule: [_number(v) for v in values] for rule, values in node.gradient.items()},
            "p": {rule: [_number(v) for v in values] for rule, values in node.product.items()},
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
    }


def _tile(blob: Blob, values: Array, px: int, how: str) -> tuple[int, float]:
    at, scale = blob.add(downsample(values, px, how))
    return at, _number(scale)


def _pixels_data(graph: Graph, followed: Followed, blob: Blob, px: int, whole: bool) -> dict[str, Any]:
    """What the script reads of the pixels: columns of numbers, a row for each pixel; the cells, as JSON; and the packed maps.

    whole: with the maps of the pixels that have no number.
    """
    pixels, wires, x = followed.pixels, list(graph.backward_pass.gx), graph.nodes[-1].tensor
    flows = [pixel.flow for pixel in pixels]
    maps = [
        pack(graph, pixel.maps, px, FINE) if k < followed.numbered else pixel.packed if whole else b""
        for k, pixel in enumerate(pixels)
    ]
    lost = np.array([flow.losses for flow in flows]).reshape(len(flows), -1)
    columns: dict[str, Array] = {
        "at": np.array([flow.index[1:] for flow in flows], np.int16),
        "x": np.array([float(x.data[flow.index]) for flow in flows], np.float32),
        "derivative": np.array([flow.derivative for flow in flows], np.float32),
        "flow": np.array([[flow.counts[wire] for wire in wires] for flow in flows], np.float32),
        "lost": np.where(lost > ROUNDING, np.clip(np.rint(255 * lost), 1, np.where(lost < 1, 254, 255)), 0).astype(np.uint8),
        "dies": np.array([-1 if flow.dies is None else flow.dies for flow in flows], np.int16),
        "worst": np.array([-1 if flow.worst is None else flow.worst for flow in flows], np.int16),
        "cell": np.array([pixel.cell for pixel in pixels], np.int32),
        "length": np.array([len(m) for m in maps], np.int32),
    }
    cells = [_cell(cell, above, graph) for cell, above in zip(followed.cells.cells, followed.cells.above, strict=True)]
    text = json.dumps(cells, allow_nan=False, separators=(",", ":")).encode()
    return {
        "pixels": {
            "count": len(pixels),
            "numbered": followed.numbered,
            "levels": [FINE, COARSE],
            "columns": {name: [blob.bytes(a), a.dtype.name] for name, a in columns.items()},
            "cells": [blob.bytes(np.frombuffer(text, np.uint8)), len(text)],
            "maps": blob.bytes(np.frombuffer(b"".join(maps), np.uint8)),
        }
    }


def _cell(cell: Cell, above: int, graph: Graph) -> dict[str, Any]:
    """A sum with its largest terms; of a convolution the window of the strongest filter, and what the other filters add."""
    products, order, window = cell.products, cell.largest(TERMS), cell.window()
    shown: dict[str, Any] = {
        "row": graph.row[cell.op],
        "above": above,
        "index": list(cell.index),
        "from": graph.row[cell.wire.source.op],
        "note": cell.note,
        "value": _number(cell.value, 7),
        "engine": _number(cell.engine, 7),
        "arrived": _number(cell.arrived, 7),
        "others": [[graph.row[wire.to], _number(v, 7)] for wire, v in cell.others.items()],
        "count": len(products),
        "to": cell.at[order[0]].tolist() if order else None,
    }
    if window is None or len(products) == 1:
        return shown | {
            "terms": [[cell.at[k].tolist(), *(_number(a[k], 7) for a in (cell.factor, cell.gy))] for k in order],
            "more": [int(np.count_nonzero(products)) - len(order), _number(products.sum() - products[order].sum(), 7)],
        }
    sums = list(window.sums.items())
    return shown | {
        "filter": window.filter,
        "rows": window.rows,
        "columns": window.columns,
        "window": [[[_number(v, 5) for v in line] for line in grid] for grid in (window.gy, window.kernel)],
        "filters": [[f, _number(v, 7)] for f, v in sums[:TERMS]],
        "rest": [len(sums[TERMS:]), _number(sum(v for _, v in sums[TERMS:]), 7)],
    }


def _op(op: Op) -> dict[str, Any]:
    """What is said about a kind of op, and the lines that computed it."""
    known = facts(op)
    return {
        "name": known.name,
        "there": known.there,
        "back": known.back,
        **formulas(op)._asdict(),
        "code": [part._asdict() for part in code(op)],
    }


def _name(op: Op) -> str:
    known = facts(op)
    if known.windows is None:
        alone = known.name.startswith("join: ") and sum(op.needs) == 1
        return f"{known.name.removeprefix('join: ')} something fixed" if alone else known.name
    (kh, kw), s, *_ = known.windows(op)
    every = "" if s == (1, 1) else f", every {s[0]}" if s[0] == s[1] else f", every {s[0]}×{s[1]}"
    return f"{known.name} {kh}×{kw}{every}"


def _number(value: Any, digits: int = 10) -> float:
    """By default nine digits, as many as float32 needs, and one to spare."""
    return float(f"{float(value):.{digits}g}")
