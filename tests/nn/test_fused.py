"""Convolutions computed together with what follows them, against the layers called one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Tensor, gradients, nn, no_grad, ops, tape
from minidl.analysis import watch
from minidl.nn import fused


def layers(
    rng: np.random.Generator, c_in: int, c_out: int, kernel: int = 3, bias: bool = False, **more: Any
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and a norm in evaluation, in float64, none of whose numbers is what it was at first"""
    conv, norm = nn.Conv2d(c_in, c_out, kernel, bias=bias, rng=rng, **more), nn.BatchNorm2d(c_out, eps=1e-3).eval()
    for module in conv, norm:
        module.to(dtype="float64")
        for p in module.parameters():
            p.data += 0.3 * rng.standard_normal(p.shape)
    norm.running_mean, norm.running_var = rng.standard_normal(c_out), rng.uniform(0.5, 2, c_out)
    return conv, norm


def frozen(*modules: nn.Module) -> None:
    for module in modules:
        for p in module.parameters():
            p.requires_grad = False


def kinds(y: Tensor) -> list[str]:
    """The ops behind y, oldest first"""
    return [type(op).__name__ for op in tape(y)[::-1]]


def check(x: np.ndarray, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, residual: np.ndarray | None, relu: bool) -> None:
    """Fused and not: y, and the gradients of x and of the residual for a random one of y"""
    found, gy = [], None
    for one_by_one in (True, False):
        inputs = [Tensor(a, requires_grad=True) for a in (x, residual) if a is not None]

        def function(x: Tensor, r: Tensor | None = None) -> Tensor:
            return nn.conv_relu(x, conv, norm, r) if relu else nn.conv_norm(x, conv, norm)

        if one_by_one:
            with ops.unfused():
                y = function(*inputs)
        else:
            y = function(*inputs)
            assert kinds(y) == ["Conv2dReLU" if relu else "Conv2d"]
        gy = np.random.default_rng(1).standard_normal(y.shape) if gy is None else gy
        found.append([y.data, *gradients(y, inputs, gy)])
    for want, got in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(1, np.abs(want).max()))


geometries = st.fixed_dictionaries({
    "kernel": st.sampled_from((1, 3, (1, 7), (2, 3))),
    "stride": st.integers(1, 2),
    "padding": st.integers(0, 2),
    "dilation": st.integers(1, 2),
})  # fmt: skip


@given(geometries, st.integers(1, 3), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_folded_norm_computes_the_same(
    geometry: dict[str, Any], groups: int, bias: bool, residual: bool, normed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    conv, norm = layers(rng, 2 * groups, groups, bias=bias, groups=groups, **geometry)
    frozen(conv, norm)
    x = rng.standard_normal((2, 2 * groups, 13, 15))
    r = rng.standard_normal(conv(Tensor(x)).shape) if residual else None
    check(x, conv, norm if normed else None, r, relu=True)
    if r is None:
        check(x, conv, norm, None, relu=False)


@pytest.mark.parametrize("forgotten", ["running_mean", "running_var", "bias of the convolution", "weight", "bias"])
def test_a_wrong_fold_is_noticed(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    conv, norm = layers(np.random.default_rng(0), 3, 4, bias=True)
    frozen(conv, norm)
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 9))
    check(x, conv, norm, None, relu=True)

    def without(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
        other_conv, other = layers(np.random.default_rng(0), 3, 4, bias=True)
        if forgotten == "bias of the convolution":
            other_conv.bias = None
        elif forgotten.startswith("running"):
            setattr(other, forgotten, np.full(4, float(forgotten == "running_var")))
        else:
            getattr(other, forgotten).data = np.full(4, float(forgotten == "weight"))
        return fuse_conv_bn(other_conv, other)

    fuse_conv_bn = fused.fuse_conv_bn
    monkeypatch.setattr(fused, "fuse_conv_bn", without)
    with pytest.raises(AssertionError):
        check(x, conv, norm, None, relu=True)


def test_nothing_is_folded_that_trains() -> None:
    conv, norm = layers(np.random.default_rng(0), 3, 4, bias=True)
    frozen(conv, norm)
    x = np.random.default_rng(1).standard_normal((2, 3, 9, 9))
    for p in (conv.weight, conv.bias, norm.weight, norm.bias):
        assert p is not None
        p.requires_grad, found = True, []
        for y in nn.conv_relu(Tensor(x), conv, norm), nn.conv_norm(Tensor(x), conv, norm), norm.relu(conv(Tensor(x))):
            found.append(gradients(y, [p], np.ones_like(y.data))[0])
            assert kinds(y)[-1].startswith("BatchNormFrozen")
        np.testing.assert_array_equal(found[0], found[2])
        with no_grad():
            assert fused.can_fuse(Tensor(x), conv, norm)
        p.requires_grad = False
    image = Tensor(x, requires_grad=True)
    assert kinds(nn.conv_relu(image, conv, norm)) == ["Conv2dReLU"]
    assert kinds(nn.conv_relu(image, conv, norm.train())) == ["Conv2d", "BatchNormReLU"]
    with ops.unfused():
        assert kinds(nn.conv_relu(image, conv, norm.eval())) == ["Conv2d", "BatchNormFrozen", "ReLU"]


def test_nothing_is_folded_where_there_are_more_weights_than_pixels() -> None:
    conv, norm = layers(np.random.default_rng(0), 4, 8)
    frozen(conv, norm)
    x = np.random.default_rng(1).standard_normal((2, 4, 6, 6))  # 288 numbers, and 288 weights
    assert kinds(nn.conv_relu(Tensor(x, requires_grad=True), conv, norm)) == ["Conv2dReLU"]
    assert kinds(nn.conv_relu(Tensor(x[:, :, 1:], requires_grad=True), conv, norm)) == ["Conv2d", "BatchNormFrozenReLU"]


def test_the_image_and_one_array_are_kept() -> None:
    conv, norm = layers(np.random.default_rng(0), 3, 4)
    frozen(conv, norm)
    x = Tensor(np.random.default_rng(1).standard_normal((2, 3, 9, 9)), requires_grad=True)
    y = nn.conv_relu(x, conv, norm)
    large = {id(a): a for a in vars(y.op).values() if isinstance(a, np.ndarray) and a.size >= y.size}
    assert {id(x.data), id(y.data)} == set(large) and y.op is not None and y.op.inputs[0] is x


class Twice(nn.ReLU):
    """A relu that is another function"""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_sequence_takes_convolutions_with_what_follows() -> None:
    rng = np.random.default_rng(0)
    pairs = [layers(rng, 3, 3, padding=1, bias=True) for _ in range(4)]
    (a, norm_a), (b, _), (c, norm_c), (d, norm_d) = pairs
    net = nn.Sequential(
        a, norm_a, nn.ReLU(), b, nn.ReLU(), c, norm_c, nn.MaxPool2d(2), norm_d, nn.ReLU(), d, norm_d, Twice(), d, Twice(), c
    ).eval()
    x = rng.standard_normal((2, 3, 12, 12))
    for net.training in (True, False):
        net.train(net.training)
        with net.frozen(), no_grad():
            together = net(x).data
            with ops.unfused():
                one_by_one = net(x).data
        np.testing.assert_allclose(together, one_by_one, rtol=0, atol=1e-11 * np.abs(one_by_one).max())
    with net.frozen():
        y = net(Tensor(x, requires_grad=True))
    assert kinds(y) == [
        "Conv2dReLU", "Conv2dReLU", "Conv2d", "MaxPool2d", "BatchNormFrozen", "ReLU", "Conv2d", "ReLU", "Mul", "Conv2d", "ReLU",
        "Mul", "Conv2d",
    ]  # fmt: skip
    seen: list[str] = []
    with watch(net, after=lambda name, y: seen.append(name)):
        net(x)
    assert seen == [*map(str, range(11)), "8", "12", "10", "14", "5", ""]  # every call, under the first name of each module
