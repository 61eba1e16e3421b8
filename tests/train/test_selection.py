"""Which epoch is kept, on which images that is decided, and the one test at the end."""

from __future__ import annotations

import json
import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minidl import weights
from minidl.data import Dataset
from minidl.inference import evaluate
from minidl.train import Settings, evaluate_run, fit, is_finished, load_run
from minidl.train.run import hold_out
from minidl.train.selection import best_epoch, described, scores_of
from tests.train.test_train import SETTINGS, TEST, TRAIN, BreaksAt, Net, contents, read, same_run, without_times

NETS = {"Net": lambda num_classes, in_channels: Net(num_classes)}
CHOOSES = replace(SETTINGS, epochs=5, validation=0.3, select="auc", balance="sample", patience=3, freeze=("conv",), body_lr=0.5)


def rows(*values: float | None, name: str = "auc") -> list[dict[str, Any]]:
    """Of epochs with such scores; None is one that is not validated yet."""
    return [{} if v is None else {"validation_loss": v, f"validation_{name}": v} for v in values]


@pytest.mark.parametrize(
    ("select", "found", "best"),
    [
        ("auc", rows(0.5, 0.7, 0.6), 1),
        ("auc", rows(0.7, 0.7), 0),  # of equal ones the first
        ("auc", rows(0.5, 0.7, None), 1),
        ("auc", rows(None), None),
        ("loss", rows(0.5, 0.2, 0.6), 1),
        ("accuracy", rows(0.1, 0.9, name="accuracy"), 1),
        ("balanced_accuracy", rows(0.9, 0.1, name="balanced_accuracy"), 0),
        ("last", rows(0.9, 0.1, None), 2),
        ("last", [], None),
    ],
)
def test_the_best_epoch(select: str, found: list[dict[str, Any]], best: int | None) -> None:
    assert best_epoch(found, select) == best


def test_patience_counts_the_epochs_after_the_best() -> None:
    settings = Settings(epochs=9, select="auc", patience=2)
    assert not is_finished(rows(0.7, 0.6), settings) and is_finished(rows(0.7, 0.6, 0.7), settings)
    assert not is_finished(rows(0.7, 0.6, None), settings)  # the last one may be better
    assert not is_finished(rows(0.1, 0.2, 0.3, 0.4), settings) and is_finished(
        rows(*[0.1] * 9), replace(settings, patience=None)
    )


def test_accuracy_is_told_beside_what_the_largest_class_gets() -> None:
    labels = np.array([0] * 8 + [1] * 2)
    row = scores_of(np.tile(np.float32([1, 0]), (10, 1)), labels)  # the answer is always the largest class
    assert row["accuracy"] == row["majority_accuracy"] == 0.8 and row["balanced_accuracy"] == 0.5 and row["auc"] == 0.5
    assert described(row) == "accuracy 80.0% (always the largest class: 80.0%), balanced 50.0%, AUC 0.500"
    assert "auc" not in scores_of(np.zeros((10, 3), np.float32), labels)  # of the third class there is nothing


# ---- a run


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "chosen"
    fit(Net(), TRAIN, CHOOSES, out)
    return out


def test_the_weights_are_those_of_the_best_epoch(tmp_path: pathlib.Path) -> None:
    """Of each score; on a validation set that gets worse while it trains, the best is not the last."""
    wrong = Dataset(TRAIN.images, 1 - TRAIN.labels, TRAIN.classes)
    for select in ("loss", "auc", "balanced_accuracy", "accuracy", "last"):
        out, model = tmp_path / select, Net()
        found = fit(model, TRAIN, replace(SETTINGS, epochs=4, select=select), out, wrong)
        best = best_epoch(found, select)
        assert best is not None
        net = load_run(out, NETS)
        loss, logits, labels = evaluate(net.model, wrong, SETTINGS.batch_size, net.contract.normalize)
        again = {"loss": loss} | scores_of(logits, labels)
        assert again == {name: found[best][f"validation_{name}"] for name in again}
        state = net.model.state_dict()
        assert all((a == state[name]).all() for name, a in model.state_dict().items())  # what is in hand is what is kept
        arrays, _ = weights.load_arrays(out / "checkpoint.safetensors")
        kept = {name.removeprefix("best."): a for name, a in arrays.items() if name.startswith("best.")}
        assert bool(kept) == (best != 3) and all((a == state[name]).all() for name, a in kept.items())


def test_held_out_images_are_not_trained_on(chosen: pathlib.Path) -> None:
    facts = json.loads(weights.load_arrays(chosen / "checkpoint.safetensors")[1]["facts"])
    assert (facts["data"]["training"], facts["data"]["validation"]) == (28, 12)
    first, held_out = TRAIN.split([0.7, 0.3], CHOOSES.seed, stratify=True)
    assert load_run(chosen, NETS).contract.mean == pytest.approx(first.mean_std()[0])  # nor normalised by
    net, last = load_run(chosen, NETS), read(chosen)
    loss, _, _ = evaluate(net.model, held_out, SETTINGS.batch_size, net.contract.normalize)
    best = best_epoch(last, "auc")
    assert best is not None and loss == last[best]["validation_loss"]


@pytest.mark.parametrize("at", [2, 3, 4, 5, 6])
def test_resumed_with_all_of_it_the_bits_are_the_same(chosen: pathlib.Path, tmp_path: pathlib.Path, at: int) -> None:
    if at > len(read(chosen)):  # an epoch is one step
        pytest.skip("patience ended the run before")
    with pytest.raises(KeyboardInterrupt):
        fit(BreaksAt(at, "interrupt"), TRAIN, CHOOSES, tmp_path)
    assert without_times(read(tmp_path)) == without_times(read(chosen))[: at - 1]
    model = Net(seed=9)
    fit(model, TRAIN, CHOOSES, tmp_path, resume=True)
    assert same_run(chosen, tmp_path)
    state = load_run(chosen, NETS).model.state_dict()
    assert all((a == state[name]).all() for name, a in model.state_dict().items())


def test_best_weights_that_are_missing_or_too_many_are_told(tmp_path: pathlib.Path) -> None:
    wrong = Dataset(TRAIN.images, 1 - TRAIN.labels, TRAIN.classes)
    settings = replace(SETTINGS, select="auc")
    found = fit(Net(), TRAIN, settings, tmp_path, wrong)
    path = tmp_path / "checkpoint.safetensors"
    arrays, words = weights.load_arrays(path)
    beside = {name: a for name, a in arrays.items() if name.startswith("best.")}
    if best_epoch(found, "auc") == 2:
        damaged = arrays | {f"best.{name}": a for name, a in Net().state_dict().items()}
        message = "it holds the arrays"
    else:
        damaged, message = {name: a for name, a in arrays.items() if name not in beside}, "is of another model"
    weights.save_arrays(path, damaged, words)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        fit(Net(), TRAIN, settings, tmp_path, wrong, resume=True)
    assert contents(tmp_path) == before


def test_without_validation_images(tmp_path: pathlib.Path) -> None:
    found = fit(Net(), TRAIN, SETTINGS, tmp_path / "run")
    assert not any(name.startswith("validation") for name in found[-1]) and "train_majority_accuracy" in found[-1]
    with pytest.raises(ValueError, match="select: 'auc' chooses an epoch by validation images, and there are none; hold some"):
        fit(Net(), TRAIN, replace(SETTINGS, select="auc"), tmp_path / "other")
    with pytest.raises(ValueError, match=r"validation: images are given, and 0\.3 of the training images are to be held out"):
        fit(Net(), TRAIN, CHOOSES, tmp_path / "other", TEST)
    with pytest.raises(ValueError, match="patience: 2 epochs that were no better, by which score"):
        Settings(patience=2)
    assert not (tmp_path / "other").exists()


# ---- the test


def test_a_run_is_tested_once(chosen: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in contents(chosen).items():
        (tmp_path / name).write_bytes(content)
    found = evaluate_run(tmp_path, NETS, TEST)
    net = load_run(chosen, NETS)
    loss, logits, labels = evaluate(net.model, TEST, SETTINGS.batch_size, net.contract.normalize)
    assert found["loss"] == loss and found["accuracy"] == (logits.argmax(1) == labels).mean() and found["images"] == 21
    assert np.array(found["confusion"]).sum() == 21 and np.trace(found["confusion"]) / 21 == found["accuracy"]
    assert found["majority_accuracy"] == np.bincount(TEST.labels).max() / 21
    best = best_epoch(read(chosen), "auc")
    assert best is not None and found["epoch"] == best + 1 and json.loads((tmp_path / "test.json").read_text()) == found
    capsys.readouterr()
    before = contents(tmp_path)
    assert evaluate_run(tmp_path, NETS, TEST) == found
    assert "was tested already, these are its scores of then: accuracy" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="was tested already, on other images"):
        evaluate_run(tmp_path, NETS, TEST.take(np.arange(20)))
    assert contents(tmp_path) == before
    with pytest.raises(FileExistsError, match="holds a run already"):
        fit(Net(), TRAIN, CHOOSES, tmp_path)
    (tmp_path / "test.json").write_text("{")
    with pytest.raises(ValueError, match=r"test\.json is damaged"):
        evaluate_run(tmp_path, NETS, TEST)


def test_what_cannot_be_tested(chosen: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"settings\.json is missing"):
        evaluate_run(tmp_path, NETS, TEST)
    with pytest.raises(KeyboardInterrupt):
        fit(BreaksAt(2, "interrupt"), TRAIN, CHOOSES, tmp_path / "half")
    with pytest.raises(ValueError, match="1 of 5 epochs are done; finish the run before its test"):
        evaluate_run(tmp_path / "half", NETS, TEST)
    for wrong, message in (
        (Dataset(TEST.images, TEST.labels, ("a", "b")), r"test_set: expected the classes \('benign', 'malignant'\), got"),
        (Dataset(TEST.images[:, :, 1:], TEST.labels, TEST.classes), r"expected images of \(3, 32, 32\) .*got \(3, 31, 32\)"),
        (Dataset((TEST.images / np.float32(255)), TEST.labels, TEST.classes), "uint8, as in training, got .* float32"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_run(chosen, NETS, wrong)
    assert not (chosen / "test.json").exists()


# ---- groups


def test_held_out_images_are_of_other_groups_and_in_proportion(tmp_path: pathlib.Path) -> None:
    """Eight patients of five images each, of one class."""
    labels = np.arange(40) // 20
    d = Dataset(TRAIN.images, labels, TRAIN.classes, groups=np.arange(40) // 5)
    first, held_out = hold_out(d, None, replace(SETTINGS, validation=0.25))
    assert held_out is not None and first.groups is not None and held_out.groups is not None
    assert not set(first.groups) & set(held_out.groups)
    assert np.bincount(held_out.labels).tolist() == [5, 5] and len(first) == 30
