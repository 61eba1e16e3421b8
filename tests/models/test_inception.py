from functools import partial

import numpy as np
import pytest

import models
from minidl import Tensor, kernels, ops
from minidl.analysis import cost, watch
from minidl.check import gradient_check
from models.inception import (
    InceptionA,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
    InceptionLogits,
    PoolFirst,
    PoolLast,
)
from tests.models.reference import (
    KERNELS,
    check_figures,
    check_float32,
    check_names,
    count,
    names_and_shapes,
    rebuilt,
)

OUTPUTS = {  # for images of 299x299
    "Conv2d_1a_3x3": (32, 149, 149),
    "Conv2d_2a_3x3": (32, 147, 147),
    "Conv2d_2b_3x3": (64, 147, 147),
    "maxpool1": (64, 73, 73),
    "Conv2d_3b_1x1": (80, 73, 73),
    "Conv2d_4a_3x3": (192, 71, 71),
    "maxpool2": (192, 35, 35),
    "Mixed_5b": (256, 35, 35),
    "Mixed_5c": (288, 35, 35),
    "Mixed_5d": (288, 35, 35),
    "Mixed_6a": (768, 17, 17),
    "Mixed_6b": (768, 17, 17),
    "Mixed_6c": (768, 17, 17),
    "Mixed_6d": (768, 17, 17),
    "Mixed_6e": (768, 17, 17),
    "Mixed_7a": (1280, 8, 8),
    "Mixed_7b": (2048, 8, 8),
    "Mixed_7c": (2048, 8, 8),
}
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def images(*shape):
    return normal(*shape).astype(np.float32)


def test_parameters_are_the_published_ones():
    assert count(models.inception_v3()) == 27_161_264
    assert count(models.inception_v3(aux=False)) == 23_834_568


def test_names_are_those_of_torchvision():
    state = names_and_shapes(models.inception_v3(num_classes=7))
    names = [name for name, _ in state]
    assert names[:7] == ["Conv2d_1a_3x3.conv.weight", *(f"Conv2d_1a_3x3.bn.{n}" for n in NORM), "Conv2d_2a_3x3.conv.weight"]
    top = list(dict.fromkeys(name.split(".")[0] for name in names))
    mixed = [f"Mixed_{i}" for i in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")]
    stem = ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3"]
    assert top == [*stem, *mixed, "AuxLogits", "Mixed_7a", "Mixed_7b", "Mixed_7c", "fc"]
    branches = list(dict.fromkeys(name.split(".")[1] for name in names if name.startswith("Mixed_7c")))
    three = [f"branch3x3{n}" for n in ("_1", "_2a", "_2b", "dbl_1", "dbl_2", "dbl_3a", "dbl_3b")]
    assert branches == ["branch1x1", *three, "branch_pool"]
    shapes = dict(state)
    assert shapes["Mixed_6c.branch7x7_2.conv.weight"] == (160, 160, 1, 7)
    assert shapes["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)
    assert shapes["AuxLogits.conv1.conv.weight"] == (768, 128, 5, 5) and shapes["AuxLogits.fc.weight"] == (7, 768)
    assert len(state) == 580
    without = names_and_shapes(models.inception_v3(num_classes=7, aux=False))
    assert without == [(name, shape) for name, shape in state if not name.startswith("AuxLogits")]
    model = models.inception_v3(num_classes=2)
    assert model.Mixed_5b.branch1x1.bn.bias.name == "Mixed_5b.branch1x1.bn.bias"


def test_names_and_shapes_are_the_published_ones():
    check_names(models.inception_v3(dropout=0), "inception_v3")


@pytest.mark.ci
@pytest.mark.parametrize("kernel", KERNELS)
def test_published_figures(kernel):
    with kernels.use(kernel):
        check_figures(models.inception_v3(dropout=0), "inception_v3", 0.4)


@pytest.mark.ci
@pytest.mark.parametrize("kernel", KERNELS)
def test_published_figures_in_float32(kernel):
    with kernels.use(kernel):
        check_float32(partial(models.inception_v3, dropout=0), "inception_v3", 0.4)


def test_the_grid_shrinks_as_in_the_paper():
    seen = {}
    model = models.inception_v3(num_classes=7)
    with watch(model.eval(), after=lambda name, y: seen.update({name: y.shape[1:]})):
        model(images(1, 3, 299, 299))
    assert {name: seen[name] for name in OUTPUTS} == OUTPUTS


def test_training_gives_the_auxiliary_logits_too():
    model = models.inception_v3(num_classes=7, in_channels=1, dropout=0)
    x = images(2, 1, 299, 299)
    outputs = model.train()(x)
    assert type(outputs) is InceptionLogits and [t.shape for t in outputs] == [(2, 7)] * 2
    ops.sum(outputs.aux * outputs.aux).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {"Mixed_6e.branch1x1.conv.weight", "AuxLogits.fc.weight"} <= reached
    assert not any(name.startswith(("Mixed_7", "fc")) for name in reached)

    alone = models.inception_v3(num_classes=7, in_channels=1, aux=False, dropout=0)
    alone.load_state_dict({n: a for n, a in model.state_dict().items() if not n.startswith("Aux")})
    assert type(alone.train()(x[:, :, :107, :107])) is Tensor
    assert type(model.eval()(x[:, :, :75, :75])) is Tensor


@pytest.mark.parametrize(
    ("make", "c_out", "grid"),
    [
        (lambda rng: InceptionA(2, 5, rng), 64 + 64 + 96 + 5, (3, 4)),
        (lambda rng: InceptionB(2, rng), 384 + 96 + 2, (1, 1)),
        (lambda rng: PoolFirst(2, rng), 384 + 96 + 2, (1, 1)),
        (lambda rng: PoolLast(2, rng), 384 + 96 + 2, (1, 1)),
        (lambda rng: InceptionC(2, 3, rng), 4 * 192, (3, 4)),
        (lambda rng: InceptionD(2, rng), 320 + 192 + 2, (1, 1)),
        (lambda rng: InceptionE(2, rng), 320 + 2 * 384 + 2 * 384 + 192, (3, 4)),
    ],
    ids=["A", "B", "PoolFirst", "PoolLast", "C", "D", "E"],
)
def test_shape_and_gradient_of_a_module(make, c_out, grid):
    module = rebuilt(make(np.random.default_rng(0))).eval()
    x = normal(1, 2, 3, 4)
    assert module(x).shape == (1, c_out, *grid)
    gradient_check(module, [x])


def test_three_ways_to_shrink_the_grid():
    """The same weights and the same shape of output, at different costs."""
    rng = np.random.default_rng(0)
    ways = [way(288, rng) for way in (InceptionB, PoolFirst, PoolLast)]
    assert len({str(names_and_shapes(way)) for way in ways}) == 1
    costs = [cost(way, (288, 35, 35)) for way in ways]
    assert len({cost.parameters for cost in costs}) == 1
    assert {way(images(1, 288, 35, 35)).shape for way in ways} == {(1, 768, 17, 17)}

    last = 9 * 288 * 384 + 9 * 96 * 96  # multiply-adds a pixel of the convolutions that may stride
    others = 288 * 64 + 9 * 64 * 96
    assert [cost.multiply_adds for cost in costs] == [
        17 * 17 * last + 35 * 35 * others,
        17 * 17 * last + 17 * 17 * others,
        35 * 35 * last + 35 * 35 * others,
    ]
    assert costs[1].multiply_adds < costs[0].multiply_adds < costs[2].multiply_adds / 3


def test_only_pooling_first_loses_what_the_pooling_drops():
    rng = np.random.default_rng(0)
    x = Tensor(np.arange(2.0 * 35 * 35).reshape(1, 2, 35, 35), requires_grad=True)  # each window's largest is its last
    for way, seen in ((PoolFirst, 17 * 17), (InceptionB, 35 * 35), (PoolLast, 35 * 35)):
        module = rebuilt(way(2, rng)).eval()
        y = module(x)
        x.grad = None
        y.backward(normal(*y.shape))
        assert np.count_nonzero(x.grad) == 2 * seen


@pytest.mark.parametrize("C", [1, 4])
def test_any_number_of_channels_and_the_smallest_image(C):
    model = models.inception_v3(num_classes=7, in_channels=C).eval()
    x = Tensor(images(1, C, 75, 80), requires_grad=True)
    with model.frozen():
        y = model(x)
        y.backward(np.ones_like(y.data))
    assert y.shape == (1, 7) and y.dtype == np.float32 and np.isfinite(x.grad).all()
    with pytest.raises(ValueError, match=r"at least 75x75, got 74x90: Mixed_7a\.branch3x3_2\.conv runs out of pixels"):
        model(images(1, C, 74, 90))


def test_an_image_too_small_for_the_auxiliary_head():
    with pytest.raises(ValueError, match=r"at least 299x299, got 128x128: AuxLogits\.conv1\.conv runs out of pixels"):
        models.inception_v3(num_classes=7).train()(images(2, 3, 128, 128))


def test_a_seed_gives_the_same_net_and_another_another():
    a, b, c = (models.inception_v3(num_classes=7, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["Conv2d_1a_3x3.conv.weight"], c["Conv2d_1a_3x3.conv.weight"])


def test_bad_input():
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.inception_v3(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        models.inception_v3(in_channels=0)
    with pytest.raises(ValueError, match=r"dropout: expected a number in \[0, 1\), got -0.1"):
        models.inception_v3(dropout=-0.1)
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(1, 1, 75, 75\)"):
        models.inception_v3(num_classes=2)(images(1, 1, 75, 75))
