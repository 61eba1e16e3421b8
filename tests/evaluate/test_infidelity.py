"""Infidelity and max-sensitivity: what they are of linear models, of constant methods, and by their definitions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, explain, nn, ops
from minidl.array import Array
from minidl.evaluate import infidelity, max_sensitivity
from minidl.explain import Explanation
from minidl.inference import predict
from tests.explain.nets import Net, images, linear

TARGET = np.array([2, 0, 1])


def net() -> Net:
    return Net().to(dtype="float64")


def half(image: Array, rng: np.random.Generator) -> Array:
    """A function as perturbation: half of the pixels go to 0."""
    return image * (rng.random(image.shape) < 0.5)


PERTURBATIONS: list[Any] = ["noise", "square", half]


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_the_gradient_foretells_a_linear_model(perturbation: Any) -> None:
    model, x = linear()[0], images(3, 2, 6, 6)
    raw = explain.saliency(model, x, TARGET).raw
    settings: dict[str, Any] = {"target": TARGET, "perturbation": perturbation, "baseline": 0.3, "samples": 30}
    np.testing.assert_allclose(infidelity(model, x, raw, **settings), 0, atol=1e-20)
    assert (infidelity(model, x, 0.9 * raw, **settings) > 1e-4).all()
    np.testing.assert_allclose(infidelity(model, x, 0.1 * raw, normalize=True, **settings), 0, atol=1e-20)
    np.testing.assert_allclose(infidelity(model, x, -7 * raw, normalize=True, **settings), 0, atol=1e-20)


def test_of_a_linear_model_it_is_the_variance_of_what_is_missing() -> None:
    """E (<I, d>)^2 = sigma^2 |d|^2 for noise I, d what raw lacks of the gradient."""
    (model, w, _), x = linear(), images(3, 2, 6, 6)
    d = images(3, 2, 6, 6, seed=1)
    sigma = 0.3 * np.ptp(x, (1, 2, 3))
    found = infidelity(model, x, w[TARGET] + d, TARGET, noise=0.3, samples=4000)
    np.testing.assert_allclose(found, sigma**2 * (d**2).sum((1, 2, 3)), rtol=0.1)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("output", ["logit", "prob", "logprob", "margin"])
def test_by_the_definition(output: str, normalize: bool) -> None:
    model, x, raw, taken = net(), images(3, 3, 8, 8), images(3, 3, 8, 8, seed=1), []

    def noted(image: Array, rng: np.random.Generator) -> Array:
        taken.append(0.3 * rng.normal(size=image.shape))
        return taken[-1]

    found = infidelity(model, x, raw, TARGET, noted, normalize=normalize, samples=6, output=output, batch_size=100)
    change = np.reshape(taken, (6, 3, 3, 8, 8))
    for i in range(3):
        foretold = (change[:, i] * raw[i]).sum((1, 2, 3))
        lost = score(model, x[i : i + 1], TARGET[i], output) - score(model, x[i] - change[:, i], TARGET[i], output)
        if normalize:
            foretold *= (foretold * lost).mean() / (foretold**2).mean()
        assert found[i] == pytest.approx(((foretold - lost) ** 2).mean(), rel=1e-9)
        np.testing.assert_array_equal(change[:, i], change[:, 0])  # the same draws for all images


def score(model: nn.Module, x: Array, c: int, output: str) -> Array:
    z = predict(model, x)
    logprob = z[:, c] - np.log(np.exp(z).sum(1))
    others = np.delete(z, c, 1).max(1)
    return {"logit": z[:, c], "logprob": logprob, "prob": np.exp(logprob), "margin": z[:, c] - others}[output]


def test_the_factor_is_the_best_one() -> None:
    model, x, raw = net(), images(2, 3, 8, 8), images(2, 3, 8, 8, seed=1)
    best = infidelity(model, x, raw, normalize=True, samples=8)
    minus, nothing, plus = (infidelity(model, x, f * raw, samples=8) for f in (-0.01, 0, 0.01))
    slope, curvature = (plus - minus) / 0.02, (plus - 2 * nothing + minus) / 1e-4
    np.testing.assert_allclose(best, nothing - slope**2 / (2 * curvature), rtol=1e-6)  # the lowest point of the parabola
    assert (best < nothing).all()
    np.testing.assert_allclose(infidelity(model, x, 0 * raw, normalize=True, samples=8), nothing)


def test_a_map_counts_for_every_channel() -> None:
    model, x, map = net(), images(2, 3, 8, 8), images(2, 8, 8, seed=1)
    full = infidelity(model, x, np.repeat(map[:, None], 3, 1), samples=5)
    for raw in map, map[:, None]:
        np.testing.assert_allclose(infidelity(model, x, raw, samples=5), full, rtol=1e-12)


def test_squares_take_the_image_to_the_baseline() -> None:
    seen: list[Array] = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.data)
            return ops.mean(x, (2, 3))

    x, baseline = images(1, 2, 9, 7), images(2, 1, 1, seed=1)
    infidelity(Sees(), x, x, perturbation="square", baseline=baseline, samples=200, batch_size=500)
    changed = seen[-1] != x
    np.testing.assert_allclose(seen[-1], np.where(changed, baseline, x), atol=1e-12)
    rows, columns = changed[:, 0].any(2).sum(1), changed[:, 0].any(1).sum(1)
    assert (rows == columns).all() and {*rows.tolist()} == {1, 2, 3}
    assert (changed.sum((1, 2, 3)) == 2 * rows * columns).all()
    assert changed.any((0, 1)).all()  # squares are anywhere


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_batches_and_seeds(perturbation: Any) -> None:
    model, x, raw = net(), images(3, 3, 8, 8), images(3, 3, 8, 8, seed=1)
    ask = partial(infidelity, model, perturbation=perturbation, samples=7)
    whole = ask(x, raw, batch_size=4)
    for i in range(3):
        np.testing.assert_allclose(ask(x[i : i + 1], raw[i : i + 1], batch_size=2), whole[i : i + 1], rtol=1e-9)
    assert np.array_equal(whole, ask(x, raw, batch_size=4)) and not np.allclose(whole, ask(x, raw, seed=1))
    told: list[tuple[int, int]] = []
    ask(x, raw, batch_size=10, progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 21), (20, 21), (21, 21)]


# ---- max-sensitivity


def constant(model: nn.Module, x: Array, *, target: Any) -> Explanation:
    return Explanation(np.ones((len(x), 8, 8)), np.ones((len(x), 1, 8, 8)), target, np.zeros(len(x)))


def itself(model: nn.Module, x: Array, *, target: Any) -> Explanation:
    return Explanation(x.sum(1), x, target, np.zeros(len(x)))


def test_a_constant_method_has_none() -> None:
    model, x = net(), images(3, 3, 8, 8)
    np.testing.assert_array_equal(max_sensitivity(model, x, constant), 0)
    np.testing.assert_allclose(max_sensitivity(linear()[0], images(2, 2, 6, 6), explain.saliency), 0, atol=1e-12)
    assert (max_sensitivity(model, x, explain.saliency) > 1e-3).all()


@pytest.mark.parametrize("normalize", [False, True])
def test_of_the_image_itself_it_is_the_largest_step(normalize: bool) -> None:
    x = images(3, 3, 8, 8)
    steps: list[Array] = []

    def noted(model: nn.Module, x: Array, *, target: Any) -> Explanation:
        steps.extend(x)
        return itself(model, x, target=target)

    found = max_sensitivity(net(), x, noted, radius=0.3, normalize=normalize, samples=5)
    moved = np.reshape(steps, (6, 3, 3, 8, 8))
    np.testing.assert_array_equal(moved[0], x)
    e = moved[1:] - x
    assert np.abs(e).max() <= 0.3 + 1e-12 and np.abs(e).max() > 0.29 and abs(e.mean()) < 0.02
    largest = np.sqrt((e**2).sum((2, 3, 4))).max(0)
    np.testing.assert_allclose(found, largest / np.sqrt((x**2).sum((1, 2, 3))) if normalize else largest, rtol=1e-12)


def test_the_class_is_that_of_the_image_itself() -> None:
    model, x, asked = net(), images(3, 3, 8, 8), []

    def noted(model: nn.Module, x: Array, *, target: Any) -> Explanation:
        asked.extend(target.tolist())
        return itself(model, x, target=target)

    max_sensitivity(model, x, noted, radius=5.0, samples=4)
    assert asked == 5 * predict(model, x).argmax(1).tolist()
    asked.clear()
    max_sensitivity(model, x, noted, TARGET, samples=2)
    assert asked == 3 * TARGET.tolist()


def test_more_draws_and_batches_of_sensitivity() -> None:
    model, x = net(), images(3, 3, 8, 8)
    ask = partial(max_sensitivity, model, method=explain.saliency)
    few, many = ask(x, samples=3), ask(x, samples=12)
    assert (few <= many).all() and (few < many).any()
    sizes: list[int] = []

    def noted(model: nn.Module, x: Array, *, target: Any) -> Explanation:
        sizes.append(len(x))
        return explain.saliency(model, x, target=target)

    np.testing.assert_allclose(ask(x, method=noted, samples=3, batch_size=5), few, rtol=1e-9)
    assert sizes == [5, 5, 2]
    for i in range(3):
        np.testing.assert_allclose(ask(x[i : i + 1], samples=3, batch_size=1), few[i : i + 1], rtol=1e-9)
    assert np.array_equal(few, ask(x, samples=3)) and not np.allclose(few, ask(x, samples=3, seed=1))
    assert (ask(x, radius=0.2) > ask(x, radius=0.002)).all()


def test_a_map_that_is_zero_is_not_divided_by() -> None:
    def zero_here(model: nn.Module, y: Array, *, target: Any) -> Explanation:
        return Explanation(y[:, 0], y - x, target, np.zeros(len(y)))

    x = images(1, 3, 8, 8)
    assert 0 < max_sensitivity(net(), x, zero_here)[0] <= 0.02 * np.sqrt(x.size)


X = images(2, 3, 8, 8)
BAD: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    (infidelity, {"raw": X[:1]}, ValueError, r"raw: expected an array of numbers of \(2, 3, 8, 8\), .* got float64 of shape"),
    (infidelity, {"raw": [1.0]}, ValueError, "raw: expected an array of numbers of .* got list"),
    (infidelity, {"raw": X * np.nan}, ValueError, "raw: holds NaN or infinity"),
    (infidelity, {"perturbation": "blur"}, ValueError, r"perturbation: expected one of \('noise', 'square'\), or a function"),
    (infidelity, {"perturbation": lambda image, rng: 1.0}, ValueError, r"expected it to give an array \(3, 8, 8\).* got float"),
    (infidelity, {"perturbation": lambda image, rng: image[:1]}, ValueError, r"array \(3, 8, 8\), .* got \(1, 8, 8\)"),
    (infidelity, {"perturbation": lambda image, rng: image * np.inf}, ValueError, "perturbation: gave NaN or infinity"),
    (infidelity, {"perturbation": lambda image, rng: 0 * image}, ValueError, r"changes nothing in the images \[0, 1\]"),
    (infidelity, {"x": np.ones_like(X)}, ValueError, r"perturbation: it changes nothing in the images \[0, 1\]"),
    (infidelity, {"perturbation": "square", "baseline": X}, ValueError, "perturbation: it changes nothing in the images"),
    (infidelity, {"noise": 0.0}, ValueError, r"noise: expected a number in \(0, inf\), got 0.0"),
    (infidelity, {"output": "odds"}, ValueError, "output: expected one of"),
    (max_sensitivity, {"radius": 0.0}, ValueError, r"radius: expected a number in \(0, inf\), got 0.0"),
    (
        max_sensitivity,
        {"method": lambda model, x, target: x},
        TypeError,
        "method: expected it to return an Explanation, got nd",
    ),
    (
        max_sensitivity,
        {"method": lambda model, x, target: constant(model, x[:1], target=target)},
        ValueError,
        "method: expected an explanation of each of 22 images, got one of 1",
    ),
    (
        max_sensitivity,
        {"method": lambda model, x, target: itself(model, x / 0, target=target)},
        ValueError,
        "method: its explanation holds NaN or infinity",
    ),
]


@pytest.mark.parametrize(("measure", "bad", "error", "message"), BAD)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_bad_arguments(measure: Any, bad: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"raw": X} if measure is infidelity else {"method": constant}
    with pytest.raises(error, match=message):
        measure(**{"model": net(), "x": X} | good | bad)
