"""Images in batches, alone or paired with samples, and how far the work is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from tqdm import tqdm

from minidl.arguments import count
from minidl.array import Array, array_module, shape_of
from minidl.inference.scores import Target

Progress = bool | Callable[[int, int], None]  # False, True (a bar), or what is called with (done, total)


def batches(n: int, size: int, progress: Progress = False, name: str = "") -> Iterator[slice]:
    """0 to n in slices of at most `size`, reported as they are done."""
    size = count(size, "batch_size")
    with reporting(n, progress, name) as advance:
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            yield part
            advance(part.stop - start)


def of_part(target: Target, part: slice) -> Target:
    """The targets of one batch: those of its images, where there is one for each."""
    return target if target is None or shape_of(target) == () else target[part]  # type: ignore[index]


@contextmanager
def reporting(total: int, progress: Progress, name: str = "") -> Iterator[Callable[[int], None]]:
    """A function that takes how much more is done, and shows it as `progress` asks."""
    if callable(progress):
        done = 0

        def tell(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield tell
    elif isinstance(progress, bool):
        with tqdm(total=total, desc=name, leave=False, disable=not progress) as bar:

            def show(more: int) -> None:
                bar.update(more)

            yield show
    else:
        raise TypeError(f"progress: expected False, True or a function of (done, total), got {progress!r}")


Runs = list[tuple[slice, int]]  # images, and the sample that they share


def runs_in_batches(n: int, samples: int, batch_size: int, progress: Progress = False, name: str = "") -> Iterator[Runs]:
    """Every image 0 to n-1 with every sample 0 to samples-1, at most `batch_size` of these pairs at a time.

    All images meet the first sample, then all the second: so a sample is made about once, and all images that meet it in
    one batch are handled at once. Of 3 images and 2 samples, batches of 4 are [(0:3, 0), (0:1, 1)] and [(1:3, 1)].
    """
    for pairs in batches(n * samples, batch_size, progress, name):
        first, last = pairs.start // n, (pairs.stop - 1) // n  # samples
        yield [(slice(max(pairs.start - k * n, 0), min(pairs.stop - k * n, n)), k) for k in range(first, last + 1)]


def gather_runs(a: Array, runs: Runs) -> Array:
    """From a (N,...), one for each image, what belongs to the pairs of a batch."""
    return array_module(a).concatenate([a[part] for part, _ in runs])


def split_runs(a: Array, runs: Runs) -> list[Array]:
    """From a (B,...), one for each pair of a batch, what belongs to each run."""
    ends = list(accumulate(part.stop - part.start for part, _ in runs))
    return [a[start:end] for start, end in zip([0, *ends], ends, strict=False)]
