"""What a rank can say to the others, and what it comes to where there are none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from minidl.arguments import count
from minidl.array import Array

T = TypeVar("T")


class Sum:
    """An array a (any shape) that is being added up over the ranks, in place; `wait()` returns it when that is done."""

    def __init__(self, a: Array) -> None:
        self.a = a

    def go_on(self) -> None:
        """A moment for the sum: most MPIs send and receive only while they are called."""

    def wait(self) -> Array:
        """The sum, in the array that was given, of its shape."""
        return self.a


class Communicator:
    """That of one process, which agrees with itself. `rank` counts from 0 to `size` - 1.

    Every rank calls the same methods in the same order: a rank that calls one waits there for the others.
    """

    rank, size = 0, 1
    name = ""  # of this rank, in messages

    def start_sum(self, a: Array) -> Sum:
        """Begin to replace a, C-contiguous and of any shape, by its sum over the ranks, and go on with something else.

        The order in which it is added up depends on the number of ranks and on nothing else: the same bits in every run, and
        on every rank. An array on a GPU is summed there, by NCCL, which raises RuntimeError where that cannot be.
        """
        return Sum(a)

    def sum(self, a: Array) -> Array:
        """The sum of a over the ranks, of its shape, in its place. Raises as `start_sum`."""
        return self.start_sum(a).wait()

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, rank by rank, on every rank."""
        return [value]

    def first(self, f: Callable[..., T], *args: Any) -> T:
        """f(*args), which rank 0 alone computes; the others get what it returned."""
        return f(*args)

    def in_turn(self, f: Callable[..., T], *args: Any) -> T:
        """f(*args) of every rank, rank 0 before the others: what it downloads, they find."""
        return f(*args)

    def map(self, f: Callable[[int], T], n: int) -> list[T]:
        """[f(0), ..., f(n - 1)] on every rank, each of which one rank computes: rank 0 gives them out as the others get done.

        f and what it knows are the same on all ranks; what it returns is sent. An error of one of several ranks ends them all.
        Raises TypeError and ValueError where n is no count.
        """
        return [f(i) for i in range(count(n, "n", 0))]

    def copy(self, get: Callable[[], T], put: Callable[[T], object]) -> None:
        """What rank 0 gets, the other ranks put in the place of what they have."""
        if self.size > 1:
            value = self.first(get)
            if self.rank:
                put(value)

    def block(self, enter: Callable[..., AbstractContextManager[Any]], *args: Any) -> AbstractContextManager[Any]:
        """`with world.block(lock.hold, folder):` is `with lock.hold(folder):` of rank 0; the others enter when it is inside."""
        return enter(*args)

    def say(self, *lines: str) -> None:
        """Print lines, on rank 0."""
        print(*lines, sep="\n", flush=True)

    def agree(self, about: Mapping[str, str]) -> None:
        """Raises ValueError that names what is not the same on all ranks; about: what is compared, by its name."""
        agreeing(self.gather(about))

    def end(self, code: int, told: str = "") -> None:
        """Print why this rank cannot go on, and end all ranks with this exit code, at once; one process ends by itself."""
        if told:
            print(told, file=sys.stderr, flush=True)


ALONE = Communicator()


def agreeing(said: Sequence[Mapping[str, str]]) -> None:
    """Raises ValueError that names what the ranks, each of which said something, do not say alike."""
    for name, value in said[0].items():
        for rank, of_rank in enumerate(said):
            if (other := of_rank.get(name, "nothing")) != value:
                came = f"{_about(value, other)} on rank 0 and {_about(other, value)} on rank {rank}"
                raise ValueError(f"{name}: expected the same on all ranks, got {came}")


def _about(text: str, other: str) -> str:
    """A part of the text that begins a little before it differs from the other one."""
    same = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    start = max(0, same - 20)
    return f"{'...' * (start > 0)}{text[start : start + 40]}{'...' * (len(text) > start + 40)}"
