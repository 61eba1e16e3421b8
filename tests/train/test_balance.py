"""Classes of different sizes."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import numpy as np
import pytest

from minidl import Tensor, ops
from minidl.data import Dataset
from minidl.train import fit
from minidl.train.balance import BalancedLoader, balanced, class_counts, class_weights, counted
from minidl.train.loss import Loss
from tests.train.test_train import SETTINGS, TEST, TRAIN, Net

LABELS = np.array([0] * 17 + [1] * 3 + [2] * 5)


def few(labels: np.ndarray, classes: tuple[str, ...] = ("a", "b", "c")) -> Dataset:
    """Images whose pixels are their number."""
    images = np.zeros((len(labels), 3, 8, 8), np.uint8) + np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    return Dataset(images, labels, classes)


def test_each_class_is_drawn_as_often_and_its_images_alike() -> None:
    for seed in range(5):
        drawn = balanced(LABELS, 3, np.random.default_rng(seed))
        assert sorted(np.bincount(LABELS[drawn])) == [8, 8, 9]
        times = np.bincount(drawn, minlength=25)
        for k in range(3):
            assert np.ptp(times[LABELS == k]) <= 1
        assert times[LABELS == 0].max() == 1


def test_an_epoch_of_the_loader_is_balanced_and_depends_on_seed_and_epoch_alone() -> None:
    loader, epochs = BalancedLoader(few(LABELS), 5, seed=3), []
    for _ in range(3):
        x, labels = (np.concatenate(parts) for parts in zip(*loader, strict=True))
        assert sorted(np.bincount(labels)) == [8, 8, 9]
        assert (LABELS[np.rint(255 * x[:, 0, 0, 0]).astype(int)] == labels).all()  # each image with its own label
        epochs.append(x)
    assert not (epochs[0] == epochs[1]).all()
    again = BalancedLoader(few(LABELS), 5, seed=3)
    again.set_epoch(2)
    assert (np.concatenate([x for x, _ in again]) == epochs[2]).all()


def test_class_weights_are_those_of_all_classes_alike() -> None:
    w = class_weights(few(LABELS))
    assert w.dtype == np.float32 and w * np.bincount(LABELS) == pytest.approx([25 / 3] * 3)
    z = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    each = [-log_p[LABELS == k, k].mean() for k in range(3)]
    assert Loss(Net(), w)(Tensor(z), LABELS).item() == pytest.approx(np.mean(each), rel=1e-5)


def test_balance_changes_what_is_learnt(tmp_path: pathlib.Path) -> None:
    """Of classes that cannot be told apart, 80% and 20%: a net that is not balanced says the first, else 50% each."""
    rng = np.random.default_rng(0)
    noise = Dataset(rng.integers(0, 256, (160, 3, 8, 8)).astype(np.uint8), np.arange(160) % 5 // 4, ("many", "few"))
    for balance, share in ("none", 0.2), ("weights", 0.5), ("sample", 0.5):
        model = Net()
        rows = fit(model, noise, replace(SETTINGS, epochs=6, lr=0.1, balance=balance), tmp_path / balance)
        x = ((noise.images / 255 - 0.5) / 0.29).astype(np.float32)
        p = ops.softmax(model.eval()(x)).data[:, 1].mean()
        assert p == pytest.approx(share, abs=0.12), balance
        assert rows[-1]["train_majority_accuracy"] == (0.5 if balance == "sample" else 0.8)


def test_classes_without_images_are_an_error_that_names_them(tmp_path: pathlib.Path) -> None:
    three = ("benign", "malignant", "other")
    train, test = (Dataset(d.images, d.labels, three) for d in (TRAIN, TEST))
    for balance in ("none", "weights", "sample"):
        with pytest.raises(ValueError, match="train_set: expected images of each of the 3 classes, got none of 'other'"):
            fit(Net(3), train, replace(SETTINGS, balance=balance), tmp_path / "run", test)
    whole = Dataset(TRAIN.images, np.arange(40) % 3, three)
    with pytest.raises(ValueError, match="validation: expected images of each of the 3 classes, got none of 'other'"):
        fit(Net(3), whole, SETTINGS, tmp_path / "run", test)
    assert not (tmp_path / "run").exists()
    assert counted(test).endswith("; no image of 'other'")


def test_the_counts_of_one_head() -> None:
    assert class_counts(few(LABELS)).tolist() == [17, 3, 5]
    d = Dataset(few(LABELS).images, {"kind": LABELS, "site": LABELS}, {"kind": ("a", "b", "c"), "site": ("d", "e", "f")})
    with pytest.raises(ValueError, match=r"dataset: expected labels of one head, got kind, site; write head\('kind'\)"):
        class_counts(d)
