"""The share that one of several ranks has of every batch, and its part of the random numbers that the whole batch draws."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from minidl.arguments import generator
from minidl.array import Array


def share_of(n: int, rank: int, size: int) -> slice:
    """Which of n images, in their order, are those of one rank of `size`: as many as of the others, up to one."""
    return slice(rank * n // size, (rank + 1) * n // size)


class SharedDraws:
    """Of the numbers that a generator draws for a batch of n images, along the last axis, those of the images of `part`.

    So an augmentation that sees the images of one rank changes them as it changes them among all. It takes the place of a
    `numpy.random.Generator` in f(x, rng), with the draws below; any other, or of another length, raises ValueError.
    """

    def __init__(self, rng: np.random.Generator, part: slice, n: int) -> None:
        self.rng, self.part, self.n = rng, part, n

    def integers(self, low: int, high: int | None = None, size: Any = None, **more: Any) -> Array:
        """As of a Generator; size is n, or (..., n), n the images of this rank."""
        return self._mine(self.rng.integers(low, high, self._whole(size), **more))

    def random(self, size: Any = None, **more: Any) -> Array:
        """As `integers`."""
        return self._mine(self.rng.random(self._whole(size), **more))

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Array:
        """As `integers`."""
        return self._mine(self.rng.uniform(low, high, self._whole(size)))

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Any = None) -> Array:
        """As `integers`."""
        return self._mine(self.rng.normal(loc, scale, self._whole(size)))

    def _whole(self, size: Any) -> tuple[int, ...]:
        shape = tuple(size) if isinstance(size, tuple | list) else (size,)
        mine = self.part.stop - self.part.start
        if shape[-1] != mine:
            raise ValueError(
                f"augment: of a batch that {self.n} images share with other ranks, expected draws of size {mine} or (..., "
                f"{mine}), one for each image of this rank, got {size}"
            )
        return (*shape[:-1], self.n)

    def _mine(self, drawn: Array) -> Array:
        return drawn[..., self.part]

    def __getattr__(self, name: str) -> NoReturn:
        known = "integers, random, uniform or normal"
        raise ValueError(f"augment: a batch that ranks share is drawn for by {known}, got rng.{name}")


def drawing(rng: Any) -> np.random.Generator:
    """The rng of an augmentation: a generator, or what draws as one does. Raises TypeError for what does not, as a seed."""
    return rng if hasattr(rng, "random") else generator(rng)
