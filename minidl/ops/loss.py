"""Softmax and the losses."""

from __future__ import annotations

from typing import Any

from minidl import kernels, stable
from minidl.arguments import count, number
from minidl.array import Array, array_module, capturing, is_array, wide
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32
from minidl.ops.activation import Sigmoid


class Softmax(Op):
    """y_k = exp(z_k) / sum_j exp(z_j)"""

    precision = (FLOAT32,)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, z: Array) -> Array:
        self.y = array_module(z).exp(stable.log_softmax(z, self.axis))
        return self.y

    def push(self, tz: Array) -> Array:
        """ty_k = y_k (tz_k - sum_j y_j tz_j)"""
        return self.y * (tz - (tz * self.y).sum(axis=self.axis, keepdims=True))

    def backward(self, gy: Array) -> Grads:
        """gz_k = y_k (gy_k - sum_j y_j gy_j)"""
        return (self.y * (gy - (gy * self.y).sum(axis=self.axis, keepdims=True)),)


class LogSoftmax(Op):
    """y_k = z_k - log sum_j exp(z_j)"""

    precision = (FLOAT32,)

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, z: Array) -> Array:
        self.y = stable.log_softmax(z, self.axis)
        return self.y

    def push(self, tz: Array) -> Array:
        """ty_k = tz_k - sum_j p_j tz_j, p = exp(y) the softmax of z"""
        return tz - (array_module(tz).exp(self.y) * tz).sum(axis=self.axis, keepdims=True)

    def backward(self, gy: Array) -> Grads:
        """gz_k = gy_k - p_k sum_j gy_j, p = exp(y) the softmax of z"""
        return (gy - array_module(gy).exp(self.y) * gy.sum(axis=self.axis, keepdims=True),)


class CrossEntropy(Op):
    """y = -sum_{n,k} t[n,k] log p[n,k] / sum_n v[label n]

    p is the softmax of z; t[n,k] = v[k] ((1 - s) [k = label n] + s/K), with class weights v and label smoothing s. Rows n whose
    label is the one to ignore are in neither sum.
    """

    precision = (FLOAT32,)

    def __init__(
        self, labels: Array, class_weights: Array | None, label_smoothing: float, ignore_index: int | None = None
    ) -> None:
        self.labels, self.class_weights, self.label_smoothing = labels, class_weights, label_smoothing
        self.ignore_index = ignore_index

    def forward(self, z: Array) -> Array:  # (N,K)
        xp, v, labels, known = array_module(z), self.class_weights, self.labels, None
        if self.ignore_index is not None:
            known = labels != self.ignore_index
            labels = xp.where(known, labels, 0)
        _check_labels(labels, z)
        if v is not None and (v.shape != z.shape[1:] or v.dtype != z.dtype):
            raise ValueError(f"class_weights: expected ({z.shape[1]},) {z.dtype}, got {v.shape} {v.dtype}")
        self.weight_sum = len(z) if v is None else v[labels].sum()
        weights = xp.ones(z.shape[1], z.dtype) if v is None else v
        losses, self.slopes = kernels.of(z).softmax_cross_entropy(z, labels, weights, self.label_smoothing)  # (N,) (N,K)
        if known is not None:
            losses, self.slopes = xp.where(known, losses, 0), xp.where(known[:, None], self.slopes, 0)
            total = xp.where(known, weights[labels], 0).sum()
            self.weight_sum = total + (total == 0)  # of no row the sums are 0, and so is y
        return (losses.sum() / self.weight_sum).astype(z.dtype)

    def push(self, tz: Array) -> Array:  # (N,K)
        """ty = sum_{n,k} (p[n,k] sum_j t[n,j] - t[n,k]) tz[n,k] / sum_n v[label n]"""
        return ((self.slopes * tz).sum() / self.weight_sum).astype(tz.dtype)

    def backward(self, gy: Array) -> Grads:  # ()
        """gz[n,k] = (p[n,k] sum_j t[n,j] - t[n,k]) / sum_n v[label n], of which forward found the first factor"""
        return ((gy / self.weight_sum * self.slopes).astype(gy.dtype, copy=False),)


class BinaryCrossEntropyWithLogits(Op):
    """y = mean of log(1 + exp(z)) - t z, which is -t log p - (1 - t) log(1 - p) with p = sigmoid(z)

    That is w |z| + log(1 + exp(-|z|)), w = 1 - t where z >= 0, else t: nothing is negative, so that no digits are lost.
    """

    precision = (FLOAT32,)

    def __init__(self, targets: Array) -> None:
        self.targets = targets

    def forward(self, z: Array) -> Array:
        _check_targets(self.targets, z)
        _check_shares(self.targets)
        xp, self.z, size = array_module(z), z, abs(wide(z))
        w = self.wrong()
        far = w * xp.where(w == 0, w, size)  # 0 where w is, also for an infinite z
        return (far + stable.log_one_plus_exp(-size)).mean().astype(z.dtype)

    def push(self, tz: Array) -> Array:
        """ty = mean of (p - t) tz"""
        return (self.slope() * tz).mean().astype(tz.dtype)

    def backward(self, gy: Array) -> Grads:
        """gz = gy (p - t) / m, of m logits"""
        return ((gy * self.slope() / self.z.size).astype(gy.dtype, copy=False),)

    def slope(self) -> Array:
        """p - t, which is w - q where z >= 0, else q - w, with q = sigmoid(-|z|)"""
        z = wide(self.z)
        off = self.wrong() - stable.logistic(-abs(z))
        return array_module(z).where(z >= 0, off, -off)

    def wrong(self) -> Array:
        """w, how much of the target is on the other side"""
        t = wide(self.targets)
        return array_module(t).where(self.z >= 0, 1 - t, t)


class MSE(Op):
    """y = mean of (x - t)^2"""

    precision = (FLOAT32,)

    def __init__(self, targets: Array) -> None:
        self.targets = targets

    def forward(self, x: Array) -> Array:
        _check_targets(self.targets, x)
        self.difference = x - self.targets
        return (self.difference * self.difference).mean()

    def push(self, tx: Array) -> Array:
        """ty = mean of 2 (x - t) tx"""
        return (2 * self.difference * tx).mean()

    def backward(self, gy: Array) -> Grads:
        """gx = 2 (x - t) gy / m, of m values"""
        return (gy * 2 * self.difference / self.difference.size,)


def softmax(z: Tensor, axis: int = -1) -> Tensor:
    """p_k = exp(z_k) / sum_j exp(z_j) along `axis`, any shape.

    Raises TypeError for an axis that is no integer, ValueError for one that z has not.
    """
    return Softmax(count(axis, "axis", None))(z)


def log_softmax(z: Tensor, axis: int = -1) -> Tensor:
    """log p_k = z_k - log sum_j exp(z_j) along `axis`, z of any shape; what is raised is as of `softmax`."""
    return LogSoftmax(count(axis, "axis", None))(z)


def cross_entropy(
    z: Tensor, labels: Any, class_weights: Any = None, label_smoothing: float = 0.0, ignore_index: int | None = None
) -> Tensor:
    """y = -sum_n v[label n] log softmax(z)[n, label n] / sum_n v[label n], v the class weights: logits (N,K) -> scalar.

    labels: (N,) integers in [0, K). class_weights: (K,) of the type of z. label_smoothing in [0, 1): the share of the target
    that is spread evenly over all classes (Szegedy et al. 2016, "Rethinking the inception architecture for computer vision",
    section 7). ignore_index: the label of rows that nothing is known of, such as -1: they are left out of both sums, and their
    gradient is 0. Where all are, y is 0 (PyTorch's is NaN).

    Raises TypeError for labels of float type, ValueError for labels or class weights of another shape, labels out of range,
    labels or weights that require a gradient, and z that `softmax` returned.
    """
    smoothing = number(label_smoothing, "label_smoothing", "[0, 1)")
    if isinstance(getattr(z, "op", None), Softmax):
        raise ValueError("z: expected logits, got the probabilities that softmax returned; leave the softmax out")
    weights = None if class_weights is None else _array(class_weights, "class_weights")
    ignored = None if ignore_index is None else count(ignore_index, "ignore_index", None)
    return CrossEntropy(_array(labels, "labels"), weights, smoothing, ignored)(z)


def binary_cross_entropy_with_logits(z: Tensor, targets: Any) -> Tensor:
    """y = mean of -t log p - (1 - t) log(1 - p), p = sigmoid(z); targets t in [0, 1], of the shape of z -> scalar.

    Raises ValueError for targets of another shape, beyond [0, 1], or that require a gradient, and for z that `sigmoid`
    returned, TypeError for targets of another type than z.
    """
    if isinstance(getattr(z, "op", None), Sigmoid):
        raise ValueError("z: expected logits, got the probabilities that sigmoid returned; leave the sigmoid out")
    return BinaryCrossEntropyWithLogits(_array(targets, "targets"))(z)


def mse(y: Tensor, targets: Any) -> Tensor:
    """The mean of (y - t)^2, t the `targets`, an array of the same shape -> scalar.

    Raises ValueError for targets of another shape, or that require a gradient, TypeError for those of another type than y.
    """
    return MSE(_array(targets, "targets"))(y)


def _array(values: Any, name: str) -> Array:
    if isinstance(values, Tensor):
        if values.requires_grad:
            raise ValueError(
                f"{name}: expected a constant, got a Tensor that requires a gradient and would get none; "
                f"write {name}.detach(), or the formula of the loss in ops"
            )
        values = values.data
    if not is_array(values):
        raise TypeError(f"{name}: expected an array or a Tensor, got {type(values).__name__}")
    return values


def _check_labels(labels: Array, z: Array) -> None:
    if z.ndim != 2:
        raise ValueError(f"z: expected logits (N, K), got shape {z.shape}")
    if labels.shape == z.shape:
        raise ValueError(
            f"labels: expected shape ({len(z)},), a class for each row of z, got {labels.shape}; of one-hot rows "
            "write labels.argmax(1)"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers, got {labels.dtype}")
    if labels.shape != (len(z),):
        raise ValueError(f"labels: expected shape ({len(z)},), one per row of z, got {labels.shape}")
    if capturing(labels):
        return  # what they are cannot be read back
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= z.shape[1]:
        raise ValueError(f"labels: expected 0 to {z.shape[1] - 1} for {z.shape[1]} classes, got {low} to {high}")


def _check_targets(targets: Array, y: Array) -> None:
    if targets.shape != y.shape:
        raise ValueError(f"targets: expected shape {y.shape}, got {targets.shape}")
    if targets.dtype != y.dtype:
        raise TypeError(f"targets: expected {y.dtype}, as the predictions are, got {targets.dtype}")


def _check_shares(targets: Array) -> None:
    if targets.size and not capturing(targets) and not bool(((targets >= 0) & (targets <= 1)).all()):
        raise ValueError(f"targets: expected numbers in [0, 1], got {float(targets.min()):.4g} to {float(targets.max()):.4g}")
