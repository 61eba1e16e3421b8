"""Where minidl may differ from PyTorch, and why: no other difference passes the tests of `test_opinfo`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KINDS = {
    "value": "another value, shape or dtype",
    "gradient": "the same of a gradient",
    "unclear": "an error that is NumPy's or Python's own",
    "late": "an error in the backward pass only",
    "accepts": "no error where PyTorch has one",
    "PyTorch": "PyTorch's own failure",
}


@dataclass(frozen=True)
class Difference:
    """Where minidl may differ from PyTorch, and why."""

    entries: str  # names of entries of PyTorch's databases, separated by spaces
    what: str  # see `KINDS`
    why: str
    when: Callable[..., Any] = lambda *args, **more: True  # of PyTorch's arguments: whether, or at which elements


def nan(*args: Any, **more: Any) -> Any:
    """Where one of the tensors is not a number"""
    return sum(x.isnan().numpy() for x in args if hasattr(x, "isnan")) > 0


def large_float32(x: Any, *args: Any, **more: Any) -> bool:
    return str(x.dtype) == "torch.float32" and x.shape[-1] > 100


DIFFERENCES = [
    # a derivative that is not defined, and that both are free to choose
    Difference(
        "abs nn.functional.relu nn.functional.hardtanh nn.functional.relu6 clamp clamp_min clamp_max maximum max/binary",
        "gradient",
        "the gradient at a value that is not a number",
        nan,
    ),
    Difference(
        "nn.functional.hardtanh",
        "gradient",
        "the gradient at the bounds: 1 by clip and by torch.clamp, 0 by hardtanh",
        lambda x, min_val=-1, max_val=1: (x == min_val) | (x == max_val),
    ),
    Difference(
        "nn.functional.relu6",
        "gradient",
        "the gradient at the bounds: 1 by clip and by torch.clamp, 0 by relu6",
        lambda x: (x == 0) | (x == 6),
    ),
    Difference(
        "clamp_min clamp_max",
        "gradient",
        "the gradient of equal values: shared by maximum and by torch.maximum, all to the first by torch.clamp",
        lambda a, b: a == b,
    ),
    # rounding
    Difference(
        "half",
        "value",
        "PyTorch rounds a float64 to a float16 by way of float32, NumPy at once",
        lambda x, **more: str(x.dtype) == "torch.float64",
    ),
    Difference(
        "nn.functional.interpolate/bilinear nn.functional.upsample_bilinear",
        "value",
        "PyTorch computes the positions between pixels in float32, minidl in float64",
        large_float32,
    ),
    Difference(
        "nn.functional.upsample_bilinear",
        "gradient",
        "PyTorch computes the positions between pixels in float32, minidl in float64",
        large_float32,
    ),
    Difference("tanh", "gradient", "the rounding of 1 - y^2 where y is almost 1, by PyTorch", lambda x: x.abs() > 3),
    Difference("sigmoid", "gradient", "the rounding of 1 - y where y is almost 1, by PyTorch", lambda x: x > 3),
    # what one of them refuses
    Difference("t", "accepts", "transpose reverses any number of axes"),
    Difference("narrow", "accepts", "x[start:stop] may reach beyond the end, and start there, as in Python"),
    Difference("clamp", "PyTorch", "PyTorch's gradient fails where one bound has a larger shape than the result of the other"),
]
