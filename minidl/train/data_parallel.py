"""Training on several ranks as on one: each has a share of every batch, and all make the same step.

The loss of a batch is a mean, L = sum_n v_n l_n / sum_n v_n, over all of its images n. Rank r has some of them, and its part of
that sum is

    L_r = s_r (mean over its own images),    s_r = (sum of its own v_n) / (sum of all v_n)

so that L is the sum of the L_r, and the gradient of L the sum of theirs: of equal shares of one head the mean. `SharedLoss` is
L_r, `SummedWalk` the walk back from it, which adds up the gradients of the parameters over the ranks while it is on its way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl.array import Array, array_module, to_cpu
from minidl.core import Parameter, Step, Tensor, tape, walk
from minidl.inference.heads import UNKNOWN
from minidl.nn import Module
from minidl.optim import Optimizer, WeightAverage
from minidl.parallel import Buckets, Communicator
from minidl.train.loss import Loss
from minidl.train.loss_scale import LossScale
from minidl.train.settings import Settings

Walk = Callable[..., Iterator[Step]]


def check_ranks(world: Communicator, model: Module, settings: Settings) -> None:
    """Raises ValueError for what several ranks cannot do as one does."""
    if world.size == 1:
        return
    if settings.cuda_graph:
        raise ValueError(f"cuda_graph: a step of {world.size} ranks cannot be recorded as one graph; leave it out")
    if model.generators():
        raise ValueError(
            f"model: it draws random numbers (dropout), of which {world.size} ranks would draw the same for other images; "
            "train it with one rank, or without dropout"
        )
    if settings.batch_size < world.size:
        raise ValueError(f"batch_size: {settings.batch_size} images have none for some of {world.size} ranks; write more")


def loss_for(world: Communicator, model: Module, class_weights: Any, classes: Any) -> Loss:
    """Of one rank the loss, of several the part of this one."""
    return Loss(model, class_weights, classes) if world.size == 1 else SharedLoss(world, model, class_weights, classes)


def walk_for(world: Communicator) -> Walk:
    """Of one rank the walk back, of several the one that adds up over them."""
    return walk if world.size == 1 else SummedWalk(world)


class SharedLoss(Loss):
    """The part L_r of this rank in the loss of the batch of all ranks; the arguments are as of `Loss`."""

    def __init__(self, world: Communicator, model: Module, class_weights: Any = None, classes: Any = None) -> None:
        super().__init__(model, class_weights, classes)
        self.world = world

    def __call__(self, output: Any, labels: Array) -> Tensor:
        own = self._weights(labels)
        total = self.world.sum(own.copy())
        self.shares = own / np.where(total == 0, 1, total)  # of a head that no image knows the loss is 0
        return super().__call__(output, labels)

    def _weights(self, labels: Array) -> Array:
        """(H,): of each head the sum of the weights of the labels that are known; where there is one head (1,)."""
        columns = to_cpu(labels).reshape(len(labels), -1).T
        weights = [self.class_weights] * len(columns)
        if self.heads and self.class_weights is not None:
            weights = list(self.class_weights.values())
        known = [of_head[of_head != UNKNOWN] for of_head in columns]
        return np.array(
            [len(of) if v is None else to_cpu(v)[of].sum(dtype=np.float64) for of, v in zip(known, weights, strict=True)],
            np.float64,
        )

    def _total(self, of_heads: Sequence[Tensor]) -> Tensor:
        return super()._total([loss * float(share) for loss, share in zip(of_heads, self.shares, strict=True)])


class SummedWalk:
    """Callable as `minidl.walk`, whose leaves that are Parameters get the sum of the gradients of all ranks.

    The parameters go into buckets in the order in which the walk is done with them, and a bucket sets out as soon as the last
    of its gradients is there: the sums are under way while the walk goes on. A parameter is done when the walk has left behind
    the last op that takes it, so that no op needs to know of it. The gradients are views of the buckets, which the next walk
    fills anew.

    Raises RuntimeError where a walk meets other parameters than the first one did, ValueError where ranks do not meet the same.
    """

    def __init__(self, world: Communicator) -> None:
        self.world = world
        self.order: list[tuple[int, ...]] = []
        self.buckets: Buckets | None = None

    def __call__(
        self,
        y: Tensor,
        gy: Array | None = None,
        *,
        leaves: dict[Tensor, Array] | None = None,
        **how: bool,
    ) -> Iterator[Step]:
        """The steps of `walk`, whose arguments these are."""
        position = {op: i for i, op in enumerate(tape(y))}
        last = dict[Parameter, int]()  # of each parameter the last op, in the order of the walk, that takes it
        for op, i in position.items():
            for x, need in zip(op.inputs, op.needs, strict=True):
                if need and isinstance(x, Parameter):
                    last[x] = i
        waiting = sorted(last, key=last.__getitem__)  # the order in which they are done; sorted keeps that of the inputs
        buckets = self._buckets(waiting)
        numbers = {p: number for number, p in enumerate(waiting)}
        own = dict[Tensor, Array]()
        done = 0
        for step in walk(y, gy, leaves=own, **how):
            here = position.get(step.op, -1)  # -1: an op that was unfolded, behind which others of its kind may come
            while done < len(waiting) and last[waiting[done]] < here:
                buckets.finish(done)
                done += 1
            yield step
            for x, need, gx in zip(step.op.inputs, step.op.needs, step.gxs, strict=True):
                if (
                    need and isinstance(x, Parameter) and gx is not None and gx.shape == x.shape
                ):  # else the walk says what is wrong
                    buckets.put(numbers[x], gx)
            del step, x, gx  # or their arrays would live on through the next step
        sums = buckets.wait()
        for p, number in numbers.items():
            own[p] = sums[number]
        if leaves is not None:
            leaves.update(own)
            return
        for leaf, gx in own.items():
            leaf.grad = gx if leaf.grad is None else leaf.grad + gx

    def _buckets(self, parameters: Sequence[Parameter]) -> Buckets:
        """Those of the first walk, after which all have to meet the same parameters in the same order."""
        order = [p.shape for p in parameters]
        if self.buckets is None:
            kinds = {number: (p.shape, p.dtype) for number, p in enumerate(parameters)}
            self.world.agree({"the parameters that a walk meets": str(list(kinds.values()))})
            self.order, self.buckets = order, Buckets(self.world, kinds, xp=array_module(parameters[0].data))
        if order != self.order:
            raise RuntimeError(
                f"model: this step meets other parameters, {len(order)}, than the first one did, {len(self.order)}, so that "
                "ranks may not meet the same; expected a model whose ops do not depend on the images"
            )
        return self.buckets


def go_on_together(
    world: Communicator, model: Module, optimizer: Optimizer, scale: LossScale | None, average: WeightAverage | None
) -> None:
    """Model, optimiser, loss scale, average and random generators of every rank as they are on rank 0."""

    def get() -> tuple[Any, ...]:
        states = [rng.bit_generator.state for rng in model.generators()]
        return model.state_dict(), optimizer.state_dict(), None if scale is None else scale.state_dict(), states

    def put(state: tuple[Any, ...]) -> None:
        of_model, of_optimizer, of_scale, states = state
        model.load_state_dict(of_model)
        optimizer.load_state_dict(of_optimizer)
        if scale is not None:
            scale.load_state_dict(of_scale)
        for rng, of_rng in zip(model.generators(), states, strict=True):
            rng.bit_generator.state = of_rng

    world.copy(get, put)
    if average is not None:
        world.copy(average.state_dict, average.load_state_dict)


def still_together(world: Communicator, model: Module, average: WeightAverage | None) -> None:
    """After an epoch: running statistics become those of rank 0, which has seen its own images alone, or with the others; and
    so do their averages.

    Raises ValueError where the parameters are not the same on all ranks, bit for bit.
    """
    if world.size == 1:
        return
    digest = hashlib.blake2b()
    for p in model.parameters():
        digest.update(np.ascontiguousarray(to_cpu(p.data)).reshape(-1).view(np.uint8).data)
    world.agree({"the parameters after an epoch": digest.hexdigest()})
    world.copy(lambda: dict(model.named_buffers()), lambda buffers: model.load_state_dict(buffers, strict=False))
    if average is not None:
        world.copy(average.state_dict, average.load_state_dict)
