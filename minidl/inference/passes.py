"""What all methods share: the model as it is looked at, its pictures checked and in batches, and progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate

from tqdm import tqdm

from minidl.arguments import count, number, one_of
from minidl.array import Array, array_like, array_module, device_of, is_array, is_float, shape_of
from minidl.contexts import contained
from minidl.core import Tensor, no_grad, walk
from minidl.flow.relu_rules import Rule, plain
from minidl.inference.memory import batch_in_memory
from minidl.inference.scores import score, targets
from minidl.nn import Module
from minidl.ops import unfused

REDUCE = ("maxabs", "sumabs", "sum")
Target = int | Array | None  # one class for all pictures, one for each (N,), or None: the class that the model predicts
Progress = bool | Callable[[int, int], None]  # False, True (a bar), or what is called with (done, total)


@contextmanager
def looked_at(model: Module, batch_size: int) -> Iterator[Module]:
    """Inside, the model evaluates and its parameters are frozen, in this thread: one batch, and never across a `yield`.

    Raises BatchMemoryError, a MemoryError, where so many pictures at a time do not fit into memory.
    """
    with model.evaluating(), model.frozen(), batch_in_memory(batch_size):
        yield model


def check_pictures(model: Module, x: Array, target: Target = None, name: str = "target", pictures: str = "x") -> None:
    """x: (N,C,H,W), at least one, finite, of the type of the model's parameters and where they are; N targets, or one.

    name, pictures: what target and x are called in the error.
    """
    if not is_array(x) or not is_float(x.dtype):
        what = x.dtype if is_array(x) else type(x).__name__
        raise TypeError(f"{pictures}: expected an array of floats, pictures as the model was trained on them, got {what}")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{pictures}: expected pictures (N,C,H,W), none of these 0, got shape {x.shape}")
    for p in model.parameters()[:1]:
        if (p.dtype, p.device) != (x.dtype, device_of(x)):
            model_is, x_is = f"{p.dtype} on the {p.device}", f"{x.dtype} on the {device_of(x)}"
            raise ValueError(f"{pictures}: the model is {model_is}, {pictures} is {x_is}")
    if not bool(array_module(x).isfinite(x).all()):
        raise ValueError(f"{pictures}: holds NaN or infinity")
    if target is not None and shape_of(target) not in ((), (len(x),)):
        raise ValueError(f"{name}: expected one class, or one for each of the {len(x)} pictures, got {target!r}")


def logits_of(model: Module, x: Array) -> Tensor:
    """The logits (N,K) of one batch. Raises ValueError for a model that returns something else."""
    logits = model(x if isinstance(x, Tensor) else Tensor(x))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = f"shape {logits.shape}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model: expected one row of logits a picture, (N,K), got {got}")
    return logits


@contained
def predict(model: Module, x: Array, batch_size: int = 32) -> Array:
    """The logits (N,K) of pictures x (N,C,H,W), in evaluation mode, without a graph.

    Raises TypeError or ValueError for a batch_size that is no integer of at least 1, ValueError for a model that returns
    something else, and MemoryError where a batch does not fit into memory.
    """
    parts = []
    for part in batches(len(x), batch_size):
        with looked_at(model, batch_size), no_grad():
            parts.append(logits_of(model, x[part]).data)
    return array_module(x).concatenate(parts)


def explained(model: Module, x: Array, target: Target, output: str, batch_size: int = 32) -> tuple[Array, Array]:
    """The classes (N,) that `target` means for the pictures x, and their scores (N,)."""
    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    return classes, score(Tensor(logits), classes, output).data


def input_gradient(model: Module, x: Array, target: Target, output: str, rule: Rule = plain) -> tuple[Array, Array, Array]:
    """d score / d x (N,C,H,W) of one batch, and target (N,) and score (N,); inside `looked_at`.

    No picture's score depends on another picture, so that one walk from their sum serves all; `rule` acts on its steps.
    """
    picture = Tensor(x, requires_grad=True)
    logits = logits_of(model, picture)
    classes = targets(logits.data, target)
    scores = score(logits, classes, output)
    xp, leaves = array_module(x), dict[Tensor, Array]()
    for step in walk(scores, xp.ones_like(scores.data), leaves=leaves, keep_graph=False, apart=False):
        rule(step)
        del step  # or its arrays would live on through the next step
    return leaves[picture], classes, scores.data


def input_gradients(
    model: Module,
    x: Array,
    target: Target,
    output: str,
    batch_size: int,
    progress: Progress = False,
    name: str = "",
    rule: Rule = plain,
) -> tuple[Array, Array, Array]:
    """`input_gradient` of any number of pictures, `batch_size` at a time."""
    parts = []
    for part in batches(len(x), batch_size, progress, name):
        with looked_at(model, batch_size), nullcontext() if rule is plain else unfused():  # rules meet single ops
            parts.append(input_gradient(model, x[part], of_part(target, part), output, rule))
    gx, classes, scores = (array_module(x).concatenate(arrays) for arrays in zip(*parts, strict=True))
    return gx, classes, scores


def gradients_at(
    model: Module,
    point: Callable[[slice, int], Array],
    samples: int,
    classes: Array,
    output: str,
    batch_size: int,
    progress: Progress = False,
    name: str = "",
) -> Iterator[tuple[slice, int, Array]]:
    """(part, k, d score / d x at point(part, k)), (n,C,H,W), for all pictures, n of them in a part, and each k of the samples.

    The score is that of classes (N,). Of each picture k counts up.
    """
    xp = array_module(classes)
    for runs in runs_in_batches(len(classes), samples, batch_size, progress, name):
        x = xp.concatenate([point(part, k) for part, k in runs])
        with looked_at(model, batch_size):
            gx, _, _ = input_gradient(model, x, of_runs(classes, runs), output)
        yield from ((part, k, g) for (part, k), g in zip(runs, in_runs(gx, runs), strict=True))


Runs = list[tuple[slice, int]]  # pictures, and the sample that they share


def runs_in_batches(n: int, samples: int, batch_size: int, progress: Progress = False, name: str = "") -> Iterator[Runs]:
    """Every picture 0 to n-1 with every sample 0 to samples-1, at most `batch_size` of these pairs at a time.

    All pictures meet the first sample, then all the second: so a sample is made about once, and all pictures that meet it in
    one batch are handled at once. Of 3 pictures and 2 samples, batches of 4 are [(0:3, 0), (0:1, 1)] and [(1:3, 1)].
    """
    for pairs in batches(n * samples, batch_size, progress, name):
        first, last = pairs.start // n, (pairs.stop - 1) // n  # samples
        yield [(slice(max(pairs.start - k * n, 0), min(pairs.stop - k * n, n)), k) for k in range(first, last + 1)]


def of_runs(a: Array, runs: Runs) -> Array:
    """From a (N,...), one for each picture, what belongs to the pairs of a batch."""
    return array_module(a).concatenate([a[part] for part, _ in runs])


def in_runs(a: Array, runs: Runs) -> list[Array]:
    """From a (B,...), one for each pair of a batch, what belongs to each run."""
    ends = list(accumulate(part.stop - part.start for part, _ in runs))
    return [a[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def batches(n: int, size: int, progress: Progress = False, name: str = "") -> Iterator[slice]:
    """0 to n in slices of at most `size`, reported as they are done."""
    size = count(size, "batch_size")
    with reporting(n, progress, name) as advance:
        for start in range(0, n, size):
            part = slice(start, min(start + size, n))
            yield part
            advance(part.stop - start)


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


def of_part(target: Target, part: slice) -> Target:
    """The targets of one batch: those of its pictures, where there is one for each."""
    return target if target is None or shape_of(target) == () else target[part]  # type: ignore[index]


def number_or_array(value: float | Array, name: str) -> float | Array:
    """A number, checked, or an array as it came."""
    return number(value, name) if shape_of(value) == () else value


def as_pictures(value: float | Array, x: Array, name: str) -> Array:
    """`value`, one number or what broadcasts to (N,C,H,W), such as (C,1,1) for a colour, in the form of the pictures x."""
    xp, value = array_module(x), number_or_array(value, name)
    try:
        pictures = xp.broadcast_to(array_like(value, x, x.dtype), x.shape)
    except (ValueError, TypeError):
        got = f"shape {shape_of(value)}" if is_array(value) else repr(value)
        raise ValueError(f"{name}: expected a number, or an array that broadcasts to {x.shape}, got {got}") from None
    if not bool(xp.isfinite(pictures).all()):
        raise ValueError(f"{name}: holds NaN or infinity")
    return pictures


def check_reduce(reduce: str) -> None:
    one_of(reduce, "reduce", REDUCE)


def over_channels(raw: Array, reduce: str) -> Array:
    """(N,C,H,W) -> (N,H,W): "maxabs" the largest size, "sumabs" the sum of sizes, "sum" the sum, which keeps the sign."""
    check_reduce(reduce)
    if reduce == "sum":
        return raw.sum(1)
    size = array_module(raw).abs(raw)
    return size.max(1) if reduce == "maxabs" else size.sum(1)
