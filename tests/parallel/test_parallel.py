"""Several ranks compute what one computes: shares of batches, losses, gradients, batch norm; and MPI begins only when asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import models
from minidl import Tensor, nn, ops, optim, parallel, walk
from minidl.array import Array
from minidl.data import ColorJitter, Compose, Cutout, Dataset, Loader, RandomCrop, RandomFlip, RandomRotation, RandomZoom
from minidl.data.share import share_of
from minidl.inference import evaluate
from minidl.ops.sync import SyncBatchNorm, batch_norm_relu, synchronized
from minidl.parallel import ALONE, Buckets, Communicator, Sum
from minidl.train import Settings
from minidl.train.balance import class_weights
from minidl.train.data_parallel import SharedLoss, SummedWalk, check_ranks, still_together
from minidl.train.loss import Loss
from minidl.train.loss_scale import LossScale
from tests.parallel.ranks import ThreadRank, on_ranks
from tests.parallel.steps import NETS
from tests.train.test_heads import CLASSES, with_sites
from tests.train.test_train import ROOT, TRAIN

AUGMENT = Compose(
    [RandomCrop(2), RandomFlip(), RandomRotation(20), RandomZoom((0.9, 1.1)), ColorJitter(0.2, 0.2, 0.2, 0.1), Cutout(4)]
)
SIZES = (2, 3)  # 16 images of three ranks are 5, 5 and 6


# ---- what is shared


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ranks_share_all_images_alike(size: int) -> None:
    for n in range(size, 20):
        parts = [np.arange(n)[share_of(n, rank, size)] for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(parts), np.arange(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_shares_of_a_batch_are_the_batch_with_its_augmentation(size: int, drop_last: bool) -> None:
    settings = {"batch_size": 16, "augment": AUGMENT, "seed": 3, "drop_last": drop_last}
    of_ranks = [Loader(TRAIN, **settings, share=(rank, size)) for rank in range(size)]  # type: ignore[arg-type]
    batches = list(zip(*of_ranks, strict=True))
    for (x, labels), parts in zip(Loader(TRAIN, **settings), batches, strict=True):  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), x)
        np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), labels)


@pytest.mark.parametrize(
    "augment, says",
    [
        (lambda x, rng: x + 0 * rng.permutation(3).sum(), r"drawn for by integers, .* got rng.permutation"),
        (lambda x, rng: x + 0 * rng.random((8, 2)).sum(), r"draws of size 8 or \(..., 8\), .* got \(8, 2\)"),
    ],
)
def test_draws_that_cannot_be_shared_are_refused(augment: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        next(iter(Loader(TRAIN, 16, augment=augment, share=(1, 2))))


@pytest.mark.parametrize(
    "share, says",
    [
        ((2, 2), r"\(rank, size\), rank < size, got \(2, 2\)"),
        ((0, 9), "a batch of 8 images has none for some of 9 ranks"),
    ],
)
def test_shares_that_are_none_are_refused(share: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Loader(TRAIN, 16, share=share)


# ---- buckets


def test_a_bucket_leaves_when_it_is_full_and_those_before_it_have_left() -> None:
    world = ThreadRank(0, 1, on_ranks(1, lambda world: world.shared)[0])
    buckets = Buckets(world, {name: ((2,), "float32") for name in "abcd"}, nbytes=16)
    for name, started in {"a": 0, "c": 0, "d": 0, "b": 2}.items():
        buckets.put(name, np.ones(2, np.float32))
        buckets.put(name, np.ones(2, np.float32))
        buckets.finish(name)
        assert len(world.started) == started, name
    assert {name: a.tolist() for name, a in buckets.wait().items()} == {key: [2, 2] for key in "abcd"}
    buckets.put("a", np.ones(2, np.float32))
    assert {name: a.tolist() for name, a in buckets.wait().items()} == {"a": [1, 1]} | {key: [0, 0] for key in "bcd"}


def test_sums_go_on_while_others_are_waited_for() -> None:
    """MPI sends and receives while it is called, so it is, after every array."""
    moments = list[str]()

    class Slow(Sum):
        def go_on(self) -> None:
            moments.append(f"{self.a.size}")

    class World(Communicator):
        def start_sum(self, a: Array) -> Sum:
            return Slow(a)

    buckets = Buckets(World(), {name: ((n,), "float32") for name, n in (("a", 3), ("b", 2), ("c", 1))}, 8)
    for name in "abc":
        buckets.finish(name)
        moments.append(name)
    assert moments == ["3", "a", "3", "2", "b", "3", "2", "1", "c"]


def test_types_do_not_mix_in_a_bucket() -> None:
    buckets = Buckets(ALONE, {"a": ((2, 3), "float32"), "b": ((), "float64"), "c": ((1,), "float64")})
    assert [(b.size, b.dtype.name) for b in buckets.buffers] == [(6, "float32"), (2, "float64")]


# ---- the loss and its gradient are those of one rank


class Shared(nn.Module):
    """A weight that two ops take, one of which is recomputed, and a parameter that no op takes."""

    def __init__(self, K: int) -> None:
        rng = np.random.default_rng(0)
        self.conv, self.bn = nn.Conv2d(3, 3, 3, padding=1, rng=rng), nn.BatchNorm2d(3)
        self.unused = nn.Linear(2, 2, rng=rng)
        self.linear = nn.Linear(3, K, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y = ops.recompute(lambda x: self.conv(ops.relu(self.conv(x))), x)
        return self.linear(ops.global_avg_pool2d(self.bn.relu(self.conv(y), y)))


def small_dense(K: int) -> nn.Module:
    return models.densenet_bc(10, 4, num_classes=K, seed=1)


def batch(dataset: Dataset) -> tuple[Array, Array]:
    x, labels = next(iter(Loader(dataset, 16, seed=1)))
    return x.astype(np.float64), np.stack(list(labels.values()), 1) if dataset.heads else labels


def one_sided(d: Dataset) -> Dataset:
    """Three images in four are of class 0, so that class weights are not 1."""
    return Dataset(d.images, (d.labels * (np.arange(len(d)) % 2)), d.classes, name=d.name)


Gradients = dict[str, Array | None]
Case = tuple[Dataset, bool, Callable[[int], nn.Module]]
CASES: dict[str, Case] = {
    "mean": (TRAIN, False, Shared),
    "class weights": (one_sided(TRAIN), True, Shared),
    "heads": (with_sites(TRAIN), False, Shared),
    "heads with weights": (with_sites(TRAIN), True, Shared),
    "dense": (TRAIN, False, small_dense),
}


def of_ranks(case: Case, size: int) -> list[tuple[float, Gradients, dict[str, Array]]]:
    """On each rank the loss of all, the gradients and the running statistics."""
    dataset, weighted, make = case
    x, labels = batch(dataset)

    def step(world: ThreadRank) -> tuple[float, Gradients, dict[str, Array]]:
        model = make(5 if dataset.heads else 2).to(dtype=np.float64)
        weights: Any = class_weights(dataset) if weighted else None
        if weighted:
            weights = {k: v.astype(np.float64) for k, v in weights.items()} if dataset.heads else weights.astype(np.float64)
        part = share_of(len(x), world.rank, size)
        several = SharedLoss(world, model, weights, dataset.classes)
        loss = several if size > 1 else Loss(model, weights, dataset.classes)
        with synchronized(world):
            y = loss(model(Tensor(x[part])), labels[part])
        for _ in (SummedWalk(world) if size > 1 else walk)(y, keep_graph=False, apart=False):
            pass
        gradients = {name: None if p.grad is None else p.grad.copy() for name, p in model.named_parameters()}
        return float(world.sum(np.array([y.item()]))[0]), gradients, dict(model.named_buffers())

    return on_ranks(size, step)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_loss_and_gradients_are_those_of_one_rank(case: Case, size: int) -> None:
    ((loss, gradients, buffers),) = of_ranks(case, 1)
    largest = max(abs(g).max() for g in gradients.values() if g is not None)
    for other, found, statistics in of_ranks(case, size):
        assert other == pytest.approx(loss, rel=1e-12)
        for name, g in gradients.items():
            if g is None:
                assert found[name] is None, name
            else:
                np.testing.assert_allclose(found[name], g, rtol=0, atol=1e-12 * largest, err_msg=name)  # type: ignore[arg-type]
        for name, a in buffers.items():
            np.testing.assert_allclose(statistics[name], a, rtol=1e-12, atol=1e-14, err_msg=name)


def test_a_head_that_no_image_of_a_rank_knows() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 5))
    labels = np.array([[0, -1], [1, -1], [1, 2], [0, 0]])
    expected = Loss(nn.Identity(), classes=CLASSES)(Tensor(logits), labels).item()

    def part(world: ThreadRank) -> float:
        mine = share_of(4, world.rank, 2)
        return SharedLoss(world, nn.Identity(), classes=CLASSES)(Tensor(logits[mine]), labels[mine]).item()

    assert sum(on_ranks(2, part)) == pytest.approx(expected, rel=1e-14)
    labels[:] = -1
    assert on_ranks(2, part) == [0, 0]


def test_sums_set_out_while_the_walk_goes_on() -> None:
    def count(world: ThreadRank) -> list[int]:
        rng = np.random.default_rng(0)
        layers = nn.Sequential(*(nn.Linear(600, 600, rng=rng) for _ in range(4)))  # a bucket each
        back, started = SummedWalk(world), []
        for _ in back(ops.mean(layers(Tensor(np.ones((2, 600), np.float32))))):
            started.append(len(world.started))
        return started

    for started in on_ranks(2, count):
        assert started == [0, 0, 1, 2, 3] or started == [0, 0, 0, 1, 2], started


def test_another_graph_than_that_of_the_first_step_is_refused() -> None:
    def steps(world: ThreadRank) -> None:
        back, layers = SummedWalk(world), [nn.Linear(2, 2), nn.Linear(2, 3)]
        for layer in layers:
            for _ in back(ops.mean(layer(Tensor(np.ones((1, 2), np.float32))))):
                pass

    with pytest.raises(RuntimeError, match="this step meets other parameters"):
        on_ranks(2, steps)


@pytest.mark.parametrize("bad", [0, 1])
def test_where_a_gradient_of_one_rank_overflows_all_leave_the_step_out(bad: int) -> None:
    def step(world: ThreadRank) -> tuple[bool, float, bool]:
        scale, layer = LossScale(2.0**126), nn.Linear(2, 2)
        loss = ops.sum(layer(Tensor(np.ones((1, 2), np.float32)))) * (8.0 if world.rank == bad else 0.1)
        done = scale.backward(loss, SummedWalk(world))
        return done, scale.scale, layer.weight.grad is None

    assert on_ranks(2, step) == [(False, 2.0**125, True)] * 2


def test_a_batch_norm_of_one_rank_is_the_plain_one() -> None:
    rng = np.random.default_rng(0)
    for shape in (4, 3, 5, 5), (6, 3):
        xs = [Tensor(rng.normal(size=s), requires_grad=True) for s in (shape, 3, 3)]
        gy = rng.normal(size=shape)
        found, expected = SyncBatchNorm(1e-5, ALONE)(*xs), ops.batch_norm(*xs)
        np.testing.assert_allclose(found.data, expected.data, atol=1e-12)
        leaves: list[dict[Tensor, Array]] = [{}, {}]
        for y, of in zip((found, expected), leaves, strict=True):
            for _ in walk(y, gy, leaves=of):
                pass
        for x in xs:
            np.testing.assert_allclose(leaves[0][x], leaves[1][x], atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("residual", [False, True])
def test_a_batch_norm_of_ranks_has_the_bits_of_one(residual: bool, size: int) -> None:
    rng = np.random.default_rng(0)
    x, r = (rng.normal(1, 3, (24, 16, 9, 9)).astype(np.float32) for _ in range(2))
    gamma, beta = (rng.normal(size=16).astype(np.float32) for _ in range(2))

    def outputs(world: Communicator) -> Array:
        of = share_of(len(x), world.rank, world.size)
        with synchronized(world):
            return batch_norm_relu(1e-5).forward(x[of], gamma, beta, r[of] if residual else None)

    np.testing.assert_array_equal(np.concatenate(on_ranks(size, outputs)), outputs(ALONE))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("net", ["resnet8", "densenet_bc16"])
def test_forward_has_the_bits_of_one_rank(net: str, size: int) -> None:
    """In float32, summed over images in float64: no relu opens or shuts because there are several ranks."""
    x = np.random.default_rng(0).normal(1, 2, (13, 3, 16, 16)).astype(np.float32)

    def answer(world: Communicator) -> tuple[Array, dict[str, Array]]:
        model: nn.Module = NETS[net](num_classes=2).train()
        with synchronized(world):
            y = model(Tensor(x[share_of(len(x), world.rank, world.size)])).data
        return y, dict(model.named_buffers())

    alone, statistics = answer(ALONE)
    found = on_ranks(size, answer)
    np.testing.assert_allclose(np.concatenate([y for y, _ in found]), alone, rtol=0, atol=1e-6)  # BLAS multiplies as it likes
    for _, of_rank in found:
        for name, a in statistics.items():  # of what went into every norm
            np.testing.assert_array_equal(of_rank[name], a)


# ---- the rest of a training


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dataset", [TRAIN, with_sites(TRAIN)], ids=["one head", "heads"])
def test_an_evaluation_that_is_shared_has_the_bits_of_one(dataset: Dataset, size: int) -> None:
    model = Shared(5 if dataset.heads else 2)
    loss, logits, _ = evaluate(model, dataset, 8)
    for found, of_all, _ in on_ranks(size, lambda world: evaluate(model, dataset, 8, world=world)):
        assert found == loss
        np.testing.assert_array_equal(of_all, logits)


def test_more_ranks_than_batches_of_an_evaluation() -> None:
    model = Shared(2)
    assert [found[0] for found in on_ranks(3, lambda world: evaluate(model, TRAIN, 30, world=world))] == [
        evaluate(model, TRAIN, 30)[0]
    ] * 3


def test_parameters_that_drift_apart_are_found_and_statistics_become_those_of_the_first() -> None:
    def after(world: ThreadRank, drift: float) -> float:
        model = Shared(2)
        model.bn.running_mean = model.bn.running_mean + world.rank
        model.linear.weight.data[0, 0] += world.rank * drift
        average = optim.WeightAverage(model, 0.5)
        average.update()
        still_together(world, model, average)
        assert average.weights()["bn.running_mean"][0] == 0
        return float(model.bn.running_mean[0])

    assert on_ranks(2, lambda world: after(world, 0)) == [0, 0]
    with pytest.raises(ValueError, match="the parameters after an epoch: expected the same on all ranks"):
        on_ranks(2, lambda world: after(world, 1e-6))


@pytest.mark.parametrize(
    "settings, model, says",
    [
        (Settings(device="gpu", cuda_graph=True), Shared(2), "cuda_graph: a step of 2 ranks cannot be recorded as one graph"),
        (Settings(), nn.Sequential(nn.Dropout()), r"draws random numbers \(dropout\), of which 2 ranks"),
        (Settings(batch_size=1), Shared(2), "batch_size: 1 images have none for some of 2 ranks"),
    ],
)
def test_what_several_ranks_cannot_do_is_said(settings: Settings, model: nn.Module, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        on_ranks(2, lambda world: check_ranks(world, model, settings))
    check_ranks(ALONE, model, settings)


# ---- one process


def test_one_process_agrees_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    a = np.arange(3.0)
    assert ALONE.sum(a) is a and ALONE.gather(1) == [1] and ALONE.first(max, 1, 2) == 2 and ALONE.in_turn(max, 1, 2) == 2
    ALONE.agree({"a": "b"})
    ALONE.copy(lambda: 1, lambda value: pytest.fail())
    ALONE.say("a", "b")
    ALONE.end(1, "c")
    assert capsys.readouterr() == ("a\nb\n", "c\n")


LAUNCH = """
import sys
from minidl import parallel
if "hide" in sys.argv:
    sys.modules["mpi4py"] = None
    import minidl.parallel.launch as launch
    launch.find_spec = lambda name: None
try:
    print(parallel.world().size, "mpi4py" in sys.modules)
except (RuntimeError, ValueError) as error:
    print(error)
"""


@pytest.mark.parametrize(
    "environment, arguments, says",
    [
        ({}, [], "1 False"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, [], "1 False"),
        ({"OMPI_COMM_WORLD_SIZE": "4", "MINIDL_MPI": "0"}, [], "1 False"),
        (
            {"OMPI_COMM_WORLD_SIZE": "4"},
            ["hide"],
            "this process is one of 4 ranks, and mpi4py, by which these speak, is missing",
        ),
        ({"MINIDL_MPI": "yes"}, [], "MINIDL_MPI: expected 0 or 1, got 'yes'"),
    ],
)
def test_mpi_begins_only_where_ranks_were_started(environment: dict[str, str], arguments: list[str], says: str) -> None:
    command = [sys.executable, "-c", LAUNCH, *arguments]
    found = subprocess.run(command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(says)
    assert parallel.begun() is ALONE
