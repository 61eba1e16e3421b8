"""Products are those of NumPy, and leave the BLAS as they found it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from minidl.kernels.compiled import products
from minidl.kernels.compiled.products import matmul

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((1, 1), (1, 1))])
def test_products_of_any_size_and_layout(shapes: tuple[tuple[int, ...], ...], monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (RNG.standard_normal(shape) for shape in shapes)
    small = matmul(a, b), matmul(a, b.swapaxes(-1, -2).copy().swapaxes(-1, -2))
    monkeypatch.setattr(products, "SMALL", 0)
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
    monkeypatch.setattr(products, "SMALL", 0)
    matmul(a, a)
    assert seen[-1] == before
