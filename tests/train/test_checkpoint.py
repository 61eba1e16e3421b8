"""A checkpoint that is not right changes nothing, and is refused in one sentence that names the file."""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minidl import ops, weights
from minidl.nn import Module
from minidl.optim import SGD, AdamW, Optimizer
from minidl.train import Settings, checkpoint, fit
from minidl.train.loss_scale import LossScale
from tests.train.test_train import SETTINGS, TEST, TRAIN, Net, contents

Damage = Callable[[dict[str, Any]], Any]


def trained(seed: int = 0, bits: type[np.random.BitGenerator] = np.random.PCG64) -> tuple[Module, Optimizer]:
    """A step behind its initial weights, so that everything has a state."""
    model = Net(seed=seed)
    model.dropout.rng = np.random.Generator(bits(seed))
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    ops.cross_entropy(model.train()(TRAIN.images[:8] / np.float32(255)), TRAIN.labels[:8]).backward()
    optimizer.step()
    return model, optimizer


def state_of(model: Module, optimizer: Optimizer) -> dict[str, bytes]:
    arrays = {**model.state_dict(), **optimizer.state_dict()}
    generators = repr([rng.bit_generator.state for rng in model.generators()])
    return {name: a.tobytes() for name, a in arrays.items()} | {"generators": generators.encode()}


def rewritten(path: pathlib.Path, facts: str | None = None, generators: str | None = None, **arrays: Any) -> None:
    """With another word or array, and a digest that agrees."""
    found, words = weights.load_arrays(path)
    words |= {name: text for name, text in (("facts", facts), ("generators", generators)) if text is not None}
    weights.save_arrays(path, found | {name.replace("__", "."): a for name, a in arrays.items()}, words)


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_it_comes_back(tmp_path: pathlib.Path, bits: type[np.random.BitGenerator]) -> None:
    saved, other = trained(0, bits), trained(1, bits)
    facts = {"step": 3, "name": "caf\udce9 $ \u202e"}
    checkpoint.save(tmp_path / "c", *saved, facts)
    assert state_of(*saved) != state_of(*other)
    assert checkpoint.load(tmp_path / "c", *other) == (facts, {})
    assert state_of(*saved) == state_of(*other)


@pytest.mark.parametrize("facts", [{"loss": np.nan}, {"loss": -np.inf}, {"a": np.float32(1)}, {"a": {1}}])
def test_facts_that_json_does_not_hold(tmp_path: pathlib.Path, facts: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="JSON"):
        checkpoint.save(tmp_path / "c", *trained(), facts)
    assert not list(tmp_path.iterdir())


STATE = {"bit_generator": "PCG64", "state": {"state": 1, "inc": 3}, "has_uint32": 0, "uinteger": 0}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"facts": "[" * 100_000}, "its facts are damaged: "),
        ({"facts": "{"}, "its facts are damaged: "),
        ({"facts": "[1]"}, "its facts are damaged: expected a dict, got list"),
        ({"facts": '{"a": NaN}'}, "its facts are damaged: it holds NaN"),
        ({"facts": '{"a": ' + "9" * 5000 + "}"}, "its facts are damaged: "),
        ({"generators": "[" * 100_000}, "its generators are damaged: "),
        ({"generators": "3"}, "its generators are damaged: expected a list, got int"),
        ({"generators": "[]"}, "0 random generators, the model has 1"),
        ({"generators": "[null]"}, "the state of random generator 0 is none of a PCG64"),
        ({"generators": "[[]]"}, "is none of a PCG64"),
        *(
            ({"generators": json.dumps([STATE | wrong])}, "is none of a PCG64")
            for wrong in (
                {"bit_generator": "MT19937"},
                {"state": 3},
                {"state": {"state": 1}},
                {"state": {"state": 1.5, "inc": 3}},
                {"state": {"state": True, "inc": 3}},
                {"state": {"state": -1, "inc": 3}},
                {"state": {"state": 2**128, "inc": 3}},
                {"state": {"state": 1, "inc": 4}},
                {"has_uint32": 2},
                {"uinteger": 2**32},
                {"more": 1},
            )
        ),
        ({"model__conv__weight": np.zeros((1, 2), np.float32)}, "is of another model"),
        ({"optimizer__momentum__0": np.zeros(3, np.float32)}, "is of another model"),
        ({"optimizer__updates": np.full(6, -1)}, "updates: expected counts"),
        ({"optimizer__updates": np.full(6, 2**63, np.uint64)}, "updates: expected counts"),
        ({"optimizer__updates": np.ones(6, bool)}, "updates: expected counts"),
        ({"optimizer__more": np.zeros(3)}, "is of another model"),
        ({"model__more": np.zeros(3)}, "is of another model"),
        ({"more": np.zeros(3)}, r"it holds the arrays \['more'\]"),
    ],
)
def test_what_is_damaged_changes_nothing(tmp_path: pathlib.Path, damage: dict[str, Any], message: str) -> None:
    checkpoint.save(tmp_path / "c", *trained(), {"a": 1})
    rewritten(tmp_path / "c", **damage)
    other = trained(1)
    before = state_of(*other)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(tmp_path / "c", *other)
    assert str(tmp_path / "c") in str(caught.value) and len(str(caught.value)) < 1000
    assert state_of(*other) == before


def test_of_another_optimiser(tmp_path: pathlib.Path) -> None:
    checkpoint.save(tmp_path / "c", *trained(), {})
    model, _ = trained(1)
    optimizer = AdamW(model.parameters(), 0.1)
    before = state_of(model, optimizer)
    with pytest.raises(ValueError, match="is of another model"):
        checkpoint.load(tmp_path / "c", model, optimizer)
    assert state_of(model, optimizer) == before


def test_the_check_of_the_caller_comes_before_any_change(tmp_path: pathlib.Path) -> None:
    checkpoint.save(tmp_path / "c", *trained(), {"a": 1})
    other = trained(1)
    before = state_of(*other)

    def check(facts: dict[str, Any]) -> None:
        raise TypeError(f"a: {facts['a']}")

    with pytest.raises(ValueError, match="c: a: 1"):
        checkpoint.load(tmp_path / "c", *other, check)
    assert state_of(*other) == before


# ---- those of a training


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(Net(), TRAIN, SETTINGS, out, TEST)
    return out


def at(*keys: Any, value: Any) -> Damage:
    def change(facts: dict[str, Any]) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = value

    return change


def without(*keys: Any) -> Damage:
    def change(facts: dict[str, Any]) -> None:
        for key in keys[:-1]:
            facts = facts[key]
        del facts[keys[-1]]

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *((without(name), f"facts: {name} is missing") for name in ("step", "rows", "data", "digests", "settings")),
        (at("more", value=1), "facts: 'more' is unknown"),
        (at("loss_scale", value={}), "facts: 'loss_scale' is unknown"),
        (at("step", value=5), "step: expected 6 after 3 epochs, got 5"),
        (at("step", value=6.0), r"step: expected 6 after 3 epochs, got 6\.0"),
        (at("rows", value=3), "rows: expected 1 to 3, one for each epoch, got 3"),
        (at("rows", value=[]), "rows: expected 1 to 3, one for each epoch, got 0"),
        (at("rows", 0, value=[1]), r"rows\[0\]: expected a mapping of epoch, lr"),
        (at("rows", 1, "epoch", value=3), r"rows\[1\]\.epoch: expected 2, got 3"),
        (at("rows", 1, "lr", value="fast"), r"rows\[1\]\.lr: expected a number in \[0, inf\), got 'fast'"),
        (at("rows", 1, "lr", value=10**400), r"rows\[1\]\.lr: expected a number in \[0, inf\), got 1000"),
        (
            at("rows", 1, "validation_accuracy", value=1.5),
            r"validation_accuracy: expected a number in \[0, 1\], got 1\.5",
        ),
        (at("rows", 1, "validation_auc", value=True), r"rows\[1\]\.validation_auc: expected a number"),
        (without("rows", 2, "train_loss"), r"rows\[2\]: train_loss is missing"),
        (at("rows", 2, "more", value=1), r"rows\[2\]: 'more' is unknown"),
        (lambda facts: facts["rows"].append(facts["rows"][-1]), "rows: expected 1 to 3, one for each epoch, got 4"),
        (at("data", value=[]), "data: expected a mapping of classes"),
        (at("data", "classes", value=["a", "b"]), r"trained on other images or labels: classes was \['a', 'b'\] and now is"),
        (without("data", "mean"), "data: mean is missing"),
        (at("digests", "validation labels", value=3), "trained on other images or labels: the validation labels are others"),
        (at("settings", value=None), "settings: expected a mapping of epochs"),
        (without("settings", "lr"), "settings: lr is missing"),
        (at("settings", "epochs", value=7), "a resumed run keeps its settings, but epochs was 7 and now is 3"),
    ],
)
def test_facts_that_cannot_be(run: pathlib.Path, tmp_path: pathlib.Path, damage: Damage, message: str) -> None:
    for name, content in contents(run).items():
        (tmp_path / name).write_bytes(content)
    _, words = weights.load_arrays(run / "checkpoint.safetensors")
    facts = json.loads(words["facts"])
    damage(facts)
    rewritten(tmp_path / "checkpoint.safetensors", facts=json.dumps(facts))
    before, model = contents(tmp_path), Net(seed=4)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message) as caught:
        fit(model, TRAIN, SETTINGS, tmp_path, TEST, resume=True)
    assert f"{tmp_path / 'checkpoint.safetensors'}: " in str(caught.value) and "\n" not in str(caught.value)
    assert contents(tmp_path) == before
    assert all((a == state[name]).all() for name, a in model.state_dict().items())


@pytest.mark.parametrize(
    "wrong",
    [{}, 3, {"scale": 3.0, "good": 0}, {"scale": np.nan, "good": 0}, {"scale": 0.5, "good": 0}, {"scale": 2, "good": -1},
     {"scale": 2, "good": 2000}, {"scale": 2, "good": 1.5}, {"scale": "2", "good": 1}, {"scale": 10**400, "good": 1}],
)  # fmt: skip
def test_a_loss_scale_that_cannot_be(wrong: Any) -> None:
    scale = LossScale()
    with pytest.raises((TypeError, ValueError), match="expected"):
        scale.load_state_dict(wrong)
    assert scale.state_dict() == {"scale": 2.0**15, "good": 0}
    scale.load_state_dict({"scale": 4, "good": 1999})
    assert scale.state_dict() == {"scale": 4.0, "good": 1999}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("loss_scale"), "facts: loss_scale is missing"),
        (at("loss_scale", value=3), "state of LossScale: expected scale and good, got 3"),
        (at("loss_scale", "scale", value=3.0), r"scale: expected a power of two, got 3\.0"),
        (without("rows", 0, "loss_scale"), r"rows\[0\]: loss_scale is missing"),
    ],
)
def test_the_loss_scale_of_a_run(tmp_path: pathlib.Path, damage: Damage, message: str) -> None:
    settings = replace(SETTINGS, epochs=1, precision="float16")
    fit(Net(), TRAIN, settings, tmp_path, TEST)
    _, words = weights.load_arrays(tmp_path / "checkpoint.safetensors")
    facts = json.loads(words["facts"])
    damage(facts)
    rewritten(tmp_path / "checkpoint.safetensors", facts=json.dumps(facts))
    with pytest.raises(ValueError, match=message):
        fit(Net(), TRAIN, settings, tmp_path, TEST, resume=True)


def test_settings_with_more_or_less_than_there_are(tmp_path: pathlib.Path, run: pathlib.Path) -> None:
    whole = json.loads((run / "settings.json").read_text())
    for wrong, message in (
        ({k: v for k, v in whole.items() if k != "lr"}, "settings: lr is missing"),
        (whole | {"speed": 1}, "settings: 'speed' is unknown"),
        (whole | {"cuda_graph": "yes"}, "cuda_graph: expected True or False, got 'yes'"),
        (whole | {"model": None}, "model: expected a string, got None"),
        (whole | {"lr": float("nan")}, r"lr: expected a number in \(0, inf\), got nan"),
        (whole | {"lr": 10**400}, "lr: expected a number"),
        (whole | {"epochs": True}, "epochs: expected an integer"),
        (None, "settings: expected a mapping of epochs"),
    ):
        (tmp_path / "settings.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=rf"settings\.json is damaged or of another version: {message}"):
            Settings.of_run(tmp_path)
    for raw in (b"[" * 100_000, b"\xff\xfe", b'{"epochs": ' + b"9" * 5000 + b"}"):
        (tmp_path / "settings.json").write_bytes(raw)
        with pytest.raises(ValueError, match=r"settings\.json is damaged or of another version"):
            Settings.of_run(tmp_path)


@pytest.mark.parametrize(
    ("number", "says"), [(None, "an older minidl: .* '1'"), ("2", "an older minidl: .* '2'"), ("4", "another minidl: .* '4'")]
)
def test_another_format_is_told_and_changes_nothing(tmp_path: pathlib.Path, number: str | None, says: str) -> None:
    path = tmp_path / "c"
    checkpoint.save(path, *trained(0), {"step": 3})
    arrays, words = weights.load_arrays(path)
    del words["format"]
    weights.save_arrays(path, arrays, words | ({} if number is None else {"format": number}))
    other = trained(1)
    before = state_of(*other)
    with pytest.raises(ValueError, match=rf"{says}.*this one reads 3; begin a new run"):
        checkpoint.load(path, *other)
    assert state_of(*other) == before
