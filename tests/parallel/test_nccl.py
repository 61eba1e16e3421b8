"""Ranks with a GPU each, on the stand-in for CuPy and NCCL: threads that add up memory of their own."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import models
from minidl import Tensor, kernels, nn, train
from minidl.array import Array, array_module, device_of, to_cpu, to_gpu
from minidl.data import lesions
from minidl.data.share import share_of
from minidl.ops.sync import synchronized
from minidl.parallel import Buckets, Sum
from minidl.parallel.nccl import GPUSums, own_gpu
from minidl.train import Settings
from minidl.train.data_parallel import SharedLoss, SummedWalk, still_together
from tests.gpu import strict_cupy
from tests.parallel.ranks import ThreadRank, on_ranks

SET = lesions(16, seed=0)


@pytest.fixture(autouse=True)
def cupy() -> Iterator[ModuleType]:
    module = strict_cupy.cupy(devices=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", module)
        yield module


class GPURank(ThreadRank):
    """As `mpi.World`: sums of arrays on the GPU go another way than those on the CPU."""

    gpus: GPUSums | None = None

    def start_sum(self, a: Array) -> Sum:
        if isinstance(a, np.ndarray):
            return super().start_sum(a)
        self.gpus = self.gpus or GPUSums(self, array_module(a))
        self.started.append(a.nbytes)
        return self.gpus.start(a)


def on_gpus(size: int, f: Any) -> list[Any]:
    def with_plain_kernels(world: ThreadRank) -> Any:
        with kernels.use("reference"):
            return f(GPURank(world.rank, world.size, world.shared))

    return on_ranks(size, with_plain_kernels)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_summed_in_place(dtype: type) -> None:
    def add(world: GPURank) -> tuple[Any, Any]:
        a = to_gpu(np.full((2, 3), 10**world.rank, dtype))
        found = world.sum(a)
        return found is a, to_cpu(a)

    for same, a in on_gpus(3, add):
        assert same
        np.testing.assert_array_equal(a, np.full((2, 3), 111, dtype))


def test_the_sum_waits_for_the_array_and_what_follows_for_the_sum(cupy: ModuleType) -> None:
    def add(world: GPURank) -> list[bool]:
        with cupy.cuda.Stream() as here:
            pending = world.start_sum(to_gpu(np.ones(2)))
            assert world.gpus is not None
            there = world.gpus.stream
            first, second = there.queued  # nothing runs in the stream of the sums before what is queued here now
            waits = [first.stream is here, first.place == len(here.queued) == 1, second == "record", there.non_blocking]
            pending.wait()
            return [*waits, here.queued[-1].stream is there, here.queued[-1].place == 2]

    assert on_gpus(2, add) == [[True] * 6] * 2


def test_buckets_are_where_the_gradients_are() -> None:
    def fill(world: GPURank) -> tuple[str, Any, list[int]]:
        buckets = Buckets(world, {"a": ((2, 3), "float32"), "b": ((4,), "float32")}, 16, sys.modules["cupy"])
        for name, n in ("a", 1), ("b", 2):
            buckets.put(name, to_gpu(np.full((2, 3) if name == "a" else 4, n, np.float32)))
            buckets.finish(name)
        sums = buckets.wait()
        return device_of(sums["a"]), [to_cpu(sums[name]).max() for name in "ab"], world.started

    assert on_gpus(2, fill) == [("gpu", [2, 4], [24, 16])] * 2


def small_resnet() -> nn.Module:
    return models.resnet8(num_classes=2, seed=1)


def small_dense() -> nn.Module:
    return models.densenet_bc(10, 4, num_classes=2, seed=1)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("make", [small_resnet, small_dense])
def test_gradients_are_those_of_one_process(make: Any, size: int) -> None:
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 3, 8, 8)), rng.integers(0, 2, 8)

    def step(world: Any) -> dict[str, Array]:
        model = make().to("gpu", np.float64)
        part = share_of(len(x), world.rank, world.size)
        loss, walk_back = SharedLoss(world, model, None, ("a", "b")), SummedWalk(world)
        with synchronized(world):
            y = loss(model(Tensor(to_gpu(x[part]))), to_gpu(labels[part]))
        for _ in walk_back(y, keep_graph=False, apart=False):
            pass
        still_together(world, model, None)
        assert all(p.grad is not None and device_of(p.grad) == "gpu" for p in model.parameters())
        return {name: to_cpu(p.grad) for name, p in model.named_parameters()}

    (alone,) = on_gpus(1, step)
    largest = max(abs(g).max() for g in alone.values())
    for found in on_gpus(size, step):
        for name, g in alone.items():
            np.testing.assert_allclose(found[name], g, rtol=0, atol=1e-12 * largest, err_msg=name)


def test_what_cannot_be_summed_is_said(cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(world: GPURank) -> Any:
        return world.sum(to_gpu(np.ones(2)))

    monkeypatch.setattr(cupy.cuda, "Device", lambda: SimpleNamespace(pci_bus_id="0000:00:00.0"))
    with pytest.raises(RuntimeError, match="2 ranks have 1 GPUs; each needs its own"):
        on_gpus(2, add)
    monkeypatch.setattr(cupy.cuda, "nccl", SimpleNamespace(available=False))
    with pytest.raises(RuntimeError, match="sums over several GPUs need NCCL"):
        on_gpus(2, add)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(TypeError, match="a: expected float32 or float64 to sum over GPUs, got int64"):
        on_gpus(1, lambda world: GPUSums(world, cupy).start(to_gpu(np.ones(2, np.int64))))


def test_a_training_on_gpus(tmp_path: pathlib.Path) -> None:
    """Of two ranks as of one, and with the same bits on both."""
    losses = []
    for size in 1, 2:

        def fit(world: GPURank, size: int = size) -> tuple[float, dict[str, Any]]:
            model = small_resnet()
            settings = Settings(epochs=1, batch_size=8, lr=0.05, device="gpu", sync_batch_norm=size > 1)
            rows = train.fit(model, SET, settings, tmp_path / str(size), world=world)
            return rows[-1]["train_loss"], {name: to_cpu(a).tobytes() for name, a in model.state_dict().items()}

        found = on_gpus(size, fit)
        assert found[0] == found[-1]
        losses.append(found[0][0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("local", "visible", "own"),
    [
        (0, None, "0"),
        (2, None, "2"),
        (1, "4,7", "7"),
        (2, "4,7", ""),
        (1, "3", "3"),
        (0, "GPU-a,GPU-b", "GPU-a"),
        (0, "", ""),
    ],
)
def test_each_rank_has_a_gpu_of_its_own(local: int, visible: str | None, own: str) -> None:
    assert own_gpu(local, visible) == own
