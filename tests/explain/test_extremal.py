"""Extremal perturbation: its masks, its pyramid, its loss and the gradient of that, and what every method promises."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, kernels, nn, ops
from minidl.array import Array, to_cpu, to_gpu
from minidl.check import GradientError, gradient_check
from minidl.explain import extremal, extremal_perturbation, keep
from minidl.explain.extremal import TEMPERATURE, area_loss, choose, full_size, interpolated, pyramid, spots
from minidl.inference import predict
from minidl.inference.scores import score
from minidl.ops.dilation import SmoothMaxConvolution
from tests.gpu import strict_cupy

from .nets import Net, images

QUICK: dict[str, Any] = {"iterations": 10, "step": 2, "areas": (0.1, 0.3), "blur": 2.0, "levels": 4}
AREAS = np.array([0.1, 0.3])


def net(channels: int = 3) -> Net:
    return Net(channels).to(dtype="float64")


def masks(*shape: int, seed: int = 1) -> Array:
    """In (0, 1)"""
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape)


def loss(mask: Tensor) -> Tensor:
    """Of two images: (2,)"""
    x, kernel = images(2, 3, 10, 8), spots(2, 3.0)
    M = full_size(mask, kernel, (10, 8))
    reward = score(net().eval()(interpolated(pyramid(x, 4, 2.0), M)), np.array([0, 2]), "logit")
    return 5.0 * area_loss(M, AREAS) - reward


# ---- the loss and its gradient


def test_the_whole_loss_is_differentiated() -> None:
    assert gradient_check(loss, [masks(2, 1, 5, 4)], tolerance=1e-6).error < 1e-6


def test_a_maximum_that_only_the_argmax_feels_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of a weighed mean whose weights are taken for constants"""

    def without_weights(self: SmoothMaxConvolution, gy: Array) -> tuple[Array]:
        N, C, h, w = self.x_shape
        s, r, gpadded = self.kernel.shape[2], self.kernel.shape[0] // 2, np.zeros_like(self.padded)
        share = gy.reshape(N, C, h, s, w, s).transpose(3, 5, 2, 4, 0, 1) / self.exp_sum
        for window, k, f in self.terms():
            gpadded[window] += (share * np.exp(self.T * f) * k).sum((0, 1))
        return (gpadded[r : r + h, r : r + w].transpose(2, 3, 0, 1),)

    monkeypatch.setattr(SmoothMaxConvolution, "backward", without_weights)
    with pytest.raises(GradientError, match="is wrong"):
        gradient_check(loss, [masks(2, 1, 5, 4)], tolerance=1e-6)


def test_a_pyramid_that_is_no_part_of_the_gradient_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "interpolated", lambda blurs, M: extremal.interpolated(blurs, M.detach() + 0 * M))
    with pytest.raises(GradientError, match="is wrong"):
        gradient_check(loss, [masks(2, 1, 5, 4)], tolerance=1e-6)


def test_the_area_loss_compares_sorted_masks() -> None:
    M = masks(4, 1, 9, 11)
    areas = np.array([0.025, 0.1, 0.5, 0.9])
    for m, a, found in zip(M, areas, area_loss(Tensor(M), areas).data, strict=True):
        r = np.zeros(99)
        r[int(99 * (1 - a)) :] = 1
        assert found == pytest.approx(((np.sort(m.ravel()) - r) ** 2).mean(), rel=1e-12)
    exact = np.zeros((1, 1, 10, 10))
    exact[0, 0, 3:5, 2:7] = 1
    assert area_loss(Tensor(exact), np.array([0.1])).item() == 0 < area_loss(Tensor(exact), np.array([0.2])).item()


# ---- masks and pyramid


def test_one_cell_makes_one_spot() -> None:
    step, sigma = 7, 21.0
    mask = np.zeros((1, 1, 32, 32))
    mask[0, 0, 10, 20] = 1
    M = full_size(Tensor(mask), spots(step, sigma), (224, 224)).data[0, 0]
    cy, cx = 10 * step + 3, 20 * step + 3
    y, x = np.indices((224, 224))
    d = np.hypot(y - cy, x - cx)
    np.testing.assert_allclose(M[d < sigma / 2], 1, atol=1e-6)
    near = d < sigma
    np.testing.assert_allclose(M[near], np.exp(-2 * np.maximum(d / sigma - 0.5, 0) ** 2)[near], atol=1e-3)
    assert M[d > 2 * sigma].max() < 1e-3


def test_the_maximum_is_smooth_between_the_mean_and_the_largest() -> None:
    mask, kernel = masks(2, 1, 4, 5), spots(2, 3.0)
    r, s = kernel.shape[0] // 2, 2
    padded = np.pad(mask[:, 0], ((0, 0), (r, r), (r, r)))
    f = np.stack([np.kron(padded[:, a : a + 4, b : b + 5], np.ones((s, s))) * np.tile(kernel[a, b], (4, 5))
                  for a, b in np.ndindex(kernel.shape[:2])])  # fmt: skip
    weight = np.exp(f / TEMPERATURE)
    np.testing.assert_allclose(full_size(Tensor(mask), kernel, (8, 10)).data[:, 0], (weight * f).sum(0) / weight.sum(0))
    np.testing.assert_allclose(ops.smooth_max_convolution(Tensor(mask), kernel, 1e12).data[:, 0], f.mean(0), rtol=1e-9)
    np.testing.assert_allclose(ops.smooth_max_convolution(Tensor(mask), kernel, 1 / 400).data[:, 0], f.max(0), atol=0.01)


def test_the_pyramid() -> None:
    x = images(2, 3, 12, 12)
    blurs = pyramid(x, 5, 4.0)
    assert blurs.shape == (2, 5, 3, 12, 12)
    for level in range(5):
        expected = x if level == 4 else ops.gaussian_blur(Tensor(x), 4.0 - level, min(3 * (4 - level), 11)).data
        M = np.full((2, 1, 12, 12), level / 4)
        np.testing.assert_allclose(blurs[:, level], expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(interpolated(blurs, Tensor(M)).data, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(keep(x, M[:, 0], levels=5, blur=4.0), expected, rtol=1e-9, atol=1e-12)
    M = np.full((2, 1, 12, 12), 0.6)  # 2.4 levels
    np.testing.assert_allclose(interpolated(blurs, Tensor(M)).data, 0.6 * blurs[:, 2] + 0.4 * blurs[:, 3], rtol=1e-9)
    with pytest.raises(ValueError, match=r"map: expected \(N,H,W\) = \(2, 12, 12\)"):
        keep(x, M)


# ---- the method


def lighthouse() -> tuple[nn.Module, Array]:
    """A model that counts the light in one corner, and a dark image with a light there and a brighter one elsewhere"""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2, rng=np.random.default_rng(0)))
    weight, bias = (p.data for p in model.parameters())
    weight[...], bias[...] = 0, (-4, 4)
    weight[0].reshape(32, 32)[5:11, 19:25] = 0.2
    x = np.zeros((1, 1, 32, 32), np.float32)
    x[0, 0, 5:11, 19:25], x[0, 0, 20:28, 4:12] = 2, 4
    return model, x


@pytest.mark.ci
def test_the_evidence_is_kept_in_the_area_that_was_asked_for() -> None:
    model, x = lighthouse()
    areas = (0.025, 0.05, 0.1, 0.2)
    e = extremal_perturbation(model, x, areas=areas)
    assert e.raw.shape == (1, 4, 32, 32) and e.target[0] == 0
    np.testing.assert_allclose(e.raw.mean((2, 3))[0], areas, atol=0.015)
    assert ((e.raw < 0.25) | (e.raw > 0.75)).mean((2, 3)).min() > 0.85  # nearly all kept or blurred
    assert e.raw[0, 1:, 5:11, 19:25].mean((1, 2)).min() > 0.9 and e.raw[0, :, 20:28, 4:12].max() < 0.1  # 1 is what suffices
    assert (e.history[-1]["area"] < 0.05 * e.history[0]["area"]).all()

    share, chosen = e.params["kept"][0], list(areas).index(e.params["chosen"][0])
    assert share[chosen] >= 0.9 and (share[:chosen] < 0.9).all() and chosen > 0
    np.testing.assert_array_equal(e.map, e.raw[:, chosen])
    p = np.exp(predict(model, np.concatenate([x, keep(x, e.map)])))
    p = p[:, 0] / p.sum(1)
    assert p[1] / p[0] == pytest.approx(share[chosen], rel=1e-4)


def test_the_smallest_area_that_will_do() -> None:
    kept = np.array([[0.2, 0.95, 0.97], [0.1, 0.5, 0.4], [0.91, 0.2, 0.99]])
    assert choose(kept, (0.05, 0.1, 0.2), 0.9).tolist() == [1, 1, 0]
    assert choose(kept, (0.2, 0.1, 0.05), 0.9).tolist() == [2, 1, 2]  # in any order


def test_the_published_settings() -> None:
    defaults = {name: p.default for name, p in inspect.signature(extremal_perturbation).parameters.items()}
    published = {"areas": (0.025, 0.05, 0.1, 0.2), "levels": 8, "blur": 20.0, "lr": 0.01, "iterations": 800, "output": "logit"}
    assert defaults.items() >= published.items()
    e = extremal_perturbation(Net(1), np.zeros((1, 1, 224, 224), np.float32), areas=[0.1], iterations=1, levels=2)
    assert (e.params["step"], e.params["sigma"]) == (7, 21.0)
    assert (extremal.TEMPERATURE, extremal.AREA_WEIGHT, extremal.AREA_GROWTH, extremal.MOMENTUM) == (1 / 20, 300.0, 1.0035, 0.9)


def test_a_flip_now_and_then() -> None:
    """Of an image that is its own mirror image, mirrored evidence gives the same masks only without a flip."""
    x = images(1, 3, 8, 8)
    plain, flipped = (extremal_perturbation(net(), x, 0, flip=flip, **QUICK).raw for flip in (False, True))
    assert np.abs(plain - flipped).max() > 1e-6
    seen: list[Array] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.data)
            return self.net(x)

    extremal_perturbation(Watching(), x, 0, flip=True, areas=(0.3,), step=2, iterations=1)
    extremal_perturbation(Watching(), x, 0, flip=False, areas=(0.3,), step=2, iterations=1)
    np.testing.assert_array_equal(seen[2][..., ::-1], seen[6])  # after two looks at the whole image each


class Doubtful(nn.Module):
    """Logits (0, s), s = -scale (1 + the mean of the image's middle): p_1 is exp(s), too small for a float32."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        s = -self.scale * (1 + ops.mean(x[:, :, 3:5, 3:5], axis=(1, 2, 3), keepdims=True))
        s = ops.reshape(s, (len(x), 1))
        return ops.concat([0 * s, s])


@pytest.mark.parametrize("scale", [200.0, 2000.0])
def test_a_class_whose_probability_rounds_to_0(scale: float) -> None:
    """The share that a region keeps is a number all the same: exp(log p(Phi) - log p(x))."""
    x = np.zeros((2, 1, 8, 8), np.float32)
    x[0, :, 3:5, 3:5], x[1, :, 3:5, 3:5] = 1, -0.1  # blurred, the first gains probability and the second loses it
    e = extremal_perturbation(Doubtful(scale), x, 1, areas=(0.02, 0.6), iterations=20, step=2, sigma=1.0, blur=2.0)
    kept = e.params["kept"]
    assert np.isfinite(kept).all() and np.isfinite(e.map).all()
    phi = [keep(x, e.raw[:, a], blur=2.0) for a in (0, 1)]
    gain = np.stack([predict(Doubtful(scale), y)[:, 1] - predict(Doubtful(scale), x)[:, 1] for y in phi], 1)  # log p = s here
    np.testing.assert_allclose(np.log(np.maximum(kept, 1e-30)), np.clip(gain, np.log(1e-30), 87.7), atol=0.1)
    np.testing.assert_array_equal(e.params["chosen"], np.array([0.02, 0.6])[choose(kept, (0.02, 0.6), 0.9)])
    assert e.params["chosen"][0] == 0.02


def test_a_class_that_cannot_be_is_an_error() -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            s = ops.mean(x, axis=(1, 2, 3), keepdims=True).data.reshape(len(x), 1)
            return Tensor(np.concatenate([s, np.full_like(s, -np.inf)], 1))

    with pytest.raises(ValueError, match=r"target: expected classes of a probability above 0, got 0 .* images \[0, 1\]"):
        extremal_perturbation(Never(), images(2, 3, 8, 8), 1, **QUICK)


# ---- what holds for every method


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_and_masks_between_0_and_1(channels: int) -> None:
    x = images(2, channels, 10, 8)
    e = extremal_perturbation(net(channels), x, **QUICK)
    assert e.map.shape == (2, 10, 8) and e.raw.shape == (2, 2, 10, 8)
    assert e.map.dtype == e.raw.dtype == e.score.dtype == np.float64 and e.target.dtype == np.int64
    assert 0 <= e.raw.min() and e.raw.max() <= 1 + 1e-9 and e.raw.std() > 0.01
    np.testing.assert_array_equal(e.score, predict(net(channels), x).max(1))
    assert len(e.history) == 10 and {n: a.shape for n, a in e.history[3].items()} == {"score": (2, 2), "area": (2, 2)}


def test_a_batch_is_its_images_and_chunks_do_not_matter() -> None:
    x, target = images(3, 3, 8, 8), np.array([0, 1, 2])
    together = extremal_perturbation(net(), x, target, **QUICK)
    singles = [extremal_perturbation(net(), x[i : i + 1], target[i : i + 1], **QUICK) for i in range(3)]
    chunks = extremal_perturbation(net(), x, target, batch_size=4, **QUICK)
    alone = extremal_perturbation(net(), x, target, **QUICK | {"areas": (0.3,)})  # nor do the other areas
    for name in "map", "raw", "score", "target":
        expected = getattr(together, name)
        np.testing.assert_allclose(np.concatenate([getattr(e, name) for e in singles]), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(getattr(chunks, name), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(alone.raw[:, 0], together.raw[:, 1], rtol=1e-9, atol=1e-9)
    for one, other in zip(together.history, chunks.history, strict=True):
        np.testing.assert_allclose(one["area"], other["area"], rtol=1e-9)
    assert extremal_perturbation(net(), x, target, **QUICK).raw.tobytes() == together.raw.tobytes()  # same bits


def test_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(2, 3, 8, 8).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = extremal_perturbation(Net(), x, flip=True, **QUICK)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = extremal_perturbation(Net().to("gpu"), to_gpu(x), flip=True, **QUICK)
        again = keep(to_gpu(x), on_gpu.map, 4, 2.0)
    assert all(isinstance(a, strict_cupy.ndarray) for a in (on_gpu.map, on_gpu.raw, on_gpu.score, again))
    np.testing.assert_allclose(to_cpu(on_gpu.raw), on_cpu.raw, atol=1e-3)
    np.testing.assert_array_equal(to_cpu(on_gpu.params["chosen"]), on_cpu.params["chosen"])


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

    extremal_perturbation(model, x, **QUICK)
    unchanged()

    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extremal_perturbation(model, x, progress=interrupt, **QUICK)
    unchanged()


def test_progress_and_settings() -> None:
    seen: list[tuple[int, int]] = []
    e = extremal_perturbation(net(), images(3, 3, 8, 8), batch_size=4, progress=lambda *at: seen.append(at), **QUICK)
    assert seen[-1] == (60, 60) and len(seen) == 20
    settings = inspect.signature(extremal_perturbation).parameters.keys() - {"model", "x", "target", "batch_size", "progress"}
    assert e.params.keys() == settings | {"method", "chosen", "kept"} and None not in [e.params[n] for n in settings]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"x": np.zeros((3, 8, 8))}, ValueError, r"x: expected images \(N,C,H,W\)"),
        ({"target": 3}, ValueError, "target: expected one of the classes 0 to 2, got 3"),
        ({"areas": ()}, ValueError, r"areas: expected one or more numbers in \(0, 1\), got \(\)"),
        ({"areas": (0.1, 1.0)}, ValueError, r"areas\[1\]: expected a number in \(0, 1\), got 1.0"),
        ({"enough": 0.0}, ValueError, r"enough: expected a number in \(0, 1\], got 0.0"),
        ({"step": 0}, ValueError, "step: expected an integer of at least 1, got 0"),
        ({"sigma": -1.0}, ValueError, r"sigma: expected a number in \(0, inf\), got -1.0"),
        ({"blur": np.nan}, ValueError, r"blur: expected a number in \(0, inf\), got nan"),
        ({"levels": 1}, ValueError, "levels: expected an integer of at least 2, got 1"),
        ({"iterations": 0}, ValueError, "iterations: expected an integer of at least 1, got 0"),
        ({"output": "p"}, ValueError, "output: expected one of"),
        ({"lr": np.inf}, ValueError, r"lr: expected a number in \[0, inf\), got inf"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
        ({"progress": 1}, TypeError, "progress: expected False, True or a function"),
    ],
)
def test_bad_arguments(bad: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        extremal_perturbation(net(), **{"x": images(1, 3, 8, 8)} | QUICK | bad)
