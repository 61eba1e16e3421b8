"""CUDA graphs without a GPU: kernels simulated by Numba, CuPy by the strict stand-in, whose graphs do again what was captured.

test_graph.py runs this file, in a process with NUMBA_ENABLE_CUDASIM=1. The products, which CuPy refuses in a graph, go through
minidl's own call of cuBLAS, with NumPy in its place.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import LossScale, Tensor, kernels, mixed, nn, ops, optim
from minidl.array import to_cpu, to_gpu
from minidl.data import Dataset
from minidl.kernels import cublas
from minidl.kernels.cuda import launch, moments
from minidl.train import Settings, fit
from minidl.train.cuda_graph import CapturedGradients, _Graph
from minidl.train.loss import Loss
from tests.gpu import strict_cupy
from tests.kernels import without_gpu


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    without_gpu.take_place(monkeypatch)
    without_gpu.small_direct(monkeypatch)
    for module in list(sys.modules.values()):
        if module.__name__.startswith("minidl.kernels.cuda.") and hasattr(module, "THREADS"):
            monkeypatch.setattr(module, "THREADS", 16)
    monkeypatch.setattr(launch, "BLOCKS", 8)
    monkeypatch.setattr(moments, "PIECES", 16)
    yield
    assert not strict_cupy._streams()[-1].is_capturing()


class Residual(nn.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv1, self.bn1 = nn.Conv2d(1, 2, 3, 2, padding=1, rng=rng), nn.BatchNorm2d(2)
        self.conv2, self.bn2 = nn.Conv2d(2, 2, 3, padding=1, groups=2, rng=rng), nn.BatchNorm2d(2)
        self.linear = nn.Linear(2, 3, rng=rng)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.bn1.relu(self.conv1(x))
        y = self.bn2.relu(self.conv2(y), y)
        return self.linear(ops.flatten(ops.max_pool2d(y, 2)))


class Dense(nn.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv, self.bn = nn.Conv2d(1, 2, 3, 2, padding=1, rng=rng), nn.BatchNorm2d(2)
        self.inner = nn.Conv2d(2, 1, 3, padding=1, bias=False, rng=rng)
        self.linear = nn.Linear(3 * 2 * 2, 3, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(ops.flatten(nn.dense_block(self.conv(x), [[(self.bn, self.inner)]])))


def batches(sizes: tuple[int, ...]) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(0)
    return [(to_gpu(rng.standard_normal((n, 1, 4, 4), np.float32)), to_gpu(rng.integers(0, 3, n))) for n in sizes]


def train(model: nn.Module, captured: bool, sizes: tuple[int, ...] = (2, 3, 2)) -> list[np.ndarray]:
    """Losses, logits, and the model's state after some steps with a learning rate that changes; eager by the plain text"""
    model.to("gpu")
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    gradients, found = CapturedGradients(model, ops.cross_entropy), []
    for step, (x, labels) in enumerate(batches(sizes)):
        optimizer.lr = 0.5 / (step + 1)
        with kernels.use("compiled" if captured else "reference"):
            if captured:
                loss, logits = gradients(x, labels)
            else:
                optimizer.zero_grad()
                y = model(x)
                value = ops.cross_entropy(y, labels)
                value.backward()
                loss, logits = value.data, y.data
            optimizer.step()
        found += [to_cpu(loss), to_cpu(logits)]
    return [*found, *model.state_dict().values()]


def close(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(a, b, strict=True))


def test_a_graph_trains_as_eager_steps_do() -> None:
    """Two shapes in turn; Python runs twice a shape, to compile and to capture."""
    model = Residual()
    eager = train(Residual(), captured=False)
    assert close(train(model, captured=True), eager)
    assert not close(eager[:2], eager[4:6])  # the steps are not all the same
    assert model.calls == 4


def test_several_heads_in_a_graph() -> None:
    """What labels are known changes from batch to batch, and is not read back."""
    rng, found = np.random.default_rng(0), []
    sets = [to_gpu(np.stack([rng.integers(-1, 2, 3), known], 1)) for known in ([0, -1, 0], [-1, -1, -1], [0, 0, 0])]
    images = [x for x, _ in batches((3, 3, 3))]
    for captured in False, True:
        model = Residual().to("gpu")
        loss = Loss(model, None, {"kind": ("a", "b"), "site": ("c",)})
        gradients = CapturedGradients(model, loss) if captured else None
        with kernels.use("compiled" if captured else "reference"):
            for x, labels in zip(images, sets, strict=True):
                if gradients is None:
                    for p in model.parameters():
                        p.grad = None
                    y = model(x)
                    loss(y, labels).backward()
                    value = loss(y, labels).data
                else:
                    value, _ = gradients(x, labels)
                found.append([to_cpu(value), *(to_cpu(p.grad) for p in model.parameters())])
    for eager, graph in zip(found[:3], found[3:], strict=True):
        assert close(eager, graph)


def test_a_dense_block_in_a_graph() -> None:
    assert close(*(train(Dense(), captured, sizes=(2, 2)) for captured in (False, True)))


def train_in_halves(captured: bool) -> list[np.ndarray]:
    """The model's state after four steps whose scale is another at each, and the scale; eager by the plain text"""
    model, scale = Residual().to("gpu"), LossScale(2.0**3, patience=1)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    gradients = CapturedGradients(model, ops.cross_entropy, scale)
    for x, labels in batches((2,) * 4):
        with kernels.use("compiled" if captured else "reference"), mixed("float16"):
            if captured:
                gradients(x, labels)
                assert scale.unscale(model.parameters())
            else:
                optimizer.zero_grad()
                assert scale.backward(ops.cross_entropy(model(x), labels))
        with kernels.use("reference"):
            optimizer.step()
    return [np.array(scale.scale), *model.state_dict().values()]


def test_halves_in_a_graph_with_a_scale_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, eager = train_in_halves(True), train_in_halves(False)
    assert graph[0] == eager[0] == 2.0**7
    for a, b in zip(graph, eager, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-3)
    monkeypatch.setattr(strict_cupy.ndarray, "fill", lambda self, value: None)
    assert not all(np.allclose(a, b, atol=2e-3) for a, b in zip(train_in_halves(True), eager, strict=True))


def test_statistics_of_other_forward_passes_are_taken_over() -> None:
    """An eager pass between two launches leaves new arrays in the place of those that the graph reads."""
    ends = []
    for captured in (False, True):
        model = Residual().to("gpu")
        gradients = CapturedGradients(model, ops.cross_entropy)
        for i, (x, labels) in enumerate(batches((2, 2, 2))):
            with kernels.use("compiled" if captured and i != 1 else "reference"):
                gradients(x, labels) if captured and i != 1 else model(x)
        ends.append(list(model.state_dict().values()))
    assert close(*ends)


@pytest.mark.parametrize(("precision", "rel"), [("float32", 1e-4), ("float16", 1e-2)])
def test_fit_with_a_graph_gives_the_numbers_of_the_cpu(tmp_path: pathlib.Path, precision: str, rel: float) -> None:
    """Batches copied ahead, captured steps, evaluation in between; a loss that is not finite is told as ever."""
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), np.uint8)
    data = Dataset(images, np.array([0, 1, 2, 0, 1]), ("a", "b", "c"))
    runs = []
    on_cpu = Settings(epochs=2, batch_size=2, crop=1, precision=precision)
    for settings in (on_cpu, replace(on_cpu, device="gpu", cuda_graph=True)):
        runs.append(fit(Residual(), data, settings, tmp_path / settings.device, data))
    for a, b in zip(*runs, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=rel)
        assert a["validation_loss"] == pytest.approx(b["validation_loss"], rel=rel)
        assert a.get("loss_scale") == b.get("loss_scale")
    model = Residual()
    model.linear.weight.data[:] = np.nan
    began = "<Linear" if precision == "float32" else "<To of linear.weight"  # asked in that precision
    with pytest.raises(FloatingPointError, match=rf"the loss is nan at step 0 .* not finite: .*{began}"):
        fit(model, data, replace(settings, epochs=1), tmp_path / "nan", data)


# ---- the comparison is checked: what a graph must take care of, left out


def test_stale_statistics_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = train(Residual(), captured=False, sizes=(2, 2, 2))
    monkeypatch.setattr(_Graph, "_keep_buffers", lambda self: None)
    assert not close(train(Residual(), captured=True, sizes=(2, 2, 2)), eager)


def test_a_step_without_a_launch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = train(Residual(), captured=False, sizes=(2, 2))
    monkeypatch.setattr(strict_cupy.Graph, "launch", lambda self, stream: None)
    assert not close(train(Residual(), captured=True, sizes=(2, 2)), eager)


def test_a_baked_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    eager = train(Residual(), captured=False, sizes=(2, 2))
    call = _Graph.__call__
    monkeypatch.setattr(_Graph, "__call__", lambda self, x, labels: call(self, self.x, self.labels))
    assert not close(train(Residual(), captured=True, sizes=(2, 2)), eager)


@pytest.mark.parametrize(
    ("careless", "message"),
    [
        (lambda z: float(z.data.sum()), "nothing can be copied to the CPU"),
        (lambda z: to_gpu(np.zeros(3)), "nothing can be copied from the CPU"),
        (lambda z: z.data @ z.data.T, "cuBLAS"),
        (lambda z: strict_cupy._streams()[-1].synchronize(), "cannot be waited for"),
    ],
)
def test_what_cannot_be_captured_is_an_error(careless: Any, message: str) -> None:
    """And the stream has ended its capture: eager steps go on"""

    def loss(z: Tensor, labels: Any) -> Tensor:
        if strict_cupy._streams()[-1].is_capturing():
            careless(z)
        return ops.cross_entropy(z, labels)

    model, ((x, labels),) = Residual().to("gpu"), batches((2,))
    with pytest.raises((RuntimeError, NotImplementedError), match=message):
        CapturedGradients(model, loss)(x, labels)
    with kernels.use("reference"):
        ops.cross_entropy(model(x), labels).backward()


def test_the_graphs_memory_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_cupy._Memory, "pool", None)
    monkeypatch.setattr(strict_cupy.MemoryPool, "malloc", property(lambda self: self.nobody))
    monkeypatch.setattr(strict_cupy.MemoryPool, "nobody", type("", (), {"__self__": None})(), raising=False)
    ((x, labels),) = batches((2,))
    with pytest.raises(RuntimeError, match="memory of the common pool is not the graph's own"):
        CapturedGradients(Residual().to("gpu"), ops.cross_entropy)(x, labels)


# ---- what is refused


def test_refused() -> None:
    ((x, labels),) = batches((2,))
    with pytest.raises(ValueError, match="it draws random numbers"):
        CapturedGradients(nn.Sequential(Residual(), nn.Dropout(0.1)), ops.cross_entropy)
    with pytest.raises(ValueError, match="x: a CUDA graph needs it on the GPU, and it is on the cpu"):
        CapturedGradients(Residual(), ops.cross_entropy)(to_cpu(x), to_cpu(labels))
    model = Residual().to("gpu")
    gradients = CapturedGradients(model, ops.cross_entropy)
    gradients(x, labels)
    model.linear.weight.data = model.linear.weight.data.copy()
    with pytest.raises(ValueError, match="its parameters have moved since the graph was captured"):
        gradients(x, labels)


# ---- products past CuPy


@given(data=st.data())
def test_products_in_a_graph(data: st.DataObject) -> None:
    """Row by row, column by column, with gaps, and with neither; alone and into an array; one matrix for all of a batch, too"""
    sizes = rows, inner, columns = [data.draw(st.integers(1, 4)) for _ in range(3)]
    dtype = data.draw(st.sampled_from((np.float16, np.float32, np.float64)))
    rng, stream = np.random.default_rng(sum(sizes)), strict_cupy.Stream(non_blocking=True)
    batch = data.draw(st.sampled_from(((), (3,))))
    a_shape, b_shape = ((*(batch if data.draw(st.booleans()) else ()), *shape) for shape in ((rows, inner), (inner, columns)))
    a, b = (_laid_out(rng.standard_normal(shape).astype(dtype), data) for shape in (a_shape, b_shape))
    want = a.astype(np.float64) @ b.astype(np.float64)
    x, y = to_gpu(np.zeros(1)), strict_cupy._dressed(a)
    out = strict_cupy._dressed(np.zeros((*want.shape[:-1], columns + 2), dtype)[..., 1:-1])
    with strict_cupy._using_allocator(strict_cupy.MemoryPool().malloc), stream:
        stream.begin_capture()
        results = [cublas.matmul(y, strict_cupy._dressed(b)), cublas.gemm(y, strict_cupy._dressed(b), out=out)]
        graph = stream.end_capture()
    graph.launch()
    assert results[1] is out and x is not None
    for result in results:
        rtol = {np.float16: 2e-3, np.float32: 1e-5, np.float64: 1e-12}[dtype]
        np.testing.assert_allclose(result.get(), want, rtol=rtol, atol=rtol)


def _laid_out(a: np.ndarray, data: st.DataObject) -> np.ndarray:
    match data.draw(st.sampled_from(("rows", "columns", "gaps", "neither"))):
        case "columns":
            return a.swapaxes(-1, -2).copy().swapaxes(-1, -2)
        case "gaps":
            return np.concatenate([a[..., :1], a, a], -1)[..., 1 : 1 + a.shape[-1]]
        case "neither":
            return np.repeat(np.repeat(a, 2, -2), 3, -1)[..., ::2, ::3]
    return a


def test_products_in_a_graph_refuse() -> None:
    stream, a = strict_cupy.Stream(non_blocking=True), to_gpu(np.ones((1, 2, 3, 3), np.float32))
    with stream:
        stream.begin_capture()
        try:
            with pytest.raises(
                NotImplementedError, match=r"only products of two or three axes are captured, got \(1, 2, 3, 3\)"
            ):
                cublas.matmul(a, a)
            with pytest.raises(ValueError, match=r"out: expected rows of an array \(3, 3\) float32, got \(2, 3, 3\)"):
                cublas.gemm(a[0, 0], a[0, 0], out=a[0])
            with pytest.raises(
                ValueError, match=r"b: expected \(N, J, K\) or \(J, K\) for a .* got a \(2, 3, 3\) and b \(1, 3, 3\)"
            ):
                cublas.matmul(a[0], a[0, :1])
        finally:
            stream.end_capture()
    with pytest.raises(RuntimeError, match="cublasGemmStridedBatchedEx failed with status 13"):
        cublas._check(13, "cublasGemmStridedBatchedEx")
