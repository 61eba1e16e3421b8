"""The measures against Captum's and Quantus's on the same weights and maps, where these are installed beside PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.evaluate import complexity, infidelity, max_sensitivity, road, sparseness
from minidl.evaluate.imputation import imputed
from minidl.explain import integrated_gradients, saliency
from tests.explain.nets import images

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
attr = pytest.importorskip("captum.attr", reason="Captum is not installed: pip install captum")
metrics = pytest.importorskip("captum.metrics", reason="Captum is not installed: pip install captum")
pytestmark = pytest.mark.oracle

TARGET = np.array([0, 1, 2, 3])


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any, Array]]:
    """Both nets with the same weights in float64, and images."""
    from tests.explain.test_against_captum import Mine, Theirs

    mine, theirs = Mine().to(dtype="float64"), Theirs().double().eval()
    theirs.load_state_dict({name: torch.tensor(a) for name, a in mine.state_dict().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they tell of hooks, and of parameters that matter
        yield mine, theirs, images(4, 3, 16, 12)


def quantus() -> Any:
    return pytest.importorskip("quantus", reason="Quantus is not installed: pip install --no-deps quantus")


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity(pair: tuple[Any, Any, Array], normalize: bool) -> None:
    mine, theirs, x = pair
    raw = saliency(mine, x, TARGET).raw
    taken: list[Array] = []

    def noted(image: Array, rng: np.random.Generator) -> Array:
        taken.append(0.1 * rng.normal(size=image.shape))
        return taken[-1]

    found = infidelity(mine, x, raw, TARGET, noted, normalize=normalize, samples=5, batch_size=100)
    changes = torch.tensor(np.reshape(taken, (5, 4, 3, 16, 12)).swapaxes(0, 1).reshape(20, 3, 16, 12))  # of each image its 5

    def same(inputs: Any) -> Any:
        return changes, inputs - changes

    settings: dict[str, Any] = {"target": torch.tensor(TARGET), "n_perturb_samples": 5, "normalize": normalize}
    want = metrics.infidelity(theirs, same, torch.tensor(x), torch.tensor(raw), **settings)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-6)
    assert (found > 0).all()


def test_max_sensitivity(pair: tuple[Any, Any, Array]) -> None:
    mine, theirs, x = pair
    steps: list[Array] = []

    def noted(model: Any, x: Array, *, target: Any) -> Any:
        steps.extend(x)
        return integrated_gradients(model, x, target, steps=10)

    found = max_sensitivity(mine, x, noted, TARGET, radius=0.1, samples=5)
    moved = torch.tensor(np.reshape(steps, (6, 4, 3, 16, 12))[1:].swapaxes(0, 1).reshape(20, 3, 16, 12))
    oracle = attr.IntegratedGradients(theirs)
    settings: dict[str, Any] = {"target": torch.tensor(TARGET), "n_steps": 10, "method": "gausslegendre"}
    want = metrics.sensitivity_max(oracle.attribute, torch.tensor(x), lambda x, r: moved, n_perturb_samples=5, **settings)
    np.testing.assert_allclose(found, want.numpy(), rtol=1e-5)
    assert (found > 1e-3).all()


def test_complexity_and_sparseness() -> None:
    q, maps = quantus(), np.abs(images(3, 8, 9))
    settings = {"disable_warnings": True, "normalise": False}
    x, y, model = np.zeros((3, 1, 8, 9)), np.zeros(3, int), torch.nn.Flatten()
    for metric, measure in (q.Complexity, complexity), (q.Sparseness, sparseness):
        want = metric(**settings)(model=model, x_batch=x, y_batch=y, a_batch=maps.copy()[:, None], channel_first=True)
        np.testing.assert_allclose(measure(maps), want, rtol=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_imputation(share: float) -> None:
    """Theirs solves the equations by a sparse factorisation, for square images: it takes the height for the width."""
    quantus()
    from quantus.functions.perturb_func import noisy_linear_imputation

    x, missing = images(2, 3, 14, 14), np.random.default_rng(1).random((2, 1, 14, 14)) < share
    missing[:, :, 3, 4] = False
    for image, gone, u in zip(x, missing, imputed(x, missing), strict=True):
        want = noisy_linear_imputation(image, np.flatnonzero(gone), noise=0.0)
        np.testing.assert_allclose(u, want, rtol=1e-5, atol=1e-5)


def test_road(pair: tuple[Any, Any, Array]) -> None:
    """Their accuracy is the share of images whose margin is still above 0. They take images of one channel alone."""
    x, shares = images(24, 1, 20, 20), (0.05, 0.25, 0.5, 0.75, 0.9)

    class Grey(nn.Module):
        def __init__(self) -> None:
            self.net = pair[0]

        def forward(self, x: Tensor) -> Tensor:
            return self.net(ops.concat([x, -x, 0.5 * x]))

    class TheirGrey(torch.nn.Module):  # type: ignore[name-defined, misc]
        def forward(self, x: Any) -> Any:
            return pair[1](torch.cat([x, -x, 0.5 * x], 1).double())

    mine, theirs = Grey(), TheirGrey().eval()
    with torch.no_grad():
        y = theirs(torch.tensor(x)).argmax(1).numpy()
    maps = saliency(mine, x).map
    found = road(mine, x, maps, y, shares=shares, noise=0.0, output="margin")
    metric = quantus().ROAD(
        percentages=[round(100 * s) for s in shares], noise=0.0, normalise=False, disable_warnings=True, return_aggregate=False
    )
    settings = {"batch_size": 24, "channel_first": True, "softmax": False}
    want = metric(model=theirs, x_batch=x, y_batch=y, a_batch=maps[:, None], **settings)
    accuracy = (found.score > 0).mean(0)
    np.testing.assert_allclose(accuracy[1:], [*want.values()])
    assert accuracy[0] == 1 and 0 < accuracy.min() < 0.9
