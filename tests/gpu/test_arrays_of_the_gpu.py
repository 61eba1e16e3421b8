"""Arrays on the GPU, or some there and some not, wherever explain, attack, evaluate, metrics and view take them."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from minidl import attack, evaluate, explain, inference, kernels, metrics, view
from minidl.array import Array, array_like, check_device, device_of, move, shape_of, to_cpu, to_gpu
from minidl.evaluate import baselines
from tests.attack.nets import ATTACKS
from tests.explain.nets import METHODS, Net
from tests.gpu import strict_cupy

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # of small nets

RNG = np.random.default_rng(0)
X = RNG.random((3, 3, 16, 16), np.float32)
MAPS, MASKS = RNG.random((3, 16, 16), np.float32), RNG.random((3, 16, 16)) > 0.7
SEGMENTS = (MAPS * 5).astype(np.int64)
TARGET = np.array([2, 0, 1])
COLOR = np.float32([0.4, 0.5, 0.6])
CELL = COLOR[:, None, None]
P = RNG.random((3, 3), np.float32)
Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("reference"):
        yield


def with_net(function: Call, **quick: Any) -> Call:
    return lambda *arrays, **named: function(
        Net().to("cpu" if isinstance(arrays[0], np.ndarray) else "gpu"), *arrays, **named, **quick
    )


# what takes the images and what else: arrays by name, which may be on either device
CASES: dict[str, tuple[Call, tuple[Array, ...], dict[str, Array]]] = {
    **{name: (with_net(f, **quick), (X,), {"target": TARGET}) for name, (f, quick) in METHODS.items()},
    "occlusion, baseline": (with_net(explain.occlusion), (X,), {"baseline": CELL}),
    "occlusion, mean": (with_net(explain.occlusion, baseline="mean"), (X,), {"target": TARGET}),
    "occlusion, blur": (with_net(explain.occlusion, baseline="blur"), (X,), {"target": TARGET}),
    "kernel_shap, segments": (
        with_net(explain.kernel_shap, samples=20),
        (X,),
        {"segments": SEGMENTS, "baseline": CELL},
    ),
    "lime, segments": (with_net(explain.lime, samples=20), (X,), {"segments": SEGMENTS, "baseline": CELL}),
    "rise, baseline": (with_net(explain.rise, samples=9), (X,), {"baseline": CELL}),
    "integrated_gradients, baseline": (with_net(explain.integrated_gradients, steps=3), (X,), {"baseline": X[::-1].copy()}),
    "meaningful": (with_net(explain.meaningful_perturbation, iterations=2), (X,), {"target": TARGET}),
    "meaningful, constant": (
        with_net(explain.meaningful_perturbation, iterations=2, deletion="constant"),
        (X,),
        {"constant": CELL},
    ),
    "meaningful, noise": (with_net(explain.meaningful_perturbation, iterations=2, deletion="noise"), (X,), {"target": TARGET}),
    "extremal": (with_net(explain.extremal_perturbation, iterations=2), (X,), {"target": TARGET}),
    "predict": (with_net(inference.predict), (X,), {}),
    "delete": (explain.delete, (X,), {"map": MAPS}),
    "delete, constant": (partial(explain.delete, deletion="constant"), (X,), {"map": MAPS, "constant": CELL}),
    "keep": (explain.keep, (X,), {"map": MAPS}),
    **{name: (with_net(f), (X,), {"y": TARGET, "mean": COLOR, "std": COLOR}) for name, f in ATTACKS.items()},
    "robust_accuracy": (with_net(attack.robust_accuracy, eps=0.2, steps=3, candidates=2, squares=4), (X,),
                        {"y": TARGET, "mean": COLOR, "std": COLOR}),
    "linearity": (with_net(attack.linearity, count=5), (X[:1],), {"target": TARGET[:1], "mean": COLOR, "std": COLOR}),
    "deletion": (with_net(evaluate.deletion, steps=4), (X,), {"maps": MAPS, "target": TARGET, "baseline": CELL}),
    "insertion": (with_net(evaluate.insertion, steps=4), (X,), {"maps": MAPS, "target": TARGET, "baseline": X[::-1].copy()}),
    "completeness": (with_net(evaluate.completeness), (X,), {"raw": X, "target": TARGET, "baseline": CELL}),
    "road": (with_net(evaluate.road, shares=(0.2, 0.7)), (X,), {"maps": MAPS, "target": TARGET}),
    "infidelity": (with_net(evaluate.infidelity, samples=5), (X,), {"raw": X[::-1].copy(), "target": TARGET}),
    "infidelity, square": (
        with_net(evaluate.infidelity, samples=5, perturbation="square"),
        (X,),
        {"raw": MAPS, "baseline": CELL},
    ),
    "infidelity, function": (
        with_net(evaluate.infidelity, samples=5, perturbation=lambda image, rng: image * rng.random()),
        (X,),
        {"raw": MAPS},
    ),
    "max_sensitivity": (with_net(evaluate.max_sensitivity, method=explain.saliency, samples=3), (X,), {"target": TARGET}),
    "complexity": (evaluate.complexity, (), {"maps": MAPS}),
    "sparseness": (evaluate.sparseness, (), {"maps": MAPS}),
    "randomization": (with_net(evaluate.randomization, method=explain.saliency, every=3), (X,), {"target": TARGET}),
    "ssim": (evaluate.ssim, (), {"a": MAPS, "b": MAPS[::-1].copy()}),
    "rank_correlation": (evaluate.rank_correlation, (), {"a": MAPS, "b": MAPS[::-1].copy()}),
    "pointing_game": (evaluate.pointing_game, (), {"maps": MAPS, "masks": MASKS}),
    "mass_in_mask": (evaluate.mass_in_mask, (), {"maps": MAPS, "masks": MASKS}),
    "iou": (evaluate.iou, (), {"maps": MAPS, "masks": MASKS}),
    "bootstrap": (partial(metrics.bootstrap, resamples=20), (), {"values": P[0], "groups": TARGET}),
    **{f"baseline {name}": (getattr(baselines, name), (), {"x": X}) for name in ("random", "centre", "sobel", "intensity")},
    "accuracy": (metrics.accuracy, (), {"logits": P, "labels": TARGET}),
    "balanced_accuracy": (metrics.balanced_accuracy, (), {"logits": P, "labels": TARGET}),
    "confusion_matrix": (metrics.confusion_matrix, (), {"logits": P, "labels": TARGET}),
    "auc": (metrics.auc, (), {"scores": P[0], "labels": TARGET % 2}),
}  # fmt: skip


def arrays_of(result: Any) -> list[Array]:
    """What a method, an attack or a measure found"""
    names = "map raw x delta success logits value chance share score similarity target slope mean".split()
    found = [getattr(result, name) for name in names if getattr(result, name, None) is not None]
    found += [getattr(result.along, name) for name in ("logits", "gates", "r2")] if hasattr(result, "along") else []
    found = [a for a in found if not callable(a)]
    return found if found and not isinstance(result, np.ndarray | strict_cupy.ndarray) else [result]


@pytest.mark.parametrize("name", CASES)
def test_each_array_on_either_device(name: str) -> None:
    call, images, others = CASES[name]
    want = [np.asarray(to_cpu(a) if shape_of(a) else a) for a in arrays_of(call(*images, **others))]
    for there in (to_gpu, np.asarray):  # images and net here or there, all else there
        if there is np.asarray and not images:
            continue
        got = call(*map(there, images), **{key: to_gpu(a) for key, a in others.items()})
        for a, b in zip(arrays_of(got), want, strict=True):
            np.testing.assert_allclose(to_cpu(a) if shape_of(a) else float(a), b, rtol=2e-3, atol=1e-5)
    if images:
        got = call(*map(to_gpu, images), **others)  # images and net there, all else here
        for a, b in zip(arrays_of(got), want, strict=True):
            np.testing.assert_allclose(to_cpu(a) if shape_of(a) else float(a), b, rtol=2e-3, atol=1e-5)


def test_nothing_that_takes_arrays_is_left_out() -> None:
    named = {name.split(",")[0].removeprefix("baseline ") for name in CASES} | {
        "meaningful_perturbation",
        "extremal_perturbation",
    }
    functions = {name for room in (explain, attack, evaluate) for name in room.__all__ if name[0].islower()}
    assert functions - named == {"baselines", "class_image"}


@pytest.mark.parametrize("y", [1, np.int64(1), TARGET])
def test_images_of_classes(y: Any) -> None:
    on_cpu = attack.class_image(Net(), (3, 16, 16), y, steps=2, mean=COLOR, std=COLOR)
    for given in (y, move(y, "gpu")):
        found = attack.class_image(Net().to("gpu"), (3, 16, 16), given, steps=2, mean=to_gpu(COLOR), std=COLOR)
        np.testing.assert_allclose(to_cpu(found.x), on_cpu.x, atol=1e-4)


def test_a_background_on_another_device_is_told() -> None:
    with pytest.raises(ValueError, match="background: the model is float32 on the gpu, background is float32 on the cpu"):
        explain.expected_gradients(Net().to("gpu"), to_gpu(X), X)


def test_results_come_back() -> None:
    e = explain.extremal_perturbation(Net().to("gpu"), to_gpu(X), iterations=2)
    a = attack.fgsm(Net().to("gpu"), to_gpu(X))
    assert e.to("gpu").map is e.map and a.to("gpu").path is None
    e, a = e.to("cpu"), a.to("cpu")
    for array in e.map, e.raw, e.target, e.score, e.params["kept"], e.history[-1]["area"], a.x, a.success, a.norms["l2"]:
        assert isinstance(array, np.ndarray)
    assert e.params["areas"] == (0.025, 0.05, 0.1, 0.2) and e.name == "extremal perturbation"


def test_moves() -> None:
    moved = move({"a": [np.ones(2), 3], "b": (np.zeros(1), "x"), "c": None}, "gpu")
    assert device_of(moved["a"][0]) == device_of(moved["b"][0]) == "gpu" and moved["a"][1:] == [3] and moved["c"] is None
    assert device_of(array_like(to_gpu(X), X)) == "cpu" and device_of(array_like([1, 2], to_gpu(X), np.float32)) == "gpu"
    assert shape_of(to_gpu(X)) == X.shape and shape_of([1, 2]) == (2,) and shape_of(3) == ()


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device("cpu")
    check_device("gpu")
    with pytest.raises(ValueError, match=r"device: expected one of \('cpu', 'gpu'\), got 'tpu'"):
        check_device("tpu")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="device 'gpu' needs CuPy, which is not installed"):
        check_device("gpu")


IMAGES: dict[str, Callable[..., None]] = {
    "overlays": lambda path, move: view.overlays(path, move(X), move(MAPS)),
    "comparison": lambda path, move: view.comparison(path, move(X), {"a": move(MAPS)}, ["b"] * 3),
    "gradients": lambda path, move: view.gradient_images(path, move(X), move(MAPS), move(TARGET), move(P), "abc"),
    "fooled": lambda path, move: view.fooled(path, move(X), move(X[::-1].copy()), move(P), move(P), "abc"),
    "classes": lambda path, move: view.images_of_classes(path, move(X), "abc"),
    "confusion": lambda path, move: view.confusion(path, move(np.eye(3, dtype=int)), "abc"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_drawn_from_the_gpu(name: str, tmp_path: pathlib.Path) -> None:
    IMAGES[name](tmp_path / "cpu.png", np.asarray)
    IMAGES[name](tmp_path / "gpu.png", to_gpu)
    assert (tmp_path / "cpu.png").read_bytes() == (tmp_path / "gpu.png").read_bytes()
