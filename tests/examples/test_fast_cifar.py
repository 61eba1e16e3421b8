"""examples/fast_cifar.py, small: what it promises of its images and filters, and that it learns."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import fast_cifar as example  # examples/fast_cifar.py
import numpy as np
import pytest

from minidl import data, kernels
from minidl.array import to_cpu, to_gpu
from tests.gpu import strict_cupy

SMALL = example.Recipe(epochs=4, batch_size=32, width=0.1)


def striped(n: int, seed: int) -> data.Dataset:
    """Noise with light rows, or with light columns"""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 128, (n, 3, 32, 32), np.uint8), rng.integers(0, 2, n)
    images[labels == 0, :, ::4] += 100
    images[labels == 1, :, :, ::4] += 100
    return data.Dataset(images, labels, ("rows", "columns"))


@pytest.mark.ci
def test_it_learns() -> None:
    found = example.run(striped(128, 0), striped(40, 1), SMALL)
    assert found["last_loss"] < found["first_loss"] - 0.05
    assert found["accuracy"] > 0.9 and found["seconds"] > 0


def test_on_cifar(capsys: pytest.CaptureFixture[str]) -> None:
    if not (root := os.environ.get("MINIDL_TEST_DATA")):
        pytest.skip("MINIDL_TEST_DATA does not say where CIFAR-10 is")
    options = "--epochs 1 --batch-size 64 --width 0.1 --limit 128".split()
    assert example.main(["--root", root, *options]) == 0
    assert "of the test images right (always the largest class: " in capsys.readouterr().out


def test_on_the_gpu_the_same_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    train_set, recipe = data.lesions(8, seed=0), example.Recipe(1, 4, 0.1)
    with kernels.use("reference"):
        _, _, on_cpu = example.train(train_set, recipe)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        model, normalize, on_gpu = example.train(train_set, replace(recipe, device="gpu"))
        assert example.accuracy(model, train_set, normalize, "gpu") in np.arange(9) / 8
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-2)


def test_the_first_convolution_whitens() -> None:
    x = np.random.default_rng(0).normal(size=(20, 3, 9, 9)).cumsum(2).cumsum(3).astype(np.float32)
    filters = example.whitening_filters(x, eps=0.0)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
    y = np.einsum("nchwuv,fcuv->nhwf", windows, filters).reshape(-1, 24)
    covariance = y.T @ y / len(y)
    np.testing.assert_allclose(covariance[:12, :12], np.eye(12), atol=2e-2)
    np.testing.assert_array_equal(filters[12:], -filters[:12])


def test_images_are_shifted_with_a_mirrored_border(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(2 * 1 * 4 * 5.0).reshape(2, 1, 4, 5)
    moves = np.array([2, -1]), np.array([-2, 1]), np.array([False, True])
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    want = np.stack([padded[0, :, 4:8, 0:5], padded[1, :, 1:5, 3:8, ][:, :, ::-1]])  # fmt: skip
    np.testing.assert_array_equal(example.shifted(x, *moves), want)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    np.testing.assert_array_equal(to_cpu(example.shifted(to_gpu(x), *moves)), want)


def test_two_epochs_show_every_image_both_ways() -> None:
    x = np.zeros((40, 1, 8, 8), np.float32)
    x[:, :, :, 4:] = 1  # light on the right, wherever it is shifted
    seen = [np.concatenate([b[:, 0, 0, 7] for b, _ in example.batches(x, np.arange(40), SMALL, e)]) for e in (0, 1)]
    labels = [np.concatenate([t for _, t in example.batches(x, np.arange(40), SMALL, e)]) for e in (0, 1)]
    assert len(seen[0]) == 32 and 0 < seen[0].sum() < 32
    first, second = (dict(zip(t.tolist(), s.tolist(), strict=True)) for t, s in zip(labels, seen, strict=True))
    assert all(first[k] != second[k] for k in first.keys() & second.keys())


def test_lookahead_ends_at_its_mean() -> None:
    model = example.norm(3)
    lookahead = example.Lookahead(model, 12)
    model.bias.data += 1
    lookahead.after(4)
    assert (model.bias.data == 1).all()
    lookahead.after(5)
    d = 0.95**5 * (5 / 12) ** 3
    np.testing.assert_allclose(model.bias.data, 1 - d, rtol=1e-6)
    model.bias.data += 1
    lookahead.after(12)
    np.testing.assert_allclose(model.bias.data, 1 - d, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "epochs, batch_size, width"),
        (["--cuda-graph"], "cuda_graph: needs device 'gpu', got 'cpu'"),
    ],
)
def test_what_cannot_be(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(options) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="batch_size: 32 is more than the 8 training images"):
        example.train(data.lesions(8, seed=0), SMALL)
