"""The same maps as Captum's on the same weights, to 1e-5, where it is installed beside PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.data import lesions
from minidl.explain import (
    deconvnet,
    grad_cam,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    kernel_shap,
    lime,
    lrp,
    saliency,
)
from minidl.explain.lime import neighbours
from minidl.inference import predict

from .nets import images

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
attr = pytest.importorskip("captum.attr", reason="Captum is not installed: pip install captum")
pytestmark = pytest.mark.oracle


class Mine(nn.Module):
    """Two batch norms fused with their ReLUs, a residual, max pooling, a functional ReLU."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, rng=rng), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, bias=False, rng=rng), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 10, 3, padding=1, rng=rng)
        self.fc = nn.Linear(10, 4, rng=rng)
        for norm in self.bn1, self.bn2:
            norm.running_mean = rng.normal(0, 0.3, 8).astype(np.float32)
            norm.running_var = rng.uniform(0.5, 2, 8).astype(np.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1.relu(self.conv1(x))
        x = self.bn2.relu(self.conv2(x), x)
        x = ops.relu(self.conv3(ops.max_pool2d(x, 2)))
        return self.fc(ops.global_avg_pool2d(x))


class Theirs(torch.nn.Module):  # type: ignore[name-defined, misc]
    """The same; every ReLU a module of its own, without which Captum's rules do not see it."""

    def __init__(self) -> None:
        super().__init__()
        t = torch.nn
        self.conv1, self.bn1, self.relu1 = t.Conv2d(3, 8, 3, padding=1), t.BatchNorm2d(8), t.ReLU()
        self.conv2, self.bn2, self.relu2 = t.Conv2d(8, 8, 3, padding=1, bias=False), t.BatchNorm2d(8), t.ReLU()
        self.pool, self.conv3, self.relu3 = t.MaxPool2d(2), t.Conv2d(8, 10, 3, padding=1), t.ReLU()
        self.fc = t.Linear(10, 4)

    def forward(self, x: Any) -> Any:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.relu2(self.bn2(self.conv2(x)) + x)
        x = self.relu3(self.conv3(self.pool(x)))
        return self.fc(x.mean((2, 3)))


Pair = tuple[Mine, Any, Array, Array]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both nets with the same weights in float64, images, and a class for each."""
    mine, theirs = Mine().to(dtype="float64"), Theirs().double().eval()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in mine.state_dict().items()})
    x = images(4, 3, 16, 12)
    np.testing.assert_allclose(predict(mine, x), theirs(torch.tensor(x)).detach().numpy(), rtol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum tells that it sets hooks
        yield mine, theirs, x, np.array([0, 1, 2, 3])


def close(mine: Array, theirs: Any) -> None:
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-5 * np.abs(mine).max())
    assert np.abs(mine).max() > 1e-3


def test_saliency(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(saliency(mine, x, target).raw, attr.Saliency(theirs).attribute(torch.tensor(x), torch.tensor(target), abs=False))


def test_integrated_gradients(pair: Pair) -> None:
    mine, theirs, x, target = pair
    start = images(4, 3, 16, 12, seed=1)
    oracle = attr.IntegratedGradients(theirs)
    for steps in 5, 50:
        theirs_say, delta = oracle.attribute(
            torch.tensor(x),
            torch.tensor(start),
            torch.tensor(target),
            n_steps=steps,
            method="gausslegendre",
            return_convergence_delta=True,
        )
        e = integrated_gradients(mine, x, target, baseline=start, steps=steps)
        close(e.raw, theirs_say)
        np.testing.assert_allclose(e.delta, -delta.numpy(), rtol=1e-5, atol=1e-9)  # theirs is the sum less the change


def test_guided_backprop(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(guided_backprop(mine, x, target).raw, attr.GuidedBackprop(theirs).attribute(torch.tensor(x), torch.tensor(target)))


def test_deconvnet(pair: Pair) -> None:
    mine, theirs, x, target = pair
    close(deconvnet(mine, x, target).raw, attr.Deconvolution(theirs).attribute(torch.tensor(x), torch.tensor(target)))


@pytest.mark.parametrize("layer", ["conv1", "bn2", "conv3"])
def test_grad_cam(pair: Pair, layer: str) -> None:
    mine, theirs, x, target = pair
    oracle = attr.LayerGradCam(theirs, getattr(theirs, layer))
    close(grad_cam(mine, x, target, layer).raw, oracle.attribute(torch.tensor(x), torch.tensor(target)))
    cut = oracle.attribute(torch.tensor(x), torch.tensor(target), relu_attributions=True)
    large = torch.nn.functional.interpolate(cut, (16, 12), mode="bilinear", align_corners=False)
    close(grad_cam(mine, x, target, layer).map, large[:, 0])


SEGMENTS = np.arange(16)[:, None] // 7 % 2 * 2 + np.arange(12) // 7


def test_kernel_shap_of_all_subsets(pair: Pair) -> None:
    """Theirs goes through all orders of the segments."""
    mine, theirs, x, target = pair
    start = images(4, 3, 16, 12, seed=1)
    for i in range(2):
        one, cells = slice(i, i + 1), SEGMENTS[None]
        e = kernel_shap(mine, x[one], target[one], segments=cells, baseline=start[one], samples=100)
        theirs_say = attr.ShapleyValues(theirs).attribute(
            torch.tensor(x[one]), torch.tensor(start[one]), torch.tensor(target[one]), feature_mask=torch.tensor(cells)[:, None]
        )
        close(e.map, theirs_say[:, 0])
        close(e.map, theirs_say[:, 2])


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_lime(pair: Pair, ridge: float) -> None:
    """Theirs is given the same neighbours, one after the other, and the same kernel."""
    linear_model = pytest.importorskip("captum._utils.models.linear_model")
    mine, theirs, x, target = pair
    for i in range(2):
        one, cells = slice(i, i + 1), SEGMENTS[None]
        rows = iter(neighbours(int(cells.max()) + 1, 40, 3).astype(float))
        oracle = attr.Lime(
            theirs,
            interpretable_model=linear_model.SkLearnRidge(alpha=ridge),
            similarity_func=lambda original, perturbed, z, **_: np.exp(-((1 - z.mean().sqrt().item()) ** 2) / 0.3**2),
            perturb_func=lambda original, rows=rows, **_: torch.tensor(next(rows))[None],
        )
        theirs_say = oracle.attribute(
            torch.tensor(x[one]), target=torch.tensor(target[one]), feature_mask=torch.tensor(cells)[:, None], n_samples=40
        )
        e = lime(mine, x[one], target[one], segments=cells, samples=40, kernel_width=0.3, ridge=ridge, seed=3)
        close(e.map, theirs_say[:, 0])


def test_superpixels_of_scikit_image() -> None:
    """As the docstring of `kernel_shap` tells."""
    slic = pytest.importorskip("skimage.segmentation", reason="scikit-image is not installed").slic
    images = lesions(2, 32).images / 255
    segments = np.stack([slic(image, n_segments=20, channel_axis=0) for image in images])
    model = Mine().to(dtype="float64")
    for method in kernel_shap, lime:
        e = method(model, images, segments=segments, samples=60)
        for i in range(2):
            assert e.params["segments"][i].max() + 1 == len(np.unique(segments[i])) > 5
            assert all(np.ptp(e.map[i][segments[i] == s]) == 0 for s in np.unique(segments[i]))


def test_guided_grad_cam(pair: Pair) -> None:
    mine, theirs, x, target = pair
    oracle = attr.GuidedGradCam(theirs, theirs.bn2)
    theirs_say = oracle.attribute(torch.tensor(x), torch.tensor(target), interpolate_mode="bilinear")
    close(1e3 * guided_grad_cam(mine, x, target, "bn2").raw, 1e3 * theirs_say)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "zplus"])
def test_relevance(rule: str) -> None:
    """Where the two mean the same: layers one after the other, nothing below 0 but weights and biases, and no batch norm.

    Captum gives gamma no part of a bias, which is none of a negative one; zplus all of it; and negative sums no other formula.
    """
    captum_rules = pytest.importorskip("captum.attr._utils.lrp_rules")
    rng, t = np.random.default_rng(3), torch.nn
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 6, 3, stride=2, rng=rng), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5, rng=rng)]
    layers += [nn.ReLU(), nn.Linear(5, 4, rng=rng)]
    mine = nn.Sequential(*layers).to(dtype="float64")
    theirs = t.Sequential(t.Conv2d(3, 8, 3, padding=1), t.ReLU(), t.MaxPool2d(2), t.Conv2d(8, 6, 3, stride=2), t.ReLU())
    theirs = theirs.extend([t.Flatten(), t.Linear(24, 5), t.ReLU(), t.Linear(5, 4)]).double().eval()
    for layer in mine[0], mine[3], mine[6], mine[8]:
        layer.bias.data[:] = 0 if rule == "zplus" else -0.02 * rng.random(layer.bias.size)
    theirs.load_state_dict({name: torch.tensor(a) for name, a in mine.state_dict().items()})
    x = rng.random((4, 3, 10, 10))
    chosen = {"epsilon": captum_rules.EpsilonRule, "gamma": captum_rules.GammaRule, "zplus": captum_rules.Alpha1_Beta0_Rule}
    for module in theirs:
        if isinstance(module, t.Conv2d | t.Linear):
            module.rule = chosen[rule]()
        elif isinstance(module, t.Flatten):
            module.rule = captum_rules.EpsilonRule()
    e = lrp(mine, x, rule=rule, epsilon=1e-9)
    assert (e.score > 0).all()
    close(e.raw, attr.LRP(theirs).attribute(torch.tensor(x, requires_grad=True), torch.tensor(e.target)))
