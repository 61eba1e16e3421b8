import numpy as np
import pytest

import models
from minidl import Tensor, kernels, nn, ops
from minidl.analysis import watch
from minidl.optim import SGD
from models.densenet import BottleneckLayer, DenseBlock, DenseLayer, Transition
from tests.models.reference import (
    KERNELS,
    check_figures,
    check_float32,
    check_gradients,
    check_names,
    count,
    layers,
    names_and_shapes,
    rebuilt,
)

PUBLISHED = {  # parameters with 1000 and 10 classes
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet_bc100_12": 769_162,
}
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def images(*shape):
    return normal(*shape).astype(np.float32)


def parameters(stem, c, blocks, k, bc, num_classes):
    """The count by hand. A norm of c channels has 2 c parameters; a bottleneck c x 4k + 9 x 4k x k weights."""
    total = stem
    for i, n in enumerate(blocks):
        for _ in range(n):
            total += 2 * c + 4 * k * c + 2 * 4 * k + 9 * 4 * k * k if bc else 2 * c + 9 * c * k
            c += k
        if i < len(blocks) - 1:
            to = c // 2 if bc else c
            total += 2 * c + c * to
            c = to
    return total + 2 * c + c * num_classes + num_classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name):
    assert count(getattr(models, name)()) == PUBLISHED[name]


def test_parameters_are_those_of_a_count_by_hand():
    stem = 64 * 3 * 49 + 2 * 64
    assert parameters(stem, 64, (6, 12, 24, 16), 32, True, 1000) == PUBLISHED["densenet121"]
    assert count(models.densenet264()) == parameters(stem, 64, (6, 12, 64, 48), 32, True, 1000) == 33_337_704
    assert count(models.densenet40_12()) == parameters(16 * 3 * 9, 16, (12, 12, 12), 12, False, 10) == 1_019_722
    assert count(models.densenet_bc(22, 5, 4, 2)) == parameters(10 * 2 * 9, 10, (3, 3, 3), 5, True, 4)


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201", "densenet264"])
def test_depth(name):
    more = 1 if name == "densenet264" else 0  # 1 + 2 (6 + 12 + 64 + 48) + 3 + 1 = 265
    assert layers(getattr(models, name)(num_classes=2)) == int(name.removeprefix("densenet")) + more


def test_depth_of_the_cifar_nets():
    assert layers(models.densenet40_12()) == 40
    assert layers(models.densenet_bc100_12()) == 100
    assert layers(models.densenet_bc(250, 2)) == 250


def test_names_are_those_of_torchvision():
    state = dict(names_and_shapes(models.densenet121(num_classes=7)))
    names = list(state)
    assert names[:6] == ["features.conv0.weight", *(f"features.norm0.{n}" for n in NORM)]
    layer = [*(f"norm1.{n}" for n in NORM), "conv1.weight", *(f"norm2.{n}" for n in NORM), "conv2.weight"]
    assert names[6 : 6 + 24] == [f"features.denseblock1.denselayer{i}.{n}" for i in (1, 2) for n in layer]
    transition = [*(f"features.transition3.norm.{n}" for n in NORM), "features.transition3.conv.weight"]
    after = names.index("features.denseblock3.denselayer24.conv2.weight") + 1
    assert names[after : after + 6] == transition
    assert names[-7:] == [*(f"features.norm5.{n}" for n in NORM), "classifier.weight", "classifier.bias"]
    assert len(names) == 727
    assert state["features.transition3.conv.weight"] == (512, 1024, 1, 1)

    names = [name for name, _ in names_and_shapes(models.densenet40_12())]
    assert names[:2] == ["features.conv0.weight", "features.denseblock1.denselayer1.norm1.weight"]
    assert names[-3:] == ["features.norm4.num_batches_tracked", "classifier.weight", "classifier.bias"]
    weight = models.densenet40_12().features.denseblock3.denselayer12.conv1.weight
    assert weight.name == "features.denseblock3.denselayer12.conv1.weight" and weight.shape == (12, 448 - 12, 3, 3)


def test_names_and_shapes_are_the_published_ones():
    check_names(models.densenet121(), "densenet121")


@pytest.mark.parametrize("kernel", kernels.CHOICES)
def test_published_figures(kernel):
    with kernels.use(kernel):
        check_figures(models.densenet121(), "densenet121")


@pytest.mark.ci
@pytest.mark.parametrize("kernel", KERNELS)
def test_published_figures_in_float32(kernel):
    with kernels.use(kernel):
        check_float32(models.densenet121, "densenet121")


@pytest.mark.parametrize("layer", [DenseLayer, BottleneckLayer])
def test_each_layer_sees_all_before_it(layer):
    block = rebuilt(DenseBlock(layer, 3, 5, 2, 0.0, np.random.default_rng(0))).eval()
    x = Tensor(normal(2, 5, 4, 3))
    y = block(x).data  # the channels of x, then two of each layer
    assert y.shape == (2, 5 + 3 * 2, 4, 3)
    assert np.array_equal(y[:, :5], x.data)
    for i, each in enumerate((block.denselayer1, block.denselayer2, block.denselayer3)):
        c = 5 + 2 * i
        assert np.allclose(y[:, c : c + 2], each(Tensor(y[:, :c].copy())).data, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer", [DenseLayer, BottleneckLayer])
def test_gradients_of_a_block(layer):
    block = DenseBlock(layer, 2, 3, 2, 0.0, np.random.default_rng(0))
    check_gradients(rebuilt(block), normal(2, 3, 3, 2))


def test_gradients_of_a_transition():
    check_gradients(rebuilt(Transition(3, 2, np.random.default_rng(0))), normal(2, 3, 4, 5))


@pytest.mark.parametrize(
    ("make", "smallest"), [(models.densenet121, 29), (models.densenet40_12, 4), (lambda **k: models.densenet_bc(10, 4, **k), 4)]
)
@pytest.mark.parametrize("C", [1, 4])
def test_any_number_of_channels_and_the_smallest_image(make, smallest, C):
    model = make(num_classes=7, in_channels=C).eval()
    for size in ((smallest, smallest), (33, 47)):
        x = Tensor(images(2, C, *size), requires_grad=True)
        y = model(x)
        assert y.shape == (2, 7) and y.dtype == np.float32
        y.backward(np.ones_like(y.data))
        assert x.grad.shape == x.shape and np.isfinite(x.grad).all()
    with pytest.raises(ValueError, match=rf"at least {smallest}x{smallest}, got {smallest - 1}x40: .*transition\d runs out of"):
        model(images(1, C, smallest - 1, 40))


def test_the_grid_shrinks_as_in_table_1():
    seen = {}
    model = models.densenet121(num_classes=7)
    with watch(model.eval(), after=lambda name, y: seen.update({name: y.shape[1:]})):
        model(images(1, 3, 224, 224))
    names = ("conv0", "pool0", "denseblock1", "transition1", "denseblock2", "denseblock3", "denseblock4")
    assert [seen[f"features.{name}"] for name in names] == [
        (64, 112, 112),
        (64, 56, 56),
        (256, 56, 56),
        (128, 28, 28),
        (512, 28, 28),
        (1024, 14, 14),
        (1024, 7, 7),
    ]


def test_dropout_is_in_every_layer_and_only_in_training():
    model = models.densenet_bc(22, 4, dropout=0.2, seed=5)
    dropouts = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    assert [d.p for d in dropouts] == [0.2] * 9
    assert not any(isinstance(m, nn.Dropout) for m in models.densenet_bc(22, 4).modules())
    assert names_and_shapes(model) == names_and_shapes(models.densenet_bc(22, 4))
    x = images(2, 3, 8, 8)
    plain = models.densenet_bc(22, 4, seed=5)
    assert np.array_equal(model.eval()(x).data, plain.eval()(x).data)
    assert not np.allclose(model.train()(x).data, plain.train()(x).data)


def test_a_seed_gives_the_same_net_and_another_another():
    a, b, c = (models.densenet_bc100_12(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["features.conv0.weight"], c["features.conv0.weight"])


@pytest.mark.parametrize("depth", [4, 9, 11, -2])
def test_a_depth_that_does_not_divide(depth):
    with pytest.raises(ValueError, match=r"depth: expected 6n \+ 4 .*, got"):
        models.densenet_bc(depth, 12)


def test_bad_input():
    with pytest.raises(TypeError, match=r"depth: expected an integer, got 40\.5"):
        models.densenet_bc(40.5, 12)
    with pytest.raises(ValueError, match="growth: expected an integer of at least 1, got 0"):
        models.densenet_bc(10, 0)
    with pytest.raises(ValueError, match=r"dropout: expected a number in \[0, 1\), got 1.0"):
        models.densenet121(dropout=1.0)
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.densenet40_12(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        models.densenet121(in_channels=0)
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(2, 1, 8, 8\)"):
        models.densenet_bc100_12()(images(2, 1, 8, 8))


def test_it_learns():
    model, x, labels = models.densenet_bc(16, 6, num_classes=4), images(16, 3, 12, 12), np.arange(16) % 4
    optimiser, losses = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True), []
    for _ in range(12):
        loss = ops.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
