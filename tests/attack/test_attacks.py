"""What holds for every attack: ball and bounds, batches, seeds, the model's state, the GPU, and what cannot be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import attack, kernels, nn
from minidl.array import Array, to_cpu, to_gpu
from minidl.attack import ball
from minidl.inference import predict
from tests.attack.nets import ATTACKS, SIZE, convolutional, images, linear, same
from tests.gpu import strict_cupy


@pytest.fixture(autouse=True)
def plain_text() -> Any:
    """Tiny images: compiling the kernels would take longer than all the rest."""
    with kernels.use("reference"):
        yield


# ---- ball and bounds


def check_inside(path: Array, x: Array, eps: float | None, norm: str, bounds: tuple[float, float]) -> None:
    """Every step is in bounds and in the ball: exactly, as `norms` measures it."""
    low, high = np.asarray(bounds, x.dtype)
    assert (path >= low).all() and (path <= high).all()
    if eps is not None:
        d = path - x
        assert all((ball.sizes(step, norm).astype(np.float64) <= eps).all() for step in d)
        true = path.astype(np.longdouble) - x  # without the rounding of this difference
        size = np.abs(true).max((2, 3, 4)) if norm == "linf" else np.sqrt((true**2).sum((2, 3, 4)))
        assert (size <= eps * (1 + 2 * np.finfo(x.dtype).eps) + np.finfo(x.dtype).smallest_subnormal).all()


def attack_once(
    method: str, C: int, dtype: str, eps: float, bounds: tuple[float, float], targeted: bool, seed: int
) -> tuple[attack.AttackResult, Array]:
    model, low, high = convolutional(C, 4, seed, dtype), *bounds
    x = (low + (high - low) * images(3, C, seed)).astype(dtype).clip(*np.asarray(bounds, dtype))
    more: dict[str, Any] = {"bounds": bounds, "keep_path": True}
    if method == "fgsm":
        return attack.fgsm(model, x, 1, eps, targeted=targeted, **more), x
    if method == "deepfool":
        return attack.deepfool(model, x, 1, targeted=targeted, steps=6, **more), x
    if method == "fool":
        return attack.fool(model, x, 1, step_size=eps, steps=6, **more), x
    return attack.pgd(model, x, 1, eps, targeted=targeted, norm=method, steps=6, seed=seed, **more), x


@settings(max_examples=60)
@given(
    method=st.sampled_from(["fgsm", "linf", "l2", "deepfool", "fool"]),
    C=st.integers(1, 4),
    dtype=st.sampled_from(["float32", "float64"]),
    eps=st.floats(0, 2) | st.floats(0, 0.05),
    bounds=st.tuples(st.floats(-3, 3), st.floats(0.01, 300)).map(lambda b: (b[0], b[0] + b[1])),
    targeted=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_step_stays_in_ball_and_bounds(
    method: str, C: int, dtype: str, eps: float, bounds: tuple[float, float], targeted: bool, seed: int
) -> None:
    with kernels.use("reference"):
        found, x = attack_once(method, C, dtype, eps, bounds, targeted, seed)
    assert found.path is not None and found.x.dtype == dtype
    np.testing.assert_array_equal(found.path[0], x)
    np.testing.assert_array_equal(found.path[-1], found.x)
    norm = "linf" if method == "fgsm" else method
    check_inside(found.path, x, eps if norm in ball.NORMS else None, norm, bounds)


def no_ball(x: Array, d: Array, eps: float, norm: str, bounds: ball.Bounds) -> Array:
    return (x + d).clip(*bounds)


def no_bounds(x: Array, d: Array, eps: float, norm: str, bounds: ball.Bounds) -> Array:
    return x + ball.clip_norm(d, eps, norm)


def only_the_last(x: Array, d: Array, eps: float, norm: str, bounds: ball.Bounds) -> Array:
    only_the_last.calls += 1  # type: ignore[attr-defined]
    return ball.project(x, d, eps, norm, bounds) if only_the_last.calls == 7 else x + d  # type: ignore[attr-defined]


@pytest.mark.parametrize("norm", ball.NORMS)
@pytest.mark.parametrize("broken", [no_ball, no_bounds, only_the_last])
def test_a_broken_projection_is_noticed(norm: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = (norm, 3, "float64", 0.3 if norm == "linf" else 3.0, (0.0, 1.0), False, 0)
    check = (case[3], norm, case[4])
    found, x = attack_once(*case)
    check_inside(found.path, x, *check)
    broken.calls = 0
    monkeypatch.setattr(sys.modules["minidl.attack.pgd"], "project", broken)
    found, x = attack_once(*case)
    with pytest.raises(AssertionError):
        check_inside(found.path, x, *check)


@given(
    d=st.lists(st.floats(-1e3, 1e3, width=32), min_size=6, max_size=6),
    eps=st.floats(0, 10),
    norm=st.sampled_from(ball.NORMS),
    scale=st.sampled_from([1.0, 1e-30]),
)
def test_shrinking_takes_the_nearest_in_the_ball(d: list[float], eps: float, norm: str, scale: float) -> None:
    given = np.array(d, np.float32).reshape(1, 1, 2, 3) * np.float32(scale)
    shrunk = ball.clip_norm(given, eps, norm)
    few_digits = np.finfo(np.float32).tiny  # smaller numbers have fewer
    assert shrunk.dtype == np.float32 and float(ball.sizes(shrunk, norm).item()) <= max(eps, 2 * few_digits)
    if ball.sizes(given, norm).item() <= eps:
        np.testing.assert_allclose(shrunk, given, rtol=1e-6)
    elif norm == "l2":  # of the same direction, and as long as may be
        np.testing.assert_allclose(shrunk, given * (eps / np.linalg.norm(given.astype(float))), rtol=1e-5, atol=1e-37)


def test_the_largest_number_below() -> None:
    for value in (8 / 255, 0.1, 1.0, 0.0, 1e-50, 10 / 3):
        found = ball.below(value, np.dtype("float32"))
        assert np.float32(found) == found <= value < float(np.nextafter(np.float32(found), np.float32(np.inf)))
    assert ball.below(0.1, np.dtype("float64")) == 0.1


@given(st.floats(-1, 1, width=32), st.floats(-0.125, 0.125, width=32))
def test_a_sum_is_rounded_towards_the_image(x: float, d: float) -> None:
    a, b = np.array(x, np.float32), np.array(d, np.float32)
    y = ball.add(a, b)
    assert abs(y - a) <= abs(b) and abs(float(y) - (x + d)) <= float(np.spacing(max(abs(a + b), abs(y))))


@pytest.mark.parametrize("name", ATTACKS)
def test_images_a_rounding_outside_of_the_bounds_are_put_back(name: str) -> None:
    model, x, ulp = convolutional(3, 4, dtype="float32"), images(3, 3, dtype="float32"), np.finfo(np.float32).eps
    x[:, 0, 0, :3], x[:, 1, 0, :2] = (-2.98e-8, -4 * ulp, np.nextafter(np.float32(0), np.float32(-1))), (1 + ulp, 1 + 4 * ulp)
    found, inside = ATTACKS[name](model, x, 1), ATTACKS[name](model, x.clip(0, 1), 1)
    assert found.x.dtype == np.float32 and found.x.min() >= 0 and found.x.max() <= 1
    np.testing.assert_array_equal(found.x, inside.x)
    np.testing.assert_array_equal(found.delta, inside.delta)
    x[0, 0, 0, 0] = -6 * ulp
    with pytest.raises(ValueError, match=r"x: expected values in the bounds \[0, 1\], got -7\.153e-07 to 1"):
        ATTACKS[name](model, x, 1)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.array, np.float16])
@pytest.mark.parametrize("name", ["fgsm", "pgd", "pgd l2", "universal"])
def test_the_size_of_a_change_is_no_larger_than_eps(name: str, kind: Callable[[float], Any]) -> None:
    """Exactly, whatever type eps has, and of images in float32"""
    model, x = convolutional(3, 4, dtype="float32"), images(3, 3, dtype="float32")
    for value in (0.0, 1e-3, 8 / 255, 0.1, 0.3):
        eps = kind(value)
        found = ATTACKS[name](model, x, 1, **{"eps": eps, "bounds": (np.float64(0), np.array(1.0))})
        assert found.x.dtype == found.delta.dtype == np.float32 and type(found.params["eps"]) is float
        assert (found.norms["l2" if name == "pgd l2" else "linf"].astype(np.float64) <= float(eps)).all()


def test_sizes_of_tiny_numbers() -> None:
    d = np.full((1, 1, 2, 2), 1e-30, np.float32)  # their squares are 0 in float32
    np.testing.assert_allclose(ball.sizes(d, "l2").item(), 2e-30, rtol=1e-6)
    np.testing.assert_allclose(ball.normalize(d), 0.5, rtol=1e-6)
    np.testing.assert_array_equal(ball.normalize(0 * d), 0)


@pytest.mark.parametrize("norm", ball.NORMS)
def test_the_start_is_uniform_in_the_ball(norm: str) -> None:
    d = ball.random_in_ball(np.zeros((4000, 1, 1, 2)), range(4000), 2.0, norm, seed=0).reshape(-1, 2)
    size = np.abs(d).max(1) if norm == "linf" else np.hypot(*d.T)
    assert size.max() <= 2 and abs((size < 1).mean() - 0.25) < 0.03  # half the radius, a quarter of the area
    assert np.abs(d.mean(0)).max() < 0.1 and abs(np.corrcoef(d.T)[0, 1]) < 0.05


# ---- batches, seeds, types


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "universal"])
def test_a_batch_of_n_equals_n_singles(name: str) -> None:
    """Without a random start, which depends on the number of the image"""
    model, x, y = convolutional(3, 4), images(5, 3), np.array([0, 1, 2, 3, 1])
    fixed = {"random_start": False} if name.startswith("pgd") else {}
    together = ATTACKS[name](model, x, y, **fixed)
    for n in range(5):
        alone = ATTACKS[name](model, x[n : n + 1], y[n : n + 1], **fixed)
        np.testing.assert_allclose(alone.x, together.x[n : n + 1], rtol=1e-9, atol=1e-12)
        assert (alone.success[0], alone.y[0], alone.steps[0]) == (together.success[n], together.y[n], together.steps[n])
        for norm in ball.NORMS:
            np.testing.assert_allclose(alone.norms[norm][0], together.norms[norm][0 if name == "universal" else n], rtol=1e-9)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_size_of_the_batches_does_not_matter(name: str) -> None:
    model, x, y = convolutional(2, 4), images(5, 2), np.array([0, 1, 2, 3, 1])
    whole = ATTACKS[name](model, x, y, batch_size=5, keep_path=True)
    for batch_size in 1, 2, 32:
        parts = ATTACKS[name](model, x, y, batch_size=batch_size, keep_path=True)
        same(parts, whole, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(parts.path, whole.path, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["pgd", "pgd l2", "universal"])
def test_the_seed_decides(name: str) -> None:
    model, x = convolutional(3, 4), images(6, 3)
    state = np.random.get_state()[1].tobytes()  # type: ignore[index,union-attr]
    first, again, other = (ATTACKS[name](model, x, seed=seed) for seed in (1, 1, 2))
    same(first, again, rtol=0)
    assert (first.x != other.x).any()
    assert np.random.get_state()[1].tobytes() == state  # type: ignore[index,union-attr]


@pytest.mark.parametrize("C", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ATTACKS)
def test_all_numbers_of_channels_in_both_types(name: str, C: int) -> None:
    found = {}
    for dtype in "float32", "float64":
        model, x = convolutional(C, 4, dtype=dtype), images(4, C, dtype=dtype)
        r = found[dtype] = ATTACKS[name](model, x, 2, mean=[0.5] * C, std=[0.25] * C)
        floats = (r.x, r.delta, r.before, r.logits, *r.norms.values())
        assert all(a.dtype == dtype for a in floats) and r.x.shape == x.shape
        np.testing.assert_allclose(r.logits, predict(model, (r.x - np.array(0.5, dtype)) / np.array(0.25, dtype)), rtol=1e-4)
        if name != "universal":
            np.testing.assert_array_equal(r.delta, r.x - x)
        np.testing.assert_array_equal(r.success, (r.logits.argmax(1) == 2) == (name == "fool"))
    np.testing.assert_allclose(found["float32"].before, found["float64"].before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_targeted_class_is_made_likelier(name: str) -> None:
    model, x = convolutional(3, 4), images(8, 3)
    more = {
        "fgsm": {"eps": 0.3},
        "pgd": {"eps": 0.3},
        "pgd l2": {"eps": 3},
        "deepfool": {"steps": 20},
        "universal": {"eps": 0.5, "fooling_rate": 1},
        "fool": {"steps": 50},
    }[name]
    found = ATTACKS[name](model, x, 2, **more | ({} if name == "fool" else {"targeted": True}))
    assert (found.before.argmax(1) != 2).all() and found.success.sum() > 4
    np.testing.assert_array_equal(found.success, found.logits.argmax(1) == 2)


def test_who_is_wrong_already_stays_as_it_is() -> None:
    model, x = convolutional(3, 4), images(4, 3)
    wrong = (predict(model.eval(), x).argmax(1) + 1) % 4
    found = attack.deepfool(model, x, wrong)
    assert found.success.all() and not found.steps.any()
    np.testing.assert_array_equal(found.x, x)
    found = attack.fool(model, x, predict(model, x).argmax(1))
    assert found.success.all() and not found.steps.any()


def test_class_images() -> None:
    model = convolutional(3, 4)
    y = np.arange(4)
    few = {"steps": 30, "jitter": 1, "blur_every": 10}
    whole = attack.class_image(model, (3, SIZE, SIZE), y, keep_path=True, **few)
    assert whole.x.shape == (4, 3, SIZE, SIZE) and whole.path.shape == (31, 4, 3, SIZE, SIZE)
    assert (whole.logits[y, y] > whole.before[y, y] + 0.2).all()
    np.testing.assert_array_equal(whole.success, whole.logits.argmax(1) == y)
    check_inside(whole.path, whole.x, None, "linf", (0, 1))
    same(attack.class_image(model, (3, SIZE, SIZE), y, batch_size=3, **few), whole, rtol=1e-9, atol=1e-12)
    same(attack.class_image(model, (3, SIZE, SIZE), y, **few), whole, rtol=0)
    assert (attack.class_image(model, (3, SIZE, SIZE), y, seed=1, **few).x != whole.x).any()
    assert attack.class_image(convolutional(2, 4, dtype="float32"), (2, 6, 6), 1, **few).x.dtype == np.float32


# ---- the model's state, progress, the GPU


def look(model: nn.Module) -> tuple[Any, ...]:
    parameters = [(p.requires_grad, p.grad is None, p.data.tobytes()) for p in model.parameters()]
    rngs = [str(rng.bit_generator.state) for rng in model.generators()]
    return [m.training for m in model.modules()], parameters, [b.tobytes() for _, b in model.named_buffers()], rngs


def of_images(model: nn.Module, x: Array, y: int, **more: Any) -> Any:
    return attack.class_image(model, x.shape[1:], y, steps=3, **more)


def of_lines(model: nn.Module, x: Array, y: int, **more: Any) -> Any:
    return attack.linearity(model, x[:1], y, count=5, **more)


@pytest.mark.parametrize("call", [*ATTACKS.values(), of_images, of_lines], ids=[*ATTACKS, "class_image", "linearity"])
def test_the_model_stays_as_it_was(call: Callable[..., Any]) -> None:
    model, x = convolutional(3, 4), images(3, 3)
    model.modules()[4].training = False  # one layer is in another mode than the rest
    model.parameters()[1].requires_grad = False
    before, told = look(model), []
    call(model, x, 1, mean=[0.5] * 3, std=[0.2] * 3, batch_size=2, progress=lambda done, total: told.append((done, total)))
    assert look(model) == before
    done, totals = zip(*told, strict=True)
    assert len(set(totals)) == 1 and list(done) == sorted(done) and done[-1] <= totals[0]
    if call is not ATTACKS["universal"]:  # which may be done before
        assert done[-1] == totals[0]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(model, x, 1, progress=stop)
    assert look(model) == before


@pytest.mark.parametrize("call", [*ATTACKS.values(), of_images], ids=[*ATTACKS, "class_image"])
def test_on_the_gpu(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x, more = images(3, 3), {"mean": [0.5] * 3, "std": [0.2] * 3, "batch_size": 2, "keep_path": True}
    on_cpu = call(convolutional(3, 4), x, 1, **more)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    on_gpu = call(convolutional(3, 4).to("gpu"), to_gpu(x), 1, **more)
    for name in "x", "delta", "success", "y", "before", "logits", "steps", "path":
        np.testing.assert_allclose(to_cpu(getattr(on_gpu, name)), getattr(on_cpu, name), rtol=1e-9, atol=1e-12)
    for norm in ball.NORMS:
        np.testing.assert_allclose(to_cpu(on_gpu.norms[norm]), on_cpu.norms[norm], rtol=1e-9)


# ---- what cannot be

X = images(2, 3)
NAN = X.copy()
NAN[1, 2, 3, 4] = np.nan


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize(
    ("x", "more", "error", "message"),
    [
        (X - 0.5, {}, ValueError, r"x: expected values in the bounds \[0, 1\], got -0.5 to .*normalised input\? pass mean and"),
        (X * 255, {}, ValueError, r"x: expected values in the bounds \[0, 1\], got 0 to 255"),
        (NAN, {}, ValueError, "x: holds NaN or infinity"),
        (X[0], {}, ValueError, r"x: expected images \(N,C,H,W\).*got shape \(3, 6, 6\)"),
        ((X * 255).astype("uint8"), {}, TypeError, "x: expected an array of floats.*got uint8"),
        (X, {"y": 4}, ValueError, "y: expected one of the classes 0 to 3, got 4"),
        (X, {"y": np.array([0, -1])}, ValueError, "y: expected one of the classes 0 to 3"),
        (X, {"y": np.array([0, 1, 2])}, ValueError, "y: expected one class, or one for each of the 2 images"),
        (X, {"y": 1.0}, TypeError, "y: expected a class as an integer"),
        (X, {"bounds": (1, 0)}, ValueError, r"bounds: expected \(low, high\), low < high, got \(1, 0\)"),
        (X, {"bounds": (0, np.inf)}, ValueError, r"bounds\[1\]: expected a finite number, got inf"),
        (X, {"mean": [0.5] * 3}, TypeError, "mean, std: expected 3 numbers each, or None twice"),
        (X, {"mean": [0.5] * 2, "std": [1] * 2}, ValueError, r"mean: expected 3 finite numbers, got \[0.5, 0.5\]"),
        (X, {"mean": [0.5] * 3, "std": [1, 0, 1]}, ValueError, r"std\[1\]: expected a number in \(0, inf\), got 0"),
        (X, {"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
        (X, {"progress": "yes"}, TypeError, "progress: expected False, True or a function"),
    ],
)
def test_bad_input(name: str, x: Array, more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ATTACKS[name](convolutional(3, 4), x, **{"y": 1} | more)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: attack.fgsm(m, X, eps=-0.1), ValueError, r"eps: expected a number in \[0, inf\), got -0.1"),
        (lambda m: attack.pgd(m, X, eps=np.nan), ValueError, r"eps: expected a number in \[0, inf\), got nan"),
        (lambda m: attack.universal(m, X, eps="8"), TypeError, r"eps: expected a number in \[0, inf\), got '8'"),
        (lambda m: attack.pgd(m, X, norm="l1"), ValueError, r"norm: expected one of \('linf', 'l2'\), got 'l1'"),
        (lambda m: attack.universal(m, X, norm=2), ValueError, "norm: expected one of"),
        (lambda m: attack.pgd(m, X, step_size=-1), ValueError, r"step_size: expected a number in \[0, inf\), got -1"),
        (lambda m: attack.pgd(m, X, steps=1.5), TypeError, "steps: expected an integer of at least 0, got 1.5"),
        (lambda m: attack.pgd(m, X, seed=-1), ValueError, "seed: expected an integer of at least 0, got -1"),
        (lambda m: attack.fgsm(m, X, targeted=True), ValueError, "y: a targeted attack needs the class that it is to reach"),
        (lambda m: attack.fool(m, X, None), ValueError, "y: a targeted attack needs the class that it is to reach"),
        (lambda m: attack.fool(m, X, 1, step_size=np.inf), ValueError, r"step_size: expected a number in \[0, inf\), got inf"),
        (lambda m: attack.deepfool(m, X, overshoot=-1), ValueError, r"overshoot: expected a number in \[0, inf\), got -1"),
        (lambda m: attack.deepfool(m, X, candidates=0), ValueError, "candidates: expected an integer of at least 1, got 0"),
        (lambda m: attack.universal(m, X, epochs=-1), ValueError, "epochs: expected an integer of at least 0, got -1"),
        (lambda m: attack.fgsm(m, X, output="loss"), ValueError, "output: expected one of"),
        (lambda m: attack.fgsm(linear(3, 1)[0], X), ValueError, r"model: an attack needs at least two classes.*\(2, 1\)"),
        (lambda m: attack.fgsm(m, X.astype("float32")), ValueError, "x: the model is float64 on the cpu, x is float32"),
        (lambda m: attack.class_image(m, (3, 6), 1), ValueError, r"shape: expected 3 integers of at least 1, got \(3, 6\)"),
        (lambda m: attack.class_image(m, (3, 6, 6), 9), ValueError, "y: expected one of the classes 0 to 3"),
        (
            lambda m: attack.class_image(m, (3, 6, 6), 1, jitter=-1),
            ValueError,
            "jitter: expected an integer .* got -1",
        ),
        (lambda m: attack.class_image(m, (3, 6, 6), 1, bounds=(1, 1)), ValueError, "bounds: expected"),
        (lambda m: attack.linearity(m, X), ValueError, r"x: expected one image, \(1,C,H,W\), got shape \(2, 3, 6, 6\)"),
        (lambda m: attack.linearity(m, X[:1], 4), ValueError, "target: expected one of the classes 0 to 3, got 4"),
        (lambda m: attack.linearity(m, X[:1], count=200), ValueError, "count: expected an odd number, got 200"),
        (lambda m: attack.linearity(m, X[:1], max_eps=-1), ValueError, r"max_eps: expected a number in \(0, inf\), got -1"),
    ],
)
def test_other_bad_input(call: Callable[[nn.Module], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(convolutional(3, 4))
