"""What takes a device, on a real GPU: MINIDL_TEST_DEVICE=gpu python -m pytest -n 8 tests/gpu/test_on_gpu.py

Every op's gradient check, every kernel, layers, optimisers, explainers, loader, training loop and CUDA graphs, on CuPy arrays.
Elsewhere these are skipped: the strict stand-in for CuPy and Numba's simulator take their place, in the tests of each room.
MINIDL_TEST_DEVICE=stand-in runs this file on the stand-in, by the reference text, which tests nothing but the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidl import Tensor, data, kernels, nn, ops, optim
from minidl.array import device_of, is_array, to_cpu, to_device, to_gpu
from minidl.check import adjoint_check, gradient_check
from minidl.data import Compose, Cutout, Loader, Normalize, RandomCrop, RandomFlip
from minidl.explain import extremal_perturbation, meaningful_perturbation
from minidl.kernels import reference
from minidl.parallel import ALONE
from minidl.parallel.nccl import GPUSums
from minidl.train import Settings, fit
from minidl.train.cuda_graph import CapturedGradients
from models import densenet
from tests.benchmarks.minidl_steps import setup
from tests.explain.nets import METHODS, Net, images
from tests.gpu import strict_cupy
from tests.kernels import cuda_cases, draws
from tests.kernels.draws import Draw
from tests.kernels.test_agree import KERNELS
from tests.ops.cases import CASES

DEVICE = os.environ.get("MINIDL_TEST_DEVICE", "")
pytestmark = pytest.mark.skipif(
    DEVICE not in ("gpu", "stand-in"), reason="needs a GPU: set MINIDL_TEST_DEVICE=gpu on a machine with one"
)
real = pytest.mark.skipif(DEVICE != "gpu", reason="needs a GPU, and no stand-in for one")


@pytest.fixture(autouse=True, scope="module")
def gpu() -> Iterator[None]:
    if DEVICE == "gpu":
        yield
        return
    with pytest.MonkeyPatch.context() as patch, kernels.use("reference"):
        patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        yield


def moved(arguments: list[Any]) -> list[Any]:
    return [to_gpu(a) if isinstance(a, np.ndarray) else a for a in arguments]


def close(got: Any, want: Any, rtol: float, atol: float = 0.0) -> None:
    """Differ by at most rtol of the largest value, and atol"""
    want = to_cpu(want)
    np.testing.assert_allclose(to_cpu(got), want, rtol=0, atol=atol + rtol * float(np.abs(want).max(initial=0)))


# ---- several GPUs


def test_nccl_sums_over_one_gpu(gpu: None) -> None:
    """All of `minidl.parallel.nccl` but other ranks."""
    xp = sys.modules["cupy"]
    if not xp.cuda.nccl.available:
        pytest.skip("NCCL is missing: python -m cupyx.tools.install_library --library nccl --cuda 12.x")
    a = to_gpu(np.arange(6, dtype=np.float32).reshape(2, 3))
    found = GPUSums(ALONE, xp).start(a).wait()
    assert found is a
    np.testing.assert_array_equal(to_cpu(found), np.arange(6).reshape(2, 3))


# ---- ops and kernels


@pytest.mark.parametrize("name", sorted(CASES))
@given(data=st.data())
@settings(max_examples=3)
def test_the_gradient_of_every_op(name: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    gradient_check(case, moved(case.inputs))
    adjoint_check(case, moved(case.inputs))


@pytest.mark.parametrize("name", sorted(CASES))
@given(data=st.data())
@settings(max_examples=5)
def test_every_op_computes_what_it_does_on_the_cpu(name: str, data: st.DataObject) -> None:
    case, found = data.draw(CASES[name]), []
    for move in (np.asarray, to_gpu):
        xs = [Tensor(move(x.astype(np.float32)), requires_grad=True) for x in case.inputs]
        y = case(*xs)
        y.backward(move(np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32)))
        found.append([y.data, *(x.grad for x in xs)])
    for a, b in zip(*found, strict=True):
        assert (device_of(a), device_of(b)) == ("cpu", "gpu")
        close(b, a, 1e-4, 1e-6)


@pytest.mark.parametrize("family", cuda_cases.FAMILIES)
@given(data=st.data())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_every_kernel_agrees_with_the_reference(family: draws.Family, data: st.DataObject) -> None:
    """And gives the same bits again. What a kernel changes in place is compared as well."""
    draw = Draw(data, small=True)
    for name, arguments, *_ in family(draw):
        runs = []
        for f, move in ((_kernel(name), True), (_kernel(name), True), (getattr(reference, name), False)):
            given_to = moved(arguments) if move else [a.copy() if isinstance(a, np.ndarray) else a for a in arguments]
            result = f(*given_to)
            arrays = [*(result if isinstance(result, tuple) else (result,)), *given_to]
            runs.append([to_cpu(a) for a in arrays if is_array(a)])
        for got, again, want in zip(*runs, strict=True):
            np.testing.assert_array_equal(got, again)
            assert (got.shape, got.dtype) == (want.shape, want.dtype)
            close(got, want, 512 * draw.eps, 512 * draw.eps)


def _kernel(name: str) -> Callable[..., Any]:
    return getattr(kernels.of(to_gpu(np.zeros(1, np.float32))), name)  # type: ignore[no-any-return]


# ---- layers, optimisers, steps


def steps(model: nn.Module, device: str, make: Callable[..., optim.Optimizer], captured: bool = False) -> list[float]:
    rng = np.random.default_rng(0)
    optimizer = make(model.to(device).parameters())
    gradients, losses = CapturedGradients(model, ops.cross_entropy) if captured else None, []
    for _ in range(4):
        x, labels = rng.standard_normal((16, 3, 16, 16), np.float32), rng.integers(0, 3, 16)
        x, labels = (to_gpu(x), to_gpu(labels)) if device == "gpu" else (x, labels)
        if gradients is not None:
            loss, _ = gradients(x, labels)
        else:
            optimizer.zero_grad()
            value = ops.cross_entropy(model(x), labels)
            value.backward()
            loss = value.data
        optimizer.step()
        losses.append(float(loss))
    return losses


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "net": Net,
    "dense": lambda: densenet.cifar(1, 3, True, 3, 3, 0, 0.0),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.3, _rng()), nn.Linear(768, 3, rng=_rng())),
}
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda ps: optim.SGD(ps, 0.01, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": lambda ps: optim.AdamW(ps, 1e-3),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_the_first_steps_agree_with_the_cpu_and_repeat(name: str, optimizer: str) -> None:
    model, make = NETS[name], OPTIMIZERS[optimizer]
    first, again = steps(model(), "gpu", make), steps(model(), "gpu", make)
    assert first == again
    np.testing.assert_allclose(first, steps(model(), "cpu", make), rtol=1e-3)


@real
@pytest.mark.parametrize("name", ["net", "dense"])
def test_a_graph_takes_the_same_steps(name: str) -> None:
    captured, eager = (steps(NETS[name](), "gpu", OPTIMIZERS["sgd"], captured) for captured in (True, False))
    np.testing.assert_allclose(captured, eager, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet20", "densenet_bc100_12"])
def test_published_nets_agree_with_the_cpu(name: str) -> None:
    losses = []
    for device in ("cpu", "gpu"):
        step = setup(name, "step", 4, 32, device)
        losses.append([step() for _ in range(2)])
    np.testing.assert_allclose(*losses, rtol=1e-3)


# ---- data, training, explaining


def test_batches_made_on_the_gpu_are_those_of_the_cpu() -> None:
    train_set = data.lesions(50, seed=0)
    flips, normalize = [RandomFlip(), RandomFlip(axis="vertical")], Normalize([0.5] * 3, [0.2] * 3)
    augment = Compose([RandomCrop(3, 0.5), *flips, Cutout(5), normalize])
    loaders = (Loader(train_set, 16, augment=augment, device=device) for device in ("cpu", "gpu"))
    for (x, labels), (gx, glabels) in zip(*loaders, strict=True):
        close(gx, x, 1e-6)
        np.testing.assert_array_equal(to_cpu(glabels), labels)


def test_the_training_loop(tmp_path: Path) -> None:
    sets, plain = (data.lesions(40, seed=0), data.lesions(20, seed=1)), Settings(epochs=2, batch_size=10, lr=0.02, crop=2)
    on_gpu = replace(plain, device="gpu")
    runs = {"cpu": plain, "gpu": on_gpu, "again": on_gpu}
    if DEVICE == "gpu":
        runs |= {"graph": replace(on_gpu, cuda_graph=True), "half": replace(on_gpu, precision="float16", cuda_graph=True)}
    rows = {name: fit(Net(3, 2), sets[0], settings, tmp_path / name, sets[1]) for name, settings in runs.items()}
    loss = {name: [row[key] for row in found for key in ("train_loss", "validation_loss")] for name, found in rows.items()}
    assert loss["gpu"] == loss["again"]
    for name, rtol in {"gpu": 1e-3, "graph": 1e-3, "half": 0.05}.items():
        if name in loss:
            np.testing.assert_allclose(loss[name], loss["cpu"], rtol=rtol)


@pytest.mark.parametrize("method", METHODS)
def test_explainers(method: str) -> None:
    function, quick = METHODS[method]
    x = images(3, 3, 8, 8).astype(np.float32)
    on_cpu, on_gpu = function(Net(), x, **quick), function(Net().to("gpu"), to_gpu(x), **quick)
    assert device_of(on_gpu.map) == "gpu"
    close(on_gpu.raw, on_cpu.raw, 1e-3)


def test_meaningful_perturbation() -> None:
    x = images(2, 3, 8, 8).astype(np.float32)
    on_cpu, on_gpu = (meaningful_perturbation(Net().to(d), to_device(x, d), iterations=5) for d in ("cpu", "gpu"))
    close(on_gpu.raw, on_cpu.raw, 5e-3)


def test_extremal_perturbation() -> None:
    """At first all places of the mask are equal: which are ranked highest is a matter of rounding, and then they differ."""
    x = images(2, 3, 8, 8).astype(np.float32)
    devices = "cpu", "gpu", "gpu"
    on_cpu, on_gpu, again = (extremal_perturbation(Net().to(d), to_device(x, d), iterations=5) for d in devices)
    for part in ("score", "area"):
        close(on_gpu.history[0][part], on_cpu.history[0][part], 1e-4)
    close(on_gpu.raw.mean((2, 3)), on_cpu.raw.mean((2, 3)), 0.02)
    np.testing.assert_array_equal(to_cpu(on_gpu.raw), to_cpu(again.raw))


@given(data=st.data())
@settings(max_examples=1)
def test_no_kernel_is_left_out(data: st.DataObject) -> None:
    """Every op is there, since the tests above run through CASES; this looks at the families."""
    draw = Draw(data, small=True)
    tested = {call.name for family in cuda_cases.FAMILIES for call in family(draw)}
    assert tested == set(KERNELS)
