"""Mixed precision: what is half and what is not, how near the halves stay to float32, and what they save."""

from __future__ import annotations

import pathlib
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from minidl import OPS, Parameter, Tensor, kernels, mixed, nn, no_grad, ops, optim, tape, weights
from minidl.array import to_cpu, to_device
from minidl.kernels import halves
from minidl.mixed import FLOAT32, HALF
from minidl.ops.conv import Conv2d
from minidl.ops.dense import DenseBlock
from minidl.ops.fused import BatchNormReLU
from minidl.ops.norm import BatchNorm
from minidl.train import Settings, fit
from minidl.train.loss_scale import LossScale
from tests.gpu import strict_cupy
from tests.train.test_train import SETTINGS, TEST, TRAIN, BreaksAt, Net, same_run

HALVES = ("float16", "bfloat16")
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # what rounding to nearest may change, as a share


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def half(name: str) -> Any:
    return np.dtype(np.float16) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


# ---- every op against itself in float32, on drawn shapes


def _pool(rng: np.random.Generator, n: tuple[int, ...]) -> list[np.ndarray]:
    return [rng.standard_normal((n[0], n[1], n[2] + 3, n[3] + 3))]


def _norm(rng: np.random.Generator, n: tuple[int, ...]) -> list[np.ndarray]:
    return [rng.standard_normal((n[0] + 3, n[1], n[2], n[3])), rng.uniform(0.5, 2, n[1]), rng.standard_normal(n[1])]


def _residual(rng: np.random.Generator, n: tuple[int, ...]) -> list[np.ndarray]:
    inputs = _norm(rng, n)
    return [*inputs, rng.standard_normal(inputs[0].shape)]


def _dense(rng: np.random.Generator, n: tuple[int, ...]) -> list[np.ndarray]:
    """Two layers of growth 3; gamma and beta keep what is rectified away from 0, where a rounding opens or shuts a gate"""
    x = rng.standard_normal((n[0] + 3, n[1], n[2] + 1, n[3] + 1))
    parameters = list[np.ndarray]()
    for c in (n[1], n[1] + 3):
        parameters += [np.full(c, 0.125), rng.choice([-1.0, 1.0], c), rng.standard_normal((3, c, 3, 3)) / (3 * c**0.5)]
    return [x, *parameters]


def _like(*shapes: str) -> Callable[[np.random.Generator, tuple[int, ...]], list[np.ndarray]]:
    """Arrays whose axes are letters of NCHW: the four sizes that are drawn"""
    return lambda rng, n: [rng.standard_normal([n["NCHW".index(a)] for a in shape]) for shape in shapes]


STATISTICS = np.linspace(-0.5, 0.5, 9, dtype=np.float32), np.linspace(0.5, 2, 9, dtype=np.float32)  # of up to nine channels


def _frozen(x: Tensor, *rest: Tensor) -> Tensor:
    op = ops.batch_norm_frozen_relu if len(rest) == 3 else ops.batch_norm_frozen
    mean, var = (a[: x.shape[1]] for a in STATISTICS)
    return op(x, rest[0], rest[1], mean, var, *rest[2:])


Inputs = Callable[[np.random.Generator, tuple[int, ...]], list[np.ndarray]]
CASES: dict[str, tuple[Callable[..., Tensor], Inputs, bool]] = {  # the op, its inputs, whether its result is half
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, padding=1),
               lambda rng, n: [*_pool(rng, n), rng.standard_normal((5, n[1], 3, 3)), rng.standard_normal(5)], True),
    "conv2d in groups": (lambda x, w: ops.conv2d(ops.concat([x, x]), w, None, 2, groups=2),
                         lambda rng, n: [*_pool(rng, n), rng.standard_normal((4, n[1], 2, 3))], True),
    "linear": (ops.linear, _like("NC", "HC", "H"), True),
    "matmul": (ops.matmul, _like("NCH", "NHW"), True),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, 2, padding=1), _pool, True),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, (2, 3)), _pool, True),
    "global_avg_pool2d": (ops.global_avg_pool2d, _like("NCHW"), True),
    "batch_norm": (ops.batch_norm, _norm, True),
    "batch_norm_frozen": (_frozen, _norm, True),
    "batch_norm_relu": (ops.batch_norm_relu, _norm, True),
    "batch_norm_relu and residual": (ops.batch_norm_relu, _residual, True),
    "batch_norm_frozen_relu and residual": (_frozen, _residual, True),
    "dense block": (lambda *xs: DenseBlock([1, 1], 1e-5)(*xs), _dense, True),
    "relu": (ops.relu, _like("NCHW"), True),
    "add": (lambda a, b: a + b, _like("NCHW", "CHW"), True),
    "concat": (lambda a, b: ops.concat([a, b]), _like("NCW", "NHW"), True),
    "dropout": (lambda x: ops.dropout(x, 0.5, np.random.default_rng(0)), _like("NCHW"), True),
    "resize": (lambda x: ops.resize(x, (5, 3)), _pool, False),
    "sum": (lambda x: ops.sum(x, axis=(0, 2)), _like("NCHW"), False),
    "softmax": (ops.softmax, _like("NC"), False),
    "cross_entropy": (lambda z: ops.cross_entropy(z, np.zeros(len(z), int)), _like("NC"), False),
}  # fmt: skip


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=8)
def test_values_and_gradients_are_those_of_float32_within_the_rounding_of_halves(
    name: str, precision: str, data: st.DataObject
) -> None:
    op, inputs, result_is_half = CASES[name]
    rng, dtype = np.random.default_rng(data.draw(st.integers(0, 1000))), half(precision)
    sizes = tuple(data.draw(st.integers(1, 9)) for _ in range(4))
    # the first op makes an activation of the input, as the op before it would, and of a result that is half a float32 again
    arrays = [a.astype(dtype).astype(np.float32) for a in inputs(rng, sizes)]
    gy = None

    def run(precision: str) -> tuple[Tensor, list[np.ndarray]]:
        nonlocal gy
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        with mixed(precision):
            y = op(*(x.to(dtype=dtype) if precision != "float32" and x.ndim > 1 else x for x in leaves))
        gy = rng.standard_normal(y.shape).astype(dtype).astype(np.float32) if gy is None else gy
        y.backward(gy.astype(y.dtype))
        assert all(x.grad is not None and x.grad.dtype == np.float32 for x in leaves)
        return y, [y.data.astype(np.float32), *(x.grad for x in leaves)]

    _, want = run("float32")
    y, got = run(precision)
    assert y.dtype == (dtype if result_is_half else np.float32)
    smallest = 1 if "norm" in name or "dense" in name else 1e-2  # there sums cancel, of which terms of size 1 were rounded
    for g, w in zip(got, want, strict=True):
        assert rms(g - w) <= 8 * EPS[precision] * max(rms(w), smallest)


def test_sums_are_float32() -> None:
    """Ten thousand ones: in float16, 2048 + 1 is 2048"""
    assert np.float16(2048) + np.float16(1) == np.ones((10_000, 2), np.float16).sum(axis=0)[0] == 2048
    x = Tensor(np.ones((1, 1, 100, 100), np.float32), requires_grad=True)
    b = Tensor(np.zeros(1, np.float32), requires_grad=True)
    w, rows = (Tensor(np.ones(shape, np.float32)) for shape in ((1, 1, 100, 100), (10_000, 1)))
    with mixed("float16"):
        assert ops.conv2d(x, w).item() == 10_000
        assert ops.linear(ops.flatten(x), ops.flatten(w)).item() == 10_000
        assert ops.avg_pool2d(x, 100).item() == ops.global_avg_pool2d(x).item() == 1
        ops.sum(ops.conv2d(x, Tensor(np.ones((1, 1, 1, 1), np.float32)), b)).backward()
        ops.sum(ops.linear(rows, Tensor(np.ones((2, 1), np.float32)), ops.concat([b, b], axis=0))).backward()
    assert b.grad is not None and b.grad.item() == 30_000


# ---- what is stored in what


def net(name: str) -> nn.Module:
    return models.densenet_bc(16, 4, num_classes=4) if name == "densenet" else models.resnet8(num_classes=4)


def images(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 3, size, size), np.float32), np.arange(8) % 4


@pytest.mark.parametrize("precision", HALVES)
def test_activations_are_halves_and_all_else_is_float32(precision: str) -> None:
    x, labels = images()
    for model in (net("resnet"), net("densenet")):
        with mixed(precision):
            loss = ops.cross_entropy(model(x), labels)
        seen = set[type]()
        for op in tape(loss):
            if isinstance(op, Conv2d | BatchNorm | BatchNormReLU | DenseBlock):
                seen.add(type(op))
                saved = [a for a in vars(op).values() if isinstance(a, np.ndarray)]
                assert {a.dtype for a in saved if a.ndim > 1} == {half(precision)}
                assert {a.dtype for a in saved if a.ndim == 1} <= {np.dtype(np.float32)}
        assert len(seen) >= 2 and loss.dtype == np.float32
        loss.backward()
        assert {p.grad.dtype for p in model.parameters()} == {np.dtype(np.float32)}
        assert {a.dtype.name for a in model.state_dict().values()} == {"float32", "int64"}


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_the_graph_keeps_half_the_bytes(name: str, tell: Callable[[str], None]) -> None:
    def kept(precision: str) -> int:
        """What is held between forward and backward, measured"""
        with mixed(precision):
            x, labels = images(32)
            y = net(name)
            ops.cross_entropy(y(x), labels)  # compiles, and fills caches
            tracemalloc.start()
            loss = ops.cross_entropy(y(x), labels)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            del loss
        return held

    single, mix = kept("float32"), kept("float16")
    tell(f"{name}: {mix:,} bytes kept for backward in float16, {single:,} in float32")
    assert 0.45 * single < mix < 0.56 * single  # the input, and max pooling's maxima, do not shrink


def test_no_graph_no_copy() -> None:
    """Inside no_grad, too, results are halves; a tensor that has the right type is taken as it is"""
    x = Tensor(np.ones((2, 3), np.float16))
    with no_grad(), mixed("float16"):
        y = ops.linear(x, Tensor(np.ones((4, 3), np.float32)))
        assert y.dtype == np.float16 and y.op is None
        assert ops.relu(x).dtype == np.float16


# ---- errors


def test_outside_a_mix_of_types_is_an_error() -> None:
    x, w = Tensor(np.ones((2, 3), np.float16)), Tensor(np.ones((4, 3), np.float32))
    for _ in range(2):
        with pytest.raises(TypeError, match=r"input 1: float32, while input 0 is float16; .* `with minidl.mixed\("):
            ops.linear(x, w)
        with pytest.raises(TypeError, match="input 1: float32"):
            x + Tensor(np.ones((2, 3), np.float32))
        with mixed("float16"):
            assert ops.linear(x, w).dtype == (x + x).dtype == np.float16
            assert (x + Tensor(np.ones((2, 3), np.float32))).dtype == np.float16
        with pytest.raises(RuntimeError, match="left"), mixed("float16"):
            raise RuntimeError("left")


def test_float64_is_no_part_of_the_mix() -> None:
    with mixed("float16"):
        x = Tensor(np.ones((2, 3), np.float64))
        with pytest.raises(TypeError, match=r"input 1: float16, while input 0 is float64; write x.to\(dtype='float64'\)\n"):
            ops.linear(x, Tensor(np.ones((4, 3), np.float32)))
        assert (x * x).dtype == np.float64


def test_batch_norm_of_halves_wants_float32_beside_them() -> None:
    x, gamma = Tensor(np.ones((4, 3), np.float16)), Tensor(np.ones(3, np.float16))
    with pytest.raises(TypeError, match="gamma: expected float32 beside halves, got float16"):
        ops.batch_norm(x, gamma, gamma)
    with mixed("float16"):
        assert ops.batch_norm(x, gamma, gamma).dtype == np.float16  # cast, as everything of 16 or 32 bits


def test_the_name_of_a_precision() -> None:
    expected = r"precision: expected one of \('float32', 'float16', 'bfloat16'\), got 'half'"
    with pytest.raises(ValueError, match=expected), mixed("half"):
        pass


def test_without_ml_dtypes_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    expected = r"needs ml_dtypes, which is not installed: pip install -e '.\[bfloat16\]'"
    with pytest.raises(RuntimeError, match=expected), mixed("bfloat16"):
        pass
    with mixed("float16"):
        pass


def test_bfloat16_on_the_gpu_is_an_error_of_the_kernels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    x = strict_cupy._dressed(np.ones(3, half("bfloat16")))
    with pytest.raises(RuntimeError, match="know float16 and no bfloat16"):
        kernels.of(x)
    with kernels.use("reference"):
        assert kernels.of(x).relu(x).dtype == half("bfloat16")


# ---- nets


def losses(name: str, precision: str, device: str = "cpu", scale: LossScale | None = None, steps: int = 5) -> list[float]:
    model = net(name).to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scale = scale or LossScale(2.0**10)
    x, labels = (to_device(a, device) for a in images())
    found = []
    for _ in range(steps):
        with mixed(precision):
            loss = ops.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        if scale.backward(loss):
            optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_nets_learn_as_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps, of which the losses stay within 0.5%: by the compiled kernels, by the reference, and on a GPU's stand-in"""
    want = losses(name, "float32")
    assert want[-1] < 0.9 * want[0]
    np.testing.assert_allclose(losses(name, "float16"), want, rtol=0.005)
    with ops.unfused():
        np.testing.assert_allclose(losses(name, "float16"), want, rtol=0.005)
    with kernels.use("reference"):
        np.testing.assert_allclose(losses(name, "float16"), want, rtol=0.005)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        np.testing.assert_allclose(losses(name, "float16", "gpu"), want, rtol=0.005)


@pytest.mark.parametrize("name", ["resnet", "densenet"])
def test_nets_learn_in_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bits fewer: within 2%, and without a scale; on a GPU's stand-in by the reference, its only text for them"""
    half("bfloat16")
    want = losses(name, "float32")
    np.testing.assert_allclose(losses(name, "bfloat16", scale=LossScale(1)), want, rtol=0.02)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("reference"):
        np.testing.assert_allclose(losses(name, "bfloat16", "gpu", LossScale(1)), want, rtol=0.02)


@pytest.mark.parametrize(
    ("op", "precision"),
    [
        ("Linear", (HALF,)),
        ("BatchNormReLU", (HALF,)),
        ("BatchNormReLU", (FLOAT32,)),
        ("DenseBlock", (HALF, FLOAT32)),
        ("Conv2d", (FLOAT32,)),
        ("CrossEntropy", ()),
    ],
)
def test_another_precision_of_an_op_is_noticed(monkeypatch: pytest.MonkeyPatch, op: str, precision: tuple[str, ...]) -> None:
    monkeypatch.setattr(OPS[op], "precision", precision)
    with np.errstate(all="ignore"), pytest.raises((AssertionError, TypeError, ValueError)):
        test_sums_are_float32()
        test_activations_are_halves_and_all_else_is_float32("float16")


def test_results_that_are_not_rounded_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halves, "_rounded", lambda y, half: y)
    with pytest.raises(AssertionError):
        test_activations_are_halves_and_all_else_is_float32("float16")


# ---- the scale of the loss


def tiny_gradients(scale: LossScale | None) -> list[np.ndarray]:
    """Of a net whose loss is multiplied by 2^-18: gradients of activations near 1e-8, below the smallest half"""
    model, (x, labels) = net("resnet"), images()
    with mixed("float16" if scale else "float32"):
        loss = ops.cross_entropy(model(x), labels) * 2.0**-18
    assert (scale or LossScale(1)).backward(loss)
    return [to_cpu(p.grad) for p in model.parameters()]


def relative_error(got: Sequence[np.ndarray], want: Sequence[np.ndarray]) -> float:
    got_all, want_all = (np.concatenate([a.ravel() for a in arrays]) for arrays in (got, want))
    return rms(got_all - want_all) / rms(want_all)


def test_without_a_scale_small_gradients_vanish(tell: Callable[[str], None]) -> None:
    want, scaled, not_scaled = tiny_gradients(None), tiny_gradients(LossScale(2.0**18)), tiny_gradients(LossScale(1))
    good, bad = relative_error(scaled, want), relative_error(not_scaled, want)
    tell(f"error of tiny gradients in float16: {good:.1%} with a scale, {bad:.1%} without")
    assert good < 0.05 and bad > 0.5
    assert sum(int((g == 0).sum()) for g in not_scaled) > 0.5 * sum(g.size for g in not_scaled)


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    model, (x, labels) = net("resnet"), images()
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    scale, before, skipped = LossScale(2.0**40, patience=3), model.state_dict(), 0
    for _ in range(100):
        with mixed("float16"):
            loss = ops.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        was = scale.scale
        if not scale.backward(loss):
            skipped += 1
            assert scale.scale == was / 2 and all(p.grad is None for p in model.parameters())
            continue
        if was == 2.0 ** (40 - skipped) and all(np.array_equal(p.data, before[n]) for n, p in model.named_parameters()):
            assert skipped > 10  # nothing has changed until here
            np.testing.assert_array_equal([np.isfinite(p.grad).all() for p in model.parameters()], True)
        optimizer.step()
    assert loss.item() < 0.1 and scale.scale > 1  # it learns
    assert skipped > 40 - np.log2(scale.scale)  # the scale was tried upwards again, and again overflowed


def test_gradients_are_added_and_do_not_depend_on_the_scale() -> None:
    x = Tensor(np.array([1.0, -2.0, 3.0], np.float32), requires_grad=True)
    scale = LossScale(2.0**10, patience=2)
    assert scale.backward(ops.sum(x * x)) and scale.good == 1
    np.testing.assert_array_equal(x.grad, [2, -4, 6])
    assert scale.backward(ops.sum(x * x)) and scale.state_dict() == {"scale": 2.0**11, "good": 0}
    np.testing.assert_array_equal(x.grad, [4, -8, 12])
    other = LossScale()
    other.load_state_dict(scale.state_dict())
    assert other.state_dict() == scale.state_dict()
    p = Parameter(np.array(2.0, np.float32))
    assert scale.backward(p * p) and isinstance(p.grad, np.ndarray) and p.grad == 4


def test_what_no_scale_helps_is_an_error() -> None:
    x = Tensor(np.array(-1.0, np.float32), requires_grad=True)
    scale = LossScale(4.0)
    with np.errstate(invalid="ignore"):
        assert [scale.backward(ops.sqrt(x)) for _ in range(2)] == [False, False]
        with pytest.raises(FloatingPointError, match="not finite, and the loss is not scaled any more"):
            scale.backward(ops.sqrt(x))
    assert x.grad is None


def test_the_scale_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    x = Tensor(to_device(np.array([1.0, 0.0], np.float32), "gpu"), requires_grad=True)
    scale = LossScale(4.0)
    with np.errstate(divide="ignore"):
        assert not scale.backward(ops.sum(ops.sqrt(x))) and x.grad is None
    assert scale.backward(ops.sum(3 * x))
    np.testing.assert_array_equal(to_cpu(x.grad), [3, 3])


def test_bad_scales() -> None:
    for bad in (3.0, 0.5, 0, -2.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"scale: expected (a power of two|a number in \[1, inf\)), got"):
            LossScale(bad)
    with pytest.raises(ValueError, match="patience: expected an integer of at least 1, got 0"):
        LossScale(patience=0)


# ---- training


RUN = replace(SETTINGS, precision="float16")


def test_a_training_in_float16_resumes_with_the_same_bits(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale overflows and recovers on the way, so that a run that forgot it would be another"""
    monkeypatch.setattr("minidl.train.loop.LossScale", partial(LossScale, 2.0**26, patience=1))
    rows = fit(Net(), TRAIN, RUN, tmp_path / "whole", TEST)
    assert [row["loss_scale"] for row in rows] != [2.0**26] * 3
    fit(Net(), TRAIN, replace(RUN, precision="float32"), tmp_path / "single", TEST)
    assert not same_run(tmp_path / "whole", tmp_path / "single")

    def interrupted(out: pathlib.Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            fit(BreaksAt(4, "interrupt"), TRAIN, RUN, out, TEST)
        fit(Net(), TRAIN, RUN, out, TEST, resume=True)

    interrupted(tmp_path / "again")
    assert same_run(tmp_path / "whole", tmp_path / "again")
    monkeypatch.setattr(LossScale, "load_state_dict", lambda self, state: None)
    interrupted(tmp_path / "forgotten")
    assert not same_run(tmp_path / "whole", tmp_path / "forgotten")
    with pytest.raises(ValueError, match="precision was 'float16' and now is 'float32'"):
        fit(Net(), TRAIN, replace(RUN, precision="float32"), tmp_path / "again", TEST, resume=True)


def test_what_a_training_leaves_is_float32(tmp_path: pathlib.Path) -> None:
    fit(Net(), TRAIN, RUN, tmp_path / "half", TEST)
    fit(Net(), TRAIN, SETTINGS, tmp_path / "single", TEST)
    mix, single = (weights.load_arrays(tmp_path / run / "model.safetensors")[0] for run in ("half", "single"))
    assert {name: (a.shape, a.dtype) for name, a in mix.items()} == {name: (a.shape, a.dtype) for name, a in single.items()}
    np.testing.assert_allclose(mix["conv.weight"], single["conv.weight"], atol=5e-3)


def test_a_training_in_bfloat16_has_no_scale(tmp_path: pathlib.Path) -> None:
    half("bfloat16")
    rows = fit(Net(), TRAIN, replace(SETTINGS, precision="bfloat16"), tmp_path / "run", TEST)
    assert "loss_scale" not in rows[-1] and rows[-1]["train_loss"] < 5


def test_a_precision_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"precision: expected one of .* got 'float8'"):
        Settings(precision="float8")
