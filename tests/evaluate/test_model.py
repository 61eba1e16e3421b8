"""Measures that ask the model: curves, sums and ruins, on models where the answer is known."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import numpy as np
import pytest

import models
from minidl import explain, inference, kernels, nn, train
from minidl.array import Array, to_cpu, to_gpu
from minidl.data import Dataset, Normalize, lesions
from minidl.evaluate import completeness, deletion, insertion, randomization, rank_correlation, ssim
from minidl.evaluate.similarity import ranks
from minidl.explain import Explanation
from tests.gpu import strict_cupy

RNG = np.random.default_rng(0)
N, C, H, W, K = 5, 2, 6, 7, 3
X = RNG.normal(size=(N, C, H, W))


def linear() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(C * H * W, K, rng=np.random.default_rng(1))).to(dtype="float64")
    dict(model.named_parameters())["1.bias"].data[:] = [0.5, -1.0, 2.0]
    return model


def parts(model: nn.Module, baseline: float = 0.0) -> tuple[Array, Array]:
    """What each pixel of X adds to the predicted logit (N,H,W), and the logit of the baseline (N,)."""
    w, b = (p.data for p in model.parameters())
    k = inference.predict(model, X).argmax(1)
    return (w[k].reshape(X.shape) * (X - baseline)).sum(1), (baseline * w[k].sum(1)) + b[k]


# ---- curves


@pytest.mark.parametrize("steps", [1, 7, H * W])
@pytest.mark.parametrize("baseline", [0.0, -0.75])
def test_curves_of_a_linear_model(steps: int, baseline: float) -> None:
    model = linear()
    contribution, start = parts(model, baseline)
    gained = np.cumsum(np.sort(contribution.reshape(N, -1))[:, ::-1], axis=1)
    gained = np.c_[np.zeros(N), gained]
    count = np.rint(np.linspace(0, H * W, steps + 1)).astype(int)
    settings: dict[str, Any] = {"baseline": baseline, "steps": steps, "output": "logit"}
    inserted, deleted = (f(model, X, contribution, **settings) for f in (insertion, deletion))
    np.testing.assert_allclose(inserted.score, (start[:, None] + gained)[:, count], rtol=1e-12)
    np.testing.assert_allclose(deleted.score, (start[:, None] + gained[:, -1:] - gained)[:, count], rtol=1e-12)
    np.testing.assert_allclose(inserted.share, count / (H * W))
    mean = (inserted.score[:, 1:] + inserted.score[:, :-1]) / 2
    np.testing.assert_allclose(inserted.auc, (mean * np.diff(inserted.share)).sum(1))
    if baseline == 0 and steps == H * W:  # no order is better than that of the contributions
        other = RNG.normal(size=contribution.shape)
        assert (insertion(model, X, other, **settings).auc < inserted.auc).all()
        assert (deletion(model, X, other, **settings).auc > deleted.auc).all()


def test_curves_do_not_depend_on_batches_and_images_of_the_baseline() -> None:
    model, maps = models.resnet8(3, seed=1), RNG.random((4, 16, 16))
    x = RNG.normal(size=(4, 3, 16, 16)).astype(np.float32)
    blurred = x.mean((2, 3), keepdims=True) + 0 * x
    for curve in deletion, insertion:
        one, other = (curve(model, x, maps, baseline=blurred, steps=5, batch_size=size) for size in (1, 7))
        np.testing.assert_allclose(one.score, other.score, rtol=1e-4)
        alone = curve(model, x[2:3], maps[2:3], baseline=blurred[2:3], steps=5)
        np.testing.assert_allclose(alone.score[0], one.score[2], rtol=1e-4)
    p = np.exp(inference.predict(model, x))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(insertion(model, x, maps, steps=5).score[:, -1], p.max(1), rtol=1e-4)


def test_equal_pixels_go_in_a_random_order_of_the_seed() -> None:
    model, flat = linear(), np.zeros((N, H, W))
    a, b, c = (deletion(model, X, flat, steps=9, seed=s, output="logit").score for s in (0, 0, 1))
    assert np.array_equal(a, b) and not np.allclose(a[:, 1:-1], c[:, 1:-1])
    np.testing.assert_allclose(a[:, [0, -1]], c[:, [0, -1]])
    many = np.mean([deletion(model, X, flat, steps=2, seed=s, output="logit").score for s in range(300)], 0)
    np.testing.assert_allclose(many[:, 1], (many[:, 0] + many[:, 2]) / 2, atol=0.5)  # half of the pixels, half of the score


def test_curves_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x, maps = RNG.normal(size=(3, 3, 16, 16)).astype(np.float32), RNG.random((3, 16, 16))
    with kernels.use("reference"):
        on_cpu = deletion(models.resnet8(2), x, maps, steps=4), insertion(models.resnet8(2), x, maps, steps=4)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        model = models.resnet8(2).to("gpu")
        on_gpu = deletion(model, to_gpu(x), to_gpu(maps), steps=4), insertion(model, to_gpu(x), maps, steps=4)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        np.testing.assert_allclose(b.score, a.score, rtol=1e-4)


# ---- completeness


def test_completeness_of_a_linear_model() -> None:
    model = linear()
    baseline = RNG.normal(size=(C, 1, 1))
    w, k = model.parameters()[0].data, inference.predict(model, X).argmax(1)
    raw = w[k].reshape(X.shape) * (X - baseline)
    np.testing.assert_allclose(completeness(model, X, raw, baseline), 0, atol=1e-12)
    gap = completeness(model, X, 1.02 * raw, baseline)
    np.testing.assert_allclose(gap, 0.02 * raw.sum((1, 2, 3)), atol=1e-12)
    other = (k + 1) % K
    gap = completeness(model, X, raw, baseline, target=other)
    np.testing.assert_allclose(gap, ((w[k] - w[other]).reshape(X.shape) * (X - baseline)).sum((1, 2, 3)), atol=1e-12)


def test_completeness_of_integrated_gradients() -> None:
    model = models.resnet8(3, seed=2).to(dtype="float64")
    x = RNG.normal(size=(2, 3, 16, 16))
    e = explain.integrated_gradients(model, x)
    gap = completeness(model, x, e.raw)
    assert e.delta is not None
    np.testing.assert_allclose(np.abs(gap), np.abs(to_cpu(e.delta)), atol=1e-9)
    assert (np.abs(completeness(model, x, 1.5 * e.raw)) > np.abs(gap)).all()


# ---- ruins


def test_similarity_by_hand() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 7.0])).tolist() == [1.5, 0, 1.5, 3]
    a = RNG.random((3, 12, 13))
    np.testing.assert_allclose(rank_correlation(a, np.exp(5 * a)), 1)
    np.testing.assert_allclose(rank_correlation(a, -a), -1)
    np.testing.assert_array_equal(rank_correlation(a, np.ones_like(a)), 0)
    x, y = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0]]]), np.array([[[2.0, 1.0, 4.0, 3.0, 5.0]]])
    assert rank_correlation(x, y)[0] == pytest.approx(1 - 6 * 4 / (5 * 24))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    np.testing.assert_allclose(ssim(a, 7 * a), 1)
    assert (np.abs(ssim(a, RNG.random(a.shape))) < 0.3).all()
    assert (np.abs(rank_correlation(a, RNG.random(a.shape))) < 0.3).all()


def test_ssim_of_two_levels() -> None:
    """Where means alone differ, ssim is (2 ma mb + c1) / (ma^2 + mb^2 + c1); the largest value of each map is made 1."""
    a, b = np.full((1, 40, 40), 0.8), np.full((1, 40, 40), 0.4)
    a[0, 0, 0] = b[0, 0, 0] = 1.0
    expected = (2 * 0.32 + 1e-4) / (0.64 + 0.16 + 1e-4)
    assert ssim(a, b)[0] == pytest.approx(expected, abs=2e-3)  # but for one window of 900, that of the corner


def test_ssim_is_for_maps_that_are_not_negative() -> None:
    """Of a map and its opposite both factors are negative, and ssim would be up to 0.99."""
    maps = RNG.normal(size=(2, 16, 16))
    for a, b, name in (maps, -maps, "a"), (abs(maps), maps, "b"), (maps[:1] + 5, maps[:1] - 5, "b"):
        with pytest.raises(ValueError, match=f"^{name}: expected no negative value .* got -"):
            ssim(a, b)
    np.testing.assert_allclose(ssim(abs(maps), abs(-maps)), 1)
    np.testing.assert_allclose(rank_correlation(maps, -maps), -1)


class Plain(nn.Sequential):
    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)

        def conv(c_in: int, c_out: int) -> nn.Conv2d:
            return nn.Conv2d(c_in, c_out, 3, padding=1, rng=rng)

        first = conv(3, 16), nn.ReLU(), conv(16, 16), nn.ReLU(), nn.MaxPool2d(2)
        last = conv(16, 32), nn.ReLU(), conv(32, 32), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(32, 2, rng=rng)
        super().__init__(*first, *last)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Array]:
    """A net that tells skin with a lesion from skin without, and images with one."""

    def dataset(n: int, seed: int) -> Dataset:
        images = [lesions(n, seed=seed).images, lesions(n, seed=seed + 10, without=["lesion"]).images]
        return Dataset(np.concatenate(images), np.repeat([1, 0], n), ("skin", "lesion"))

    train_set, test_set, model = dataset(400, 0), dataset(32, 1), Plain()
    out: pathlib.Path = tmp_path_factory.mktemp("run")
    settings = train.Settings(epochs=4, batch_size=32, lr=0.02, crop=2, flip="both")
    rows = train.fit(model, train_set, settings, out, test_set)
    assert rows[-1]["validation_accuracy"] > 0.85
    return model, Normalize(*train_set.mean_std())(test_set.images[:24])


@pytest.mark.parametrize("similarity", ["rank", "ssim"])
def test_guided_backprop_fails_and_the_gradient_passes(trained: tuple[nn.Module, Array], similarity: str) -> None:
    model, x = trained
    for seed in range(3):
        gradient, guided = (
            randomization(model, x, method, similarity=similarity, seed=seed)
            for method in (explain.saliency, explain.guided_backprop)
        )
        assert gradient.layers == guided.layers == ("10", "7", "5", "2", "0")
        assert gradient.passed() and not guided.passed(0.45)
        assert gradient.similarity[:, 2].mean() < 0.4 < 0.6 < guided.similarity[:, 2].mean()  # half of the net is gone
        np.testing.assert_allclose(gradient.similarity[:, 0], 1)


def test_the_image_fails_and_what_ignores_it_passes() -> None:
    x = RNG.normal(size=(3, 3, 16, 16)).astype(np.float32)

    def image(model: nn.Module, x: Array, target: object) -> Explanation:
        return Explanation(np.abs(x).sum(1), x, np.zeros(3), np.zeros(3))

    def noise(model: nn.Module, x: Array, target: object) -> Explanation:
        return Explanation(RNG.random((3, 16, 16)), x, np.zeros(3), np.zeros(3))

    model = models.resnet8(2)
    edges, nothing = randomization(model, x, image), randomization(model, x, noise)
    np.testing.assert_allclose(edges.alike, 1)
    assert not edges.passed() and nothing.passed(0.1)


def test_every_layer_once_from_the_top_and_nothing_stays_changed() -> None:
    model = models.resnet8(2).train()
    before, x = model.state_dict(), RNG.normal(size=(2, 3, 16, 16)).astype(np.float32)
    r = randomization(model, x, explain.saliency)
    owners = {name.rsplit(".", 1)[0] for name, _ in model.named_parameters()}
    assert r.layers[0] == "linear" and r.layers[-1] == "conv1" and sorted(r.layers) == sorted(owners)
    assert r.similarity.shape == (2, len(owners) + 1)
    assert model.training and all((before[name] == a).all() for name, a in model.state_dict().items())
    some = randomization(model, x, explain.saliency, every=4)
    assert some.layers == (*r.layers[3:-1:4], r.layers[-1]) and np.array_equal(some.similarity[:, 1], r.similarity[:, 4])
    assert np.array_equal(r.similarity, randomization(model, x, explain.saliency).similarity)
    assert not np.allclose(r.similarity, randomization(model, x, explain.saliency, seed=1).similarity)

    def broken(model: nn.Module, x: Array, target: object) -> Explanation:
        if not np.array_equal(before["linear.weight"], dict(model.named_parameters())["linear.weight"].data):
            raise KeyboardInterrupt
        return explain.saliency(model, x)

    with pytest.raises(KeyboardInterrupt):
        randomization(model, x, broken)
    assert all((before[name] == a).all() for name, a in model.state_dict().items())


def test_ruins_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(size=(2, 3, 16, 16)).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = randomization(models.resnet8(2), x, explain.saliency, every=5)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = randomization(models.resnet8(2).to("gpu"), to_gpu(x), explain.saliency, every=5)
    np.testing.assert_allclose(on_gpu.similarity, on_cpu.similarity, atol=1e-3)


def test_progress_is_told() -> None:
    model, x = linear(), X
    told: list[tuple[int, int]] = []
    deletion(model, x, np.zeros((N, H, W)), steps=4, batch_size=10, progress=lambda done, total: told.append((done, total)))
    assert told == [(10, 25), (20, 25), (25, 25)]
    told.clear()
    randomization(model, x, explain.saliency, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        (lambda m: deletion(m, X, np.zeros((N, H, W + 1))), ValueError, r"maps: expected \(5, 6, 7\), one map an image"),
        (lambda m: deletion(m, X, np.zeros((N, H, W)), steps=0), ValueError, "steps: expected an integer of at least 1, got 0"),
        (lambda m: insertion(m, X, np.zeros((N, H, W)), steps=43), ValueError, "steps: there are 42 pixels, got 43"),
        (lambda m: insertion(m, X, np.zeros((N, H, W)), baseline=np.zeros(3)), ValueError, "baseline: expected a number"),
        (lambda m: insertion(m, X, np.zeros((N, H, W)), target=3), ValueError, "target: expected one of the classes 0 to 2"),
        (lambda m: insertion(m, X, np.zeros((N, H, W)), output="odds"), ValueError, "output: expected one of"),
        (lambda m: deletion(m, X, np.full((N, H, W), np.nan)), ValueError, "maps: hold NaN"),
        (lambda m: deletion(m, X[0], np.zeros((N, H, W))), ValueError, "x: expected images"),
        (lambda m: completeness(m, X, X[:2]), ValueError, r"raw: expected contributions \(N,...\) to the 5 scores"),
        (lambda m: completeness(m, X, X, baseline=np.nan), ValueError, "baseline: expected a finite number, got nan"),
        (lambda m: randomization(m, X, explain.saliency, similarity="cosine"), ValueError, "similarity: expected one of"),
        (lambda m: randomization(m, X, explain.saliency, every=0), ValueError, "every: expected an integer of at least 1"),
        (lambda m: ssim(np.ones((1, 8, 8)), np.ones((1, 8, 8))), ValueError, "expected maps of at least 11x11 pixels"),
        (lambda m: rank_correlation(np.ones((1, 8, 8)), np.ones((1, 8, 9))), ValueError, "a, b: expected the same shape"),
    ],
)
def test_bad_arguments(run: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(linear())


def test_a_method_that_asks_the_model_itself_is_refused() -> None:
    model, x = models.resnet8(2), np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)
    with pytest.raises(ValueError, match="method: it asks the model itself, and not the one that it is called with"):
        randomization(model, x, lambda ruin, x, target: explain.saliency(model, x, target))
    assert randomization(model, x, lambda ruin, x, target: explain.saliency(ruin, x, target), every=9).similarity.shape == (
        1,
        3,
    )
