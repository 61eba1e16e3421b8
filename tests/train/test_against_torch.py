"""A training step by step beside PyTorch's: the net, the loss, the gradients, the update and the schedule at once."""

import numpy as np
import pytest

import models
from minidl import kernels, ops
from minidl.kernels.compiled import winograd
from minidl.optim import SGD, one_cycle
from minidl.train import Settings
from minidl.train.transfer import parameter_groups

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from tests.benchmarks import cifar_peer  # noqa: E402

pytestmark = pytest.mark.oracle


def peer_name(name):
    """Of a parameter of minidl's ResNet-20 in that of the benchmark, whose blocks are one list"""
    if not name.startswith("layer"):
        return name
    layer, block, rest = name.split(".", 2)
    return f"blocks.{3 * (int(layer[-1]) - 1) + int(block)}.{rest}"


def after(dtype, steps, total=5850, batch_size=8):
    """Parameters and running statistics of both sides after so many of `total` steps, from equal ones, on equal batches."""
    rng = np.random.default_rng(0)
    ours, theirs = (
        models.resnet20(num_classes=10, seed=1).to(dtype=dtype),
        cifar_peer.ResNet().to(getattr(torch, dtype.__name__)),
    )
    theirs.load_state_dict({peer_name(name): torch.from_numpy(a.copy()) for name, a in ours.state_dict().items()}, strict=False)
    settings = Settings(lr=0.2)
    mine = SGD(parameter_groups(ours, settings), settings.lr, 0.9, nesterov=True)
    peer = torch.optim.SGD(cifar_peer.decayed(theirs), lr=0.2, momentum=0.9, nesterov=True)
    schedule = one_cycle(settings.lr, total, settings.warmup)
    for k in range(steps):
        x = rng.normal(size=(batch_size, 3, 32, 32)).astype(np.float32).astype(dtype)
        labels = rng.integers(0, 10, batch_size)
        mine.lr = schedule(k)
        for group in peer.param_groups:
            group["lr"] = 0.2 * cifar_peer.share_of_rate(k, total)
        mine.zero_grad()
        ops.cross_entropy(ours(x), labels).backward()
        mine.step()
        peer.zero_grad()
        torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
        peer.step()
    found, expected = ours.state_dict(), theirs.state_dict()
    return found, {name: expected[peer_name(name)].numpy() for name in found}


def differences(found, expected):
    """The largest of each array, relative to its largest value"""
    return np.array([abs(a - expected[name]).max() / abs(expected[name]).max() for name, a in found.items()])


def test_steps_as_pytorch():
    assert differences(*after(np.float64, 20)).max() < 1e-9  # found: 4e-13, after 50 as well


@pytest.mark.parametrize("way", ["compiled", "without Winograd", "unfused", "reference"])
def test_in_float32_every_way_is_near_the_numbers_of_float64(way, monkeypatch):
    _, exact = after(np.float64, 5)
    if way == "without Winograd":
        monkeypatch.setattr(winograd, "pays", lambda *_: False)
    with ops.unfused() if way == "unfused" else kernels.use("reference" if way == "reference" else "compiled"):
        ours, theirs = (differences(state, exact) for state in after(np.float32, 5))
    assert np.median(ours) < 1e-6  # found: 1.1e-7, of PyTorch 1.5e-7
    assert ours.mean() < 10 * theirs.mean()  # a gate of a ReLU that opens on one side alone moves the biases by 1e-3


def test_the_schedule_of_a_whole_training():
    ours, steps = one_cycle(0.2, 5850, Settings().warmup), range(5850)
    np.testing.assert_allclose([ours(k) for k in steps], [0.2 * cifar_peer.share_of_rate(k, 5850) for k in steps], rtol=1e-12)


def test_first_weights_are_drawn_as_pytorch_draws_them():
    """Of ten nets a side, the largest gap between the two distributions of a layer (Kolmogorov and Smirnov)"""
    torch.manual_seed(0)
    ours = [models.resnet20(num_classes=10, seed=seed).state_dict() for seed in range(10)]
    theirs = [cifar_peer.ResNet().state_dict() for _ in range(10)]
    for name, p in ours[0].items():
        if p.ndim < 2:
            continue
        a, b = (np.concatenate([np.ravel(net[key]) for net in nets]) for nets, key in ((ours, name), (theirs, peer_name(name))))
        values = np.sort(np.concatenate([a, b]))
        gap = np.abs(np.subtract(*(np.searchsorted(np.sort(x), values, "right") / len(x) for x in (a, b)))).max()
        assert gap < 2.2 * np.sqrt(2 / len(a)), name  # chance goes beyond it once in 8,000 layers
