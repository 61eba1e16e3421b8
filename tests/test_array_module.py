"""The array-module switch: every op on the strict stand-in for CuPy, moves between devices, and what stays unimported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Parameter, Tensor, gradients, jvp, kernels, no_grad, ops
from minidl.array import array_module, device_of, is_array, to_cpu, to_device, to_gpu
from minidl.check import GradientError, gradient_check
from tests.gpu import strict_cupy
from tests.ops.cases import CASES, Case


@pytest.fixture
def cupy() -> Iterator[ModuleType]:
    module = strict_cupy.cupy()
    with pytest.MonkeyPatch.context() as patch, kernels.use("reference"):
        patch.setitem(sys.modules, "cupy", module)
        yield module


# ---- every op


@pytest.mark.parametrize("name", sorted(CASES))
@given(data=st.data())
@settings(max_examples=6)
def test_every_op_computes_on_the_gpu_what_it_computes_on_the_cpu(name: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    with pytest.MonkeyPatch.context() as patch, kernels.use("reference"):
        patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_cpu, on_gpu = _run(case, "cpu"), _run(case, "gpu")
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert isinstance(a, np.ndarray)
        assert isinstance(b, strict_cupy.ndarray)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(b.get(), a, rtol=1e-5, atol=1e-6)


def _run(case: Case, device: str) -> list[np.ndarray]:
    """y, its tangent, by `jvp`, and the gradients, by `backward()`, in float32"""
    xs = [Tensor(to_device(x.astype(np.float32), device), requires_grad=True) for x in case.inputs]
    y, rng = case(*xs), np.random.default_rng(1)
    ty = jvp(y, xs, [to_device(np.asarray(rng.standard_normal(x.shape, dtype=np.float32)), device) for x in xs])
    y.backward(to_device(np.random.default_rng(0).standard_normal(y.shape, dtype=np.float32), device))
    return [y.data, ty, *(x.grad for x in xs)]


def test_operators_with_scalars(cupy: ModuleType) -> None:
    x = Tensor(to_gpu(np.array([1.0, 2.0], np.float32)), requires_grad=True)
    y = ops.sum((2 * x + np.float64(1)) / np.float32(4) - (1 - x) ** 2)
    y.backward()
    assert (y.dtype, y.device, x.grad.dtype) == (np.float32, "gpu", np.float32)
    np.testing.assert_allclose(to_cpu(x.grad), [0.5, -1.5])
    z = to_gpu(np.ones(2, np.float32)) * x  # an array on the left
    assert isinstance(z, Tensor)


def test_gradient_check_on_the_gpu(cupy: ModuleType) -> None:
    x, w = (to_gpu(np.random.default_rng(0).random(shape)) for shape in ((2, 3), (4, 3)))
    gradient_check(lambda x, w: ops.tanh(ops.linear(x, w)), [x, w])
    with pytest.raises(GradientError, match="is wrong"):
        gradient_check(lambda x: x.detach() * x, [x])


# ---- moves


def test_gradients_flow_back_through_a_move(cupy: ModuleType) -> None:
    x = Parameter(np.array([1.0, 2.0], np.float32))
    y = ops.sum(x.to("gpu") ** 2)
    assert y.device == "gpu"
    y.backward()
    assert isinstance(x.grad, np.ndarray)
    np.testing.assert_array_equal(x.grad, [2, 4])
    assert x.to("cpu") is x


def test_a_move_may_change_the_type(cupy: ModuleType) -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = x.to("gpu", np.float64)
    assert (y.device, y.dtype) == ("gpu", np.float64)
    (gx,) = gradients(y, [x], to_gpu(np.ones(2)))
    assert isinstance(gx, np.ndarray)
    assert gx.dtype == np.float32


def test_array_functions(cupy: ModuleType) -> None:
    a, b = np.ones(3), to_gpu(np.ones(3))
    assert (array_module(a), array_module(b)) == (np, cupy)
    assert (device_of(a), device_of(b)) == ("cpu", "gpu")
    assert is_array(a) and is_array(b) and not is_array([1.0])
    assert to_cpu(a) is a and to_gpu(b) is b
    assert isinstance(to_cpu(b), np.ndarray)
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got list"):
        array_module([1.0])
    with pytest.raises(ValueError, match=r"device: expected one of \('cpu', 'gpu'\), got 'cuda:0'"):
        to_device(a, "cuda:0")


def test_tensors_on_two_devices_do_not_meet(cupy: ModuleType) -> None:
    a, b = Tensor(np.ones(3)), Tensor(np.ones(3)).to("gpu")
    with pytest.raises(ValueError, match=r"input 1: on the gpu, while input 0 is on the cpu; write x.to\('cpu'\)"):
        a + b
    x = Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ValueError, match=r"gy: expected \(3,\) float64 on the cpu, as y is, got \(3,\) float64 on the gpu"):
        ops.exp(x).backward(b.data)


def test_no_graph_on_the_gpu_without_recording(cupy: ModuleType) -> None:
    x = Tensor(to_gpu(np.ones(3)), requires_grad=True)
    with no_grad():
        assert ops.exp(x).op is None


# ---- without a GPU


def test_without_cupy_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # makes `import cupy` fail
    with pytest.raises(RuntimeError, match=r"needs CuPy, which is not installed: pip install -e '\.\[cuda12\]'"):
        Tensor(np.ones(3)).to("gpu")


def test_without_a_gpu_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy(devices=0))
    with pytest.raises(RuntimeError, match="device 'gpu' needs a CUDA device, and CuPy finds none"):
        Tensor(np.ones(3)).to("gpu")

    def no_driver() -> int:
        raise OSError("no driver")

    module = strict_cupy.cupy()
    module.cuda.runtime.getDeviceCount = no_driver
    monkeypatch.setitem(sys.modules, "cupy", module)
    with pytest.raises(RuntimeError, match="CuPy finds none: no driver"):
        Tensor(np.ones(3)).to("gpu")


def test_importing_minidl_imports_nothing_heavy() -> None:
    code = "import sys, minidl; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "minidl" in loaded
    assert not loaded & {"cupy", "numba", "torch", "matplotlib", "PIL", "scipy"}


# ---- the stand-in is strict, or the tests above would pass for nothing


def test_the_stand_in_refuses_numpy(cupy: ModuleType) -> None:
    x, a = cupy.asarray(np.ones((2, 3))), np.ones((2, 3))
    for mix in (
        lambda: np.asarray(x),
        lambda: np.array(x),
        lambda: np.exp(x),
        lambda: np.sum(x),
        lambda: np.concatenate([x, x]),
        lambda: x + a,
        lambda: a + x,
        lambda: x == a,
        lambda: x @ a.T,
        lambda: a.dot(x.T),
        lambda: x.__iadd__(a),
        lambda: a.__iadd__(x),
        lambda: cupy.maximum(x, a),
        lambda: cupy.where(a > 0, x, x),
        lambda: cupy.concatenate([x, a]),
        lambda: cupy.exp(a),
        lambda: cupy.add.at(x, (0, 0), a[0, 0:1]),
        lambda: x[np.array([0])],
        lambda: x.__setitem__(0, a[0]),
        lambda: x.sum(where=x > 0),
        lambda: cupy.sum(x, initial=1),
        lambda: np.asarray(1.0) * x,
    ):
        with pytest.raises(TypeError):
            mix()
    with pytest.raises(AttributeError):
        cupy.nanmedian_of_my_dreams  # noqa: B018


def test_the_stand_in_computes(cupy: ModuleType) -> None:
    x = cupy.asarray(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    for result in (x.sum(), x[0, 0], x.mean(axis=None), cupy.max(x), -x[1, 1], x.sum() * x.sum(), np.float32(2) * x.sum()):
        assert isinstance(result, cupy.ndarray)
        assert (result.shape, result.dtype) == ((), np.float32)
    assert (float(x.sum()), int(x.max()), bool((x >= 0).all()), len(x), x.sum().item()) == (15.0, 5, True, 2, 15.0)
    assert x.base is None
    assert x.T.base is not None
    np.testing.assert_array_equal(cupy.asnumpy(2 * x - x[:, :1] * np.float32(1)), 2 * x.get() - x.get()[:, :1])
    x[0] = 7
    x += 1
    cupy.add.at(x, (cupy.asarray([0, 0]), cupy.asarray([1, 1])), 1)
    np.testing.assert_array_equal(x.get(), [[8, 10, 8], [4, 5, 6]])
