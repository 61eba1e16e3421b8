"""Models with several heads, and the maps of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.explain import Head, evidence_maps, grad_cam, integrated_gradients, saliency
from minidl.inference.heads import heads_of

from .nets import Net, images


class Grades(NamedTuple):
    disc: Tensor
    stenosis: Tensor


class Spine(nn.Module):
    """Two heads on one body, handed over in one of several forms."""

    def __init__(self, form: str) -> None:
        rng = np.random.default_rng(0)
        self.form, self.body = form, nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, rng=rng), nn.ReLU(), nn.Flatten())
        self.disc, self.stenosis = nn.Linear(6 * 64, 5, rng=rng), nn.Linear(6 * 64, 2, rng=rng)

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        y = Grades(self.disc(x), self.stenosis(x))
        return {"named": y, "plain": tuple(y), "list": list(y), "dict": y._asdict()}[self.form]


NAMES = {"named": ["disc", "stenosis"], "dict": ["disc", "stenosis"], "plain": ["0", "1"], "list": ["0", "1"]}


@pytest.mark.parametrize("form", NAMES)
def test_a_map_for_every_head(form: str) -> None:
    model, x = Spine(form).to(dtype="float64"), images(3, 1, 8, 8)
    maps = evidence_maps(model, x, sigma=1.0)
    assert list(maps) == NAMES[form]
    logits = heads_of(model(x))
    for name, e in maps.items():
        np.testing.assert_array_equal(e.target, logits[name].data.argmax(1))
        np.testing.assert_allclose(e.score, logits[name].data.max(1))
        only = nn.Sequential(model.body, model.disc if name in ("disc", "0") else model.stenosis)
        gradient = saliency(only, x)
        np.testing.assert_allclose(e.raw, gradient.raw, rtol=1e-12)
        np.testing.assert_allclose(e.map, ops.gaussian_blur(Tensor(gradient.map[:, None]), 1.0).data[:, 0], rtol=1e-9)
        assert e.params["head"] == name
    assert np.abs(maps[NAMES[form][0]].raw - maps[NAMES[form][1]].raw).max() > 0.01


def test_targets_by_head() -> None:
    model, x = Spine("named").to(dtype="float64"), images(3, 1, 8, 8)
    maps = evidence_maps(model, x, {"disc": np.array([4, 0, 1])})
    assert maps["disc"].target.tolist() == [4, 0, 1] and maps["disc"].params["sigma"] == 0.5
    with pytest.raises(ValueError, match=r"target: the model has the heads \['disc', 'stenosis'\], got \['facet'\]"):
        evidence_maps(model, x, {"facet": 0})
    with pytest.raises(ValueError, match="target: expected one of the classes 0 to 1, got 2"):
        evidence_maps(model, x, {"stenosis": 2})


def test_any_method_takes_a_head() -> None:
    model, x = Spine("named").to(dtype="float64"), images(2, 1, 8, 8)
    head = Head(model, "stenosis")
    assert grad_cam(head, x).params["layer"] == "model.body.1"
    assert np.abs(integrated_gradients(head, x).delta).max() < 0.05
    with pytest.raises(ValueError, match=r"head: the model has \['disc', 'stenosis'\], got 'x'"):
        saliency(Head(model, "x"), x)
    with pytest.raises(ValueError, match=r"model: expected one row of logits an image, .* got Grades"):
        saliency(model, x)


def test_plain_logits_are_one_head() -> None:
    model, x = Net().to(dtype="float64"), images(2, 3, 8, 8)
    (found,) = evidence_maps(model, x).values()
    np.testing.assert_array_equal(found.raw, saliency(model, x).raw)
    with pytest.raises(ValueError, match="model: expected logits, or a tuple or a mapping of them, got tuple"):
        heads_of((1, 2))


def test_the_state_of_the_model() -> None:
    model = Spine("dict").to(dtype="float64").train()
    evidence_maps(model, images(1, 1, 8, 8))
    assert model.training and model.body.training and all(p.requires_grad and p.grad is None for p in model.parameters())
