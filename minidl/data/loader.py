"""Batches for training: shuffled, augmented and made ahead of time in a thread; for a GPU, on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

import numpy as np

from minidl.arguments import count, counts, flag, function, one_of, wrong
from minidl.array import DEVICES, Array, array_module, is_array, to_device, to_gpu
from minidl.data.ahead import ahead
from minidl.data.augment import Augmentation
from minidl.data.dataset import Dataset, check_dataset
from minidl.data.share import SharedDraws, share_of

A = TypeVar("A")
B = TypeVar("B")


class Loader:
    """Iterable of batches (x, labels): x (n,C,H,W) float32, labels (n,) int64, with n <= batch_size and never 0.

    Where the dataset has several heads, labels is name -> (n,). Images that are left on disk are read with their batch, ahead
    of time as everything else.

    Order and augmentation depend on (seed, epoch, number of the batch) and on nothing else, so that a resumed run sees
    the same batches. Each iteration takes the epoch in `loader.epoch` and then counts it up; set it to resume.

    Args:
        augment: f(x, rng) -> x, see `minidl.data.augment`. It runs in the thread and gets the images as the dataset
            has them. uint8 images that come out of it, or without it, are scaled to [0, 1].
        drop_last: leave out the last batch where it would be smaller than the others.
        prefetch: how many batches are made ahead in a thread of their own; 0 makes each when it is asked for, in the
            thread that asks. The thread ends with the loop, however that ends.
        device: where the batches are made. For "gpu" the images are copied there as the dataset has them, and `augment`
            gets them there; copying and augmenting run beside the training, see `on_a_stream`.
        share: (rank, size): of every batch only the images that fall to this rank of so many, augmented as in the whole batch;
            see `minidl.data.share`.

    Raises:
        TypeError: an argument has the wrong type.
        RuntimeError: while iterating, where device is "gpu" and CuPy or a GPU is missing.
        ValueError: batch_size < 1, prefetch < 0, seed < 0, another device, a share that is none, or without images in some
            batch, or with drop_last no batch would be left; while iterating, where `augment` returns something else than a
            floating or uint8 batch of as many images.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool = True,
        augment: Augmentation | None = None,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        device: str = "cpu",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        check_dataset(dataset, "dataset")
        if augment is not None:
            function(augment, "augment", "f(x, rng)")
        self.device = one_of(device, "device", DEVICES)
        self.dataset, self.augment = dataset, augment
        self.shuffle, self.drop_last = flag(shuffle, "shuffle"), flag(drop_last, "drop_last")
        self.batch_size = count(batch_size, "batch_size")
        self.seed = count(seed, "seed", 0)
        self.prefetch = count(prefetch, "prefetch", 0)
        self.set_epoch(0)
        if len(self) == 0:
            raise ValueError(f"drop_last leaves no batch: batch_size is {batch_size}, {dataset.name} has {len(dataset)}")
        self.share = self._checked(share)

    def _checked(self, share: tuple[int, int]) -> tuple[int, int]:
        rank, size = counts(share, "share", 0, 2)
        if rank >= size:
            wrong(ValueError, "share", "(rank, size), rank < size", share)
        rest = len(self.dataset) % self.batch_size
        smallest = rest if rest and not self.drop_last else min(self.batch_size, len(self.dataset))
        if smallest < size:
            advice = "a larger batch_size helps, and drop_last where it is the last"
            raise ValueError(f"share: a batch of {smallest} images has none for some of {size} ranks; {advice}")
        return rank, size

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration is: 0, 1, ... Raises TypeError or ValueError for what is no such number."""
        self.epoch = count(epoch, "epoch", 0)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        epoch = count(self.epoch, "epoch", 0)
        self.epoch = epoch + 1
        order = np.arange(len(self.dataset))
        if self.shuffle:
            order = self._rng(epoch).permutation(order)
        picks = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]

        def batch(number: int) -> tuple[Array, Any]:
            pick, rng = picks[number], self._rng(epoch, number)
            if self.share == (0, 1):
                return self._batch(pick, rng)
            part = share_of(len(pick), *self.share)
            return self._batch(pick[part], SharedDraws(rng, part, len(pick)))  # type: ignore[arg-type]

        return (ahead if self.device == "cpu" else on_a_stream)(batch, range(len(self)), self.prefetch)

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def _batch(self, pick: Array, rng: np.random.Generator) -> tuple[Array, Any]:
        x = to_device(self.dataset.images[pick], self.device)  # (n,C,H,W)
        if self.augment is not None:
            x = self.augment(x, rng)
        if not is_array(x) or x.ndim != 4 or len(x) != len(pick):
            came = f"shape {x.shape}" if is_array(x) else type(x).__name__
            raise ValueError(f"augment: expected it to return a batch ({len(pick)},C,H,W), got {came}")
        if x.dtype == np.uint8:
            x = x.astype(np.float32) / np.float32(255)
        elif not np.issubdtype(x.dtype, np.floating):
            raise ValueError(f"augment: expected it to return images of uint8 or floats, got {x.dtype}")
        x, labels = array_module(x).ascontiguousarray(x, np.float32), self.dataset.labels
        if isinstance(labels, Mapping):
            return x, {head: to_device(values[pick], self.device) for head, values in labels.items()}
        return x, to_device(labels[pick], self.device)


def on_a_stream(f: Callable[[A], B], arguments: Iterable[A], depth: int) -> Iterator[B]:
    """`ahead`, where f queues work for the GPU: on a stream of its own, beside that of whoever takes the results.

    CuPy copies from memory that the operating system cannot move (pinned), and keeps it until the copy is over. The taker's
    stream waits for each result, and this one for the taker to be done with it, before its memory serves another.
    """
    cuda, stream = _stream()

    def queue(argument: A) -> tuple[B, Any]:
        with stream:
            return f(argument), stream.record()

    for result, ready in ahead(queue, arguments, depth):
        taker = cuda.get_current_stream()
        taker.wait_event(ready)
        try:
            yield result
        finally:
            stream.wait_event(taker.record())


@cache
def _stream() -> tuple[Any, Any]:
    """`cupy.cuda`, and one stream for all loaders: freed memory is kept for the stream that it was made on."""
    cuda = array_module(to_gpu(np.zeros(1, np.uint8))).cuda
    return cuda, cuda.Stream(non_blocking=True)
