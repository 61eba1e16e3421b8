"""The methods that take gradients, against differences of the score and against models whose answer is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.explain import (
    expected_gradients,
    grad_times_input,
    integrated_gradients,
    saliency,
    smoothgrad,
    vargrad,
)
from minidl.explain.integrated_gradients import quadrature
from minidl.inference import predict
from minidl.inference.scores import OUTPUTS

from .nets import Net, images, linear


class Powers(nn.Module):
    """S_0 = sum x^2, S_1 = sum w x^3: what a pixel contributes is its own affair, and known."""

    def __init__(self, w: Array) -> None:
        self.w = Tensor(w)

    def forward(self, x: Tensor) -> Tensor:
        scores = [ops.sum(x**2, axis=(1, 2, 3)), ops.sum(self.w * x**3, axis=(1, 2, 3))]
        return ops.concat([ops.reshape(s, (-1, 1)) for s in scores], axis=1)


def scores_of(model: nn.Module, x: Array, target: Array, output: str) -> Array:
    """The definition, in NumPy."""
    logits, row = predict(model, x), np.arange(len(x))
    others = logits.copy()
    others[row, target] = -np.inf
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return {
        "logit": logits[row, target],
        "logprob": logp[row, target],
        "prob": np.exp(logp)[row, target],
        "margin": logits[row, target] - others.max(1),
    }[output]


@pytest.mark.parametrize("output", OUTPUTS)
def test_differences_of_the_score(output: str) -> None:
    """(S(x + h v) - S(x - h v)) / 2h = <raw, v>, in float64: the net is linear around x, up to the softmax."""
    model, x, v, h = Net().to(dtype="float64"), images(6, 3, 8, 8), images(6, 3, 8, 8, seed=1), 1e-6
    target = np.array([0, 1, 2, 2, 1, 0])
    e = saliency(model, x, target, output)
    np.testing.assert_allclose(e.score, scores_of(model, x, target, output), rtol=1e-12)
    difference = (scores_of(model, x + h * v, target, output) - scores_of(model, x - h * v, target, output)) / (2 * h)
    np.testing.assert_allclose((e.raw * v).sum((1, 2, 3)), difference, rtol=1e-6, atol=1e-9)


def test_where_a_net_is_sure_the_gradient_of_its_probability_vanishes() -> None:
    """dp = p (1 - p) dz, z = log p / (1 - p)"""
    model, w, bias = linear()
    x = images(3, 2, 6, 6)
    bias[0] += np.abs(predict(model, x)).max() + 10
    p, s = saliency(model, x, 0, "prob"), saliency(model, x, 0)
    rest = np.exp(predict(model, x)[:, 1:])
    mean = np.einsum("nk,kchw->nchw", rest / rest.sum(1, keepdims=True), w[1:])  # of the other classes
    np.testing.assert_allclose(p.raw, (p.score * (1 - p.score))[:, None, None, None] * (w[0] - mean), rtol=1e-6)
    assert (p.map.max() < 1e-3 * s.map.max()).all()


def test_a_linear_model() -> None:
    """Its gradient is w_c everywhere, and what its pixels contribute to w x + b is w x."""
    model, w, bias = linear()
    x, start, background = images(3, 2, 6, 6), images(2, 6, 6, seed=1), images(4, 2, 6, 6, seed=2)
    target = np.array([2, 0, 1])
    g = w[target]
    for e in saliency(model, x, target), smoothgrad(model, x, target, samples=7):
        np.testing.assert_allclose(e.raw, g, rtol=1e-12)
        np.testing.assert_allclose(e.map, np.abs(g).max(1), rtol=1e-12)
    assert np.abs(vargrad(model, x, target, samples=7).raw).max() < 1e-28
    product = grad_times_input(model, x, target)
    np.testing.assert_allclose(product.raw, g * x, rtol=1e-12)
    np.testing.assert_allclose(product.raw.sum((1, 2, 3)) + bias[target], product.score, rtol=1e-12)
    integrated = integrated_gradients(model, x, target, baseline=start)
    np.testing.assert_allclose(integrated.raw, g * (x - start), rtol=1e-12)
    assert np.abs(integrated.delta).max() < 1e-12
    for samples in 4, 8:  # each of the background as often as any other
        expected = expected_gradients(model, x, background, target, samples=samples)
        np.testing.assert_allclose(expected.raw, g * (x - background.mean(0)), rtol=1e-9, atol=1e-12)
        assert np.abs(expected.delta).max() < 1e-12


# ---- noise


def test_smoothgrad_of_powers() -> None:
    """d sum x^2 is 2x: the mean of 2 (x + e) is 2 (x + mean e), its variance 4 var e, e of 15% of each image's range."""
    x = images(2, 3, 16, 16) * np.array([1, 10])[:, None, None, None]
    model = Powers(np.ones(1))
    sigma = 0.15 * np.ptp(x, axis=(1, 2, 3))[:, None, None, None]
    e = smoothgrad(model, x, 0).raw / 2 - x
    assert abs(e.mean() / (sigma.mean() / np.sqrt(50))) < 0.1
    np.testing.assert_allclose(e.std((1, 2, 3)) * np.sqrt(50), sigma.ravel(), rtol=0.05)
    np.testing.assert_allclose(vargrad(model, x, 0).raw.mean((1, 2, 3)), 4 * sigma.ravel() ** 2 * 49 / 50, rtol=0.02)
    np.testing.assert_allclose(smoothgrad(model, x, 0, samples=1, noise=0.0).raw, 2 * x)
    np.testing.assert_array_equal(vargrad(model, x, 0, samples=1).raw, 0)


def test_vargrad_is_the_variance_of_what_smoothgrad_averages() -> None:
    model, x = Net().to(dtype="float64"), images(2, 3, 8, 8)
    for n in 2, 3:  # the first n draws are the same for every number of samples: recover the gradients from the means
        means = [k * smoothgrad(model, x, 0, samples=k).raw for k in range(1, n + 1)]
        g = np.diff(np.stack([np.zeros_like(x), *means]), axis=0)
        np.testing.assert_allclose(vargrad(model, x, 0, samples=n).raw, g.var(0), rtol=1e-7, atol=1e-10)


# ---- along a line


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
def test_quadrature(steps: int) -> None:
    """Exact for a^d up to degree 2 n - 1, and no further."""
    a, w = map(np.array, quadrature(steps))
    assert abs(w.sum() - 1) < 1e-14 and (w > 0).all() and (0 < a).all() and (a < 1).all()
    for degree in range(2 * steps):
        assert w @ a**degree == pytest.approx(1 / (degree + 1), rel=1e-12)
    if steps <= 5:
        assert abs(w @ a ** (2 * steps) - 1 / (2 * steps + 1)) > 1e-9


def completeness() -> None:
    """Raises AssertionError where integrated gradients do not add up, on a linear and on a cubic model."""
    model, _, _ = linear()
    x = images(3, 2, 6, 6)
    e = integrated_gradients(model, x)
    np.testing.assert_allclose(e.raw.sum((1, 2, 3)), e.score - predict(model, 0 * x)[np.arange(3), e.target], rtol=1e-9)
    w = images(2, 6, 6, seed=1)
    start = images(2, 6, 6, seed=2)
    for steps in 2, 50:  # the gradient along the line is of degree 2
        e = integrated_gradients(Powers(w), x, 1, baseline=start, steps=steps)
        np.testing.assert_allclose(e.raw, w * (x**3 - start**3), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(e.delta, 0, atol=1e-9)


def test_contributions_add_up() -> None:
    completeness()


def test_delta_is_what_is_missing() -> None:
    x, w = images(3, 2, 6, 6), images(2, 6, 6, seed=1)
    e = integrated_gradients(Powers(w), x, 1, steps=1)  # f(1/2) for the integral of f
    np.testing.assert_allclose(e.raw, 3 / 4 * w * x**3, rtol=1e-12)
    np.testing.assert_allclose(e.delta, (w * x**3).sum((1, 2, 3)) / 4, rtol=1e-9, atol=1e-12)
    net, image = Net().to(dtype="float64"), images(3, 3, 8, 8)
    few, many = (np.abs(integrated_gradients(net, image, steps=n).delta).max() for n in (2, 200))
    assert many < 0.02 * few


def trapezoid(steps: int) -> tuple[list[float], list[float]]:
    """The rule of which the weights sum to (n-1)/n."""
    w = np.full(steps, 1 / steps)
    w[[0, -1]] /= 2
    return np.linspace(0, 1, steps).tolist(), w.tolist()


def left_sum(steps: int) -> tuple[list[float], list[float]]:
    return (np.arange(steps) / steps).tolist(), [1 / steps] * steps


def end_alone(steps: int) -> tuple[list[float], list[float]]:
    """The gradient at x: that is gradient x input."""
    return [1.0] * steps, [1 / steps] * steps


@pytest.mark.parametrize("rule", [trapezoid, left_sum, end_alone])
def test_a_wrong_rule_is_noticed(rule: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["minidl.explain.integrated_gradients"], "quadrature", rule)
    with pytest.raises(AssertionError):
        completeness()


def test_expected_gradients_of_powers() -> None:
    """For S = sum w x^3 and one background image they are integrated gradients, within the error of the draws."""
    x, start, w = images(2, 2, 6, 6), images(1, 2, 6, 6, seed=3), images(2, 6, 6, seed=1)
    e = expected_gradients(Powers(w), x, start, 1, samples=400)
    exact = w * (x**3 - start**3)
    assert np.abs(e.raw - exact).max() < 0.01 * np.abs(exact).max()
    np.testing.assert_allclose(e.delta, exact.sum((1, 2, 3)) - e.raw.sum((1, 2, 3)), rtol=1e-9)


def test_the_gap_of_expected_gradients() -> None:
    """S(x) - mean S(background) - sum raw, each image of the background drawn as often as any other."""
    model, x, background = Net().to(dtype="float64"), images(3, 3, 8, 8), images(4, 3, 8, 8, seed=4)
    for output in OUTPUTS:
        e = expected_gradients(model, x, background, output=output, samples=20)
        mean = [scores_of(model, background, np.full(4, c), output).mean() for c in e.target]
        np.testing.assert_allclose(e.delta, e.score - mean - e.raw.sum((1, 2, 3)), rtol=1e-9, atol=1e-12)


def test_a_background_of_other_images() -> None:
    model, x = Net().to(dtype="float64"), images(1, 3, 8, 8)
    for background, message in (
        (images(2, 3, 8, 6), r"background: expected images of \(3, 8, 8\), as x, got \(3, 8, 6\)"),
        (np.full((1, 3, 8, 8), np.inf), "background: holds NaN or infinity"),
    ):
        with pytest.raises(ValueError, match=message):
            expected_gradients(model, x, background)
