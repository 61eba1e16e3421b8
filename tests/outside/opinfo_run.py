"""One sample of PyTorch's test databases, computed by PyTorch and by minidl, and the bin that it lands in.

    agreed          values, and gradients under a random cotangent, are PyTorch's
    refused         minidl raised a TypeError or ValueError of its own, which says what was expected
    skipped: ...    minidl has no such argument, see `opinfo.Missing`
    explained: ...  a row of `opinfo_differences.DIFFERENCES`

Everything else is a fault, and fails the test.
"""

from __future__ import annotations

import inspect
import linecache
import random
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import minidl
from minidl import Tensor, gradients, kernels
from tests.outside.opinfo import Missing, constants
from tests.outside.opinfo_differences import DIFFERENCES

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
KERNELS = {torch.float64: ("reference", "compiled"), torch.float32: ("compiled",)}
MINIDL = str(Path(minidl.__file__).parent)

Sample = tuple[tuple[Any, ...], dict[str, Any]]  # positional and named arguments


class Fault(Exception):  # noqa: N818
    """What minidl did wrong: `what` is one of `opinfo_differences.KINDS`, `where` the elements that are wrong."""

    def __init__(self, what: str, text: str, where: np.ndarray | None = None) -> None:
        super().__init__(text)
        self.what, self.where = what, np.array(True) if where is None else where


class Refused(Exception):  # noqa: N818
    """minidl raised an error that says what is wrong."""


class Bins:
    """How many samples of one entry landed in which bin, and the faults."""

    def __init__(self, entry: str) -> None:
        self.entry = entry
        self.count: Counter[str] = Counter()
        self.faults: list[str] = []
        self.rows = [row for row in DIFFERENCES if entry in row.entries.split()]
        self.used: set[str] = set()

    def put(self, compute: Callable[[], list[Fault] | str], sample: Sample, prefix: str = "") -> None:
        """Count the bin that `compute` returns, or the rows that explain all the faults that it found or raised."""
        try:
            found = compute()
        except Missing as reason:
            found = f"skipped: {reason}"
        except Fault as fault:
            found = [fault]
        if isinstance(found, list):
            reasons: set[str] = set()
            for fault in found:
                why = self.explanation(fault, sample)
                reasons |= why
                if not why:
                    self.faults.append(f"{fault.what}: {self.entry} of {show(sample)}: {fault}")
                    return
            self.used |= reasons
            found = f"explained: {'; '.join(sorted(reasons))}" if reasons else "agreed"
        self.count[prefix + found] += 1

    def explanation(self, fault: Fault, sample: Sample) -> set[str]:
        """Why, by the rows that together explain every element that is wrong; empty if some is left."""
        left, reasons = fault.where, set()
        for row in self.rows:
            if row.what == fault.what:
                args, more = sample
                explained = np.asarray(row.when(*args, **more))
                if explained.shape in ((), left.shape) and (left & explained).any():
                    reasons.add(row.why)
                    left = left & ~explained
        return set() if left.any() else reasons

    def check(self) -> None:
        shown = "\n\n".join(self.faults[:10])
        assert not self.faults, f"{len(self.faults)} faults\n\n{shown}"
        idle = {row.why for row in self.rows} - self.used
        assert not idle, f"rows of DIFFERENCES that {self.entry} does not need: {idle}"


# ---- from PyTorch to minidl


def mapped(value: Any, change: Callable[[torch.Tensor], Any], rest: Callable[[Any], Any] = lambda value: value) -> Any:
    """`value` with the tensors in it changed, those in lists, tuples and dicts too, and everything else as `rest` says."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(item, change, rest) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(mapped(item, change, rest) for item in value)  # a torch.Size too
    return rest(value)


def tensors(value: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    mapped(value, found.append)
    return found


def show(value: Any) -> str:
    return str(mapped(value, lambda x: f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"))[:300]


def dtype_of_numpy(value: Any) -> Any:
    return torch.empty(0, dtype=value).numpy().dtype if isinstance(value, torch.dtype) else value


class Translated:
    """The arguments of a sample for PyTorch, with fresh leaves of which the constants are detached, and for minidl."""

    def __init__(self, adapter: Callable[..., Any], sample: Sample) -> None:
        args, more = sample
        named = inspect.signature(adapter).bind(*args, **more).arguments
        fixed = {id(x) for name in constants(adapter) for x in tensors(named.get(name))}
        self.leaves: dict[int, torch.Tensor] = {}  # by the tensors of the sample
        self.arrays: set[int] = set()  # the leaves that minidl takes as arrays

        def leaf(x: torch.Tensor) -> torch.Tensor:
            y = self.leaves.setdefault(id(x), x.detach())
            if id(x) in fixed:
                self.arrays.add(id(y))
            elif x.requires_grad:
                y.requires_grad_()
            return y

        self.args, self.more = mapped(args, leaf), mapped(more, leaf)
        self.xs = [x for x in self.leaves.values() if x.requires_grad]  # what the gradients are for

    def for_minidl(self) -> tuple[tuple[Any, ...], dict[str, Any], list[Tensor]]:
        """The same on the same memory, and the tensors of minidl for `xs`."""
        words: dict[int, Tensor] = {}

        def word(x: torch.Tensor) -> Any:
            if x.ndim > 64:
                raise Missing("more axes than NumPy has")
            array = x.detach().numpy()
            return array if id(x) in self.arrays else words.setdefault(id(x), Tensor(array, requires_grad=x.requires_grad))

        args, more = (mapped(value, word, dtype_of_numpy) for value in (self.args, self.more))
        return args, more, [words[id(x)] for x in self.xs]


# ---- the comparison


def run(
    adapter: Callable[..., Any], theirs: Callable[..., Any], sample: Sample, dtype: torch.dtype, sums: bool
) -> list[Fault] | str:
    """The adapter with both families of kernels, in float32 with the compiled ones, against `theirs`: a bin, or faults.

    Results that are `sums` are compared relative to the largest element too, others only relative to each element.
    """
    check_for_tensors(sample)
    translated = Translated(adapter, sample)
    ys, gxs, refusals = [], [], 0
    for kernel in KERNELS[dtype]:
        with kernels.use(kernel):
            try:
                some_ys, some_gxs = ours(adapter, translated)
            except Refused:
                refusals += 1
            else:
                ys += [some_ys]
                gxs += some_gxs
    if refusals == len(KERNELS[dtype]):
        return "refused"
    if refusals:
        return [Fault("value", "one family of kernels refuses what the other computes")]
    their_ys = their_values(theirs, translated)[: len(ys[0])]
    their_gxs = their_gradients(their_ys, translated.xs)
    want = [y.detach() for y in their_ys] * len(ys)
    values = compare("value", [y for some_ys in ys for y in some_ys], want, TOLERANCE[dtype], sums)
    return values + compare("gradient", gxs, their_gxs * len(ys), TOLERANCE[dtype], sums)


def ours(adapter: Callable[..., Any], translated: Translated) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values, and the gradients of all inputs that require one."""
    with np.errstate(all="ignore"):
        try:
            args, more, xs = translated.for_minidl()
            y = adapter(*args, **more)
        except Missing:
            raise
        except Exception as error:
            judge(error)
        ys = list(y) if isinstance(y, list | tuple) else [y]
        gxs = [np.zeros_like(x.data) for x in xs]
        try:
            for i, y in enumerate(ys):
                if y.requires_grad:
                    more_gxs = gradients(y, xs, cotangent(i, y.shape, y.dtype))
                    gxs = [np.asarray(a + b) for a, b in zip(gxs, more_gxs, strict=True)]
        except Exception as error:
            raise Fault("late", f"refused in the backward pass only, with {type(error).__name__}: {error}") from error
    return [y.data for y in ys], gxs


def cotangent(i: int, shape: Sequence[int], dtype: Any) -> np.ndarray:
    return np.asarray(np.random.default_rng(i).standard_normal(tuple(shape))).astype(dtype)


def their_values(theirs: Callable[..., Any], translated: Translated) -> list[torch.Tensor]:
    """The outputs of float type: indices are no matter of minidl."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is deprecated in PyTorch
        y = theirs(*translated.args, **translated.more)
    if y is NotImplemented:
        raise Missing("a method of PyTorch's tensors called with a number")
    return [x for x in tensors(tuple(y) if isinstance(y, tuple) else y) if x.is_floating_point()]


def their_gradients(ys: list[torch.Tensor], xs: list[torch.Tensor]) -> list[torch.Tensor]:
    of = [(y, torch.from_numpy(cotangent(i, y.shape, dtype_of_numpy(y.dtype)))) for i, y in enumerate(ys) if y.requires_grad]
    if not xs or not of:
        return [torch.zeros_like(x) for x in xs]
    try:
        gxs = torch.autograd.grad([y for y, _ in of], xs, [gy for _, gy in of], allow_unused=True)
    except RuntimeError as error:
        raise Fault("PyTorch", str(error)) from None
    return [torch.zeros_like(x) if gx is None else gx for x, gx in zip(xs, gxs, strict=True)]


def compare(what: str, got: list[np.ndarray], want: list[torch.Tensor], tolerance: float, sums: bool) -> list[Fault]:
    """The elements that are wrong, array by array."""
    if len(got) != len(want):
        return [Fault(what, f"{len(got)} outputs, PyTorch has {len(want)}")]
    faults = []
    for i, (a, t) in enumerate(zip(got, want, strict=True)):
        b = t.numpy()
        if a.shape != b.shape or a.dtype != b.dtype:
            faults.append(Fault(what, f"{i}: {a.shape} {a.dtype}, PyTorch has {b.shape} {b.dtype}"))
            continue
        largest = np.abs(b, where=np.isfinite(b), out=np.zeros_like(b)).max(initial=0.01)
        nearest = tolerance * float(largest) if sums else np.finfo(a.dtype).tiny
        wrong = np.asarray(~np.isclose(a, b, rtol=tolerance, atol=nearest, equal_nan=True))
        if wrong.any():
            at = tuple(int(k) for k in np.argwhere(wrong)[0])
            text = f"{i}: {wrong.sum()} of {wrong.size} differ, at {at} {a[at]!r}, PyTorch has {b[at]!r}"
            faults.append(Fault(what, text, wrong))
    return faults


# ---- errors


def run_error(adapter: Callable[..., Any], sample: Sample) -> str:
    """The bin of a sample that PyTorch refuses: minidl must refuse it too."""
    if "out" in sample[1]:
        raise Missing("out")
    check_for_tensors(sample)
    try:
        values, _ = ours(adapter, Translated(adapter, sample))
    except Refused:
        return "refused"
    except (Fault, Missing):
        raise
    except Exception:
        raise Missing("an error that the adapter meets before minidl does") from None
    raise Fault("accepts", f"minidl computed {[y.shape for y in values]}")


def check_for_tensors(sample: Sample) -> None:
    if not tensors(sample) and not isinstance(sample[0][0], list | tuple):
        raise Missing("numbers only")


def judge(error: Exception) -> None:
    """Raises Refused for a clear error of minidl, Fault for one that came from inside, and one of the adapter's as it is."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(MINIDL)]
    if isinstance(error, TypeError) and "unsupported operand type(s)" in str(error):
        raise Refused from error  # Python's own, which names both types
    if not inside:
        raise error
    if clear(error, frames[-1]):
        raise Refused from error
    where = f"{Path(inside[-1].filename).name}:{inside[-1].lineno} {inside[-1].line}"
    raise Fault("unclear", f"{type(error).__name__}: {error} in {where}") from error


def clear(error: Exception, frame: traceback.FrameSummary) -> bool:
    """Raised by a line of minidl that says `raise`; or NumPy's, if they name the axis or the index that is out of bounds."""
    if isinstance(error, np.exceptions.AxisError):
        return True
    if isinstance(error, IndexError):
        return frame.line == "return x[self.index]"
    line = linecache.getline(frame.filename, frame.lineno or 0).strip()
    own = frame.filename.startswith(MINIDL) and line.startswith("raise ")
    return own and isinstance(error, TypeError | ValueError) and str(error) != ""


# ---- the samples


def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def samples(op: Any, dtype: torch.dtype) -> Iterator[Sample]:
    """The reference samples of an entry, which are the plain ones and more."""
    seed()
    try:
        found = list(op.reference_inputs("cpu", dtype, requires_grad=True))
    except ValueError:  # PyTorch asks for a gradient of the integers among them
        seed()
        found = list(op.reference_inputs("cpu", dtype, requires_grad=False))
        for x in tensors([(sample.input, sample.args, sample.kwargs) for sample in found]):
            if x.is_floating_point():
                x.requires_grad_()
    for sample in found:
        yield (sample.input, *sample.args), sample.kwargs


def error_samples(op: Any) -> Iterator[Sample]:
    """What PyTorch refuses."""
    seed()
    for error in op.error_inputs("cpu") if op.error_inputs_func else ():
        sample = error.sample_input
        yield (sample.input, *sample.args), sample.kwargs
