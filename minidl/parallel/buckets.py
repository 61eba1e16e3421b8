"""Arrays that are summed over the ranks in a few large buffers, each as soon as all of its arrays are there."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate
from types import ModuleType
from typing import Any

import numpy as np

from minidl.arguments import count
from minidl.array import Array
from minidl.parallel.communicator import Communicator, Sum

BYTES = 2**20  # of a bucket, about: large enough that its start costs little, small enough that it leaves early


class Buckets:
    """Places for arrays, in the order in which they are expected, of which each belongs to a bucket of about `nbytes`.

        buckets = Buckets(world, {"b": ((10,), "float32"), "w": ((10, 5), "float32")})
        buckets.put("b", gb)       # several times: these are added up
        buckets.finish("b")        # no more of it comes
        ...
        sums = buckets.wait()      # by name, views of the buffers, which the next round overwrites

    kinds: shape and dtype of each array, by its name; xp: NumPy or CuPy, where they are. A bucket sets out when all of its
    arrays are finished, and not before the one in front of it: so the ranks, which finish in the same order, sum the same ones.
    Raises TypeError and ValueError where nbytes is no count.
    """

    def __init__(
        self,
        world: Communicator,
        kinds: Mapping[Any, tuple[Sequence[int], Any]],
        nbytes: int = BYTES,
        xp: ModuleType = np,
    ) -> None:
        self.world, self.xp, nbytes = world, xp, count(nbytes, "nbytes")
        self.places: dict[Hashable, tuple[int, Array]] = {}  # of each array the bucket, and its part of the buffer
        self.buffers: list[Array] = []
        self.sizes: list[int] = []  # how many arrays
        run: list[Any] = []
        for name, (_, dtype) in kinds.items():
            same = run and np.dtype(kinds[run[-1]][1]) == np.dtype(dtype)
            if run and (not same or sum(_nbytes(kinds[n]) for n in run) >= nbytes):
                self._add(run, kinds)
                run = []
            run.append(name)
        if run:
            self._add(run, kinds)
        self._begin()

    def _add(self, names: list[Any], kinds: Mapping[Any, tuple[Sequence[int], Any]]) -> None:
        counts = [int(np.prod(kinds[name][0])) for name in names]
        buffer = self.xp.zeros(sum(counts), kinds[names[0]][1])
        for name, start, n in zip(names, accumulate(counts, initial=0), counts, strict=False):
            self.places[name] = len(self.buffers), buffer[start : start + n].reshape(kinds[name][0])
        self.buffers.append(buffer)
        self.sizes.append(len(names))

    def _begin(self) -> None:
        self.came: set[Hashable] = set()
        self.finished: set[Hashable] = set()
        self.open = list(self.sizes)
        self.sums: list[Sum] = []

    def put(self, name: Hashable, a: Array) -> None:
        """Add a to what has come of `name`, of its shape; the first one is copied."""
        place = self.places[name][1]
        if name in self.came:
            place += a
        else:
            place[...] = a
            self.came.add(name)

    def finish(self, name: Hashable) -> None:
        """No more of `name` comes; where nothing came its place is 0."""
        if name in self.finished:
            return
        self.finished.add(name)
        number, place = self.places[name]
        if name not in self.came:
            place[...] = 0
        self.open[number] -= 1
        while len(self.sums) < len(self.buffers) and not self.open[len(self.sums)]:
            self.sums.append(self.world.start_sum(self.buffers[len(self.sums)]))
        for pending in self.sums:
            pending.go_on()

    def wait(self) -> dict[Any, Array]:
        """The sums over the ranks, by name, of the shapes that were told, when all are there; a new round begins."""
        for name in self.places:
            self.finish(name)
        for pending in self.sums:
            pending.wait()
        self._begin()
        return {name: place for name, (_, place) in self.places.items()}


def _nbytes(kind: tuple[Sequence[int], Any]) -> int:
    return int(np.prod(kind[0])) * np.dtype(kind[1]).itemsize
