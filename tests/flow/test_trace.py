import inspect
import math
import re

import numpy as np
import pytest

import minidl
from minidl import Parameter, Tensor, gradients, nn, no_grad, ops, trace, walk
from minidl.flow.trace import Trace


def small():
    """(loss, x, w): one op of each kind that matters, and a tensor that is used twice."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(2, 3)), requires_grad=True, name="x")
    w = Parameter(rng.normal(size=(4, 3)), "fc.weight")
    y = ops.relu(ops.linear(x, w))
    return ops.sum(y * y), x, w


def test_the_records_of_a_small_graph():
    line = inspect.getsourcelines(small)[1]
    loss, x, w = small()
    t = trace(loss)
    assert isinstance(t, Trace)
    assert [(r.step, r.op, r.layer, r.output) for r in t.records] == [
        (0, "Sum", "", ()), (1, "Mul", "", (2, 4)), (2, "ReLU", "", (2, 4)), (3, "Linear", "fc", (2, 4)),
    ]  # fmt: skip
    assert [r.line - line for r in t.records] == [6, 6, 5, 5] and all(r.file == __file__ for r in t.records)
    z = x.data @ w.data.T
    y = np.maximum(z, 0)
    norms = [1, math.sqrt(8), np.linalg.norm(2 * y), np.linalg.norm(2 * y * (z > 0))]
    assert [r.gradient_norm for r in t.records] == pytest.approx(norms, rel=1e-12)
    assert [r.open_gates for r in t.records] == [None, None, pytest.approx((z > 0).mean()), None]
    total, square, relu, linear = t.records
    assert [i.source for i in total.inputs] == [square.number] and [i.source for i in square.inputs] == [relu.number] * 2
    assert [(i.name, i.shape) for i in linear.inputs] == [("x", (2, 3)), ("fc.weight", (4, 3))]
    assert all(i.source < 0 for i in linear.inputs)


def test_the_table():
    lines = str(trace(small()[0])).splitlines()
    assert lines[0].split() == ["step", "op", "layer", "inputs", "->", "output", "|gy|", "open", "made", "at"]
    assert len(lines) == 5
    assert re.fullmatch(r"0     Sum\s+\(2,4\) -> \(\)\s+1\.000e\+00\s+test_trace\.py:\d+", lines[1])
    assert re.search(r"^2     ReLU  .* \d+\.\d% ", lines[3]) and "(2,3) (4,3) -> (2,4)" in lines[4] and " fc " in lines[4]
    at = lines[0].index("made at")
    assert all(line[at:].startswith("test_trace.py:") for line in lines[1:])


def test_no_gradient_is_touched_and_the_graph_stays():
    loss, x, w = small()
    w.grad = before = np.ones_like(w.data)
    trace(loss)
    assert x.grad is None and w.grad is before
    loss.backward()
    assert x.grad is not None and np.any(w.grad != before)


def test_the_trace_outlives_its_graph():
    loss, _, _ = small()
    t = trace(loss)
    table, graph = str(t), t.dot()
    loss.backward()  # gives the graph back
    assert str(t) == table and t.dot() == graph
    with pytest.raises(RuntimeError, match="given back"):
        trace(loss)


def test_a_tensor_that_is_no_scalar_needs_its_gradient():
    x = Tensor(np.ones((2, 2), np.float32), requires_grad=True)
    y = ops.exp(x)
    with pytest.raises(ValueError, match="gy: needed where the output is no scalar"):
        trace(y)
    assert trace(y, np.full((2, 2), 3, np.float32)).records[0].gradient_norm == pytest.approx(6)


def test_nothing_to_trace():
    with pytest.raises(ValueError, match="depends on nothing that requires one"):
        trace(Tensor(1.0))
    with no_grad(), pytest.raises(ValueError, match="depends on nothing"):
        trace(small()[0])
    leaf = trace(Tensor(1.0, requires_grad=True))
    assert leaf.records == [] and len(str(leaf).splitlines()) == 1


def parse(dot):
    """The nodes with their labels, and the edges: a reader for what `dot()` writes, strict about every line."""
    lines = dot.splitlines()
    assert lines[:2] == ["digraph {", "  rankdir=BT"] and lines[-1] == "}"
    nodes, edges = {}, []
    for line in lines[2:-1]:
        if edge := re.fullmatch(r"  (\w+) -> (\w+)", line):
            edges.append(edge.groups())
        else:
            node = re.fullmatch(r'  (\w+) \[(shape=box, )?label="((?:[^"\\]|\\.)*)"\]', line)
            assert node, line
            assert node[1] not in nodes
            nodes[node[1]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], node[3])
    assert {end for edge in edges for end in edge} <= nodes.keys()
    return nodes, edges


def test_dot_has_every_op_leaf_and_edge():
    nodes, edges = parse(trace(small()[0]).dot())
    labels = {label.split("\n")[0] for label in nodes.values()}
    assert labels == {"Sum", "Mul", "ReLU", "Linear", "x", "fc.weight"}
    joined = sorted((nodes[a].split("\n")[0], nodes[b].split("\n")[0]) for a, b in edges)
    assert joined == [
        ("Linear", "ReLU"), ("Mul", "Sum"), ("ReLU", "Mul"), ("ReLU", "Mul"), ("fc.weight", "Linear"), ("x", "Linear"),
    ]  # fmt: skip
    assert "(2, 4)" in next(label for label in nodes.values() if label.startswith("ReLU"))


def test_dot_escapes_names_and_tells_leaves_apart():
    evil = 'a"]; b [label="\\'
    a, b = Tensor(np.ones(2), requires_grad=True, name=evil), Tensor(np.ones(2), name=evil)
    c, d = Parameter(np.ones(2)), Tensor(np.ones(2), requires_grad=True)
    nodes, edges = parse(trace(ops.sum(a * b * c * d * 2.0)).dot())
    assert sorted(label.rpartition("\n")[0] for label in nodes.values() if label.count("\n") == 1) == sorted(
        [evil, evil, "parameter", "input", "constant"]
    )
    assert len(edges) == 9


def test_it_walks_as_backward_does():
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LeakyReLU(), nn.GlobalAvgPool2d(), nn.Linear(2, 3))
    net.name_parameters()
    loss = ops.cross_entropy(net(rng.normal(size=(2, 1, 5, 5)).astype(np.float32)), np.array([0, 2]))
    t = trace(loss)
    steps = list(walk(loss, leaves={}))
    assert [r.op for r in t.records] == [type(s.op).__name__ for s in steps]
    assert [r.gradient_norm for r in t.records] == pytest.approx([np.linalg.norm(s.gy) for s in steps], rel=1e-5)
    assert [r.layer for r in t.records] == ["", "4", "", "", "1", "0"]


def image_score():
    rng = np.random.default_rng(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2)
    )
    net.name_parameters().eval().to(dtype="float64")
    x = Tensor(rng.normal(size=(1, 1, 6, 6)), requires_grad=True, name="image")
    with net.frozen(), ops.unfused():
        return net(x)[0, 1], x


def test_the_arithmetic_of_a_pixel():
    y, x = image_score()
    gx = gradients(y, [x])[0]
    blocks = trace(y, pixel=(0, 0, 2, 3)).arithmetic().split("\n\n")
    assert [b.partition(":")[0] for b in blocks] == [
        "GetItem", "Linear", "Reshape", "MaxPool2d", "ReLU", "BatchNormFrozen", "Conv2d"
    ]  # fmt: skip
    for block in blocks:
        value, engine = re.search(r"= (\S+), the engine's (\S+)", block).groups()
        assert value == engine and float(value) != 0
    last = blocks[-1].splitlines()
    assert f"gradient of image[0, 0, 2, 3] = {gx[0, 0, 2, 3]:+.6g}" in last[-1]
    assert "kernel, turned" in last[2] and re.search(r"filters: \d: \S+, \d: \S+$", last[-2])
    grid = [line.replace("x", "|").replace("=", "|").split("|") for line in last[3:6]]
    gy, kernel, products = (np.array([[float(n) for n in row[k].split()] for row in grid if len(row) > 2]) for k in range(3))
    np.testing.assert_allclose(gy * kernel, products, rtol=1e-2, atol=1e-9)
    assert "the cell wins 1 of the 1 windows that see it" in blocks[3] and "the gate is open" in blocks[4]
    strongest = np.unravel_index(np.abs(gx).argmax(), gx.shape)
    assert f"image[{', '.join(map(str, strongest))}]" in trace(y, pixel="strongest").arithmetic()
    assert trace(y).arithmetic() == "" and len(trace(y, pixel="strongest").records) == 7


def test_pixels_that_cannot_be():
    y, _ = image_score()
    with pytest.raises(ValueError, match=r"pixel: expected one of each axis of \(1, 1, 6, 6\), got \(0, 0, 6, 0\)"):
        trace(y, pixel=(0, 0, 6, 0))
    with pytest.raises(ValueError, match="pixel: expected a tuple of integers, or 'strongest', got 'top'"):
        trace(y, pixel="top")
    a, b = Tensor(np.ones(2), requires_grad=True), Tensor(np.ones(2), requires_grad=True)
    with pytest.raises(ValueError, match="pixel: expected one input that requires a gradient, got 2"):
        trace(ops.sum(a * b), pixel="strongest")
    with pytest.raises(ValueError, match="freeze the parameters"):
        trace(small()[0], pixel="strongest")


def test_the_package_exports_the_function():
    assert minidl.flow.trace is trace and callable(minidl.trace)
