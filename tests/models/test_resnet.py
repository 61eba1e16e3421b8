import numpy as np
import pytest

import models
from minidl import Tensor, nn, ops, weights
from minidl.optim import SGD, decay_groups

RESIDUAL = {"resnet8": 8, "resnet20": 20, "resnet32": 32, "resnet44": 44, "resnet56": 56, "resnet110": 110}
PLAIN = {"plain20": 20, "plain32": 32, "plain44": 44, "plain56": 56, "plain110": 110}
PUBLISHED = {20: "0.27", 32: "0.46", 44: "0.66", 56: "0.85", 110: "1.7"}  # millions of parameters, table 6


def images(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def count(model):
    return sum(p.size for p in model.parameters())


@pytest.mark.parametrize(("name", "depth"), [*RESIDUAL.items(), *PLAIN.items()])
def test_depth_and_parameters_are_those_of_the_paper(name, depth):
    model = getattr(models, name)()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    n = (depth - 2) // 6
    convolutions = 9 * (3 * 16 + 2 * n * 16 * 16 + 16 * 32 + (2 * n - 1) * 32 * 32 + 32 * 64 + (2 * n - 1) * 64 * 64)
    norms = 2 * (16 + 2 * n * (16 + 32 + 64))
    assert count(model) == convolutions + norms + 64 * 10 + 10
    if depth in PUBLISHED:
        published = PUBLISHED[depth]
        assert f"{count(model) / 1e6:.{len(published) - 2}f}" == published


def test_the_known_numbers():
    assert count(models.resnet20()) == count(models.plain20()) == 269_722
    assert count(models.resnet56()) == 853_018
    assert count(models.resnet110()) == 1_727_962


def test_names_are_those_of_torchvision():
    state = models.resnet20().state_dict()
    names = list(state)
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert names[:6] == ["conv1.weight", *(f"bn1.{n}" for n in norm)]
    block = ["conv1.weight", *(f"bn1.{n}" for n in norm), "conv2.weight", *(f"bn2.{n}" for n in norm)]
    assert names[6 : 6 + 12] == [f"layer1.0.{n}" for n in block]
    assert names[-2:] == ["linear.weight", "linear.bias"]
    assert len(names) == 6 + 9 * 12 + 2
    assert names == list(models.plain20().state_dict())  # the shortcuts have no parameters
    assert models.resnet20().layer3[2].conv2.weight.name == "layer3.2.conv2.weight"


@pytest.mark.parametrize("make", [models.resnet8, models.plain20])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (33, 47), (5, 6), (1, 1)])
def test_any_size_of_image(make, size):
    model = make(num_classes=7, in_channels=1).eval()
    x = Tensor(images(2, 1, *size), requires_grad=True)
    y = model(x)
    assert y.shape == (2, 7) and y.dtype == np.float32
    y.backward(np.ones_like(y.data))
    assert x.grad.shape == x.shape and np.isfinite(x.grad).all()


def test_a_seed_gives_the_same_net_and_another_another():
    a, b, c = models.resnet20().state_dict(), models.resnet20().state_dict(), models.resnet20(seed=1).state_dict()
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["conv1.weight"], c["conv1.weight"])
    assert not np.array_equal(a["layer1.0.conv1.weight"], a["layer1.0.conv2.weight"])


def test_the_block_adds_its_input():
    model = models.resnet20(seed=3).eval()
    block, x = model.layer1[1], Tensor(images(2, 16, 6, 6))
    residual = block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(x))))).data
    assert np.allclose(block(x).data, np.maximum(residual + x.data, 0), atol=1e-6)
    with ops.unfused():
        assert np.array_equal(block(x).data, np.maximum(residual + x.data, 0))
    for conv in (block.conv1, block.conv2):
        conv.weight.data[:] = 0
    assert np.array_equal(block(x).data, np.maximum(x.data, 0))
    plain = models.plain20(seed=3).eval().layer1[1]
    residual = plain.bn2(plain.conv2(ops.relu(plain.bn1(plain.conv1(x))))).data
    assert np.allclose(plain(x).data, np.maximum(residual, 0), atol=1e-6)


def test_the_shortcut_of_option_a_subsamples_and_pads_channels_with_zeros():
    shortcut, x = models.resnet20().layer2[0].downsample, images(2, 16, 7, 5)
    y = shortcut(x).data
    assert y.shape == (2, 32, 4, 3)
    assert np.array_equal(y[:, 8:24], x[:, :, ::2, ::2]) and not y[:, :8].any() and not y[:, 24:].any()
    assert shortcut.parameters() == []


def test_bad_input():
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.resnet8(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got -3"):
        models.resnet8(in_channels=-3)
    model = models.resnet8()
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(2, 1, 32, 32\)"):
        model(images(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\), got shape \(3, 32, 32\)"):
        model(images(3, 32, 32))
    with pytest.raises(TypeError, match="expected floats, got uint8"):
        model(np.zeros((2, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="empty"):
        model(images(0, 3, 32, 32))


def test_a_checkpoint_of_another_depth_is_refused(tmp_path):
    weights.save(models.resnet20(), tmp_path / "w")
    with pytest.raises(ValueError, match=r"layer1.1.conv1.weight: unexpected, \(16, 16, 3, 3\)"):
        weights.load(models.resnet8(), tmp_path / "w")


def test_it_learns():
    model, x, labels = models.resnet8(num_classes=4), images(16, 3, 16, 16), np.arange(16) % 4
    optimiser, losses = SGD(decay_groups(model, 5e-4), lr=0.05, momentum=0.9, nesterov=True), []
    for _ in range(12):
        loss = ops.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ---- PyTorch's answers


def torch_resnet(torch, n, num_classes, in_channels, shortcuts):
    """The same net with the same names, in PyTorch."""
    functional = torch.nn.functional

    class Block(torch.nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(c_out)
            self.conv2 = torch.nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
            self.bn2 = torch.nn.BatchNorm2d(c_out)
            self.stride, self.more = stride, c_out - c_in

        def forward(self, x):
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            if shortcuts:
                half = self.more // 2
                y = y + functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, self.more - half))
            return functional.relu(y)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
            self.bn1 = torch.nn.BatchNorm2d(16)
            self.layer1 = torch.nn.Sequential(*(Block(16, 16, 1) for _ in range(n)))
            self.layer2 = torch.nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(n - 1)))
            self.layer3 = torch.nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(n - 1)))
            self.linear = torch.nn.Linear(64, num_classes)

        def forward(self, x):
            x = functional.relu(self.bn1(self.conv1(x)))
            return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))

    return Net()


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_logits_and_every_gradient_as_pytorch(name):
    torch = pytest.importorskip("torch")
    ours = getattr(models, name)(num_classes=5, in_channels=2, seed=4).to(dtype=np.float64)
    theirs = torch_resnet(torch, 3, 5, 2, name.startswith("resnet")).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in ours.state_dict().items()})
    x, labels = images(6, 2, 13, 16, dtype=np.float64), np.arange(6) % 5
    for training in (True, False):
        image, peer_image = Tensor(x, requires_grad=True), torch.from_numpy(x.copy()).requires_grad_()
        logits, expected = ours.train(training)(image), theirs.train(training)(peer_image)
        assert np.allclose(logits.data, expected.detach().numpy(), rtol=0, atol=1e-9)
        for p in ours.parameters():
            p.grad = None
        theirs.zero_grad()
        ops.cross_entropy(logits, labels).backward()
        torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels)).backward()
        gradients = {n: q.grad.numpy() for n, q in theirs.named_parameters()}
        for n, p in ours.named_parameters():
            assert np.allclose(p.grad, gradients[n], rtol=1e-9, atol=1e-9), n
        assert np.allclose(image.grad, peer_image.grad.numpy(), rtol=1e-9, atol=1e-9)
        state = ours.state_dict()
        assert all(np.allclose(state[n], t.numpy(), rtol=0, atol=1e-9) for n, t in theirs.state_dict().items())


# ---- group norm


@pytest.mark.parametrize("make", [models.resnet8, models.resnet20])
def test_group_norm_in_place_of_batch_norm(make):
    """As many parameters, and one image alone is answered, in training and in evaluation, as in a batch"""
    model = make(norm="group")
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in make().modules()) and not list(model.named_buffers())
    assert count(model) == count(make()) and set(model.state_dict()) < set(make().state_dict())
    x = images(3, 3, 16, 16)
    y = model(Tensor(x)).data
    for mode in (True, False):
        alone = np.concatenate([model.train(mode)(Tensor(image[None])).data for image in x])
        np.testing.assert_allclose(alone, y, rtol=1e-4, atol=1e-5)
    with ops.unfused():
        np.testing.assert_allclose(model(Tensor(x)).data, y, rtol=1e-4, atol=1e-5)
    ops.cross_entropy(model.train()(Tensor(x[:1])), np.array([3])).backward()
    assert all(p.grad is not None and np.isfinite(p.grad).all() for p in model.parameters())
    with pytest.raises(ValueError, match=r"norm: expected one of \('batch', 'group'\), got 'layer'"):
        make(norm="layer")


def test_it_learns_from_batches_of_two():
    rng = np.random.default_rng(0)
    model = models.resnet8(2, 1, norm="group")
    optimizer = SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(30):
        labels = np.array([0, 1])
        x = rng.normal(size=(2, 1, 8, 8)).astype(np.float32)
        x[1, :, 2:6, 2:6] += 2
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(Tensor(x)), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.1 < np.mean(losses[:5])
