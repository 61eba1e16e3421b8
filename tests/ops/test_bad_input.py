"""Bad arguments: each message names the argument, what came and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, ops


def t(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor(np.ones(shape, dtype), requires_grad=True)


def labels(*values: int) -> np.ndarray:
    return np.array(values)


X = t(2, 4, 5, 6)  # images
V = t(4)  # one value per channel
Z = t(3, 5)  # logits
R = Tensor(Z.data.copy(), requires_grad=True)

CASES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    # convolution
    (lambda: ops.conv2d(t(4, 5, 6), t(1, 4, 3, 3)), ValueError, r"x: expected \(N, C, H, W\), got shape \(4, 5, 6\)"),
    (lambda: ops.conv2d(X, t(8, 4)), ValueError, r"weight: expected \(F, C/groups, kh, kw\), got shape \(8, 4\)"),
    (
        lambda: ops.conv2d(X, t(8, 3, 1, 1)),
        ValueError,
        r"x: expected 3 channels, for a weight of \(8, 3, 1, 1\) .* got \(2, 4, 5, 6\)",
    ),
    (
        lambda: ops.conv2d(t(2, 5, 6, 4), t(8, 4, 1, 1)),
        ValueError,
        r"channels come last, write ops.transpose\(x, \(0, 3, 1, 2\)\)",
    ),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), t(7)), ValueError, r"bias: expected shape \(8,\), got \(7,\)"),
    (
        lambda: ops.conv2d(X, t(8, 4, 7, 1)),
        ValueError,
        r"weight: a kernel of \(7, 1\) .* larger than the image \(5, 6\) with pad",
    ),
    (lambda: ops.conv2d(X, t(8, 4, 3, 3), dilation=3), ValueError, r"with dilation \(3, 3\) is larger than the image"),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), stride=0), ValueError, "stride: expected an integer of at least 1, .* got 0"),
    (
        lambda: ops.conv2d(X, t(8, 4, 1, 1), stride=(1, 2, 3)),
        ValueError,
        r"stride: expected an integer .* pair.* \(1, 2, 3\)",
    ),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), stride=1.5), TypeError, "stride: expected an integer .* a pair .* got 1.5"),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), padding=-1), ValueError, "padding: expected an integer of at least 0, .* got -1"),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), padding="same"), TypeError, "padding: expected an integer .* a pair .* got 'same'"),
    (
        lambda: ops.conv2d(X, t(8, 4, 1, 1), dilation=(1, 0)),
        ValueError,
        r"dilation: expected an integer .* got \(1, 0\)",
    ),
    (lambda: ops.conv2d(X, t(8, 2, 1, 1), groups=3), ValueError, "groups: 3 does not divide 4 input and 8 output channels"),
    (lambda: ops.conv2d(X, t(8, 4, 1, 1), groups=0), ValueError, "groups: expected an integer of at least 1, got 0"),
    (lambda: ops.conv2d(X, t(8, 2, 1, 1), groups=2.0), TypeError, "groups: expected an integer of at least 1, got 2.0"),
    # pooling
    (lambda: ops.max_pool2d(t(4, 5), 2), ValueError, r"x: expected \(N, C, H, W\), got shape \(4, 5\)"),
    (lambda: ops.max_pool2d(X, 0), ValueError, "kernel_size: expected an integer of at least 1, .* got 0"),
    (
        lambda: ops.max_pool2d(X, 7),
        ValueError,
        r"kernel_size: \(7, 7\) is larger than the image \(5, 6\) with padding \(0, 0\)",
    ),
    (lambda: ops.max_pool2d(X, 2, padding=2), ValueError, r"padding: expected at most half the kernel \(2, 2\), got 2"),
    (lambda: ops.avg_pool2d(X, 2, stride=(0, 1)), ValueError, r"stride: expected an integer of at least 1, .* got \(0, 1\)"),
    (lambda: ops.global_avg_pool2d(t(4, 5)), ValueError, r"x: expected \(N, C, H, W\), got shape \(4, 5\)"),
    (lambda: ops.adaptive_avg_pool2d(X, 0), ValueError, "size: expected an integer of at least 1, .* got 0"),
    # normalisation
    (lambda: ops.batch_norm(t(4), V, V), ValueError, r"x: expected \(N, C, ...\), got shape \(4,\)"),
    (lambda: ops.batch_norm(t(1, 4, 1, 1), V, V), ValueError, r"one value per channel has no variance, got .* \(1, 4, 1, 1\)"),
    (lambda: ops.batch_norm(X, t(3), V), ValueError, r"gamma: expected shape \(4,\), one value per channel, got \(3,\)"),
    (lambda: ops.batch_norm(X, V, t(1, 4)), ValueError, r"beta: expected shape \(4,\), one value per channel, got \(1, 4\)"),
    (lambda: ops.batch_norm_frozen(X, V, V, np.ones(3), V.data), ValueError, r"mean: expected shape \(4,\), .* got \(3,\)"),
    (lambda: ops.batch_norm_frozen(X, V, V, V.data, np.ones(4)), TypeError, "var: expected float32, as x is, got float64"),
    (lambda: ops.batch_norm_frozen(X, V, V, V, V.data), TypeError, "mean: expected an array, got Tensor"),
    # images
    (lambda: ops.resize(t(5, 6), 3), ValueError, r"x: expected \(N, C, H, W\), got shape \(5, 6\)"),
    (lambda: ops.resize(X, (3, 0)), ValueError, r"size: expected an integer of at least 1, .* got \(3, 0\)"),
    (lambda: ops.resize(X, 3, mode="bicubic"), ValueError, "mode: expected 'bilinear' or 'nearest', got 'bicubic'"),
    (lambda: ops.resize(X, 3, mode="nearest", align_corners=True), ValueError, "align_corners: has a meaning for .*bilinear"),
    (lambda: ops.gaussian_blur(X, 0), ValueError, r"sigma: expected a number in \(0, inf\), got 0"),
    (lambda: ops.gaussian_blur(X, float("nan")), ValueError, r"sigma: expected a number in \(0, inf\), got nan"),
    (lambda: ops.gaussian_blur(X, (1.0, 1.0, 1.0)), ValueError, r"sigma: expected 2 numbers in \(0, inf\), got \(1.0, "),
    (lambda: ops.gaussian_blur(X, 2.0), ValueError, "radius: a blur that reaches 6 pixels needs .* more than 6, got 5"),
    # losses
    (lambda: ops.cross_entropy(t(3), labels(0, 1, 2)), ValueError, r"z: expected logits \(N, K\), got shape \(3,\)"),
    (lambda: ops.cross_entropy(Z, np.zeros(3)), TypeError, "labels: expected integers, got float64"),
    (lambda: ops.cross_entropy(Z, [0, 1, 2]), TypeError, "labels: expected an array or a Tensor, got list"),
    (lambda: ops.cross_entropy(Z, labels(0, 1)), ValueError, r"labels: expected shape \(3,\), one per row of z, got \(2,\)"),
    (lambda: ops.cross_entropy(Z, np.eye(5)[:3]), ValueError, r"labels: expected shape \(3,\), .* write labels.argmax\(1\)"),
    (lambda: ops.cross_entropy(ops.softmax(R), labels(0, 1, 2)), ValueError, "z: expected logits, got the probabilities"),
    (lambda: ops.binary_cross_entropy_with_logits(ops.sigmoid(R), Z), ValueError, "z: expected logits, got the probabilities"),
    (lambda: ops.mse(Z, R), ValueError, r"targets: expected a constant, got a Tensor that requires a gradient .*detach"),
    (
        lambda: ops.binary_cross_entropy_with_logits(Z, R),
        ValueError,
        "targets: expected a constant, got a Tensor that requires",
    ),
    (
        lambda: ops.cross_entropy(Z, labels(0, 1, 2), R[0]),
        ValueError,
        "class_weights: expected a constant, got a Tensor that req",
    ),
    (lambda: ops.cross_entropy(Z, labels(0, 1, 5)), ValueError, "labels: expected 0 to 4 for 5 classes, got 0 to 5"),
    (lambda: ops.cross_entropy(Z, labels(0, -1, 4)), ValueError, "labels: expected 0 to 4 for 5 classes, got -1 to 4"),
    (
        lambda: ops.cross_entropy(Z, labels(0, 1, 2), class_weights=np.ones(5)),
        ValueError,
        r"class_weights: expected \(5,\) float32, got \(5,\) float64",
    ),
    (
        lambda: ops.cross_entropy(Z, labels(0, 1, 2), class_weights=[1] * 5),
        TypeError,
        "class_weights: .* got list",
    ),
    (lambda: ops.cross_entropy(Z, labels(0, 1, 2), label_smoothing=1.0), ValueError, r"label_smoothing: .* \[0, 1\), got 1.0"),
    (lambda: ops.mse(Z, np.ones((5, 3))), ValueError, r"targets: expected shape \(3, 5\), got \(5, 3\)"),
    (lambda: ops.mse(Z, 1.0), TypeError, "targets: expected an array or a Tensor, got float"),
    (lambda: ops.flatten(Tensor(1.0)), ValueError, r"x: expected \(N, ...\), got a scalar"),
    (
        lambda: ops.binary_cross_entropy_with_logits(Z, np.linspace(0, 2, 15, dtype=np.float32).reshape(3, 5)),
        ValueError,
        r"targets: expected numbers in \[0, 1\], got 0 to 2",
    ),
    (lambda: ops.binary_cross_entropy_with_logits(Z, np.ones((3, 5))), TypeError, "targets: expected float32, .* got float64"),
    # arithmetic
    (lambda: ops.linear(Z, t(4, 6)), ValueError, r"x: expected \(N, 6\), for w of \(4, 6\), got \(3, 5\)"),
    (
        lambda: ops.linear(X, t(4, 120)),
        ValueError,
        r"x: expected \(N, 120\), .* got \(2, 4, 5, 6\); write ops.flatten\(x\) first",
    ),
    (lambda: ops.linear(Z, t(4)), ValueError, r"weight: expected \(O, I\), got shape \(4,\)"),
    (lambda: ops.linear(Z, t(4, 5), t(5)), ValueError, r"bias: expected shape \(4,\), got \(5,\)"),
    (lambda: ops.matmul(t(3), t(3, 4)), ValueError, r"expected a \(..., I, J\) and b \(..., J, K\), got \(3,\) and \(3, 4\)"),
    (lambda: ops.clip(Z, 1, 0), ValueError, "low, high: expected low <= high, got 1.0 and 0.0"),
    (lambda: ops.clip(Z), ValueError, "low, high: expected at least one number, got None for both"),
    (lambda: ops.where(np.ones((3, 5)), Z, Z), TypeError, "condition: expected an array of bools, got float64"),
    (lambda: ops.where([True], Z, Z), TypeError, "condition: expected an array of bools, got list"),
    (lambda: ops.maximum(t(3), t(4)), ValueError, r"\(3,\) \(4,\)"),
    (lambda: ops.dropout(Z, 1.0, np.random.default_rng(0)), ValueError, r"p: expected a number in \[0, 1\), got 1.0"),
    (lambda: ops.dropout(Z, 0.5, None), TypeError, "rng: expected a numpy.random.Generator, .*, got None"),
    # reductions
    (lambda: ops.sum(Z, axis=2), ValueError, "axis 2 is out of bounds for array of dimension 2"),
    (lambda: ops.max(Z, axis=(0, -2)), ValueError, r"axis: expected different axes, got \(0, -2\)"),
    (lambda: ops.mean(Z, axis=1.5), TypeError, "integer"),
    (lambda: ops.softmax(Z, axis=-3), ValueError, "axis -3 is out of bounds for array of dimension 2"),
    (lambda: ops.var(t(1, 5), axis=0), ValueError, "correction: 1 leaves nothing of 1 values"),
    # moves
    (lambda: ops.reshape(Z, (4, 4)), ValueError, r"shape: expected one of 15 elements, as x of \(3, 5\) has, got \(4, 4\)"),
    (lambda: ops.reshape(Z, (-1, -1)), ValueError, r"shape: expected one of 15 elements, .* got \(-1, -1\)"),
    (lambda: ops.reshape(Z, (-3, -5)), ValueError, r"shape\[0\]: expected an integer of at least -1, got -3"),
    (lambda: ops.reshape(Z, (0, -1)), ValueError, r"shape: expected .* got \(0, -1\)"),
    (lambda: ops.reshape(Z, (4, -1)), ValueError, r"shape: expected one of 15 elements, .* got \(4, -1\)"),
    (lambda: ops.transpose(Z, (0, 2)), ValueError, "axes: axis 2 is out of bounds for array of dimension 2"),
    (lambda: ops.transpose(Z, (0, 0)), ValueError, "repeated axis in `axes` argument"),
    (lambda: ops.transpose(Z, (0,)), ValueError, "axes don't match array"),
    (lambda: ops.concat([]), ValueError, "xs: expected at least one tensor, got none"),
    (lambda: ops.concat([Z, Z], axis=2), ValueError, "axis 2 is out of bounds for array of dimension 2"),
    (
        lambda: ops.concat([Z, t(3)]),
        ValueError,
        r"xs: expected shapes that differ along axis 1 alone, got \[\(3, 5\), \(3,\)\]",
    ),
    (
        lambda: ops.concat([Z, t(4, 5)]),
        ValueError,
        r"xs: expected shapes that differ along axis 1 alone, got \[\(3, 5\), \(4, 5\)\]",
    ),
    (lambda: ops.concat([Z, None]), TypeError, "xs: expected tensors, got NoneType as number 1"),
    (lambda: ops.split(Z, 2), ValueError, "sizes: expected sizes that add up to 5, the length of axis 1, got 2"),
    (lambda: ops.split(Z, 0), ValueError, "sizes: expected an integer of at least 1, got 0"),
    (lambda: ops.split(Z, -5), ValueError, "sizes: expected an integer of at least 1, got -5"),
    (lambda: ops.split(Z, [2, 2]), ValueError, r"sizes: expected sizes that add up to 5, .* got \[2, 2\]"),
    (lambda: ops.split(Z, 1, axis=2), ValueError, "axis 2 is out of bounds for array of dimension 2"),
    (lambda: ops.pad(Z, [(1, 1)]), ValueError, r"widths: expected 2 pairs \(before, after\), one per axis of x, got 1"),
    (lambda: ops.pad(Z, [(1, 1), (0, -1)]), ValueError, r"widths\[1\]\[1\]: expected an integer of at least 0, got -1"),
    (lambda: ops.flip(Z, 2), ValueError, "axis 2 is out of bounds for array of dimension 2"),
    (lambda: ops.broadcast_to(Z, (5, 3)), ValueError, r"\(3,5\)  and requested shape \(5,3\)"),
    (lambda: ops.getitem(Z, (0, 0, 0)), IndexError, "too many indices"),
    (lambda: Z[3], IndexError, "index 3 is out of bounds for axis 0 with size 3"),
]


@pytest.mark.parametrize(("call", "error", "message"), CASES, ids=[message[:40] for _, _, message in CASES])
def test_message(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["relu", "exp", "sum", "softmax", "flip", "sigmoid", "leaky_relu"])
def test_what_is_no_float_tensor(name: str) -> None:
    op: Callable[..., Tensor] = getattr(ops, name)
    settings = {"axis": 0} if name == "flip" else {}
    with pytest.raises(TypeError, match=r"input 0: expected floats, got int64; write x\.to"):
        op(Tensor(np.ones(3, np.int64)), **settings)
    with pytest.raises(TypeError, match="expected numbers, got dtype <U5"):
        op("three", **settings)
    with pytest.raises(ValueError, match=r"input 0: empty, shape \(0, 3\)"):
        op(Tensor(np.ones((0, 3))), **settings)


def test_an_empty_batch_of_labels() -> None:
    with pytest.raises(ValueError, match=r"input 0: empty, shape \(0, 5\)"):
        ops.cross_entropy(t(0, 5), np.zeros(0, int))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "logsumexp", "var"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_a_scalar_has_an_axis_as_it_has_for_numpy(name: str, keepdims: bool) -> None:
    x, settings = Tensor(np.array(2.0), requires_grad=True), {"correction": 0} if name == "var" else {}
    for axis in (0, -1):
        y = getattr(ops, name)(x, axis, keepdims, **settings)
        (gx,) = gradients(y, [x])
        assert (y.item(), gx.item()) == ((0, 0) if name == "var" else (2, 1))
        assert y.shape == np.sum(np.array(2.0), axis=axis, keepdims=keepdims).shape == ()
    for axis in (1, -2, (0,)):
        with pytest.raises(ValueError, match="out of bounds for array of dimension 0"):
            getattr(ops, name)(x, axis, keepdims, **settings)
