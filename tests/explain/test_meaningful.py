"""Meaningful perturbation: its loss and the gradient of that, masks known in advance, and what every method promises."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, nn, ops
from minidl.array import Array, to_cpu, to_gpu
from minidl.check import GradientError, gradient_check
from minidl.core import Grads, Op
from minidl.explain import delete, meaningful, meaningful_perturbation
from minidl.explain.meaningful import DELETIONS, SETTINGS, Images, full_size, initial_mask, loss_of, total_variation, weights_of
from minidl.inference import predict
from tests.gpu import strict_cupy

from .nets import Net, images, linear

QUICK: dict[str, Any] = {"iterations": 12, "stride": 2}
N, H, W, STRIDE, SIGMA = 3, 12, 10, 3, 1.7
CELLS = (N, 1, 4, 4)


def net(channels: int = 3) -> Net:
    return Net(channels).to(dtype="float64")


def inside(*shape: int) -> Array:
    """Masks in (0, 1)"""
    return np.random.default_rng(1).uniform(0.1, 0.9, shape)


def loss(mask: Tensor, deletion: str, lambda1: float = 0.05, lambda2: float = 0.2) -> Tensor:
    """Of three images: (3,)"""
    x = images(N, 3, H, W)
    model = net().eval()
    shown, replaced = next(Images(x, deletion, 2.0, None, 4, 5).shifted(1))
    target = np.array([0, 1, 2])
    return loss_of(model, mask, shown, replaced, target, SIGMA, "prob", lambda1, lambda2, beta=3.0).total()


# ---- the gradient of the loss


@pytest.mark.parametrize("deletion", DELETIONS)
def test_the_whole_loss_is_differentiated(deletion: str) -> None:
    report = gradient_check(lambda mask: loss(mask, deletion), [inside(*CELLS)], tolerance=1e-6)
    assert report.error < 1e-6


class _BlurWithoutAdjoint(Op):
    """y = blurred x, and a backward that takes the blur for the identity, as one of the originals does"""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def forward(self, x: Array) -> Array:
        return ops.gaussian_blur(Tensor(x), self.sigma, 5).data

    def backward(self, gy: Array) -> Grads:
        return (gy,)


@pytest.mark.parametrize("deletion", DELETIONS)
def test_a_blur_without_its_adjoint_is_found_out(deletion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (right,) = gradient(deletion, 0.0, 0.0)
    if deletion == "blur":
        replaced = next(Images(images(N, 3, H, W), deletion, 2.0, None, 4, 5).shifted(1))
        monkeypatch.setattr(Images, "shifted", lambda self, n: iter([replaced]))  # what deletes stays as it is
    monkeypatch.setattr(meaningful, "blurred", lambda x, sigma: _BlurWithoutAdjoint(sigma)(x))
    (wrong,) = gradient(deletion, 0.0, 0.0)
    cosine = (right * wrong).sum() / np.sqrt((right**2).sum() * (wrong**2).sum())
    assert cosine < 0.98
    with pytest.raises(GradientError, match="is wrong"):
        gradient_check(lambda mask: loss(mask, deletion), [inside(*CELLS)], tolerance=1e-6)


def gradient(deletion: str, lambda1: float = 0.05, lambda2: float = 0.2) -> list[Array]:
    mask = Tensor(inside(*CELLS), requires_grad=True)
    return gradients(ops.sum(loss(mask, deletion, lambda1, lambda2)), [mask])


@pytest.mark.parametrize("part", ["l1", "score", "tv"])
def test_a_part_that_is_not_differentiated_is_found_out(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def total(parts: meaningful.Loss) -> Tensor:
        tensors = {name: getattr(parts, name) for name in ("l1", "score", "tv")}
        return tensors["l1"] * (part != "l1") + tensors["score"] * (part != "score") + tensors["tv"] * (part != "tv")

    (right,) = gradient("blur")
    monkeypatch.setattr(meaningful.Loss, "total", total)
    assert np.abs(gradient("blur")[0] - right).max() > 1e-3


# ---- the parts of the loss


def price_of_everything(side: int, setting: str) -> float:
    """The l1 part of a mask that deletes a whole image of side x side pixels"""
    stride = max(1, min(8, side // 16))
    cells = -(-side // stride)
    weights = weights_of(setting, None, None, None, cells**2)
    x = images(1, 3, side, side)
    parts = loss_of(net().eval(), Tensor(np.zeros((1, 1, cells, cells))), x, x, np.array([0]), 1.0, "prob", **weights)
    return parts.l1.item()


@pytest.mark.parametrize("side", [17, 32, 64, 100, 224])
@pytest.mark.parametrize("setting", SETTINGS)
def test_sums_over_the_mask_not_means(side: int, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting everything costs 784 times the published lambda1, for every size of image."""
    assert price_of_everything(side, setting) == pytest.approx(784 * SETTINGS[setting]["lambda1"])
    monkeypatch.setattr(meaningful, "ops", SimpleNamespace(**vars(ops) | {"sum": ops.mean}))  # as a popular port does
    cells = -((-side // max(1, min(8, side // 16))) ** 2)
    assert price_of_everything(side, setting) == pytest.approx(784 * SETTINGS[setting]["lambda1"] / abs(cells))


def test_the_published_weights() -> None:
    assert weights_of("evidence", None, None, None, 28 * 28) == {"lambda1": 1e-4, "lambda2": 1e-2, "beta": 3.0}
    assert weights_of("localisation", None, None, None, 28 * 28) == {"lambda1": 1e-3, "lambda2": 1e-2, "beta": 2.0}
    assert weights_of("evidence", 0.5, 0.0, 2.5, 10) == {"lambda1": 0.5, "lambda2": 0.0, "beta": 2.5}
    e = meaningful_perturbation(Net(1), np.zeros((1, 1, 224, 224), np.float32), iterations=1)
    published = {"stride": 8, "sigma": 5.0, "jitter": 4, "blur": 10.0, "lr": 0.1, "lambda1": 1e-4}
    assert e.params.items() >= published.items() and e.raw.shape == (1, 1, 28, 28)
    assert inspect.signature(meaningful_perturbation).parameters["iterations"].default == 300


@pytest.mark.parametrize("beta", [2.0, 3.0])
def test_total_variation(beta: float) -> None:
    for constant in 0.0, 0.4, 1.0:
        assert total_variation(Tensor(np.full(CELLS, constant)), beta).data.tolist() == [0, 0, 0]
    mask = inside(2, 1, 3, 4)
    expected = np.zeros(2)
    for n, i, j in np.ndindex(2, 3, 4):
        dy = mask[n, 0, i + 1, j] - mask[n, 0, i, j] if i < 2 else 0.0
        dx = mask[n, 0, i, j + 1] - mask[n, 0, i, j] if j < 3 else 0.0
        expected[n] += (dy**2 + dx**2) ** (beta / 2)
    np.testing.assert_allclose(total_variation(Tensor(mask), beta).data, expected, rtol=1e-12)
    flat = Tensor(np.ones(CELLS), requires_grad=True)
    (g,) = gradients(ops.sum(total_variation(flat, beta)), [flat])
    np.testing.assert_array_equal(g, 0)


# ---- masks that are known in advance


@pytest.mark.parametrize("deletion", ["blur", "constant"])
def test_a_linear_score_has_a_mask_that_is_known(deletion: str) -> None:
    """S is linear in m: a cell is deleted where that lowers S by more than it costs, and the cells do not interact."""
    model, _, _ = linear(2, 12)
    x, target = images(4, 2, 12, 12), np.array([0, 1, 2, 0])

    def score(mask: Array) -> Array:
        M = full_size(Tensor(mask), (12, 12), 1.0).data[:, 0]
        return predict(model, delete(x, 1 - M, deletion, blur=3.0))[np.arange(4), target]

    nothing, gain = score(np.zeros((4, 1, 4, 4))), np.zeros((4, 1, 4, 4))
    for i, j in np.ndindex(4, 4):
        cell = np.zeros((4, 1, 4, 4))
        cell[:, :, i, j] = 1
        gain[:, 0, i, j] = score(cell) - nothing
    ordered = np.sort(gain[gain > 0])
    k = 5 + np.diff(ordered[5:-5]).argmax()
    lambda1 = float(ordered[k : k + 2].mean())  # far from the gain of any cell

    def learned(lambda1: float) -> Array:
        settings = {
            "deletion": deletion,
            "blur": 3.0,
            "stride": 3,
            "sigma": 1.0,
            "jitter": 1,
            "lambda2": 0.0,
            "output": "logit",
        }
        return meaningful_perturbation(model, x, target, lambda1=lambda1, **settings).raw

    np.testing.assert_array_equal(learned(lambda1), gain < lambda1)  # 1: kept
    assert (learned(lambda1 / 16) != (gain < lambda1)).any()  # the price of a mean instead of a sum gives other masks


@pytest.mark.parametrize("deletion", ["blur", "constant"])
def test_a_free_mask_deletes_what_raises_the_score(deletion: str) -> None:
    """With cells of one pixel and no blur, <w_ij, x_ij - r_ij> > 0 is what deletes a pixel."""
    model, w, _ = linear(2, 6)
    x = images(2, 2, 6, 6)
    r = delete(x, np.ones((2, 6, 6)), deletion, blur=1.0)
    e = meaningful_perturbation(
        model, x, 1, deletion, lambda1=0.0, lambda2=0.0, blur=1.0, stride=1, sigma=0.01, jitter=1, output="logit"
    )
    np.testing.assert_array_equal(e.map, (w[1] * (x - r)).sum(1) > 0)


def test_the_evidence_is_deleted() -> None:
    """A model that looks at one corner, and only there: the mask deletes that corner and keeps the rest."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2, rng=np.random.default_rng(0)))
    weight, bias = (p.data for p in model.parameters())
    weight[...], bias[...] = 0, (-3, 3)
    weight[0].reshape(32, 32)[4:12, 18:26] = 0.1
    x = np.zeros((1, 1, 32, 32), np.float32)
    x[0, 0, 4:12, 18:26] = 2
    e = meaningful_perturbation(model, x, deletion="constant", constant=0.0, setting="localisation")
    assert e.target[0] == 0 and e.score[0] > 0.99
    p = np.exp(predict(model, delete(x, e.map, "constant", constant=0.0)))
    assert (p / p.sum(1))[0, 0] < 0.1
    assert e.map.mean() < 0.15 and e.map[0, 4:12, 18:26].sum() > 0.4 * e.map.sum()  # the rest is its soft edge
    assert e.map[0, 4:12, 18:26].mean() > 0.5 and e.map[0, 20:, :10].max() < 0.05  # 1 is what the model needs


def test_the_beginning_is_the_smallest_disc_that_will_do() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 2, rng=np.random.default_rng(0))).to(dtype="float64")
    weight, bias = (p.data for p in model.parameters())
    weight[...], bias[...] = np.stack([np.full(256, 0.05), np.full(256, -0.05)]), (-6, 6)
    x = np.stack([np.full((1, 16, 16), value) for value in (1.0, 0.9, 0.49)])  # the last one is no 0 at all
    x[2, 0, 8:, 8:] = 0.53
    kept = Images(x, "constant", 1.0, 0.0, 1, 0)
    mask = initial_mask(model.eval(), kept, np.zeros(3, np.int64), 2, 1.25)
    assert set(np.unique(mask)) == {0.0, 1.0}

    def p(mask: Array) -> Array:
        M = full_size(Tensor(mask), (16, 16), 1.25).data
        logits = predict(model, M * x)
        return 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))

    distance = np.hypot(*np.mgrid[-3.5:4, -3.5:4])
    goal = 0.01 * p(np.ones_like(mask))
    values = np.stack([p(np.broadcast_to((distance > r).astype(float), mask.shape)) for r in range(1, 6)])  # (radii, 3)
    first = (values < goal).argmax(0) + 1
    assert (values < goal).any(0).all() and len(set(first)) > 1
    for n, radius in enumerate(first):
        np.testing.assert_array_equal(mask[n, 0], distance > radius)
    no_goal = Images(x, "constant", 1.0, 3.0, 1, 0)  # deleting makes the class surer: the least harmful disc it is
    lowest = initial_mask(model, no_goal, np.zeros(3, np.int64), 2, 1.25)
    np.testing.assert_array_equal(lowest[:, 0], np.broadcast_to(distance > 1, (3, 8, 8)))


def test_the_beginning_for_a_class_whose_probability_rounds_to_0() -> None:
    """Of p_c < exp(-300), 0 in float32, deleting takes a share all the same."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 2, rng=np.random.default_rng(0)))
    weight, bias = (p.data for p in model.parameters())
    weight[...], bias[...] = np.stack([np.full(256, 0.05), np.full(256, -0.05)]), (-200, 200)
    x = np.ones((1, 1, 16, 16), np.float32)
    mask = initial_mask(model.eval(), Images(x, "constant", 1.0, 0.0, 1, 0), np.zeros(1, np.int64), 2, 1.25)
    distance = np.hypot(*np.mgrid[-3.5:4, -3.5:4])
    lost = [  # of the logarithm of p_c, by the disc of each radius
        0.1 * (1 - full_size(Tensor((distance > r).astype(float)[None, None]), (16, 16), 1.25).data).sum() for r in range(1, 6)
    ]
    radius = 1 + int(np.argmax(np.array(lost) > np.log(100)))
    assert radius > 1
    np.testing.assert_array_equal(mask[0, 0], distance > radius)


@pytest.mark.parametrize(("jitter", "shifts"), [(1, [0]), (2, [0, 1]), (4, [-1, 0, 1, 2])])
def test_image_and_replacement_are_shifted_together(jitter: int, shifts: list[int]) -> None:
    x = images(2, 3, 8, 9)
    seen = set()
    for shown, replaced in Images(x, "constant", 1.0, x + 100 if jitter == 1 else 7.0, jitter, 0).shifted(200):
        pairs = {(a, b) for a in range(-2, 3) for b in range(-2, 3)
                 if (shown[:, :, 3:5, 3:6] == x[:, :, 3 - a : 5 - a, 3 - b : 6 - b]).all()}  # fmt: skip
        seen |= pairs
        assert len(pairs) == 1 and shown.shape == replaced.shape == x.shape
    assert seen == {(-a + 0, -b + 0) for a in shifts for b in shifts} or seen == {(a, b) for a in shifts for b in shifts}
    blurs = Images(x, "blur", 1.0, None, jitter, 0)
    for shown, replaced in blurs.shifted(5):
        distance = np.abs(ops.gaussian_blur(Tensor(shown), 1.0).data - replaced)[:, :, 4, 4]
        np.testing.assert_allclose(distance, 0, atol=0.02)  # 4 sigma from the border


def test_noise_is_drawn_anew_and_has_the_images_statistics() -> None:
    x = 3 + 0.5 * images(1, 2, 64, 64)
    first, second = (replaced for _, replaced in Images(x, "noise", 1.0, None, 1, 0).shifted(2))
    assert np.abs(first - second).min() > 0 and np.corrcoef(first.ravel(), second.ravel())[0, 1] < 0.05
    np.testing.assert_allclose(first.mean((2, 3)), x.mean((2, 3)), atol=0.03)
    np.testing.assert_allclose(first.std((2, 3)), x.std((2, 3)), rtol=0.04)


def test_delete() -> None:
    x, map = images(2, 3, 8, 8), inside(2, 8, 8)
    np.testing.assert_array_equal(delete(x, np.zeros((2, 8, 8))), x)
    mean = np.broadcast_to(x.mean((2, 3), keepdims=True), x.shape)
    np.testing.assert_allclose(delete(x, np.ones((2, 8, 8)), "constant"), mean)
    half = delete(x, map, "constant", constant=2.0)
    np.testing.assert_allclose(half, 2 * map[:, None] + (1 - map[:, None]) * x, rtol=1e-12)
    colors = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    np.testing.assert_array_equal(delete(x, np.ones((2, 8, 8)), "constant", constant=colors)[1, :, 3, 3], [1, 2, 3])
    with pytest.raises(ValueError, match=r"map: expected \(N,H,W\) = \(2, 8, 8\) for x of \(2, 3, 8, 8\), got \(2, 4, 4\)"):
        delete(x, np.zeros((2, 4, 4)))


# ---- what holds for every method


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_and_masks_between_0_and_1(channels: int) -> None:
    x = images(2, channels, 10, 8)
    e = meaningful_perturbation(net(channels), x, **QUICK)
    assert e.map.shape == (2, 10, 8) and e.raw.shape == (2, 1, 5, 4)
    assert e.map.dtype == e.raw.dtype == e.score.dtype == np.float64 and e.target.dtype == np.int64
    assert 0 <= e.raw.min() and e.raw.max() <= 1 and -1e-9 <= e.map.min() and e.map.max() <= 1 + 1e-9
    np.testing.assert_array_equal(e.target, predict(net(channels), x).argmax(1))
    assert len(e.history) == 12 and {name: a.shape for name, a in e.history[3].items()} == {
        "l1": (2,),
        "score": (2,),
        "tv": (2,),
    }


@pytest.mark.parametrize("deletion", DELETIONS)
def test_a_batch_is_its_images_and_chunks_do_not_matter(deletion: str) -> None:
    x, target, settings = images(4, 3, 12, 12), np.array([0, 1, 2, 0]), {**QUICK, "deletion": deletion, "jitter": 3}
    together = meaningful_perturbation(net(), x, target, **settings)
    singles = [meaningful_perturbation(net(), x[i : i + 1], target[i : i + 1], **settings) for i in range(4)]
    chunks = meaningful_perturbation(net(), x, target, batch_size=3, **settings)
    for name in "map", "raw", "score", "target":
        expected = getattr(together, name)
        np.testing.assert_allclose(np.concatenate([getattr(e, name) for e in singles]), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(getattr(chunks, name), expected, rtol=1e-9, atol=1e-9)
    for one, other in zip(together.history, chunks.history, strict=True):
        np.testing.assert_allclose(one["score"], other["score"], rtol=1e-9)


def test_same_seed_same_bits() -> None:
    x, state = images(2, 3, 12, 12), np.random.get_state()[1].copy()
    first, again, other = (
        meaningful_perturbation(net(), x, deletion="noise", seed=seed, **QUICK).raw.tobytes() for seed in (3, 3, 4)
    )
    assert first == again != other
    assert (np.random.get_state()[1] == state).all()  # the global generator was left alone


@pytest.mark.parametrize("deletion", DELETIONS)
def test_on_the_gpu(deletion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2, 3, 8, 8).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = meaningful_perturbation(Net(), x, deletion=deletion, **QUICK)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = meaningful_perturbation(Net().to("gpu"), to_gpu(x), deletion=deletion, **QUICK)
        again = delete(to_gpu(x), on_gpu.map, deletion)
    assert all(isinstance(a, strict_cupy.ndarray) for a in (on_gpu.map, on_gpu.raw, on_gpu.score, again))
    np.testing.assert_allclose(to_cpu(on_gpu.map), on_cpu.map, atol=2e-3)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(training: bool) -> None:
    model, x = net().train(training), images(2, 3, 8, 8)
    model.bn2.train(not training)  # every module has a mode of its own
    before, untouched = model.state_dict(), x.copy()

    def unchanged() -> None:
        assert model.training == training and model.bn2.training != training
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert all((before[name] == a).all() for name, a in model.state_dict().items())
        np.testing.assert_array_equal(x, untouched)

    meaningful_perturbation(model, x, **QUICK)
    unchanged()

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meaningful_perturbation(model, x, progress=interrupt, **QUICK)
    unchanged()


def test_progress_and_settings() -> None:
    seen: list[tuple[int, int]] = []
    e = meaningful_perturbation(net(), images(3, 3, 8, 8), batch_size=2, progress=lambda *at: seen.append(at), **QUICK)
    assert seen[-1] == (36, 36) and len(seen) == 24
    settings = inspect.signature(meaningful_perturbation).parameters.keys() - {"model", "x", "target", "batch_size", "progress"}
    assert e.params.keys() == settings | {"method"} and None not in [e.params[n] for n in settings - {"constant"}]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": np.zeros((3, 8, 8))}, ValueError, r"x: expected images \(N,C,H,W\)"),
        ({"x": np.full((1, 3, 8, 8), np.nan)}, ValueError, "x: holds NaN or infinity"),
        ({"target": 3}, ValueError, "target: expected one of the classes 0 to 2, got 3"),
        ({"deletion": "ink"}, ValueError, r"deletion: expected one of \('blur', 'constant', 'noise'\), got 'ink'"),
        ({"setting": "best"}, ValueError, r"setting: expected one of \('evidence', 'localisation'\), got 'best'"),
        ({"lambda1": -1.0}, ValueError, r"lambda1: expected a number in \[0, inf\), got -1.0"),
        ({"lambda2": np.nan}, ValueError, r"lambda2: expected a number in \[0, inf\), got nan"),
        ({"beta": 1.5}, ValueError, r"beta: expected a number in \[2, inf\), got 1.5"),
        ({"blur": 0.0}, ValueError, r"blur: expected a number in \(0, inf\), got 0.0"),
        ({"sigma": np.nan}, ValueError, r"sigma: expected a number in \(0, inf\), got nan"),
        ({"stride": 0}, ValueError, "stride: expected an integer of at least 1, got 0"),
        ({"stride": 8}, ValueError, "stride: 8 leaves images of 8x8 a mask of less than 2x2 cells"),
        ({"jitter": 0}, ValueError, "jitter: expected an integer of at least 1, got 0"),
        ({"iterations": 0}, ValueError, "iterations: expected an integer of at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed: expected an integer of at least 0, got -1"),
        ({"lr": -0.1}, ValueError, r"lr: expected a number in \[0, inf\), got -0.1"),
        ({"output": "p"}, ValueError, "output: expected one of"),
        (
            {"deletion": "constant", "constant": np.zeros(5)},
            ValueError,
            "constant: expected a number, or an array that broadcasts",
        ),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
        ({"progress": 1}, TypeError, "progress: expected False, True or a function"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        meaningful_perturbation(net(), **{"x": images(1, 3, 8, 8)} | QUICK | bad)
