"""The sweep along the sign of the gradient, against what is counted by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import models
from minidl import attack, kernels, nn
from minidl.array import to_gpu
from minidl.inference import predict
from tests.attack.nets import SIZE, convolutional, images, linear
from tests.gpu import strict_cupy


@pytest.mark.parametrize("C", [1, 2, 3, 4])
def test_a_linear_model_is_linear(C: int) -> None:
    model, w = linear(C, 3)
    mean, std = np.linspace(0.3, 0.6, C), np.linspace(0.2, 0.5, C)
    found = attack.linearity(model, images(1, C), 2, mean=mean, std=std)
    gx = w[2] / std[:, None, None]
    np.testing.assert_allclose(found.slope, np.abs(gx).sum(), rtol=1e-12)
    np.testing.assert_array_equal(found.along.direction, np.sign(gx))
    assert len(found.eps) == 201 and found.eps[100] == 0 and found.target == 2
    rise = (w / std[:, None, None] * np.sign(gx)).sum((1, 2, 3))  # of each logit
    np.testing.assert_allclose(found.along.logits, found.along.logits[100] + found.eps[:, None] * rise, rtol=1e-9)
    np.testing.assert_allclose([found.along.r2, found.random.r2], 1, rtol=1e-12)
    assert set(found.counts.values()) == {0} and np.isnan([found.along.gates, found.along.switches, found.along.slopes]).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_at_0_is_the_l1_norm_of_the_gradient(seed: int) -> None:
    """(S_c(h) - S_c(-h)) / 2h = ||dS_c/dx||_1; while no gate or switch changes, S_c is a straight line, exactly."""
    model = models.resnet8(4, 3, seed).to(dtype="float64")
    rng = np.random.default_rng(seed)
    with kernels.use("reference"):
        model(rng.normal(size=(8, 3, 8, 8)))
        found = attack.linearity(model, rng.uniform(size=(1, 3, 8, 8)), seed, max_eps=1e-7, count=5)
    assert found.counts["gates"] > 0 and not found.along.gates.any()
    S = found.along.logits[:, found.target]
    np.testing.assert_allclose((S[3] - S[1]) / (found.eps[3] - found.eps[1]), found.slope, rtol=1e-6)
    np.testing.assert_allclose((S[4] - S[0]) / (found.eps[4] - found.eps[0]), found.slope, rtol=1e-6)


def test_gates_and_switches_are_counted() -> None:
    rng = np.random.default_rng(0)
    conv = nn.Conv2d(2, 3, 1, rng=rng)
    model = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4, rng=rng)).to(dtype="float64")
    x = images(1, 2)
    found = attack.linearity(model, x, 1, max_eps=0.5, count=11, batch_size=4)
    assert found.counts == {"gates": 3 * SIZE * SIZE, "switches": 27, "sigmoids": 0}
    for sweep in found.along, found.random:
        moved = x + found.eps[:, None, None, None] * sweep.direction
        np.testing.assert_allclose(sweep.logits, predict(model, moved), rtol=1e-10)
        h = np.einsum("fc,nchw->nfhw", conv.weight.data[:, :, 0, 0], moved)  # the bias is 0
        gates = h > 0
        np.testing.assert_allclose(sweep.gates, (gates != gates[5]).mean((1, 2, 3)))
        windows = np.maximum(h, 0).reshape(11, 3, 3, 2, 3, 2).transpose(0, 1, 2, 4, 3, 5).reshape(11, 27, 4)
        np.testing.assert_allclose(sweep.switches, (windows.argmax(-1) != windows[5].argmax(-1)).mean(1))
        assert sweep.gates.max() > 0 and sweep.switches.max() > 0 and sweep.gates[5] == sweep.switches[5] == 0


def test_a_fused_model_shows_its_gates() -> None:
    """Batch norm and ReLU are one op in a forward pass of this model, unless the sweep takes them apart."""
    model = convolutional(3, 4)
    found = attack.linearity(model, images(1, 3), count=3)
    assert found.counts == {"gates": 6 * 36, "switches": 6 * 9, "sigmoids": 0}
    with kernels.use("reference"):
        found = attack.linearity(models.resnet8(4).to(dtype="float64"), images(1, 3), count=3)
    assert found.counts["gates"] == 16 * 36 * 3 + 32 * 9 * 2 + 64 * 4 * 2


def test_sigmoids_saturate() -> None:
    rng = np.random.default_rng(0)
    first = nn.Linear(72, 9, rng=rng)
    model = nn.Sequential(nn.Flatten(), first, nn.Sigmoid(), nn.Linear(9, 3, rng=rng)).to(dtype="float64")
    x = images(1, 2)
    found = attack.linearity(model, x, max_eps=20, count=21)
    h = (x + found.eps[:, None, None, None] * found.along.direction).reshape(21, -1) @ first.weight.data.T
    y = 1 / (1 + np.exp(-h))
    np.testing.assert_allclose(found.along.slopes, (4 * y * (1 - y)).mean(1), rtol=1e-8)
    assert found.along.slopes[[0, -1]].max() < 0.2 < found.along.slopes[10]
    assert found.counts == {"gates": 0, "switches": 0, "sigmoids": 9} and found.along.r2.min() < 0.95


def test_r2_is_that_of_a_fitted_line() -> None:
    found = attack.linearity(convolutional(3, 4), images(1, 3), max_eps=1, count=41)
    for k in range(4):
        S = found.random.logits[:, k]
        residual = S - np.polyval(np.polyfit(found.eps, S, 1), found.eps)
        np.testing.assert_allclose(found.random.r2[k], 1 - (residual**2).sum() / ((S - S.mean()) ** 2).sum(), rtol=1e-9)


def test_seed_and_batches() -> None:
    model, x = convolutional(3, 4), images(1, 3)
    first, again, parts, other = (
        attack.linearity(model, x, count=9, **more) for more in ({}, {}, {"batch_size": 2}, {"seed": 1})
    )
    np.testing.assert_array_equal(first.random.logits, again.random.logits)
    np.testing.assert_allclose(first.random.logits, parts.random.logits, rtol=1e-10)
    assert (first.random.direction != other.random.direction).any()
    np.testing.assert_array_equal(first.along.logits, other.along.logits)


def test_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(1, 3)
    with kernels.use("reference"):
        on_cpu = attack.linearity(convolutional(3, 4), x, count=5, mean=[0.5] * 3, std=[0.2] * 3)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = attack.linearity(convolutional(3, 4).to("gpu"), to_gpu(x), count=5, mean=[0.5] * 3, std=[0.2] * 3)
    np.testing.assert_allclose(on_gpu.along.logits, on_cpu.along.logits, rtol=1e-10)
    np.testing.assert_array_equal(on_gpu.random.gates, on_cpu.random.gates)
    assert on_gpu.slope == pytest.approx(on_cpu.slope)
