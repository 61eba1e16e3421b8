"""The same steps, losses and distances as foolbox and torchattacks on the same weights, and no fewer images broken."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, attack
from minidl.array import Array
from minidl.attack.best import losses_of
from minidl.inference import predict
from tests.attack.test_strong import SIZE, trained

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed: pip install foolbox")
torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed: pip install --no-deps torchattacks")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]


@cache
def theirs() -> Any:
    """The net of `trained`, in PyTorch."""
    t = torch.nn
    net = t.Sequential(t.Conv2d(1, 6, 3, padding=1), t.ReLU(), t.Flatten(), t.Linear(6 * SIZE**2, 3)).eval()
    model, x, _ = trained()
    net.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in model.state_dict().items()})
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), predict(model, x), rtol=1e-4, atol=1e-5)
    return net


def broken(images: Any, y: Array) -> Array:
    with torch.no_grad():
        answers: Array = theirs()(images).argmax(1).numpy()
    return answers != y


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_takes_the_steps_of_foolbox(norm: str) -> None:
    (model, x, y), eps = trained(), 0.05 if norm == "linf" else 0.3
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    peer = kind(rel_stepsize=0.25, steps=5, random_start=False)
    fmodel = foolbox.PyTorchModel(theirs(), bounds=(0, 1))
    _, images, success = peer(fmodel, torch.from_numpy(x), torch.from_numpy(y), epsilons=eps)
    found = attack.pgd(model, x, y, eps, norm=norm, steps=5, random_start=False)
    np.testing.assert_array_equal(found.success, success.numpy())
    off = np.abs(found.x - images.numpy()).max((1, 2, 3))
    assert (off > 2e-5).sum() <= 1 and off.max() < 2e-3  # the gate of a ReLU may be a rounding away from the other answer


@pytest.mark.parametrize("K", [4, 10])
def test_the_losses_of_torchattacks(K: int) -> None:
    S = np.random.default_rng(0).normal(size=(30, K))
    y, best = np.arange(30) % K, S.argmax(1)
    logits, labels, zero = torch.from_numpy(S), torch.from_numpy(y), torch.nn.Identity()
    peer = torchattacks.APGD(zero).dlr_loss(logits, labels).numpy()
    np.testing.assert_allclose(losses_of(Tensor(S), y, False, "dlr").data, peer, rtol=1e-9)
    aim = (best + 1) % K
    peer = torchattacks.APGDT(zero).dlr_loss_targeted(logits, torch.from_numpy(best), torch.from_numpy(aim)).numpy()
    np.testing.assert_allclose(losses_of(Tensor(S), aim, True, "dlr").data, peer, rtol=1e-9)


@pytest.mark.parametrize(("norm", "sizes"), [("linf", (0.02, 0.04, 0.06)), ("l2", (0.1, 0.2, 0.3))])
@pytest.mark.parametrize("output", ["logprob", "dlr"])
def test_apgd_breaks_what_that_of_torchattacks_breaks(norm: str, sizes: tuple[float, ...], output: str) -> None:
    model, x, y = trained()
    for eps in sizes:
        peer = torchattacks.APGD(
            theirs(), norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=40, loss={"logprob": "ce"}.get(output, output)
        )
        images = peer(torch.from_numpy(x), torch.from_numpy(y))
        found = attack.apgd(model, x, y, eps, norm=norm, steps=40, output=output)
        assert found.success.sum() >= broken(images, y).sum() - 1, eps


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.3)])
def test_squares_break_as_many_as_those_of_torchattacks(norm: str, eps: float) -> None:
    model, x, y = trained()
    peer = torchattacks.Square(theirs(), norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_queries=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = peer(torch.from_numpy(x), torch.from_numpy(y))
    found = attack.square(model, x, y, eps, norm=norm, steps=300)
    assert found.success.sum() >= broken(images, y).sum() - 3  # both are chance


def test_carlini_and_wagner_go_at_most_a_hundredth_further_than_those_of_foolbox() -> None:
    model, x, y = (a[:8] if isinstance(a, np.ndarray) else a for a in trained())
    peer = foolbox.attacks.L2CarliniWagnerAttack(steps=100)
    fmodel = foolbox.PyTorchModel(theirs(), bounds=(0, 1))
    images, _, success = peer(fmodel, torch.from_numpy(x), torch.from_numpy(y), epsilons=None)
    found = attack.carlini_wagner(model, x, y, steps=100)
    ratio = found.norms["l2"] / np.sqrt(((images.numpy() - x) ** 2).sum((1, 2, 3)))
    assert found.success.all() and success.numpy().all()
    assert ratio.mean() < 1.01 and ratio.max() < 1.05
