"""ONNX's own test cases of single operators as an oracle, where the package is installed.

The package builds some two thousand small graphs with inputs and the outputs that every backend should find: one node each,
and for operators that are defined by others also the graph of those. A node runs as minidl's words for its operator, see
`onnx_nodes`. Each case ends in one bin: agreed; refused, by an error of minidl that names the argument; skipped, for a reason
that is told. None ends elsewhere, but for those that EXPLAINED names.
"""

from __future__ import annotations

import re
import textwrap
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Tensor, gradients, kernels
from minidl.array import is_float
from tests.outside.onnx_nodes import NODES, SETTINGS, NotInMinidlError

onnx = pytest.importorskip("onnx")
ReferenceEvaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
pytestmark = pytest.mark.oracle

EXPLAINED: dict[str, str] = {}  # case: why it ends elsewhere
AGREED, REFUSED, SKIPPED, DIFFERS, FAULT = "agreed", "refused", "skipped", "differs", "fault"

NO_FINITE_DIFFERENCE = {
    "Cast": "it rounds",
    "CastLike": "it rounds",
    "ConvTranspose": "it is the gradient of a convolution, and minidl has no second derivatives",
}


# ---- the cases


@cache
def cases() -> dict[str, list[Any]]:
    """Every case, by the operator that it tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of outputs that overflow or are the logarithm of 0
        from onnx.backend.test.case import node

        found = list(node.collect_testcases())
    tested = {case.name: case.model.graph.node[0].op_type for case in found if "_expanded" not in case.name}
    by_operator = defaultdict(list)
    for case in found:
        by_operator[tested[case.name.split("_expanded")[0]]].append(case)
    return dict(by_operator)


def arrays(values: Any) -> list[np.ndarray]:
    if any(value is None or isinstance(value, list) for value in values):
        raise NotInMinidlError("sequences and optional values")
    return [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else np.asarray(v) for v in values]


# ---- a graph, node by node

BOOKKEEPING = {  # shapes, masks and constants in the graph of an operator: ONNX computes them
    *("And", "Constant", "ConstantOfShape", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "Not", "Or"),
    *("Range", "Shape", "Size"),
}


def run(case: Any, inputs: list[Any] | None = None) -> list[Any]:
    """The outputs of the graph, tensors or arrays; `inputs` instead of those of the case"""
    graph, in_minidl = case.model.graph, 0
    if len(graph.node) == 1 and graph.node[0].op_type not in NODES:
        raise NotInMinidlError(f"operator {graph.node[0].op_type}")
    inputs = arrays(case.data_sets[0][0]) if inputs is None else inputs
    values: dict[str, Any] = {"": None, **dict(zip([x.name for x in graph.input], inputs, strict=True))}
    for node in graph.node:
        xs, settings = [values[name] for name in node.input], SETTINGS.get(node.op_type, set())
        floats = any(is_float(x.dtype) for i, x in enumerate(xs) if i not in settings and x is not None)
        if len(graph.node) > 1 and (node.op_type in BOOKKEEPING or not floats):
            ys = by_onnx(node, xs, case.model.opset_import)
        else:
            ys = by_minidl(node, xs, settings)
            in_minidl += 1
        if any(node.output[len(ys) :]):
            raise NotInMinidlError(f"output {len(ys) + 1} of {node.op_type}")
        values |= dict(zip(node.output, ys, strict=False))
    if not in_minidl:
        raise NotInMinidlError("a graph of shapes and masks alone")
    return [values[x.name] for x in graph.output]


def by_minidl(node: Any, xs: list[Any], settings: set[int]) -> list[Any]:
    if node.op_type not in NODES:
        raise NotInMinidlError(f"operator {node.op_type} in the graph of another")
    named = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    named = {name: value.decode() if isinstance(value, bytes) else value for name, value in named.items()}
    if node.op_type == "Cast":
        named["to"] = onnx.helper.tensor_dtype_to_np_dtype(named["to"])
    if node.op_type == "Split":
        named["num_outputs"] = len(node.output)
    xs = [x if x is None else array_of(x) if i in settings else tensor_of(x) for i, x in enumerate(xs)]
    ys = NODES[node.op_type](*xs, **named)
    return list(ys) if isinstance(ys, list | tuple) else [ys]


def by_onnx(node: Any, xs: list[Any], opsets: Any) -> list[Any]:
    if any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute):
        raise NotInMinidlError("control flow")
    inputs, outputs = ([onnx.ValueInfoProto(name=name) for name in names if name] for names in (node.input, node.output))
    graph = onnx.helper.make_graph([node], "one node", inputs, outputs)
    feeds = {name: array_of(x) for name, x in zip(node.input, xs, strict=True) if name}
    return list(ReferenceEvaluator(graph, {o.domain: o.version for o in opsets}).run(None, feeds))


def array_of(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def tensor_of(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else Tensor(x)


# ---- the bins


@dataclass
class End:
    case: str
    bin: str
    why: str = ""


@cache
def ends(operator: str) -> list[End]:
    """How each case of the operator ends: with both families of kernels alike, or it is a fault."""
    found = []
    for case in cases()[operator]:
        one, other = (end(case, kernel) for kernel in kernels.CHOICES)
        found.append(one if one.bin == other.bin else End(case.name, FAULT, f"{one.bin} or {other.bin}: {one.why}{other.why}"))
    return found


def end(case: Any, kernel: str) -> End:
    masked = np.errstate(invalid="ignore" if "attention" in case.name else "warn")  # softmax of -inf alone is nan, on purpose
    try:
        with kernels.use(kernel), masked:
            ys = [array_of(y) for y in run(case)]
    except NotInMinidlError as reason:
        return End(case.name, SKIPPED, str(reason))
    except Exception as error:
        return End(case.name, REFUSED if is_clear(error) else FAULT, f"{type(error).__name__}: {error}")
    try:
        for y, want in zip(ys, arrays(case.data_sets[0][1]), strict=True):
            assert (y.dtype, y.shape) == (want.dtype, want.shape)
            np.testing.assert_allclose(y.astype(np.float64), want.astype(np.float64), tolerance(case, y.dtype), case.atol)
    except AssertionError as error:
        return End(case.name, DIFFERS, f"{kernel}: {error}")
    return End(case.name, AGREED)


def tolerance(case: Any, dtype: Any) -> float:
    """That of the case, which is for float32; two units in the last place for numbers of 16 bits"""
    return max(case.rtol, {"float16": 2.0**-9, "bfloat16": 2.0**-6}.get(dtype.name, 0.0))


def is_clear(error: Exception) -> bool:
    """A TypeError or ValueError that minidl raises itself and that begins with the name of an argument or an op"""
    at = traceback.extract_tb(error.__traceback__)[-1]
    ours = Path(at.filename).is_relative_to(Path(minidl.__file__).parent) and (at.line or "").startswith("raise ")
    return isinstance(error, TypeError | ValueError) and ours and re.match(r"[\w ,.*()\[\]=]+: ", str(error)) is not None


@pytest.mark.parametrize("operator", sorted(NODES))
def test_agrees_or_refuses(operator: str) -> None:
    assert operator in cases(), "the table names an operator that has no case"
    assert not [e for e in ends(operator) if e.bin in (DIFFERS, FAULT) and e.case not in EXPLAINED]
    assert [e for e in ends(operator) if e.bin == AGREED]


def test_every_case_ends_in_a_bin(tell: Callable[[str], None]) -> None:
    """Those of operators that are not in the table too: they may be graphs of operators that are."""
    assert set(SETTINGS) <= set(NODES)
    bins = {operator: Counter(e.bin for e in ends(operator)) for operator in sorted(cases())}
    every = [e for operator in bins for e in ends(operator)]
    elsewhere = [e for e in every if e.bin in (DIFFERS, FAULT)]
    assert not [e for e in elsewhere if e.case not in EXPLAINED]
    assert {e.case for e in elsewhere} == set(EXPLAINED), "EXPLAINED names cases that need no explanation"
    total = Counter(e.bin for e in every)
    tell(
        f"ONNX's node tests, {len(every)} of {len(bins)} operators: {total[AGREED]} agreed, {total[REFUSED]} refused, "
        f"{total[SKIPPED]} skipped, {len(elsewhere)} explained"
    )
    in_part = [f"{name} {b[AGREED]}/{b[REFUSED]}/{b[SKIPPED]}" for name, b in bins.items() if b[SKIPPED] < b.total()]
    tell(listed("agreed/refused/skipped", in_part))
    refusals = Counter(e.why.split(":")[1].strip() for e in every if e.bin == REFUSED)
    tell(listed("refused for", [f"{name} {n}" for name, n in refusals.most_common()]))
    reasons = Counter(e.why for e in every if e.bin == SKIPPED)
    tell(listed("skipped for", [f"{why} {n}" for why, n in reasons.most_common() if not re.fullmatch(r"operator \w+", why)]))
    missing = [f"{why.split()[1]} {n}" for why, n in sorted(reasons.items()) if re.fullmatch(r"operator \w+", why)]
    tell(listed("operators that minidl has not", missing))


def listed(title: str, items: list[str]) -> str:
    return textwrap.fill(f"{title}: {', '.join(items)}", 126, initial_indent="  ", subsequent_indent="    ")


# ---- gradients


def test_gradients_are_finite_differences(tell: Callable[[str], None]) -> None:
    """Of single nodes that agreed, in float64, along one direction and under one cotangent; kinks are left out."""
    found: dict[str, Counter[str]] = {}
    wrong = []
    for operator in sorted(set(NODES) - set(NO_FINITE_DIFFERENCE)):
        agreed = {e.case for e in ends(operator) if e.bin == AGREED}
        of_it = [case for case in cases()[operator] if case.name in agreed and len(case.model.graph.node) == 1]
        results = {(case.name, kernel): compared(case, kernel) for case in of_it for kernel in kernels.CHOICES}
        found[operator] = Counter(results.values())
        wrong += [key for key, result in results.items() if result == "wrong"]
    assert not wrong
    assert not [operator for operator in found if not found[operator]["right"]], "no gradient of these was compared"
    tell(f"ONNX's node tests, gradients with both families of kernels: {dict(sum(found.values(), Counter()))}")


@np.errstate(all="ignore")  # some derivatives are infinite
def compared(case: Any, kernel: str, h: float = 1e-6) -> str:
    """Whether the gradient of the case is "right" or "wrong", or the case lies on a "kink", or has only "integers" """
    rng, node = np.random.default_rng(0), case.model.graph.node[0]
    settings = {node.input[i] for i in SETTINGS.get(node.op_type, ()) if i < len(node.input)}
    xs = [x.astype(np.float64) if is_float(x.dtype) else x for x in arrays(case.data_sets[0][0])]
    free = [i for i, info in enumerate(case.model.graph.input) if info.name not in settings and is_float(xs[i].dtype)]
    if not free:
        return "integers"
    directions = {i: rng.standard_normal(xs[i].shape) for i in free}

    def moved(t: float) -> tuple[list[Any], list[Tensor]]:
        inputs = [Tensor(x + t * directions[i], requires_grad=True) if i in directions else x for i, x in enumerate(xs)]
        return inputs, [y for y in run(case, inputs) if isinstance(y, Tensor)]

    with kernels.use(kernel):
        inputs, ys = moved(0)
        gys = [np.asarray(rng.standard_normal(y.shape)) for y in ys]
        gradient = [gradients(y, [inputs[i] for i in free], gy) for y, gy in zip(ys, gys, strict=True)]
        slopes = [(gx * directions[i]).ravel() for gxs in gradient for i, gx in zip(free, gxs, strict=True)]
        less, here, more = (sum((y.data * gy).sum() for y, gy in zip(moved(t)[1], gys, strict=True)) for t in (-h, 0.0, h))
    size = 1 + np.abs(np.concatenate(slopes)).sum()
    if not abs(more - 2 * here + less) / h < 1e-4 * size:  # the difference of the slopes on either side; or nan
        return "kink"
    return "right" if abs((more - less) / (2 * h) - np.concatenate(slopes).sum()) < 1e-6 * size else "wrong"
