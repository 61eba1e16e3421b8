"""PyTorch as an oracle, where it is installed: values and gradients of drawn cases, and dtypes.

In float64 both must agree to 1e-10; in float32 to the rounding of sums of some hundred products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minidl import Tensor, gradients, kernels, ops
from tests.ops import cases
from tests.ops.cases import CASES, Case

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle
F = torch.nn.functional

TOLERANCE = {np.float64: 1e-10, np.float32: 2e-4}


def _agree(case: Case, theirs: Callable[..., Any], dtype: Any, kernel: str) -> None:
    """Values of the case, and gradients under a random cotangent, are those of `theirs`, a function of torch tensors."""
    xs = [Tensor(x.astype(dtype), requires_grad=True) for x in case.inputs]
    with kernels.use(kernel):
        y = case(*xs)
        gy = np.asarray(np.random.default_rng(0).standard_normal(y.shape)).astype(dtype)
        gxs = gradients(y, xs, gy)
    assert y.dtype == dtype
    assert all(gx.dtype == dtype for gx in gxs)
    their_xs = [_torch(x.data).requires_grad_() for x in xs]
    their_y = theirs(*their_xs)
    their_y.backward(_torch(gy))
    _close(y.data, their_y, dtype)
    for gx, x in zip(gxs, their_xs, strict=True):
        _close(gx, x.grad, dtype)


def _torch(x: np.ndarray) -> Any:
    return torch.from_numpy(np.array(x))


def _close(ours: np.ndarray, theirs: Any, dtype: Any) -> None:
    want = theirs.detach().numpy()
    assert ours.shape == want.shape
    np.testing.assert_allclose(ours, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(1, np.abs(want).max()))


def drawn(name: str, max_examples: int = 15) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run the test on drawn cases of the op, in both types and with both families of kernels."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = settings(max_examples=max_examples)(given(data=st.data())(test))
        test = pytest.mark.parametrize("kernel", kernels.CHOICES)(test)
        test = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.__name__)(test)
        return pytest.mark.parametrize("strategy", [CASES[name]], ids=[name])(test)

    return decorate


# ---- convolution and pooling


@drawn("Conv2d")
def test_conv2d(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda x, w, b=None: F.conv2d(x, w, b, **case.settings), dtype, kernel)


@drawn("MaxPool2d")
def test_max_pool2d(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda x: F.max_pool2d(x, **case.settings), dtype, kernel)


@drawn("AvgPool2d")
def test_avg_pool2d(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    settings_ = dict(case.settings)
    _agree(case, lambda x: F.avg_pool2d(x, **settings_), dtype, kernel)


def test_max_pool2d_gives_ties_to_the_first() -> None:
    x = np.random.default_rng(0).integers(0, 3, (2, 3, 8, 8)).astype(np.float64)
    for kernel in kernels.CHOICES:
        case = Case(ops.max_pool2d, x, kernel_size=3, stride=2, padding=1)
        _agree(case, lambda x: F.max_pool2d(x, 3, 2, 1), np.float64, kernel)


@drawn("GlobalAvgPool2d")
def test_global_avg_pool2d(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    _agree(data.draw(strategy), lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), dtype, kernel)


# ---- normalisation


@drawn("BatchNorm")
def test_batch_norm(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    eps = case.settings["eps"]
    _agree(case, lambda x, gamma, beta: F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps), dtype, kernel)


@drawn("BatchNormFrozen")
def test_batch_norm_frozen(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    mean, var = (_torch(case.settings[name].astype(dtype)) for name in ("mean", "var"))
    _agree(case, lambda x, gamma, beta: F.batch_norm(x, mean, var, gamma, beta, training=False), dtype, kernel)


@drawn("GroupNorm")
def test_group_norm(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    groups, eps = case.settings["num_groups"], case.settings["eps"]
    _agree(case, lambda x, gamma=None, beta=None: torch.group_norm(x, groups, gamma, beta, eps), dtype, kernel)


# ---- images


@given(case=cases.resize())
@settings(max_examples=40)
def test_resize(case: Case) -> None:
    size, mode = cases.as_pair(case.settings["size"]), case.settings["mode"]
    align_corners = case.settings["align_corners"]
    if mode == "nearest":  # PyTorch computes floor(i * float(H / OH)): rounding may put i H / OH just below a whole number
        for n, out in zip(case.inputs[0].shape[2:], size, strict=True):
            i = np.arange(out)
            assume((np.floor(i * np.float32(n / out)) == i * n // out).all())
    for dtype in TOLERANCE:
        _agree(
            case,
            lambda x: F.interpolate(x, size, mode=mode, align_corners=align_corners if mode == "bilinear" else None),
            dtype,
            "reference",
        )


@given(case=cases.adaptive_avg_pool2d())
@settings(max_examples=40)
def test_adaptive_avg_pool2d(case: Case) -> None:
    for dtype in TOLERANCE:
        _agree(case, lambda x: F.adaptive_avg_pool2d(x, cases.as_pair(case.settings["output_size"])), dtype, "reference")


@given(case=cases.gaussian_blur())
@settings(max_examples=40)
def test_gaussian_blur(case: Case) -> None:
    """The blur as PyTorch has to spell it: reflect padding and a convolution with the outer product of two Gaussians."""
    radius, sigma = case.settings["radius"], case.settings["sigma"]
    sigmas = sigma if isinstance(sigma, tuple) else (sigma, sigma)

    def blur(x: Any) -> Any:
        (rh, rw), C = radius, x.shape[1]
        vertical, horizontal = (
            torch.exp(-0.5 * (torch.arange(-r, r + 1, dtype=x.dtype) / s) ** 2) for r, s in zip(radius, sigmas, strict=True)
        )
        weight = torch.outer(vertical / vertical.sum(), horizontal / horizontal.sum())
        padded = F.pad(x, (rw, rw, rh, rh), mode="reflect")
        return F.conv2d(padded, weight.expand(C, 1, *weight.shape), groups=C)

    for dtype in TOLERANCE:
        _agree(case, blur, dtype, "reference")


# ---- losses


@drawn("CrossEntropy")
def test_cross_entropy(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    labels, weights = _torch(case.settings["labels"]), case.settings["class_weights"]
    weights = None if weights is None else _torch(weights.astype(dtype))
    smoothing, ignored = case.settings["label_smoothing"], case.settings["ignore_index"]
    ignored = -100 if ignored is None else ignored
    assume(bool((labels != ignored).any()))  # of no row PyTorch has NaN
    _agree(case, lambda z: F.cross_entropy(z, labels, weights, ignore_index=ignored, label_smoothing=smoothing), dtype, kernel)


@drawn("BinaryCrossEntropyWithLogits")
def test_binary_cross_entropy_with_logits(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    targets = _torch(case.settings["targets"].astype(dtype))
    _agree(case, lambda z: F.binary_cross_entropy_with_logits(z, targets), dtype, kernel)


@drawn("MSE")
def test_mse(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    targets = _torch(case.settings["targets"].astype(dtype))
    _agree(case, lambda y: F.mse_loss(y, targets), dtype, kernel)


# ---- reductions and element-wise mathematics


@drawn("Softmax")
def test_softmax(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda z: F.softmax(z, case.settings["axis"]), dtype, kernel)


@drawn("LogSoftmax")
def test_log_softmax(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda z: F.log_softmax(z, case.settings["axis"]), dtype, kernel)


@drawn("LogSumExp")
def test_logsumexp(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda x: torch.logsumexp(x, _axes(case), case.settings["keepdims"]), dtype, kernel)


@drawn("Var")
def test_var(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    options = {"correction": case.settings["correction"], "keepdim": case.settings["keepdims"]}
    _agree(case, lambda x: torch.var(x, _axes(case), **options), dtype, kernel)


def _axes(case: Case) -> Any:
    axis = case.settings["axis"]
    return tuple(range(case.inputs[0].ndim)) if axis is None else axis


@pytest.mark.parametrize("axis", [None, 0, (0, 2)])
def test_max_shares_the_gradient_between_ties(axis: Any) -> None:
    x = np.random.default_rng(0).integers(0, 3, (4, 5, 3)).astype(np.float64)
    case = Case(ops.max, x, axis=axis, keepdims=True)
    _agree(case, lambda x: torch.amax(x, (0, 1, 2) if axis is None else axis, keepdim=True), np.float64, "reference")


def test_maximum_shares_the_gradient_between_ties() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (4, 1, 5)).astype(np.float64), rng.integers(0, 3, (3, 5)).astype(np.float64)
    _agree(Case(ops.maximum, a, b), torch.maximum, np.float64, "reference")


def test_clip_lets_the_gradient_through_at_its_bounds() -> None:
    x = np.array([-2, -1, -0.5, 0, 0.5, 1, 2])
    for low, high in ((-1, 1), (None, 0.5), (0, None)):
        _agree(Case(ops.clip, x, low=low, high=high), lambda x, a=low, b=high: torch.clamp(x, a, b), np.float64, "reference")


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("Abs", torch.abs),
        ("Exp", torch.exp),
        ("GELU", lambda x: F.gelu(x, approximate="tanh")),
        ("Log", torch.log),
        ("ReLU", torch.relu),
        ("Sigmoid", torch.sigmoid),
        ("Softplus", F.softplus),
        ("Sqrt", torch.sqrt),
        ("Tanh", torch.tanh),
    ],
)
@pytest.mark.parametrize("kernel", kernels.CHOICES)
@given(data=st.data())
@settings(max_examples=10)
def test_element_wise(name: str, theirs: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(CASES[name])
    for dtype in TOLERANCE:
        _agree(case, theirs, dtype, kernel)


@drawn("LeakyReLU")
def test_leaky_relu(strategy: Any, dtype: Any, kernel: str, data: st.DataObject) -> None:
    case = data.draw(strategy)
    _agree(case, lambda x: F.leaky_relu(x, case.settings["negative_slope"]), dtype, kernel)


def test_at_kinks_the_gradient_is_that_of_torch() -> None:
    x = np.array([-1.0, 0.0, 2.0])
    for ours, theirs in ((ops.abs, torch.abs), (ops.relu, torch.relu), (ops.leaky_relu, F.leaky_relu)):
        for kernel in kernels.CHOICES:
            _agree(Case(ours, x), theirs, np.float64, kernel)


def test_large_logits_do_not_overflow() -> None:
    z = np.array([[-1000.0, 0, 1000], [90, 100, -90]])
    for ours, theirs in (
        (ops.softmax, lambda z: torch.softmax(z, -1)),
        (ops.log_softmax, lambda z: torch.log_softmax(z, -1)),
        (ops.sigmoid, torch.sigmoid),
        (ops.softplus, F.softplus),
        (ops.logsumexp, lambda z: torch.logsumexp(z, (0, 1))),
        (ops.tanh, torch.tanh),
        (ops.gelu, lambda z: F.gelu(z, approximate="tanh")),
    ):
        for dtype in TOLERANCE:
            _agree(Case(ours, z), theirs, dtype, "reference")
