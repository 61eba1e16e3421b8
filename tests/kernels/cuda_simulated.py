"""The CUDA kernels themselves, each thread simulated in Python by Numba, against the reference text.

test_cuda.py runs this file, in a process with NUMBA_ENABLE_CUDASIM=1. The strict stand-in for CuPy holds the arrays, so that
nothing around the kernels falls back to NumPy either. Blocks and grids are made small: every loop then takes several turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from minidl import LossScale, Tensor, kernels, mixed, nn, ops, optim
from minidl.array import to_device
from minidl.kernels import cublas, cuda, reference
from minidl.kernels.cuda import conv, direct, elementwise, launch, loss, moments, pool, random, resize, windows
from minidl.kernels.shapes import conv_size
from models import densenet
from tests.gpu import strict_cupy
from tests.kernels import cuda_cases, draws, without_gpu
from tests.kernels.draws import Call, Draw
from tests.kernels.test_agree import KERNELS

EXAMPLES = 6 if settings().derandomize else 20  # of a family; .ci/run draws fresh ones
kernel_names, started = set[str](), set[str]()  # of the set, as tested; of the @cuda.jit functions, as started
halves = set[str]()  # of the set, as tested on float16


@pytest.fixture(autouse=True, scope="module")
def gpu() -> Iterator[None]:
    def start(kernel: Any, *how: Any) -> None:
        started.add(cuda_cases.name_of(kernel))
        without_gpu.start(kernel, *how)

    with pytest.MonkeyPatch.context() as patch:
        without_gpu.take_place(patch)
        patch.setattr(launch, "start", start)
        yield


def small(block: int, blocks: int, columns: int = 1 << 28) -> pytest.MonkeyPatch:
    """So many threads a block, blocks along an axis, bytes of columns; to be undone"""
    patch = pytest.MonkeyPatch()
    for module in (launch, loss, moments):
        patch.setattr(module, "THREADS", block)
    patch.setattr(launch, "BLOCKS", blocks)
    patch.setattr(moments, "SHARE", 2)
    patch.setattr(moments, "PIECES", min(4, block))
    patch.setattr(conv, "COLUMNS", columns)
    without_gpu.small_direct(patch)
    return patch


def _bare(result: Any) -> Any:
    return result._bare if isinstance(result, strict_cupy.ndarray) else result


def compare(call: Call, eps: float, within: int = 512) -> None:
    """The kernel's results, and its arguments afterwards, are those of the reference; and a second run gives the same bits."""
    name, args = call.name, call.args
    before = [np.array(a) if isinstance(a, np.ndarray) else a for a in args]
    runs = []
    plain = draws.plain(next(a for a in args if isinstance(a, np.ndarray)))
    for function, moved in ((getattr(cuda, name), True), (getattr(cuda, name), True), (getattr(plain, name), False)):
        with kernels.use("reference"), np.errstate(all="ignore"):  # NaN and infinities are among what is drawn
            result = function(*(strict_cupy._dressed(a) if moved and isinstance(a, np.ndarray) else a for a in args))
        results = [_bare(r) for r in (result if isinstance(result, tuple) else (result,))]
        runs.append([*results, *(np.array(a) for a in args if isinstance(a, np.ndarray))])
        for a, b in zip(args, before, strict=True):
            if isinstance(a, np.ndarray) and not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                a[...] = b
    for got, again, want in zip(*runs, strict=True):
        if want is None:
            assert got is None
            continue
        np.testing.assert_array_equal(got, again, err_msg=repr(call))
        assert (got.shape, got.dtype) == (want.shape, want.dtype), repr(call)
        largest = float(np.max(np.abs(want), initial=0, where=np.isfinite(want)))
        np.testing.assert_allclose(got, want, rtol=0, atol=within * eps * (1 + largest), err_msg=repr(call))


@pytest.mark.parametrize("family", cuda_cases.FAMILIES)
@given(data=st.data())
@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_agrees_with_the_reference(family: draws.Family, data: st.DataObject) -> None:
    check(family, data)


def check(family: draws.Family, data: st.DataObject) -> None:
    draw = Draw(data, small=True)
    patch = small(2 ** draw.int(0, 3), draw.int(1, 2), data.draw(st.sampled_from((1, 400, 1 << 28))))
    try:
        for call in family(draw):
            compare(call, draw.eps)
            kernel_names.add(call.name)
    finally:
        patch.undo()


@pytest.mark.parametrize("family", [family for family in cuda_cases.HALVES if family not in cuda_cases.CONV3X3[1:]])
@given(data=st.data())
@settings(max_examples=EXAMPLES // 2, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_halves_agree_with_the_reference(family: draws.Family, data: st.DataObject) -> None:
    """Both add up in float32 and differ by the roundings of the results: by 8 eps, not by the 512 of other sums"""
    draw = Draw(data, (np.float16,), small=True)
    patch = small(2 ** draw.int(0, 3), draw.int(1, 2), data.draw(st.sampled_from((1, 400, 1 << 28))))
    try:
        for call in family(draw):
            compare(call, draw.eps, 8)
            halves.add(call.name)
    finally:
        patch.undo()


def test_sums_of_halves_do_not_stop_at_2048() -> None:
    """Where 2048 + 1 is 2048, in float16"""
    x = strict_cupy._dressed(np.ones((1, 1, 50, 50), np.float16))
    assert cuda.avg_pool2d(x, (50, 50), (1, 1), (0, 0), (1, 1), True).item() == 1
    assert [a.item() for a in cuda.channel_sums(x, x, strict_cupy._dressed(np.zeros(1, np.float32)))] == [2500, 2500]
    cols, pixel = (strict_cupy._dressed(np.ones(shape, np.float16)) for shape in ((1, 50, 50, 1, 50, 50), (1, 1, 1, 1)))
    windows.fold(cols, (1, 1), (49, 49), (1, 1), pixel)  # it is in all 2500 windows
    assert pixel.item() == 2500


@pytest.mark.parametrize("module", [pool, windows])
def test_sums_in_halves_are_found(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    monkeypatch.setattr(module, "np", type("Half", (), {"float32": np.float16}))
    with pytest.raises(AssertionError):
        test_sums_of_halves_do_not_stop_at_2048()


def test_blocks_as_large_as_on_a_gpu() -> None:
    """256 threads, of which several blocks share the images of a channel"""
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal((9, 1, 30, 31))).astype(np.float32)
    assert moments._blocks(x.reshape(9, 1, -1)) == ((1, 2), (256, 1))
    mean, var = moments.moments(strict_cupy._dressed(x.reshape(9, 1, -1)))  # not E x^2 - (E x)^2, which has no digits left here
    np.testing.assert_allclose(mean.get(), x.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(var.get(), x.var(dtype=np.float64), rtol=1e-3)
    compare(Call("channel_sums", [x - 1000, x, np.full(1, 1000, np.float32)]), float(np.finfo(np.float32).eps))


@given(data=st.data())
@settings(max_examples=6)
def test_max_pooling_of_ties_nan_and_infinity(data: st.DataObject) -> None:
    """The first of equal values wins, and NaN wins over all."""
    draw = Draw(data)
    values = np.array([0, 0, 1, 1, np.nan, np.inf, -1, -np.inf], draw.dtype)[: draw.int(1, 8)]
    x = draw.rng.choice(values, (1, 2, draw.int(3, 6), draw.int(3, 6)))
    window = (3, 3), (draw.int(1, 2), draw.int(1, 2)), (0, 0)
    out = tuple(conv_size(size, 3, s, 0) for size, s in zip(x.shape[2:], window[1], strict=True))
    patch = small(8, 2)
    got, want = cuda.max_pool2d(strict_cupy._dressed(x), *window, out), reference.max_pool2d(x, *window, out)
    patch.undo()
    for g, w in zip(got, want, strict=True):
        np.testing.assert_array_equal(g.get(), w)


def test_the_argmax_of_a_window_of_minus_infinity_is_in_the_image() -> None:
    x = np.full((1, 1, 3, 4), -np.inf, np.float32)
    _, argmax = cuda.max_pool2d(strict_cupy._dressed(x), (3, 2), (2, 2), (1, 1), (2, 3))
    np.testing.assert_array_equal(argmax.get(), [[[[3, 2, 2], [1, 0, 0]]]])


def test_a_class_of_minus_infinity_is_no_class() -> None:
    z, v = np.array([[0, -np.inf, 1], [0, -np.inf, 1], [np.nan, -np.inf, 1]], np.float32), np.ones(3, np.float32)
    losses, g = cuda.softmax_cross_entropy(*map(strict_cupy._dressed, (z, np.array([0, 1, 2]), v)), 0.0)
    q = 1 / (1 + np.e)
    np.testing.assert_allclose(losses.get(), [1 + np.log(1 + 1 / np.e), np.inf, np.nan], rtol=1e-6)
    np.testing.assert_allclose(g.get()[:2], [[q - 1, 0, 1 - q], [q, -1, 1 - q]], atol=1e-6)


def test_sums_about_a_mean_far_from_zero() -> None:
    rng = np.random.default_rng(0)
    gy, x = (np.float32(at + rng.standard_normal((2, 3, 4, 4))) for at in (0, 1000))
    _, second = cuda.channel_sums(*map(strict_cupy._dressed, (gy, x, np.full(3, 1000, np.float32))))
    np.testing.assert_allclose(second.get(), (gy.astype(np.float64) * (x - 1000)).sum((0, 2, 3)), rtol=2e-6, atol=2e-5)


def test_nan_passes_the_relu() -> None:
    x = np.array([[np.nan, -1.0, 2.0]], np.float32)
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    y = cuda.channel_affine_relu(*map(strict_cupy._dressed, (x, x, one, zero)))
    np.testing.assert_array_equal(y.get(), [[np.nan, 0, 4]])


def test_an_array_that_cannot_change_in_place() -> None:
    p = np.ones((3, 2), np.float32).T
    with pytest.raises(ValueError, match=r"p: expected a contiguous array to update in place, got strides \(4, 8\)"):
        cuda.sgd_update(*map(strict_cupy._dressed, (p, p, p)), 0.1, 0.9, False, 0.0)
    with pytest.raises(ValueError, match="X: expected a contiguous array"):
        cuda.channel_statistics(strict_cupy._dressed(np.ones((2, 3, 4, 5)).swapaxes(0, 1)), 0, 1)


def test_an_empty_batch_starts_nothing() -> None:
    assert cuda.relu_grad(*map(strict_cupy._dressed, (np.empty((0, 3)), np.empty((0, 3))))).shape == (0, 3)


@given(data=st.data())
@settings(max_examples=60, phases=[Phase.generate])
def test_products_of_matrices_that_lie_anywhere(data: st.DataObject) -> None:
    """Transposed, with strides, of one row or one column, whose strides then say nothing; into some channels of an array"""
    draw = Draw(data, small=True)
    N, I, J, K = (draw.size(4) for _ in range(4))  # noqa: E741
    a = draw.array((N, J, I)).swapaxes(1, 2) if draw.bool() else draw.array((N, I, J))
    b = draw.array((N, K, J)).swapaxes(1, 2) if draw.bool() else draw.array((N, J, K))
    wide = np.zeros((N, I + 2, K), draw.dtype)
    out = strict_cupy._dressed(wide.reshape(N, I + 2, K, 1)[:, 1 : I + 1].reshape(N, I, K))  # as of some channels
    cublas.gemm(*map(strict_cupy._dressed, (a, b)), out=out)
    np.testing.assert_allclose(wide[:, 1 : I + 1], a @ b, rtol=0, atol=64 * draw.eps * (1 + np.abs(a @ b).max()))
    assert not wide[:, 0].any() and not wide[:, -1].any()


# ---- breaking a kernel turns its test red


@pytest.mark.parametrize(
    ("module", "name", "broken", "family"),
    [
        (windows, "last_window", lambda y, s, count: min(count, y // s), draws.convolution),
        (pool, "first_window", lambda y, k, s: 0, draws.pooling),
        (
            moments,
            "_together",
            lambda n, m, s, n2, m2, s2: (n + n2, (n * m + n2 * m2) / max(n + n2, 1), s + s2),
            draws.norm,
        ),
        (elementwise, "math", type("Wrong", (), {"sqrt": abs}), draws.updates),
        (resize, "_bands", lambda A: [strict_cupy._dressed(np.full(len(A), n)) for n in (0, 1)], draws.resize),
        (loss, "_largest", lambda shared, value: value, draws.loss),
        (loss, "_sum", lambda shared, value: value, draws.loss),
        (random, "_philox", lambda i, seed: reference.philox(i, seed + 1), draws.random),
        (direct, "flat", lambda x: x.swapaxes(2, 3).reshape(*x.shape[:2], -1), cuda_cases.CONV3X3[0]),
        (conv, "_side_by_side", lambda y: y.reshape(y.shape[1], -1), draws.convolution),
    ],
)
def test_a_broken_kernel_is_found(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Any, family: draws.Family
) -> None:
    monkeypatch.setattr(module, name, broken)

    @given(data=st.data())
    @settings(max_examples=100, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def look(data: st.DataObject) -> None:
        check(family, data)

    with (
        np.errstate(all="ignore"),
        pytest.raises((AssertionError, ValueError)),
    ):  # the latter of log(-1)
        look()


# ---- a net on them


class Residual(nn.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, 2, padding=1, rng=rng), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, groups=2, rng=rng), nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 10, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1.relu(self.conv1(x))
        y = self.bn2.relu(self.conv2(y), y)
        return self.linear(ops.flatten(ops.max_pool2d(y, 2)))


@pytest.mark.parametrize(("precision", "rtol"), [("float32", 1e-4), ("float16", 2e-3)])
def test_the_first_steps_of_training_agree_with_the_cpu(precision: str, rtol: float) -> None:
    """Two steps of a small residual and a small dense net, by the CUDA kernels and by the reference text"""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((2, 3, 6, 6), np.float32), np.array([0, 1])

    def train(model: nn.Module, device: str) -> list[float]:
        optimizer = optim.SGD(model.to(device).parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        losses = []
        for _ in range(2):
            with mixed(precision):
                loss = ops.cross_entropy(model(Tensor(to_device(x, device))), to_device(labels, device))
            for p in model.parameters():
                p.grad = None
            assert LossScale(2.0**10).backward(loss)
            optimizer.step()
            losses.append(loss.item())
        return losses

    patch = small(4, 8)
    for build in (Residual, lambda: densenet.cifar(1, 2, True, 10, 3, 0, 0.0)):
        with kernels.use("reference"):
            want = train(build(), "cpu")
        assert kernels.of(to_device(x, "gpu")) is cuda
        np.testing.assert_allclose(train(build(), "gpu"), want, rtol=rtol)
    patch.undo()


def test_a_choice_of_the_reference_is_respected() -> None:
    with kernels.use("reference"):
        assert kernels.of(strict_cupy._dressed(np.ones(3, np.float32))) is reference


# ---- nothing is left out


def test_every_kernel_was_tested() -> None:
    """The last test: it looks at what the ones above have done."""
    compiled = {name for name, kernel in cuda_cases.functions("FakeCUDAKernel").items() if not kernel._device}
    assert kernel_names == set(KERNELS)
    assert started == compiled
    print(f"simulated: {len(kernel_names)} of {len(KERNELS)} kernels, {len(started)} of {len(compiled)} CUDA functions; "
          f"on float16 {len(halves)} kernels, all but {', '.join(sorted(set(KERNELS) - halves))}")  # fmt: skip
