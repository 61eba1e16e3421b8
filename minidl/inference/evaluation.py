"""What a model answers: its logits, the classes and scores that these mean, its loss on a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from minidl import ops
from minidl.array import Array, array_module, to_cpu
from minidl.contexts import contained
from minidl.core import Tensor, no_grad
from minidl.data import Augmentation, Dataset, Loader
from minidl.inference.batches import batches
from minidl.inference.memory import batch_in_memory
from minidl.inference.scores import Target, score, targets
from minidl.nn import Module


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
        raise ValueError(f"model: expected one row of logits an image, (N,K), got {got}")
    return logits


@contained
def predict(model: Module, x: Array, batch_size: int = 32) -> Array:
    """The logits (N,K) of images x (N,C,H,W), in evaluation mode, without a graph.

    Raises TypeError or ValueError for a batch_size that is no integer of at least 1, ValueError for a model that returns
    something else, and MemoryError where a batch does not fit into memory.
    """
    parts = []
    for part in batches(len(x), batch_size):
        with evaluation_mode(model, batch_size), no_grad():
            parts.append(logits_of(model, x[part]).data)
    return array_module(x).concatenate(parts)


def classes_and_scores(model: Module, x: Array, target: Target, output: str, batch_size: int = 32) -> tuple[Array, Array]:
    """The classes (N,) that `target` means for the images x, and their scores (N,)."""
    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    return classes, score(Tensor(logits), classes, output).data


@contained
@no_grad()
def evaluate(
    model: Module, dataset: Dataset, batch_size: int = 250, prepare: Augmentation | None = None
) -> tuple[float, Array, Array]:
    """Mean cross-entropy, logits (N,K) and labels (N,), in the order of `dataset`, with the model in evaluation mode.

    prepare: f(x, rng) -> x as in `minidl.data.augment`, for instance `Normalize`. Loss and arrays are on the CPU. Raises
    MemoryError where a batch does not fit into memory.
    """
    device, total, parts = model.parameters()[0].device, 0.0, []
    with batch_in_memory(batch_size):
        for x, labels in Loader(dataset, batch_size, shuffle=False, augment=prepare, device=device):
            with model.evaluating():  # one batch, and not while the loader makes the next
                logits = model(x)
            total += ops.cross_entropy(logits, labels).item() * len(x)
            parts.append(to_cpu(logits.data))
    return total / len(dataset), np.concatenate(parts), dataset.labels
