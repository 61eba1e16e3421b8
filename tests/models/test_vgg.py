from functools import partial

import numpy as np
import pytest

import models
from minidl import Tensor, kernels, nn
from minidl.analysis import watch
from models.vgg import block
from tests.models.reference import (
    KERNELS,
    check_figures,
    check_float32,
    check_gradients,
    check_names,
    count,
    layers,
    rebuilt,
)

PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


@pytest.fixture
def zeros(monkeypatch):
    """Nets start with zeros, where the values do not matter: to draw 140 million takes seconds."""
    monkeypatch.setattr(nn.init, "_normal", lambda shape, rng, std: np.zeros(shape, np.float32))
    monkeypatch.setattr(nn.init, "_uniform", lambda shape, rng, a: np.zeros(shape, np.float32))


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", PARAMETERS)
def test_depth_and_parameters_are_the_published_ones(name, zeros):
    model = getattr(models, name)()
    assert layers(model) == int(name.removeprefix("vgg").removesuffix("_bn"))
    assert count(model) == PARAMETERS[name]


def test_names_are_those_of_torchvision(zeros):
    model = models.vgg16()
    convolutions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    shapes = {name: p.shape for name, p in model.named_parameters()}
    places = [*(f"features.{i}" for i in convolutions), *(f"classifier.{i}" for i in (0, 3, 6))]
    assert list(shapes) == [f"{place}.{n}" for place in places for n in ("weight", "bias")]
    assert shapes["features.28.weight"] == (512, 512, 3, 3) and shapes["classifier.0.weight"] == (4096, 25088)
    assert model.classifier[6].weight.name == "classifier.6.weight"

    names = list(models.vgg11_bn().state_dict())
    first = ["features.0.weight", "features.0.bias", *(f"features.1.{n}" for n in NORM), "features.4.weight"]
    assert names[:8] == first
    assert names[-6:] == [f"classifier.{i}.{n}" for i in (0, 3, 6) for n in ("weight", "bias")]


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_names_and_shapes_are_the_published_ones(name, zeros):
    check_names(getattr(models, name)(dropout=0), name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", [pytest.param("vgg16", marks=pytest.mark.ci), pytest.param("vgg19", marks=pytest.mark.slow)])
def test_published_figures(name, kernel, zeros):
    with kernels.use(kernel):
        check_figures(getattr(models, name)(dropout=0), name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", [pytest.param("vgg16", marks=pytest.mark.ci), pytest.param("vgg19", marks=pytest.mark.slow)])
def test_published_figures_in_float32(name, kernel, zeros):
    with kernels.use(kernel):
        check_float32(partial(getattr(models, name), dropout=0), name)


@pytest.mark.oracle
def test_blocks_with_batch_norm_as_pytorch(zeros):
    torch = pytest.importorskip("torch")
    layers, c_in = [], 4
    for c in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if c == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(c_in, c, 3, padding=1), torch.nn.BatchNorm2d(c), torch.nn.ReLU()]
            c_in = c
    theirs = torch.nn.Sequential(*layers).double()
    ours = rebuilt(models.vgg11_bn(in_channels=4).features)
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    theirs.load_state_dict({n: torch.from_numpy(a) for n, a in state.items()})
    x = np.random.default_rng(0).normal(size=(2, 4, 50, 33))
    for training in (False, True):
        image, peer_image = Tensor(x, requires_grad=True), torch.from_numpy(x).requires_grad_()
        y, expected = ours.train(training)(image), theirs.train(training)(peer_image)
        y.backward(np.ones_like(y.data))
        expected.backward(torch.ones_like(expected), inputs=[peer_image])
        assert y.shape == (2, 512, 1, 1)
        assert np.allclose(y.data, expected.detach().numpy(), rtol=1e-9, atol=1e-9)
        assert np.allclose(image.grad, peer_image.grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [models.vgg11, models.vgg13_bn])
@pytest.mark.parametrize("C", [1, 4])
def test_any_number_of_channels_and_the_smallest_image(make, C, zeros):
    model = make(num_classes=7, in_channels=C).eval()
    for size in ((32, 32), (33, 70)):
        y = model(images(1, C, *size))
        assert y.shape == (1, 7) and y.dtype == np.float32
    with pytest.raises(ValueError, match=r"x: expected images of at least 32x32, got 31x40: features\.\d+ runs out"):
        model(images(1, C, 31, 40))


def test_a_grid_of_7x7_is_left_as_it_is(zeros):
    seen = {}
    model = models.vgg11(num_classes=2)
    with watch(model.eval(), after=lambda name, y: seen.update({name: y.data})):
        model(images(1, 3, 224, 224))
    assert seen["features"].shape == (1, 512, 7, 7)
    assert np.array_equal(model.avgpool(images(1, 2, 7, 7)).data, images(1, 2, 7, 7))


def test_dropout(zeros):
    model = models.vgg11(dropout=0.25)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    assert [m.p for m in models.vgg19_bn().modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert len(model.generators()) == 1  # one generator, that of the seed, draws everything


@pytest.mark.parametrize("norm", [False, True])
def test_gradients_of_a_block(norm):
    module = nn.Sequential(*block(2, 3, 2, norm, np.random.default_rng(0)))
    check_gradients(rebuilt(module), np.random.default_rng(1).normal(size=(2, 2, 4, 4)))


def test_bad_input(zeros):
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.vgg11(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        models.vgg16_bn(in_channels=0)
    with pytest.raises(ValueError, match=r"dropout: expected a number in \[0, 1\), got 1"):
        models.vgg11(dropout=1)
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(1, 1, 32, 32\)"):
        models.vgg11()(images(1, 1, 32, 32))
