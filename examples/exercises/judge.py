"""Is an answer right, and if not, which slip was it likely?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from minidl import Op, Tensor
from minidl.check import GradientError, adjoint_check, gradient_check


def equal(got: Any, wanted: Any, slips: Mapping[str, Any], tolerance: float = 1e-6) -> None:
    """Fail unless `got` is `wanted`. slips: what goes wrong, in words -> the answer that one gets then."""
    wanted, got = np.asarray(wanted), got.data if isinstance(got, Tensor) else got
    for what, slip in slips.items():
        assert not same(slip, wanted, tolerance), f"this test cannot tell: {what}"
    if got is None:
        no("the function returns nothing: end it with `return ...`")
    if isinstance(got, tuple) and wanted.ndim == 0:
        no(f"it returns a tuple of {len(got)}: one number was asked for")
    if same(got, wanted, tolerance):
        return
    for what, slip in slips.items():
        if same(got, slip, tolerance):
            no(what)
    got = np.asarray(got)
    if got.shape != wanted.shape:
        no(f"the answer has the shape {got.shape}, and should have {wanted.shape}")
    if not np.isfinite(got.astype(np.float64)).all():
        no("the answer has NaN or infinity in it: is something divided by 0?")
    worst = np.unravel_index(np.abs(got.astype(np.float64) - wanted).argmax(), wanted.shape)
    no(f"the shape is right; furthest off is {list(map(int, worst))}: {got[worst]:.6g}, and it should be {wanted[worst]:.6g}")


def backward(op: Op, arrays: Sequence[np.ndarray], gy: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the op's backward returns for gy, one gradient for each of the arrays."""
    op.forward(*arrays)
    gxs = op.backward(gy)
    if gxs is None:
        no("backward returns nothing: end it with `return (...)`, a gradient for each input")
    if not isinstance(gxs, tuple) or len(gxs) != len(arrays):
        came = f"a tuple of {len(gxs)}" if isinstance(gxs, tuple) else f"one {type(gxs).__name__}"
        no(f"backward returns {came}: it should be a tuple of {len(arrays)}, a gradient for each input")
    return gxs


def differentiable(f: Callable[..., Tensor], inputs: Sequence[Any], push: bool = False) -> None:
    """Fail unless the gradients of f fit differences of its values and, with `push`, are the transpose of its way forward."""
    try:
        gradient_check(f, inputs)
        if push:
            adjoint_check(f, inputs)
    except (GradientError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, NotImplementedError):
            raise error.__cause__ from None
        no(str(error))


def same(got: Any, wanted: Any, tolerance: float) -> bool:
    """Whether both are the same numbers, of the same shape."""
    try:
        got = np.asarray(got, np.float64)
    except (TypeError, ValueError):
        return False
    return got.shape == np.shape(wanted) and np.allclose(got, np.asarray(wanted, np.float64), tolerance, tolerance)


def no(why: str) -> None:
    pytest.fail(f"not yet: {why}", pytrace=False)
