from functools import partial

import numpy as np
import pytest

import models
from minidl import Tensor, kernels, nn, ops
from minidl.analysis import watch
from minidl.check import gradient_check
from models.googlenet import AuxiliaryHead, GoogLeNetLogits, Inception, LocalResponseNorm, NaiveInception, Widths
from tests.models.reference import (
    KERNELS,
    check_figures,
    check_float32,
    check_gradients,
    check_names,
    count,
    names_and_shapes,
    rebuilt,
)

TABLE_1 = {  # channels of the 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
OUTPUTS = {  # the column "output size"
    "conv1": (64, 112, 112),
    "maxpool1": (64, 56, 56),
    "conv3": (192, 56, 56),
    "maxpool2": (192, 28, 28),
    "inception3a": (256, 28, 28),
    "inception3b": (480, 28, 28),
    "maxpool3": (480, 14, 14),
    "inception4a": (512, 14, 14),
    "inception4b": (512, 14, 14),
    "inception4c": (512, 14, 14),
    "inception4d": (528, 14, 14),
    "inception4e": (832, 14, 14),
    "maxpool4": (832, 7, 7),
    "inception5a": (832, 7, 7),
    "inception5b": (1024, 7, 7),
}
NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


def images(*shape):
    return normal(*shape).astype(np.float32)


def by_hand(naive, paper):
    """Parameters without auxiliary heads, for 1000 classes. A convolution has a bias, or a batch norm of two parameters."""
    five = 25 if paper else 9

    def conv(c_in, c_out, pixels):
        return c_in * c_out * pixels + (c_out if paper else 2 * c_out)

    total, c = conv(3, 64, 49) + conv(64, 64, 1) + conv(64, 192, 9), 192
    for one, r3, three, r5, fives, pool in TABLE_1.values():
        if naive:
            total += conv(c, one, 1) + conv(c, three, 9) + conv(c, fives, five)
            c = one + three + fives + c
        else:
            total += conv(c, one, 1) + conv(c, r3, 1) + conv(r3, three, 9) + conv(c, r5, 1) + conv(r5, fives, five)
            total += conv(c, pool, 1)
            c = one + three + fives + pool
    return total + c * 1000 + 1000


def test_parameters_are_the_published_ones():
    assert count(models.googlenet()) == 13_004_888
    assert count(models.googlenet(aux=False)) == by_hand(naive=False, paper=False) == 6_624_904
    assert count(models.googlenet(paper=True)) == 13_378_280
    assert count(models.googlenet(paper=True, aux=False)) == by_hand(naive=False, paper=True) == 6_998_552


@pytest.mark.ci
@pytest.mark.parametrize("paper", [False, True])
def test_the_naive_modules_cost_ten_times_as_much(paper):
    model = models.googlenet(module="naive", paper=paper, aux=False)
    assert count(model) == by_hand(naive=True, paper=paper) > 10 * by_hand(naive=False, paper=paper)
    assert count(model) == (97_526_008 if paper else 70_300_872)
    assert model.fc.weight.shape == (1000, 4944)
    assert all(type(getattr(model, name)) is NaiveInception for name in TABLE_1)


def test_names_are_those_of_torchvision():
    state = names_and_shapes(models.googlenet(num_classes=7))
    names = [name for name, _ in state]
    assert names[:7] == ["conv1.conv.weight", *(f"conv1.bn.{n}" for n in NORM), "conv2.conv.weight"]
    branches = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
    module = [f"inception3a.{b}.{n}" for b in branches for n in ("conv.weight", *(f"bn.{n}" for n in NORM))]
    assert names[18 : 18 + 36] == module
    heads = [*(f"conv.bn.{n}" for n in NORM), "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert names[-22:-2] == [f"{aux}.{n}" for aux in ("aux1", "aux2") for n in ("conv.conv.weight", *heads)]
    assert state[-2:] == [("fc.weight", (7, 1024)), ("fc.bias", (7,))]
    assert dict(state)["inception4e.branch3.1.conv.weight"] == (128, 32, 3, 3)
    assert len(state) == 364
    assert models.googlenet(num_classes=7).inception3a.branch2[1].bn.weight.name == "inception3a.branch2.1.bn.weight"
    without = names_and_shapes(models.googlenet(num_classes=7, aux=False))
    assert without == [(name, shape) for name, shape in state if not name.startswith("aux")]


def test_names_and_shapes_are_the_published_ones():
    check_names(models.googlenet(dropout=0, aux_dropout=0), "googlenet")


@pytest.mark.parametrize("kernel", KERNELS)
def test_published_figures(kernel):
    with kernels.use(kernel):
        check_figures(models.googlenet(dropout=0, aux_dropout=0), "googlenet", 0.3)


@pytest.mark.ci
@pytest.mark.parametrize("kernel", KERNELS)
def test_published_figures_in_float32(kernel):
    with kernels.use(kernel):
        check_float32(partial(models.googlenet, dropout=0, aux_dropout=0), "googlenet", 0.3)


@pytest.mark.parametrize("paper", [False, True])
def test_the_grid_shrinks_as_in_table_1(paper):
    seen = {}
    model = models.googlenet(num_classes=7, paper=paper)
    with watch(model.eval(), after=lambda name, y: seen.update({name: y.shape[1:]})):
        model(images(1, 3, 224, 224))
    assert {name: seen[name] for name in OUTPUTS} == OUTPUTS


def test_the_paper_has_5x5_local_response_norm_and_no_batch_norm():
    ours, published = models.googlenet(num_classes=2, paper=True), models.googlenet(num_classes=2)
    assert all(getattr(ours, name).branch3[1].conv.weight.shape[2:] == (5, 5) for name in TABLE_1)
    assert all(getattr(published, name).branch3[1].conv.weight.shape[2:] == (3, 3) for name in TABLE_1)
    kinds = [{type(m) for m in model.modules()} for model in (ours, published)]
    assert [nn.BatchNorm2d in k for k in kinds] == [False, True]
    assert [LocalResponseNorm in k for k in kinds] == [True, False]
    assert ours.conv1.conv.bias is not None and published.conv1.conv.bias is None


def test_training_gives_the_auxiliary_logits_too():
    model = models.googlenet(num_classes=7, in_channels=1, dropout=0, aux_dropout=0)
    x = images(2, 1, 64, 64)
    outputs = model.train()(x)
    assert type(outputs) is GoogLeNetLogits
    logits, aux1, aux2 = outputs
    assert [t.shape for t in outputs] == [(2, 7)] * 3

    ops.sum(aux1 * aux1).backward(keep_graph=True)
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert "inception4a.branch1.conv.weight" in reached and "aux1.fc2.weight" in reached
    assert not any(name.startswith(("inception4b", "aux2", "fc")) for name in reached)
    ops.sum(aux2 * aux2).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert "inception4d.branch1.conv.weight" in reached and "aux2.fc2.weight" in reached
    assert not any(name.startswith(("inception4e", "fc")) for name in reached)

    alone = models.googlenet(num_classes=7, in_channels=1, aux=False, dropout=0)
    alone.load_state_dict({n: a for n, a in model.state_dict().items() if not n.startswith("aux")})
    assert np.array_equal(alone.train()(x).data, logits.data)
    assert type(model.eval()(x)) is Tensor


def test_dropout():
    def p(**options):
        return [m.p for m in models.googlenet(num_classes=2, **options).modules() if isinstance(m, nn.Dropout)]

    assert p() == [0.7, 0.7, 0.2]
    assert p(paper=True) == [0.7, 0.7, 0.4]
    assert p(paper=True, dropout=0, aux_dropout=0.1) == [0.1, 0.1, 0]
    assert p(aux=False, dropout=0.5) == [0.5]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("module", "channels"), [(Inception, 1 + 3 + 2 + 1), (NaiveInception, 1 + 3 + 2 + 2)])
def test_a_module_stacks_its_branches(module, channels, norm):
    made = rebuilt(module(2, Widths(1, 2, 3, 1, 2, 1), 5, norm, np.random.default_rng(0))).eval()
    x = Tensor(normal(2, 2, 6, 5))
    y = made(x).data
    assert y.shape == (2, channels, 6, 5) and made.c_out == channels
    parts = [branch(x).data for branch in (made.branch1, made.branch2, made.branch3, made.branch4)]
    assert np.array_equal(y, np.concatenate(parts, axis=1))
    if module is NaiveInception:
        assert np.array_equal(parts[3], ops.max_pool2d(x, 3, 1, 1).data)


@pytest.mark.parametrize(("norm", "five"), [(True, 3), (False, 5)])  # as published, as in the paper
@pytest.mark.parametrize("module", [Inception, NaiveInception])
def test_gradients_of_a_module(module, norm, five):
    made = module(2, Widths(1, 2, 2, 1, 2, 1), five, norm, np.random.default_rng(0))
    check_gradients(rebuilt(made), normal(2, 2, 3, 3))


def test_gradients_of_an_auxiliary_head():
    head = rebuilt(AuxiliaryHead(1, 3, 0.0, False, np.random.default_rng(0)))
    gradient_check(head, [normal(1, 1, 2, 3)])


def test_the_heads_of_the_paper_pool_14x14_with_windows_of_5x5():
    head = AuxiliaryHead(1, 3, 0.0, True, np.random.default_rng(0))
    x = np.arange(14 * 14, dtype=np.float32).reshape(1, 1, 14, 14)
    assert head(x).shape == (1, 3)
    assert head.pool(x).data[0, 0, 3, 1] == x[0, 0, 9:14, 3:8].mean()
    outputs = models.googlenet(num_classes=2, paper=True).train()(images(1, 3, 224, 224))
    assert [t.shape for t in outputs] == [(1, 2)] * 3


def test_local_response_norm_is_its_formula():
    x = normal(2, 7, 3, 4) * 30
    norm, y = LocalResponseNorm(), np.empty_like(x)
    for c in range(7):
        near = x[:, max(c - 2, 0) : c + 3]
        y[:, c] = x[:, c] / (1 + 1e-4 / 5 * (near**2).sum(axis=1)) ** 0.75
    assert np.allclose(norm(x).data, y, rtol=1e-12, atol=0)
    assert np.abs(y / x).min() < 0.96  # it does something to values of this size
    check_gradients(LocalResponseNorm(alpha=1.0), normal(2, 6, 2, 2))


@pytest.mark.parametrize(
    ("C", "module", "paper", "smallest"),
    [(1, "reduced", False, 15), (4, "reduced", True, 31), (4, "naive", False, 15)],
)
def test_any_number_of_channels_and_the_smallest_image(C, module, paper, smallest):
    model = models.googlenet(num_classes=7, in_channels=C, module=module, paper=paper, aux=False).eval()
    x = Tensor(images(2, C, smallest, smallest), requires_grad=True)
    with model.frozen():
        y = model(x)
        y.backward(np.ones_like(y.data))
    assert y.shape == (2, 7) and y.dtype == np.float32 and np.isfinite(x.grad).all()
    with pytest.raises(ValueError, match=rf"at least {smallest}x{smallest}, got {smallest - 1}x50: maxpool[34] runs out"):
        model(images(1, C, smallest - 1, 50))


def test_a_seed_gives_the_same_net_and_another_another():
    a, b, c = (models.googlenet(num_classes=7, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    assert not np.array_equal(a["conv1.conv.weight"], c["conv1.conv.weight"])


def test_bad_input():
    with pytest.raises(ValueError, match=r"module: expected one of \('naive', 'reduced'\), got 'b'"):
        models.googlenet(module="b")
    with pytest.raises(ValueError, match="num_classes: expected an integer of at least 1, got 0"):
        models.googlenet(num_classes=0)
    with pytest.raises(ValueError, match="in_channels: expected an integer of at least 1, got 0"):
        models.googlenet(in_channels=0)
    with pytest.raises(ValueError, match=r"dropout: expected a number in \[0, 1\), got 1"):
        models.googlenet(dropout=1)
    with pytest.raises(ValueError, match=r"x: expected images of 3 channels, \(N,3,H,W\), got \(1, 1, 32, 32\)"):
        models.googlenet(num_classes=2)(images(1, 1, 32, 32))
