"""Products are those of NumPy, and leave the BLAS as they found it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from minidl import Tensor, ops
from minidl.kernels import compiled
from minidl.kernels.compiled import gemm
from minidl.kernels.compiled.gemm import matmul

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 1), (1, 1))])
def test_products_of_any_size_and_layout(shapes: tuple[tuple[int, ...], ...], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (RNG.standard_normal(shape) for shape in shapes)
    small = matmul(a, b), matmul(a, b.swapaxes(-1, -2).copy().swapaxes(-1, -2))
    monkeypatch.setattr(gemm, "SMALL", 0)
    for y in (*small, matmul(a, b)):
        np.testing.assert_allclose(y, a @ b, rtol=1e-13)


def test_a_small_product_is_left_to_one_thread_and_then_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    blas = ThreadpoolController().select(user_api="blas")

    def threads() -> list[int]:
        return [library["num_threads"] for library in blas.info()]

    class Seen(np.ndarray):
        def __matmul__(self, other: np.ndarray) -> np.ndarray:
            seen.append(threads())
            return np.asarray(self) @ other

    seen: list[list[int]] = []
    before = threads()
    a = RNG.standard_normal((8, 8)).view(Seen)
    workers = [threading.Thread(target=matmul, args=(a, a)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert seen == [[1] * len(before)] * 4 and threads() == before
    monkeypatch.setattr(gemm, "SMALL", 0)
    matmul(a, a)
    assert seen[-1] == before


def test_every_product_of_an_op_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward, and for both gradients: of halves, whose kernel is that of float32, too"""
    seen = list[str]()

    def noted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append(f"{a.dtype}{a.shape}{b.shape}")
        return matmul(a, b)

    monkeypatch.setattr(compiled, "matmul", noted)
    for dtype in (np.float32, np.float16):
        x, w = (Tensor(RNG.standard_normal(shape).astype(dtype), requires_grad=True) for shape in ((2, 3), (4, 3)))
        y = ops.linear(x, w)
        y.backward(np.ones(y.shape, dtype))
        assert seen == ["float32(2, 3)(3, 4)", "float32(2, 4)(4, 3)", "float32(4, 2)(2, 3)"]
        seen.clear()
        z = x @ w.data.T
        z.backward(np.ones(z.shape, dtype))
        assert seen == ["float32(2, 3)(3, 4)", "float32(2, 4)(4, 3)"]
        seen.clear()
