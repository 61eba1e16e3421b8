"""Runs that judge and keep the moving average of the weights."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import numpy as np
import pytest

from minidl import nn, weights
from minidl.inference import evaluate
from minidl.train import Settings, evaluate_run, fit
from tests.parallel.ranks import on_ranks
from tests.train.test_train import SETTINGS, TEST, TRAIN, BreaksAt, Net, load_own, read, same_run, without_times

AVERAGED = replace(SETTINGS, ema=0.8)


class Plain(Net):
    """Without dropout, of which several ranks would draw the same for other images."""

    def __init__(self) -> None:
        super().__init__()
        del self.dropout
        self.dropout = nn.Sequential()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "averaged"
    fit(Net(), TRAIN, AVERAGED, out, TEST)
    return out


def test_what_is_judged_and_kept_is_the_average(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = Net()
    plain = fit(model, TRAIN, SETTINGS, tmp_path, TEST)
    rows = read(whole)
    assert [row["train_loss"] for row in rows] == [row["train_loss"] for row in plain]  # the training is the same
    assert [row["validation_loss"] for row in rows] != [row["validation_loss"] for row in plain]
    arrays, _ = weights.load_arrays(whole / "checkpoint.safetensors")
    kept, _ = weights.load_arrays(whole / "model.safetensors")
    for name, a in kept.items():
        assert np.array_equal(a, arrays[f"average.weights.{name}"])
        assert np.array_equal(model.state_dict()[name], arrays[f"model.{name}"])
    net, contract = load_own(whole)
    loss, _, _ = evaluate(net, TEST, 16, contract.normalize, contract.test_flips)
    assert loss == pytest.approx(rows[-1]["validation_loss"], rel=1e-6)
    assert arrays["average.steps"] == 6


def test_the_model_ends_with_the_weights_that_are_kept(tmp_path: pathlib.Path) -> None:
    for select in ("last", "loss"):
        model, out = Net(), tmp_path / select
        fit(model, TRAIN, replace(AVERAGED, select=select), out, TEST)
        kept, _ = weights.load_arrays(out / "model.safetensors")
        assert all(np.array_equal(a, kept[name]) for name, a in model.state_dict().items())
        found = evaluate_run(out, {"Net": lambda num_classes, in_channels: Net(num_classes)}, TEST)
        best = min(read(out), key=lambda row: row["validation_loss"]) if select == "loss" else read(out)[-1]
        assert found["loss"] == pytest.approx(best["validation_loss"], rel=1e-6)


@pytest.mark.parametrize("at", [3, 4, 6])
def test_resumed_bit_for_bit(whole: pathlib.Path, tmp_path: pathlib.Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(BreaksAt(at, "interrupt"), TRAIN, AVERAGED, tmp_path, TEST)
    assert without_times(read(tmp_path)) == without_times(read(whole))[: (at - 1) // 2]
    fit(Net(seed=9), TRAIN, AVERAGED, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path)


def test_a_run_that_is_done_is_published_again(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("settings.json", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    fit(Net(seed=3), TRAIN, AVERAGED, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path)


def test_a_resumed_run_keeps_its_average(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"ema was 0\.8 and now is 0\.0"):
        fit(Net(), TRAIN, SETTINGS, whole, TEST, resume=True)
    arrays, words = weights.load_arrays(whole / "checkpoint.safetensors")
    (tmp_path / "settings.json").write_bytes((whole / "settings.json").read_bytes())
    without = {name: a for name, a in arrays.items() if not name.startswith("average.")}
    weights.save_arrays(tmp_path / "checkpoint.safetensors", without, words)
    model = Net(seed=4)
    before = model.state_dict()
    with pytest.raises(ValueError, match=r"of another model. state of WeightAverage: .*\n  steps: missing"):
        fit(model, TRAIN, AVERAGED, tmp_path, TEST, resume=True)
    assert all(np.array_equal(a, before[name]) for name, a in model.state_dict().items())


def test_decays_that_cannot_be() -> None:
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"ema: expected .*\[0, 1\)"):
            Settings(ema=wrong)


def test_ranks_have_one_average(tmp_path: pathlib.Path) -> None:
    settings = replace(AVERAGED, epochs=2, sync_batch_norm=True)
    alone = fit(Plain(), TRAIN, settings, tmp_path / "alone", TEST)
    rows = on_ranks(2, lambda world: fit(Plain(), TRAIN, settings, tmp_path / "ranks", TEST, world=world))
    assert without_times(rows[0]) == without_times(rows[1])
    assert [row["validation_loss"] for row in rows[0]] == pytest.approx([row["validation_loss"] for row in alone], rel=1e-4)
    kept, _ = weights.load_arrays(tmp_path / "ranks" / "model.safetensors")
    expected, _ = weights.load_arrays(tmp_path / "alone" / "model.safetensors")
    for name, a in kept.items():
        np.testing.assert_allclose(a, expected[name], rtol=1e-3, atol=1e-4)
