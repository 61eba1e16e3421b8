"""A training that begins with published weights: what is loaded and told, what stays, and what learns more slowly."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import models
from minidl import Tensor, nn, ops, weights
from minidl.array import Array
from minidl.data import lesions
from minidl.nn import Module
from minidl.train import Settings, fit, start_from
from minidl.train.transfer import frozen_layers, heads, parameter_groups, still
from tests.train.test_train import SETTINGS, TRAIN, Net

FEW = lesions(16, seed=0)
SHORT = Settings(epochs=1, batch_size=8, lr=0.01, crop=0, flip="none")


def file_of(model: Module, path: pathlib.Path, **more: Array) -> tuple[str, dict[str, Array]]:
    state = model.state_dict()
    weights.save_arrays(path, state | more)
    return str(path), state


# ---- what is loaded


def test_a_head_for_other_classes_and_channels_is_told_and_replaced(tmp_path: pathlib.Path) -> None:
    path, state = file_of(models.resnet18(num_classes=10, seed=3), tmp_path / "w.safetensors")
    model = models.resnet18(num_classes=2, in_channels=1)
    before = model.fc.weight.data.copy()
    told = start_from(model, path)
    assert told == [
        f"{path}: fc answers 10 classes in the file and 2 in this net: it begins anew",
        f"{path}: conv1.weight takes 3 channels in the file and 1 in this net: its weights are shared out",
    ]
    np.testing.assert_array_equal(model.fc.weight.data, before)
    np.testing.assert_allclose(model.conv1.weight.data[:, 0], state["conv1.weight"].sum(1), atol=1e-6)
    np.testing.assert_array_equal(model.layer3.state_dict()["0.conv1.weight"], state["layer3.0.conv1.weight"])


def test_weights_that_fit_are_told_with_their_head(tmp_path: pathlib.Path) -> None:
    path, state = file_of(models.resnet8(2, seed=3), tmp_path / "w.safetensors")
    model = models.resnet8(2)
    assert start_from(model, path) == [f"{path}: all its weights are taken as they are, the head, too"]
    assert all((a == state[name]).all() for name, a in model.state_dict().items())


def test_weights_of_another_net_change_nothing(tmp_path: pathlib.Path) -> None:
    path, _ = file_of(models.resnet8(10), tmp_path / "w.safetensors", odd=np.zeros(3))
    model = models.resnet8(2)
    before = model.state_dict()
    with pytest.raises(ValueError, match="another model"):
        start_from(model, path)
    with pytest.raises(ValueError, match=r"w\.safetensors"):
        start_from(models.resnet20(2), path)
    with pytest.raises(FileNotFoundError):
        start_from(model, tmp_path / "none")
    assert all((a == before[name]).all() for name, a in model.state_dict().items())


@pytest.mark.ci
def test_auxiliary_heads_in_or_out(tmp_path: pathlib.Path) -> None:
    path, state = file_of(models.inception_v3(num_classes=7), tmp_path / "with.safetensors")
    told = start_from(model := models.inception_v3(num_classes=2, aux=False), path)
    assert [t.removeprefix(f"{path}: ").split(":")[0] for t in told] == [
        "fc answers 7 classes in the file and 2 in this net", "AuxLogits of the file is left out"
    ]  # fmt: skip
    assert (model.Conv2d_1a_3x3.conv.weight.data == state["Conv2d_1a_3x3.conv.weight"]).all()
    with_heads = models.inception_v3(num_classes=2)
    assert heads(with_heads) == ["AuxLogits.fc", "fc"]
    told = start_from(with_heads, path)
    assert [t.removeprefix(f"{path}: ").split(" ")[0] for t in told] == ["AuxLogits.fc", "fc"]
    assert (with_heads.AuxLogits.conv0.conv.weight.data == state["AuxLogits.conv0.conv.weight"]).all()
    path, state = file_of(models.inception_v3(num_classes=2, aux=False), tmp_path / "without.safetensors")
    assert start_from(with_heads, path) == [f"{path}: AuxLogits is not in the file: it begins anew"]
    assert heads(models.googlenet(5)) == ["aux1.fc2", "aux2.fc2", "fc"]


def test_names_of_the_published_densenets(tmp_path: pathlib.Path) -> None:
    """In which norm1 is norm.1."""
    state = models.densenet40_12(seed=3).state_dict()
    published = {name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): a for name, a in state.items()}
    assert published.keys() != state.keys()
    weights.save_arrays(tmp_path / "w", published)
    mine = models.densenet40_12()
    start_from(mine, tmp_path / "w")
    assert all((a == state[name]).all() for name, a in mine.state_dict().items())


# ---- what stays, and what learns more slowly


@pytest.mark.parametrize("net", [models.resnet8, models.densenet40_12])
def test_frozen_layers_stay_to_the_bit_and_their_batch_norms_evaluate(net: Any, tmp_path: pathlib.Path) -> None:
    model = net(2)
    layers = [name for name, _ in model.named_children()]
    first = ("conv1", "bn1", "layer1") if "layer1" in layers else ("features",)
    before = model.state_dict()
    fit(model, FEW, replace(SHORT, freeze=first), tmp_path)
    changed = {name for name, a in model.state_dict().items() if not (a == before[name]).all()}
    stays = {name for name in before if any(name.startswith(f"{layer}.") for layer in first)}
    assert stays and not changed & stays and changed == before.keys() - stays
    assert model.training  # and may be trained on as ever
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_batch_norm_takes_its_running_statistics() -> None:
    model, x = Net().train(), Tensor(np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32))
    in_training = model.bn(model.conv(x)).data
    model.bn.running_mean[...], model.bn.running_var[...] = 0, 1
    with still([model.bn]):
        np.testing.assert_allclose(model.bn(model.conv(x)).data, model.conv(x).data, rtol=1e-4)
        ops.sum(model.bn(model.conv(x))).backward()
    assert model.bn.weight.grad is None and model.conv.weight.grad is not None
    assert np.abs(in_training - model.conv(x).data).max() > 0.1


def test_body_lr_is_that_of_all_but_the_head(tmp_path: pathlib.Path) -> None:
    settings = replace(SETTINGS, body_lr=0.1, lr=0.2)
    model = Net()
    rates = {p.name: group.get("lr", 0.2) for group in parameter_groups(model, settings) for p in group["params"]}
    assert rates == {name: 0.2 if name.startswith("linear") else pytest.approx(0.02) for name, _ in model.named_parameters()}
    model = Net()
    before = model.state_dict()
    fit(model, TRAIN, replace(SETTINGS, body_lr=0.0, weight_decay=0.1), tmp_path)
    moved = {name for name, p in model.named_parameters() if not (p.data == before[name]).all()}
    assert moved == {"linear.weight", "linear.bias"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_optimizers_learn(optimizer: str, tmp_path: pathlib.Path) -> None:
    labels = np.arange(64) % 2
    images = (np.random.default_rng(0).integers(0, 100, (64, 3, 16, 16)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    d = type(TRAIN)(images, labels, ("dark", "light"))
    rows = fit(Net(), d, replace(SETTINGS, epochs=8, lr=0.05, optimizer=optimizer), tmp_path, d)
    assert rows[-1]["validation_accuracy"] > 0.9


def test_what_cannot_be_frozen_or_slowed(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="freeze: expected layers of the net, such as 'conv', 'bn', 'dropout', 'linear', got"):
        fit(Net(), TRAIN, replace(SETTINGS, freeze=("layer1",)), tmp_path / "run")
    with pytest.raises(ValueError, match="is all that the net has, nothing would be trained"):
        fit(Net(), TRAIN, replace(SETTINGS, freeze=("conv", "bn", "linear")), tmp_path / "run")
    with pytest.raises(ValueError, match=r"body_lr: 0\.1, but the net has no linear layer"):
        parameter_groups(nn.Sequential(nn.Conv2d(3, 2, 3)), replace(SETTINGS, body_lr=0.1))
    with pytest.raises(TypeError, match=r"freeze: expected the names of layers, such as \('layer1',\), got 'conv'"):
        Settings(freeze="conv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key, prefix: they say which entries of a file are the weights; set weights"):
        Settings(prefix="module.")
    assert not (tmp_path / "run").exists()
    assert len(frozen_layers(models.resnet8(2), ["layer1.0"])) == 1


# ---- auxiliary heads


class TwoHeads(Net):
    auxiliary_weight = 0.25

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return (y, -y) if self.training else y


def test_auxiliary_heads_are_trained_with_their_weight(tmp_path: pathlib.Path) -> None:
    from minidl.train.loss import Loss

    z = Tensor(np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32))
    labels = np.array([0, 1, 0, 1, 1])
    expected = ops.cross_entropy(z, labels).item() + 0.25 * ops.cross_entropy(-z, labels).item()
    assert Loss(TwoHeads())((z, -z), labels).item() == pytest.approx(expected, rel=1e-6)
    rows = fit(TwoHeads(), TRAIN, replace(SETTINGS, epochs=1), tmp_path / "run", TRAIN)
    assert rows[0]["train_loss"] > rows[0]["validation_loss"]
    with pytest.raises(ValueError, match="Net returns 2 heads, expected it to have an auxiliary_weight"):
        Loss(Net())((z, -z), labels)
