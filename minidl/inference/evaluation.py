"""What a model answers: its logits, the classes and scores that these mean, its loss on a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl import ops
from minidl.arguments import count, one_of
from minidl.array import Array, array_module, is_array, to_cpu
from minidl.contexts import contained
from minidl.core import Tensor, no_grad
from minidl.data import Augmentation, Dataset, Loader
from minidl.data.dataset import check_dataset
from minidl.data.share import share_of
from minidl.inference.batches import batches
from minidl.inference.flips import FLIPS, mean_over_flips
from minidl.inference.heads import UNKNOWN, known_losses
from minidl.inference.images import check_layout
from minidl.inference.memory import batch_in_memory
from minidl.inference.scores import Output, Target, decisions, score, targets
from minidl.nn.module import Module, check_model
from minidl.parallel import ALONE, Communicator

PIXELS = 250 * 3 * 32 * 32  # of a batch of `evaluate`, channels counted


@contextmanager
def evaluation_mode(model: Module, batch_size: int) -> Iterator[Module]:
    """Inside, the model evaluates and its parameters are frozen, in this thread: one batch, and never across a `yield`.

    Raises BatchMemoryError, a MemoryError, where so many images at a time do not fit into memory.
    """
    with model.evaluating(), model.frozen(), batch_in_memory(batch_size):
        yield model


def logits_of(model: Module, x: Array | Tensor) -> Tensor:
    """The logits (N,K) of one batch. Raises ValueError for a model that returns something else."""
    logits = model(x if isinstance(x, Tensor) else Tensor(x))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = f"shape {logits.shape}" if isinstance(logits, Tensor) else type(logits).__name__
        heads = "; of several heads ask one, explain.Head(model, name)" if isinstance(logits, tuple | list | dict) else ""
        raise ValueError(f"model: expected one row of logits an image, (N,K), got {got}{heads}")
    return logits


class Answering(Module):
    """y (N,K): a logit for each answer that there is, those of the model, or of its one logit z, (-z/2, z/2) for no and yes.

    So a net with one logit has two classes, 0 and 1: z <= 0 and z > 0, whose softmax is 1 - sigmoid(z) and sigmoid(z), and
    whose margin is -z and z.
    """

    def __init__(self, model: Module) -> None:
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return decisions(logits_of(self.model, x))


@contained
def predict(model: Module, x: Array, batch_size: int = 32, flips: str = "none") -> Array:
    """The logits (N,K) of images x (N,C,H,W), in evaluation mode, without a graph.

    flips: "none", or the mean of the logits of x and of its mirror images, "horizontal", "vertical" or "both", see
    `minidl.inference.flips`.

    Raises TypeError or ValueError for a batch_size that is no integer of at least 1, ValueError for other flips, a model that
    returns something else and for x that looks like (N,H,W,C), and MemoryError where a batch does not fit into memory.
    """
    check_model(model)
    one_of(flips, "flips", FLIPS)
    if not is_array(x):
        raise TypeError(f"x: expected an array, images as the model was trained on them, got {type(x).__name__}")
    if x.ndim == 4:
        check_layout(model, x)
    parts = []
    for part in batches(len(x), batch_size):
        with evaluation_mode(model, batch_size), no_grad():
            parts.append(mean_over_flips(lambda x: logits_of(model, x), x[part], flips).data)
    return array_module(x).concatenate(parts)


def classes_and_scores(model: Module, x: Array, target: Target, output: Output, batch_size: int = 32) -> tuple[Array, Array]:
    """The classes (N,) that `target` means for the images x, and their scores (N,)."""
    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    return classes, score(Tensor(logits), classes, output).data


@contained
@no_grad()
def evaluate(
    model: Module,
    dataset: Dataset,
    batch_size: int | None = None,
    prepare: Augmentation | None = None,
    flips: str = "none",
    world: Communicator = ALONE,
) -> tuple[float, Array, Any]:
    """Mean cross-entropy, logits (N,K) and labels (N,), in the order of `dataset`, with the model in evaluation mode.

    Of a dataset with several heads the logits are (N,K1+K2+...), the heads side by side in the order of its labels, and these
    come as name -> (N,). The loss is the sum over the heads of the mean over the images whose label is known.

    batch_size: by default so many that they have no more pixels than 250 of CIFAR-10. prepare: f(x, rng) -> x as in
    `minidl.data.augment`, for instance `Normalize`. flips: as in `predict`. Loss and arrays are on the CPU. world: the ranks
    that share the work, by the batches that one would make; each gets all that one gets, to the same bits. Raises TypeError
    or ValueError for a batch_size that is no integer of at least 1, ValueError for other flips, a head of which no label is
    known, and logits of another width than that of the heads, MemoryError where a batch does not fit into memory.
    """
    check_model(model)
    check_dataset(dataset, "dataset")
    one_of(flips, "flips", FLIPS)
    if batch_size is None:
        batch_size = max(1, min(250, PIXELS // dataset.images[0].size))
    batch_size = count(batch_size, "batch_size")
    device = model.parameters()[0].device
    known = {head: int((dataset.labels[head] != UNKNOWN).sum()) for head in dataset.heads}
    for head, labels_known in known.items():
        if labels_known == 0:
            raise ValueError(f"{dataset.name}: no label of {head} is known, nothing to evaluate it by; leave this head out")
    mine = list[tuple[dict[str, float], Array]]()  # of each batch of this rank the losses, times their images, and the logits
    with batch_in_memory(batch_size):
        for x, labels in _batches(dataset, batch_size, prepare, device, world):
            with model.evaluating():  # one batch, and not while the loader makes the next
                logits = mean_over_flips(model, x, flips)
            if known:
                losses = known_losses(logits, labels, dataset.classes)
                sums = {head: loss.item() * int((labels[head] != UNKNOWN).sum()) for head, loss in losses.items()}
            else:
                sums = {"": ops.cross_entropy(logits, labels).item() * len(x)}
            mine.append((sums, to_cpu(logits.data)))
    batches_of_all = [batch for of_rank in world.gather(mine) for batch in of_rank]
    totals = dict.fromkeys(known, 0.0) or {"": 0.0}
    for sums, _ in batches_of_all:
        for head in totals:
            totals[head] += sums[head]
    mean = sum(total / known.get(head, len(dataset)) for head, total in totals.items())
    return mean, np.concatenate([logits for _, logits in batches_of_all]), dataset.labels


def _batches(
    dataset: Dataset, batch_size: int, prepare: Augmentation | None, device: str, world: Communicator
) -> Iterable[tuple[Array, Any]]:
    """Those of one rank: whole batches, in their order."""
    mine = share_of(-(-len(dataset) // batch_size), world.rank, world.size)
    if mine.start == mine.stop:
        return []
    if world.size > 1:
        dataset = dataset.take(np.arange(len(dataset))[mine.start * batch_size : mine.stop * batch_size])
    return Loader(dataset, batch_size, shuffle=False, augment=prepare, device=device)
