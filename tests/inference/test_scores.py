"""Scores of every kind of net: classes that compete, labels that do not, one logit, and a function of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, nn, ops
from minidl.array import Array
from minidl.inference import predict
from minidl.inference.scores import (
    COMPARE,
    decisions,
    exact_score,
    log_probability,
    name_of,
    score,
    targets,
)
from minidl.metrics import probabilities

Z = np.array([[0.5], [-3.0], [40.0], [-40.0], [0.0]])


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


def test_the_sigmoid_and_its_gradient() -> None:
    """p = 1 / (1 + exp(-z)), dp = p (1 - p) dz, also of one of several labels."""
    rng = np.random.default_rng(0)
    for z, c in (Z, np.zeros(5, np.int64)), (rng.normal(size=(5, 4)), np.array([0, 3, 1, 2, 3])):
        logits, row = Tensor(z, requires_grad=True), np.arange(5)
        y = score(logits, c, "sigmoid")
        p = sigmoid(z[row, c])
        np.testing.assert_allclose(y.data, p, rtol=1e-12)
        want = np.zeros_like(z)
        want[row, c] = np.exp(-np.abs(z[row, c])) / (1 + np.exp(-np.abs(z[row, c]))) ** 2
        np.testing.assert_allclose(gradients(y, [logits], np.ones(5))[0], want, rtol=1e-12)


@pytest.mark.parametrize("output", COMPARE)
def test_one_logit_has_no_other_to_be_compared_with(output: str) -> None:
    message = f"output: '{output}' compares classes, and the model has one logit; write output='sigmoid'"
    with pytest.raises(ValueError, match=message):
        score(Tensor(Z), np.zeros(5, np.int64), output)
    with pytest.raises(ValueError, match=message):
        exact_score(Z, np.zeros(5, np.int64), output)


def test_the_only_class_is_0() -> None:
    assert targets(Z, None).tolist() == targets(Z, 0).tolist() == [0] * 5
    with pytest.raises(ValueError, match="target: expected 0, the only class of a model with one logit, got 1"):
        targets(Z, 1)


def test_probabilities_and_decisions() -> None:
    np.testing.assert_allclose(probabilities(Z.astype(np.float32))[:, 1:], sigmoid(Z), rtol=1e-6)
    np.testing.assert_allclose(probabilities(Z), probabilities(decisions(Tensor(Z)).data), rtol=1e-12)
    z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 500
    p = probabilities(z)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-12)
    assert decisions(Tensor(z)).data is z
    both = decisions(Tensor(Z)).data
    np.testing.assert_array_equal(both[:, 1] - both[:, 0], Z[:, 0])


def test_log_probability_keeps_its_digits() -> None:
    c = np.zeros(5, np.int64)
    for output in "logit", "sigmoid":
        np.testing.assert_allclose(log_probability(Tensor(Z), c, output).data, -np.logaddexp(0, -Z[:, 0]), rtol=1e-12)
    two = np.concatenate([Z, np.zeros_like(Z)], 1)
    np.testing.assert_allclose(
        log_probability(Tensor(two), c, "logit").data, -np.logaddexp(0, -Z[:, 0]), rtol=1e-12, atol=1e-15
    )


# ---- functions of one's own


def first_less_second(logits: Tensor, classes: Array) -> Tensor:
    return logits[:, 0] - logits[:, 1]


REFERENCE = np.array([[1.0, -1.0, 0.5]])


def distance(logits: Tensor, classes: Array) -> Tensor:
    """From the logits of another image."""
    return ops.sum((logits - REFERENCE.astype(logits.dtype)) ** 2, axis=1)


def test_a_function_of_ones_own() -> None:
    z, c = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 1, 2, 0])
    np.testing.assert_array_equal(score(Tensor(z), c, first_less_second).data, z[:, 0] - z[:, 1])
    logits = Tensor(z, requires_grad=True)
    y = score(logits, c, distance)
    np.testing.assert_allclose(y.data, ((z - REFERENCE) ** 2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(gradients(y, [logits], np.ones(4))[0], 2 * (z - REFERENCE), rtol=1e-12)
    picked = score(logits, c, lambda logits, classes: 2 * logits[np.arange(len(classes)), classes])
    np.testing.assert_array_equal(picked.data, 2 * z[np.arange(4), c])
    assert exact_score(z.astype(np.float32), c, distance).dtype == np.float64


def test_what_it_is_called() -> None:
    assert [name_of(f) for f in ("logit", distance, lambda logits, classes: logits, Tensor)] == [
        "logit", "distance", "score", "Tensor",
    ]  # fmt: skip


def by_numpy(logits: Tensor, classes: Array) -> Tensor:
    return Tensor(logits.data[:, 0] ** 2)


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda z, c: z, ValueError, r"'score' returned shape \(4, 3\) for logits \(4, 3\), expected one score an image, \(4,\)"),
    (lambda z, c: ops.sum(z), ValueError, r"returned shape \(\) for logits"),
    (lambda z, c: z[:, :1], ValueError, r"returned shape \(4, 1\) for logits"),
    (lambda z, c: z.data[:, 0], TypeError, r"returned ndarray, expected a Tensor of 4 scores, computed by minidl's ops"),
    (lambda z, c: None, TypeError, "returned NoneType, expected a Tensor of 4 scores"),
    (lambda z, c: z[:, 0] * np.inf, ValueError, "returned NaN or infinity, expected finite scores"),
    (by_numpy, ValueError, "'by_numpy' has no gradient in the logits; compute with minidl's ops on them, not on their .data"),
    (lambda z, c: Tensor(np.ones(4)), ValueError, "has no gradient in the logits"),
    (lambda z, c: z[:, 0] - ops.mean(z[:, 0]), ValueError, "gives an image another score beside others than alone"),
    (lambda z, c: z[::-1][:, 0], ValueError, "gives an image another score beside others than alone"),
    (lambda z, c: z[:, 0] + Tensor(np.arange(4.0)), ValueError, "gives an image another score beside others than alone"),
    (3, ValueError, r"output: expected one of .*'sigmoid'\) or a function f\(logits, classes\) -> \(N,\), got 3"),
    (None, ValueError, "output: expected one of .* got None"),
]


@pytest.mark.parametrize(("output", "error", "message"), WRONG)
def test_what_is_no_score(output: Any, error: type[Exception], message: str) -> None:
    logits = Tensor(np.random.default_rng(0).normal(size=(4, 3)), requires_grad=True)
    with pytest.raises(error, match=message):
        score(logits, np.zeros(4, np.int64), output)


def test_an_error_inside_says_what_was_given() -> None:
    with pytest.raises(IndexError) as found:
        score(Tensor(np.ones((2, 1))), np.zeros(2, np.int64), first_less_second)
    notes = "\n".join(found.value.__notes__)
    assert "output: the function 'first_less_second' was given logits (2, 1) float64 and classes (2,)" in notes


def test_a_model_with_heads_says_how_to_ask_one() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"a": ops.flatten(x), "b": ops.flatten(x)}

    with pytest.raises(ValueError, match=r"model: expected one row .* got dict; of several heads ask one, explain.Head"):
        predict(Two(), np.ones((1, 1, 2, 2), np.float32))
