"""`minidl.plain()`: what a debugger meets on the way from `backward()` into the gradients of a convolution."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import pytest

import minidl
from minidl import Tensor, kernels, nn, ops
from minidl.kernels import compiled, reference


def net() -> tuple[nn.Module, Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    layers = nn.Conv2d(3, 4, 3, padding=1, rng=rng), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, rng=rng)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(5 * 3 * 3, 2, rng=rng))
    return model, Tensor(rng.standard_normal((2, 3, 8, 8), dtype=np.float32)), np.array([0, 1])


def step() -> list[np.ndarray]:
    """The gradients of one step"""
    model, x, labels = net()
    ops.cross_entropy(model(x), labels).backward()
    return [p.grad for p in model.parameters()]


def calls_of(run: Callable[[], Any]) -> list[tuple[str, list[str]]]:
    """Of each call, or resumption of a generator, while `run` runs: the module, and the names from `run` down"""
    found, top = list[tuple[str, list[str]]](), sys._getframe()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            names, caller = list[str](), frame
            while caller is not top:
                names.append(caller.f_code.co_qualname)
                caller = caller.f_back  # type: ignore[assignment]
            found.append((frame.f_globals["__name__"], names[::-1]))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(before)
    return found


def test_a_debugger_meets_minidl_and_numpy_alone_three_frames_down() -> None:
    model, x, labels = net()
    with minidl.plain():
        loss = ops.cross_entropy(model(x), labels)
        calls = calls_of(loss.backward)
    assert {module.split(".")[0] for module, _ in calls} <= {"minidl", "numpy"}
    gradients = [names for _, names in calls if names[-1] in ("conv2d_grad_x", "conv2d_grad_w")]
    assert sorted(names[-1] for names in gradients) == ["conv2d_grad_w", "conv2d_grad_w", "conv2d_grad_x"]
    assert {tuple(names[:-1]) for names in gradients} == {("Tensor.backward", "walk", "Conv2d.backward")}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_every_kernel_is_the_plain_text_and_every_op_a_node(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("not the plain text")

    for name in compiled.__all__:
        if getattr(compiled, name) is not getattr(reference, name):
            monkeypatch.setattr(compiled, name, never)
    model, x, labels = net()
    with minidl.plain(), minidl.mixed(precision):
        loss = ops.cross_entropy(model(x), labels)
        nodes = [type(op).__name__ for op in minidl.tape(loss)]
        loss.backward()
    of_layers = [name for name in nodes if name != "To"]  # a cast
    assert of_layers == ["CrossEntropy", "Linear", "Reshape", "Conv2d", "ReLU", "BatchNorm", "Conv2d"]


def test_the_same_gradients_within_rounding() -> None:
    with minidl.plain():
        plain = step()
    for got, want in zip(plain, step(), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_it_ends_and_holds_for_this_thread() -> None:
    def now() -> tuple[ModuleType, bool]:
        return kernels.of(np.ones(1)), ops.fusing()

    before = now()
    with minidl.plain():
        assert now() == (reference, False)
    assert now() == before != (reference, False)
    assert minidl.plain()(now)() == (reference, False)


def test_as_a_decorator_it_says_its_own_name() -> None:
    with pytest.raises(TypeError, match=r"@plain\(\.\.\.\): .*write `with plain\(\.\.\.\):` inside"):

        @minidl.plain()
        def generator() -> Any:
            yield


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MINIDL_KERNELS", "MINIDL_FUSED")}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept | environment)


def test_from_the_environment_and_then_numba_is_not_even_imported() -> None:
    code = """
import sys, numpy as np, minidl
from minidl import Tensor, kernels, nn, ops
x = Tensor(np.ones((2, 1, 4, 4), np.float32))
model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
ops.cross_entropy(model(x), np.array([0, 1])).backward()
print(kernels.of(x.data).__name__, ops.fusing(), "numba" in sys.modules)
"""
    done = in_a_process(code, MINIDL_PLAIN="1")
    assert (done.stdout, done.returncode) == ("minidl.kernels.reference False False\n", 0), done.stderr


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MINIDL_PLAIN": "yes"}, "MINIDL_PLAIN: expected 0 or 1, got 'yes'"),
        (
            {"MINIDL_PLAIN": "1", "MINIDL_KERNELS": "compiled"},
            "MINIDL_PLAIN=1: expected MINIDL_KERNELS=reference or none beside it, got 'compiled'",
        ),
        (
            {"MINIDL_PLAIN": "1", "MINIDL_FUSED": "1"},
            "MINIDL_PLAIN=1: expected MINIDL_FUSED=0 or none beside it, got '1'",
        ),
    ],
)
def test_what_the_environment_cannot_mean(environment: dict[str, str], message: str) -> None:
    done = in_a_process("import minidl", **environment)
    assert done.returncode == 1 and done.stderr.rstrip().endswith(message), done.stderr
