"""Fused ops against their twins: whole nets, in training and in evaluation, and the switch between them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest

import models
from minidl import Tensor, nn, ops, tape, walk
from minidl.core import Op

NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": models.resnet20,
    "plain20": models.plain20,
    "densenet, k=5, L=13": lambda: models.densenet.cifar(3, 5, False, 10, 3, 0, 0.0),
    "densenet-BC, k=6, L=22": lambda: models.densenet_bc(22, 6),
}


def everything(make: Callable[[], nn.Module], dtype: str) -> list[np.ndarray]:
    """Losses, gradients of image and parameters, and the state after it, in training, in evaluation, and frozen there"""
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((3, 3, 12, 16)).astype(dtype), np.array([0, 3, 9])
    model = make().to(dtype=dtype)
    for p in model.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape).astype(dtype)  # batch norms that are not as they began
    found: list[np.ndarray] = []
    for mode in (True, False):
        image = Tensor(x, requires_grad=True)
        loss = ops.cross_entropy(model.train(mode)(image), labels)
        loss.backward()
        found += [loss.data, image.grad, *(p.grad for p in model.parameters()), *model.state_dict().values()]
    with model.frozen():
        image = Tensor(x, requires_grad=True)
        loss = ops.cross_entropy(model(image), labels)
        loss.backward()
    return [*found, loss.data, image.grad]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-11), ("float32", 2e-3)])
def test_a_net_computes_the_same_fused_or_not(net: str, dtype: str, tolerance: float) -> None:
    fused = everything(NETS[net], dtype)
    with ops.unfused():
        unfused = everything(NETS[net], dtype)
    for a, b in zip(fused, unfused, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-3, float(np.abs(b).max())))


def test_a_dense_block_of_one_value_a_channel_has_no_variance() -> None:
    block = models.densenet.DenseBlock(models.densenet.DenseLayer, 1, 3, 5, 0.0, np.random.default_rng(0))
    x = Tensor(np.ones((1, 3, 1, 1), np.float32))
    for how in ops.unfused(), nullcontext():
        with how, pytest.raises(ValueError, match=r"x: one value per channel has no variance, got shape \(1, 3, 1, 1\)"):
            block(x)
    assert block.eval()(x).shape == (1, 8, 1, 1)


def kinds(make: Callable[[], nn.Module]) -> set[type[Op]]:
    return {type(op) for op in tape(make()(np.ones((2, 3, 8, 8), np.float32)))}


def test_the_switch() -> None:
    names = {"BatchNormReLU", "BatchNormFrozenReLU", "Conv2dReLU", "DenseBlock"}
    for make in NETS.values():
        assert ops.fusing() and names & {kind.__name__ for kind in kinds(make)}
        with ops.unfused():
            assert not ops.fusing() and not names & {kind.__name__ for kind in kinds(make)}
            with pytest.raises(ZeroDivisionError), ops.unfused():
                raise ZeroDivisionError
            assert not ops.fusing()
        assert ops.fusing()


def test_dense_block_refuses_what_it_does_not_compute() -> None:
    x = Tensor(np.ones((2, 3, 8, 8), np.float32))
    for conv in (nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(3, 4, 3, 2, padding=1, bias=False)):
        with pytest.raises(ValueError, match=r"layers: expected convolutions without bias .*Conv2d\(3, 4"):
            nn.dense_block(x, [[(nn.BatchNorm2d(3), conv)]])
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    other = nn.Conv2d(7, 4, 3, padding=1, bias=False)
    with pytest.raises(ValueError, match="one mode and eps"):
        nn.dense_block(x, [[(nn.BatchNorm2d(3), conv)], [(nn.BatchNorm2d(7).eval(), other)]])


def test_a_dropout_in_a_dense_layer_is_not_skipped() -> None:
    model = models.densenet.cifar(2, 4, False, 10, 3, 0, 0.5)
    assert "Dropout" in {kind.__name__ for kind in kinds(lambda: model)}


def test_a_frozen_dense_block_computes_no_gradient_of_its_weights() -> None:
    model = models.densenet_bc(16, 4).eval()
    x = Tensor(np.ones((2, 3, 8, 8), np.float32), requires_grad=True)
    with model.frozen():
        y = ops.sum(model(x))
    blocks = [step for step in walk(y, leaves={}) if type(step.op).__name__ == "DenseBlock"]
    assert len(blocks) == 3
    assert all(step.gxs[0] is not None and set(map(type, step.gxs[3::3])) == {type(None)} for step in blocks)
