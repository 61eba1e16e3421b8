"""Mixed precision: activations and their gradients take 16 bits a number, parameters, sums and losses 32.

    with mixed("float16"):
        loss = ops.cross_entropy(model(x), labels)
    if scale.backward(loss):  # a minidl.LossScale, since small gradients are less than the smallest half
        optimizer.step()

Inside, an op casts its inputs as the `precision` of its class says; the cast is an op too, and its gradient casts back:

    HALF, HALF, FLOAT32      convolution and linear layer: x and w are halves, b is float32
    HALF, FLOAT32, FLOAT32   batch norm: x is half, gamma and beta are float32; and so on in turn: r is half, w of a dense block
    HALF                     product of matrices
    FLOAT32                  softmax, losses, sums, powers, exponentials
    ()                       the rest takes what comes, halves if one of several is one: relu, pooling, add, concat

The parameters themselves stay float32, so that small updates are not lost and a checkpoint is the same as ever. Products are
added up in float32, and each result is rounded once. Micikevicius et al. 2018, "Mixed precision training", sections 3.1 to 3.3.

A float16 has 11 digits (bits) and reaches from 6e-8 to 65,504; a bfloat16 has 8, but the range of a float32, and needs no loss
scale. NumPy has bfloat16 from the package ml_dtypes.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from minidl.contexts import Block, Setting

PRECISIONS = ("float32", "float16", "bfloat16")
HALF, FLOAT32 = "half", "float32"


_mixing: Setting[Any] = Setting("mixed", None)


def mixed(precision: str) -> Block[None]:
    """Inside `with mixed("float16"):`, or "bfloat16", this thread's ops store halves; "float32" is as without it.

    Raises ValueError for another precision, RuntimeError for "bfloat16" without ml_dtypes. Micikevicius et al. 2018, "Mixed
    precision training", sections 3.1 to 3.3.
    """
    return Block(None, (_mixing, _half(precision)))


def half() -> Any:
    """The dtype of 16 bits inside `with mixed(...)`, else None."""
    return _mixing.value


def cast(xs: tuple[Any, ...], precision: tuple[str, ...]) -> tuple[Any, ...]:
    """Inside `mixed`: each tensor of 32 or 16 bits cast to what the op takes there, see `Op.precision`; None stays."""
    types = {HALF: half(), FLOAT32: np.dtype(np.float32)}
    if precision == ():
        precision = (HALF,) if any(x is not None and x.dtype == types[HALF] for x in xs) else (FLOAT32,)
    return tuple(
        x if x is None or x.dtype not in types.values() else x.to(dtype=types[name])
        for x, name in zip(xs, cycle(precision), strict=False)
    )


def _half(precision: str) -> Any:
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {PRECISIONS}, got {precision!r}")
    if precision != "bfloat16":
        return None if precision == "float32" else np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError as error:
        raise RuntimeError(
            "precision 'bfloat16' needs ml_dtypes, which is not installed: pip install -e '.[bfloat16]'; 'float16' does not"
        ) from error
    return np.dtype(ml_dtypes.bfloat16)
