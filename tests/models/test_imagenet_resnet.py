import numpy as np
import pytest

import models
from minidl import Tensor, kernels, ops
from minidl.analysis import watch
from models.resnet import Bottleneck, PlainBlock, ProjectionBlock
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

PARAMETERS = {  # 1000 classes
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    # without the three projections, of 64x128, 128x256 and 256x512 weights and a batch norm each
    "plain34": 21_797_672 - (64 * 128 + 128 * 256 + 256 * 512) - 2 * (128 + 256 + 512),
}
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("name", PARAMETERS)
def test_depth_and_parameters_are_the_published_ones(name):
    model = getattr(models, name)()
    assert layers(model) == int(name.removeprefix("resnet").removeprefix("plain"))
    assert count(model) == PARAMETERS[name]


def test_names_are_those_of_torchvision():
    state = names_and_shapes(models.resnet50(num_classes=7))
    names = [name for name, _ in state]
    assert names[:6] == ["conv1.weight", *(f"bn1.{n}" for n in NORM)]
    main = [f"{part}{i}.{n}" for i in (1, 2, 3) for part, ns in (("conv", ["weight"]), ("bn", NORM)) for n in ns]
    projection = ["downsample.0.weight", *(f"downsample.1.{n}" for n in NORM)]
    assert names[6 : 6 + 24] == [f"layer1.0.{n}" for n in main + projection]
    assert names[30 : 30 + 18] == [f"layer1.1.{n}" for n in main]
    assert state[-2:] == [("fc.weight", (7, 2048)), ("fc.bias", (7,))]
    assert len(state) == 320

    plain = names_and_shapes(models.plain34())
    assert plain == [(name, shape) for name, shape in names_and_shapes(models.resnet34()) if "downsample" not in name]
    assert models.resnet18().layer4[1].conv2.weight.name == "layer4.1.conv2.weight"


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_names_and_shapes_are_the_published_ones(name):
    check_names(getattr(models, name)(), name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet34", marks=pytest.mark.slow), "resnet50"])
def test_published_figures(name, kernel):
    with kernels.use(kernel):
        check_figures(getattr(models, name)(), name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "name", ["resnet18", pytest.param("resnet34", marks=pytest.mark.slow), pytest.param("resnet50", marks=pytest.mark.ci)]
)
def test_published_figures_in_float32(name, kernel):
    with kernels.use(kernel):
        check_float32(getattr(models, name), name)


def test_the_figures_tell_a_wrong_net():
    wrong = models.resnet18()
    wrong.bn1.eps = 1.1e-5
    with pytest.raises(AssertionError, match=r"resnet18: {'logits'"):
        check_figures(wrong, "resnet18")
    short = models.resnet18()
    del short.layer4[1].bn2
    with pytest.raises(AssertionError):
        check_names(short, "resnet18")


@pytest.mark.parametrize("make", [models.resnet18, models.plain34])
@pytest.mark.parametrize(("C", "size"), [(4, (65, 33)), (1, (1, 1))])
def test_any_number_of_channels_and_size_of_image(make, C, size):
    model = make(num_classes=7, in_channels=C).eval()
    x = Tensor(normal(2, C, *size).astype(np.float32), requires_grad=True)
    y = model(x)
    assert y.shape == (2, 7) and y.dtype == np.float32
    y.backward(np.ones_like(y.data))
    assert x.grad.shape == x.shape and np.isfinite(x.grad).all() and x.grad.any()


def test_the_grid_shrinks_as_in_table_1():
    seen = {}
    model = models.resnet18(num_classes=7)
    with watch(model.eval(), after=lambda name, y: seen.update({name: y.shape[1:]})):
        model(normal(1, 3, 224, 224).astype(np.float32))
    stages = [seen[name] for name in ("conv1", "layer1", "layer2", "layer3", "layer4")]
    assert stages == [(64, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def residual(block, x):
    """F(x) of a block of two or three convolutions, each with its batch norm."""
    y = block.bn2(block.conv2(ops.relu(block.bn1(block.conv1(x)))))
    return block.bn3(block.conv3(ops.relu(y))) if hasattr(block, "conv3") else y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("block", [ProjectionBlock, Bottleneck])
def test_the_block_adds_its_input(block, training):
    rng = np.random.default_rng(0)
    same = rebuilt(block(8, 8, 1, rng)).train(training)
    x = Tensor(normal(2, 8, 5, 5))
    assert np.allclose(same(x).data, np.maximum(residual(same, x).data + x.data, 0), rtol=0, atol=1e-12)

    other = rebuilt(block(4, 8, 2, rng)).train(training)
    x = Tensor(normal(2, 4, 5, 5))
    projected = other.downsample(x)
    assert projected.shape == (2, 8, 3, 3)
    assert np.allclose(other(x).data, np.maximum(residual(other, x).data + projected.data, 0), rtol=0, atol=1e-12)

    plain = rebuilt(PlainBlock(4, 8, 2, rng)).train(training)
    assert np.allclose(plain(x).data, np.maximum(residual(plain, x).data, 0), rtol=0, atol=1e-12)


def test_a_bottleneck_is_narrow_and_strides_in_its_middle():
    block = Bottleneck(256, 512, 2, np.random.default_rng(0))
    assert [conv.weight.shape for conv in (block.conv1, block.conv2, block.conv3)] == [
        (128, 256, 1, 1),
        (128, 128, 3, 3),
        (512, 128, 1, 1),
    ]
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("block", [PlainBlock, ProjectionBlock, Bottleneck])
def test_gradients_of_a_block(block, stride):
    module = block(2, 4, stride, np.random.default_rng(1))
    check_gradients(rebuilt(module), normal(2, 2, 3, 4))


def test_a_seed_gives_the_same_net_and_another_another():
    a, b, c = (models.resnet18(seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["conv1.weight"], c["conv1.weight"])


def test_resnet1202_is_built_run_and_walked_back():
    model = models.resnet1202()
    assert layers(model) == 1202 and count(model) == 19_421_274
    x = Tensor(normal(2, 3, 4, 4).astype(np.float32), requires_grad=True)
    ops.cross_entropy(model(x), np.array([3, 7])).backward()
    assert np.isfinite(x.grad).all() and x.grad.any()
    assert all(np.isfinite(p.grad).all() for p in model.parameters())


def test_bad_input():
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.resnet18(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        models.resnet50(in_channels=0)
    model = models.resnet18(num_classes=2)
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(1, 4, 32, 32\)"):
        model(normal(1, 4, 32, 32).astype(np.float32))
    with pytest.raises(ValueError, match=r"expected \(N, C, H, W\), got shape \(3, 32, 32\)"):
        model(normal(3, 32, 32).astype(np.float32))
