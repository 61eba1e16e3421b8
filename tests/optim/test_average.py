"""The moving average of a model's weights."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from minidl import Tensor, nn, ops, optim
from tests.gpu import strict_cupy


def trained(steps: int, decay: float) -> tuple[nn.Module, optim.WeightAverage, list[dict[str, np.ndarray]]]:
    """A net in float64, its average, and its weights after each step."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, rng=rng), nn.BatchNorm2d(3)).to(dtype="float64")
    optimizer, average, seen = optim.SGD(model.parameters(), 0.1), optim.WeightAverage(model, decay), []
    for _ in range(steps):
        optimizer.zero_grad()
        ops.sum(model(Tensor(rng.normal(size=(4, 2, 5, 5)))) ** 3).backward()
        optimizer.step()
        average.update()
        seen.append(model.state_dict())
    return model, average, seen


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_it_is_the_mean_that_its_docstring_says(decay: float) -> None:
    _, average, seen = trained(7, decay)
    share = decay ** np.arange(6, -1, -1.0)
    for name, a in average.weights().items():
        expected = np.tensordot(share / share.sum(), np.stack([w[name] for w in seen]), 1)
        if a.dtype.kind == "i":  # how many batches batch norm has seen
            expected = seen[-1][name]
        np.testing.assert_allclose(a, expected, rtol=1e-12, atol=1e-14)
    assert {name for name in average.weights()} >= {"1.running_mean", "1.running_var"}  # of batch norm


def test_the_first_average_is_the_first_weights() -> None:
    model, average, _ = trained(1, 0.999)
    assert all(np.array_equal(a, model.state_dict()[name]) for name, a in average.weights().items())


def test_applied_and_taken_back() -> None:
    model, average, seen = trained(3, 0.9)
    x = np.ones((1, 2, 5, 5))
    with pytest.raises(ZeroDivisionError), average.applied():
        assert all(np.array_equal(a, average.weights()[name]) for name, a in model.state_dict().items())
        of_average = model.eval()(x).data
        raise ZeroDivisionError
    assert all(np.array_equal(a, seen[-1][name]) for name, a in model.state_dict().items())
    assert not np.allclose(model.eval()(x).data, of_average)


def test_it_goes_on_from_its_state() -> None:
    model, average, _ = trained(3, 0.9)
    other = optim.WeightAverage(model, 0.9)
    other.load_state_dict(average.state_dict())
    average.update(), other.update()
    assert other.state_dict().keys() == average.state_dict().keys()
    assert all(np.array_equal(a, average.state_dict()[name]) for name, a in other.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("steps", np.array([-1]), r"steps: expected a count of at least 0, got int64 \[-1\]"),
        ("steps", np.array([True]), r"steps: expected a count of at least 0, got bool"),
        ("steps", np.array([1.0]), r"steps: \(1,\) float64, expected \(1,\) int64"),
        ("weights.0.bias", np.zeros(2), r"weights\.0\.bias: \(2,\) float64, expected \(3,\)"),
    ],
)
def test_a_state_that_cannot_be_changes_nothing(name: str, value: np.ndarray, says: str) -> None:
    _, average, _ = trained(2, 0.9)
    before = average.state_dict()
    with pytest.raises(ValueError, match=says):
        average.load_state_dict({**{k: a + 1 for k, a in before.items()}, name: value})
    assert all(np.array_equal(a, before[k]) for k, a in average.state_dict().items())


def test_what_cannot_be_is_told() -> None:
    model, _, _ = trained(1, 0.5)
    with pytest.raises(ValueError, match=r"decay: expected .*\[0, 1\), got 1"):
        optim.WeightAverage(model, 1.0)
    with pytest.raises(ValueError, match=r"applied\(\): there is no average yet; call update\(\)"), \
            optim.WeightAverage(model, 0.9).applied():  # fmt: skip
        pass
    linear = nn.Linear(2, 3)
    average = optim.WeightAverage(linear, 0.9)
    linear.bias = None
    with pytest.raises(
        ValueError, match=r"other parameters than the average, such as bias: it was \(3,\) and now is not there"
    ):
        average.update()


def test_on_the_gpu_it_has_the_numbers_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu, on_gpu = nn.Linear(3, 2), nn.Linear(3, 2)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    on_gpu.load_state_dict(on_cpu.state_dict())
    on_gpu.to("gpu")
    average, other = optim.WeightAverage(on_cpu, 0.9), optim.WeightAverage(on_gpu, 0.9)
    for k in range(3):
        on_cpu.weight.data += np.float32(k)
        on_gpu.weight.data += np.float32(k)
        average.update(), other.update()
    with other.applied():
        assert on_gpu.weight.device == "gpu"
    assert all(np.array_equal(a, average.weights()[name]) for name, a in other.weights().items())
