"""Out of memory: what the error says, and that what was held is free again. On a stand-in for CuPy with little memory."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, kernels, nn, ops
from minidl.array import to_gpu
from minidl.data import Dataset
from minidl.explain import occlusion, saliency
from minidl.inference import evaluate
from minidl.inference.memory import BatchMemoryError, batch_in_memory
from minidl.train import Settings, fit
from tests.gpu import strict_cupy

MIB = 2**20


class OutOfMemoryError(MemoryError):
    """CuPy's name"""


class Pool:
    """CuPy's default pool: keeps what is freed until it is told not to, and has no more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used, self.total, self.given_back = limit, 0, 0, 0

    def take(self, a: np.ndarray) -> None:
        if self.used + a.nbytes > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {a.nbytes:,} bytes (allocated so far: {self.total:,} bytes).")
        self.used += a.nbytes
        self.total = max(self.total, self.used)
        weakref.finalize(a, self.free, a.nbytes)

    def free(self, size: int) -> None:
        self.used -= size

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.total

    def free_all_blocks(self) -> None:
        self.total, self.given_back = self.used, self.given_back + 1


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    pool, module, dressed = Pool(5 * MIB), strict_cupy.cupy(), strict_cupy._dressed

    def counted(result: Any) -> Any:
        x = dressed(result)
        if isinstance(x, strict_cupy.ndarray) and x._bare.base is None:
            pool.take(x._bare)
        return x

    module.get_default_memory_pool = lambda: pool
    module.cuda.memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
    module.cuda.runtime.memGetInfo = lambda: (2**30, 80 * 2**30)
    monkeypatch.setattr(strict_cupy, "_dressed", counted)
    monkeypatch.setitem(sys.modules, "cupy", module)
    with kernels.use("reference"):
        yield pool


def net() -> nn.Module:
    rng = np.random.default_rng(0)
    layers = nn.Conv2d(3, 8, 3, padding=1, rng=rng), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, rng=rng), nn.GlobalAvgPool2d()
    return nn.Sequential(*layers, nn.Linear(8, 2, rng=rng))


def dataset(n: int) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset(rng.integers(0, 256, (n, 3, 16, 16)).astype(np.uint8), np.arange(n) % 2, ("a", "b"))


# ---- training


def test_training_tells_the_batch_and_what_was_held_and_goes_on_with_a_smaller_one(pool: Pool, tmp_path: Path) -> None:
    model, data = net(), dataset(64)
    with pytest.raises(BatchMemoryError) as caught:
        fit(model, data, Settings(epochs=1, batch_size=64, device="gpu"), tmp_path / "large", dataset(4))
    message = str(caught.value)
    assert message.startswith(
        "a batch of 64 does not fit on the GPU: Out of memory allocating 4,718,592 bytes (allocated so far:"
    )
    of = "input (64, 8, 16, 16) float32, 2.weight (8, 8, 3, 3) float32, 2.bias (8,) float32"
    assert f"in layer 2, Conv2d of {of}, called at" in message
    assert "CuPy's pool held 3 MiB, of which 2 were in use; 1,024 of the GPU's 81,920 MiB were free." in message
    assert message.endswith("Take a smaller batch_size, such as 32")
    del caught
    assert pool.given_back == 1
    assert pool.used < pool.total < 0.01 * MIB  # parameters, and their momentum while `fit` was there
    rows = fit(model, data, Settings(epochs=1, batch_size=8, device="gpu"), tmp_path / "small", dataset(4))
    assert np.isfinite(rows[0]["train_loss"])


def test_what_the_frames_held_is_free_while_the_error_is_looked_at(pool: Pool) -> None:
    """Even by someone who keeps the error"""
    model = net().to("gpu")
    before = pool.used

    def step(n: int) -> None:
        x = Tensor(to_gpu(np.ones((n, 3, 16, 16), np.float32)))
        ops.sum(model(x)).backward()

    with pytest.raises(BatchMemoryError) as caught, batch_in_memory(64):
        step(64)
    assert isinstance(caught.value.__cause__, OutOfMemoryError)
    assert pool.used == before == pool.total


def test_evaluation_tells_its_batch(pool: Pool) -> None:
    with pytest.raises(BatchMemoryError, match="a batch of 64 does not fit on the GPU"):
        evaluate(net().to("gpu"), dataset(64), batch_size=64)
    evaluate(net().to("gpu"), dataset(64), batch_size=8)


# ---- explaining


@pytest.mark.parametrize("explain", [saliency, partial(occlusion, window=8, stride=1)], ids=["saliency", "occlusion"])
def test_explaining_tells_its_batch(pool: Pool, explain: Any) -> None:
    model, x = net().to("gpu"), to_gpu(dataset(64).images.astype(np.float32) / 255)
    with pytest.raises(BatchMemoryError, match=r"a batch of 64 does not fit on the GPU.*Take a smaller batch_size, such as 32"):
        explain(model, x, batch_size=64)
    assert all(p.requires_grad for p in model.parameters()) and model.training  # as it was
    assert explain(model, x[:2], batch_size=4).map.shape == (2, 16, 16)


# ---- on the CPU


def test_on_the_cpu_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BatchMemoryError) as caught, batch_in_memory(1):
        ops.broadcast_to(Tensor(np.ones(1)), (2**48,)) * 2
    assert str(caught.value).startswith("a batch of 1 does not fit in memory: Unable to allocate")
    assert str(caught.value).endswith("Take smaller images")


def test_an_inner_batch_is_the_one_to_blame_and_other_errors_pass() -> None:
    with pytest.raises(BatchMemoryError, match="a batch of 8 does"), batch_in_memory(16), batch_in_memory(8):
        raise MemoryError
    with pytest.raises(ValueError, match="other"), batch_in_memory(8):
        raise ValueError("other")
