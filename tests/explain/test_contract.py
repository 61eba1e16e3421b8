"""What is true of every method: of its results, of the model afterwards, and of what it says about bad arguments."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, explain, kernels, nn, ops
from minidl.array import Array, to_cpu, to_gpu
from minidl.explain import Explanation
from minidl.inference import predict
from minidl.inference.batches import gather_runs, runs_in_batches, split_runs
from minidl.inference.scores import OUTPUTS
from tests.gpu import strict_cupy

from .nets import METHODS, Net, images

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # where all speaks against the class

RANDOM = ["smoothgrad", "vargrad", "expected_gradients", "rise", "kernel_shap", "lime", "smooth"]
CELLS, SEGMENTS = ["kernel_shap", "lime"], np.arange(64).reshape(1, 8, 8) // 16


def ask(method: str, model: nn.Module, x: Array, **settings: Any) -> Explanation:
    function, quick = METHODS[method]
    return function(model, x, **quick | settings)


def net(channels: int = 3) -> Net:
    return Net(channels).to(dtype="float64")


def same(a: Explanation, b: Explanation, rtol: float = 1e-9) -> None:
    for name in "map", "raw", "target", "score", "delta":
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(
                to_cpu(one), to_cpu(other), rtol=rtol, atol=rtol * float(np.abs(to_cpu(other)).max()) + 1e-12
            )


def test_every_method_is_here() -> None:
    returns = {name: inspect.signature(getattr(explain, name)).return_annotation for name in explain.__all__}
    found = {name for name, returned in returns.items() if returned in ("Explanation", "dict[str, Explanation]")}
    assert found - {"meaningful_perturbation", "extremal_perturbation"} == set(METHODS)  # which have tests of their own


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels(method: str, channels: int) -> None:
    model, x = net(channels), images(2, channels, 10, 8)
    e = ask(method, model, x)
    logits = predict(model, x)
    assert e.map.shape == (2, 10, 8) and e.map.dtype == e.raw.dtype == e.score.dtype == np.float64
    assert e.raw.ndim == 4 and len(e.raw) == 2 and np.isfinite(e.raw).all() and e.map.any((1, 2)).all()
    np.testing.assert_array_equal(e.target, logits.argmax(1))
    assert e.target.dtype == np.int64
    chosen = logits if method != "rise" else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(e.score, chosen.max(1), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_is_its_images_and_chunks_do_not_matter(method: str) -> None:
    model, x, target = net(), images(5, 3, 8, 8), np.array([0, 1, 2, 0, 1])
    background = {"background": x[:2]} if method == "expected_gradients" else {}
    function, quick = (explain.expected_gradients, {"samples": 5}) if background else METHODS[method]
    whole = function(model, x, target=target, **quick, **background)
    for i in range(5):
        one = function(model, x[i : i + 1], target=target[i : i + 1], **quick, **background)
        parts = {n: getattr(whole, n) for n in ("map", "raw", "target", "score", "delta")}
        same(one, Explanation(**{n: None if a is None else a[i : i + 1] for n, a in parts.items()}))
    for size in 1, 2, 7:
        same(function(model, x, target=target, batch_size=size, **quick, **background), whole)


def test_images_with_samples_in_batches() -> None:
    batches = list(runs_in_batches(3, 2, 4))
    assert batches == [[(slice(0, 3), 0), (slice(0, 1), 1)], [(slice(1, 3), 1)]]
    a = np.arange(3)
    assert gather_runs(a, batches[0]).tolist() == [0, 1, 2, 0]
    assert [part.tolist() for part in split_runs(np.arange(4), batches[0])] == [[0, 1, 2], [3]]
    for n, samples, size in (1, 5, 2), (5, 1, 2), (2, 3, 100), (4, 3, 1):
        met = [(i, k) for runs in runs_in_batches(n, samples, size) for part, k in runs for i in a_range(part)]
        assert met == [(i, k) for k in range(samples) for i in range(n)]


def a_range(part: slice) -> range:
    return range(part.start, part.stop)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_bits(method: str) -> None:
    model, x = net(), images(3, 3, 8, 8)
    state = np.random.get_state()[1].copy()
    seeds = [{"seed": 3}, {"seed": 3}, {"seed": 4}] if method in RANDOM else [{}, {}]
    first, again, *other = [ask(method, model, x, **seed) for seed in seeds]
    assert first.map.tobytes() == again.map.tobytes() and first.raw.tobytes() == again.raw.tobytes()
    assert all(np.abs(first.raw - e.raw).max() > 1e-6 for e in other)
    assert (np.random.get_state()[1] == state).all()  # the global generator was left alone


@pytest.mark.parametrize("method", METHODS)
def test_one_target_for_all_or_one_for_each(method: str) -> None:
    model, x = net(), images(3, 3, 8, 8)
    same(ask(method, model, x, target=1), ask(method, model, x, target=np.array([1, 1, 1])), 1e-15)
    assert np.abs(ask(method, model, x, target=1).raw - ask(method, model, x, target=2).raw).max() > 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_on_the_gpu(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(3, 3, 8, 8).astype(np.float32)
    with kernels.use("reference"):
        on_cpu = ask(method, Net(), x)
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = ask(method, Net().to("gpu"), to_gpu(x))
    assert isinstance(on_gpu.map, strict_cupy.ndarray) and isinstance(on_gpu.raw, strict_cupy.ndarray)
    same(on_gpu, on_cpu, 1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was(method: str, training: bool) -> None:
    model, x = net().train(training), images(3, 3, 8, 8)
    model.bn2.train(not training)  # every module has a mode of its own
    model.conv1.weight.requires_grad = False
    before, untouched = model.state_dict(), x.copy()

    def unchanged() -> None:
        assert model.training == training and model.bn2.training != training and ops.fusing()
        assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(model.parameters()) - 1)
        assert all(p.grad is None for p in model.parameters())
        assert all((before[name] == a).all() for name, a in model.state_dict().items())
        assert not any("forward" in vars(module) for module in model.modules())
        np.testing.assert_array_equal(x, untouched)

    ask(method, model, x)
    unchanged()

    calls = 0

    class Tripwire(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls > 4:
                raise KeyboardInterrupt
            return ops.relu(x)

    model.relu = Tripwire()
    with pytest.raises(KeyboardInterrupt):
        ask(method, model, x, batch_size=1)
    assert model.relu.training  # as it was made
    unchanged()


@pytest.mark.parametrize("method", METHODS)
def test_progress(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    ask(method, net(), images(3, 3, 8, 8), batch_size=2, progress=lambda done, total: seen.append((done, total)))
    done, total = zip(*seen, strict=True)
    assert len(set(total)) == 1 and list(done) == sorted(set(done)) and done[-1] == total[0]
    ask(method, net(), images(1, 3, 8, 8), progress=True)
    assert "it/s]" in capsys.readouterr().err


@pytest.mark.parametrize("method", METHODS)
def test_all_settings_are_recorded(method: str) -> None:
    function, quick = METHODS[method]
    settings = inspect.signature(getattr(explain, method)).parameters
    e = function(net(), images(1, 3, 8, 8), **quick)
    assert e.params.keys() >= settings.keys() - {"model", "x", "target", "batch_size", "progress"}
    assert e.params["method"] == method and e.params.items() >= {k: v for k, v in quick.items() if isinstance(v, float)}.items()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_score(method: str, output: str) -> None:
    if method == "lrp" and output not in ("logit", "margin"):
        with pytest.raises(ValueError, match=r"relevance: (Exp|LogSoftmax|Sigmoid) .* has no rule"):
            ask(method, net(), images(2, 3, 8, 8), output=output)
        return
    e = ask(method, net(), images(2, 3, 8, 8), output=output)
    assert e.params["output"] == output and np.isfinite(e.map).all()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": [1.0]}, TypeError, "x: expected an array of floats, images as the model was trained on them, got list"),
    ({"x": np.zeros((1, 3, 8, 8), np.uint8)}, TypeError, "x: expected an array of floats"),
    ({"x": np.zeros((3, 8, 8))}, ValueError, r"x: expected images \(N,C,H,W\), none of these 0, got shape \(3, 8, 8\)"),
    ({"x": np.zeros((0, 3, 8, 8))}, ValueError, "none of these 0"),
    ({"x": np.zeros((1, 3, 8, 8), np.float32)}, ValueError, "x: the model is float64 on the cpu, x is float32"),
    ({"x": np.full((1, 3, 8, 8), np.nan)}, ValueError, "x: holds NaN or infinity"),
    ({"target": 3}, ValueError, "target: expected one of the classes 0 to 2, got 3"),
    ({"target": -1}, ValueError, "target: expected one of the classes 0 to 2, got -1"),
    ({"target": 1.0}, TypeError, "target: expected a class as an integer"),
    ({"target": np.array([0, 1])}, ValueError, "target: expected one class, or one for each of the 1 images"),
    ({"output": "logits"}, ValueError, r"output: expected one of .*'margin', 'sigmoid'\) or a function f.*, got 'logits'"),
    ({"batch_size": 0}, ValueError, "batch_size: expected an integer of at least 1, got 0"),
    ({"progress": 1}, TypeError, r"progress: expected False, True or a function of \(done, total\), got 1"),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("bad", "error", "message"), BAD)
def test_bad_arguments(method: str, bad: dict[str, Any], error: type[Exception], message: str) -> None:
    function, quick = METHODS[method]
    if method == "expected_gradients":
        function, quick = explain.expected_gradients, {"samples": 2, "background": images(1, 3, 8, 8)}
    with pytest.raises(error, match=message):
        function(net(), **{"x": images(1, 3, 8, 8)} | quick | bad)


@pytest.mark.parametrize(
    ("method", "bad", "message"),
    [
        *((m, {"samples": 0}, "samples: expected an integer of at least 1, got 0") for m in RANDOM),
        *((m, {"seed": -1}, "seed: expected an integer of at least 0, got -1") for m in RANDOM),
        ("smoothgrad", {"noise": -0.1}, r"noise: expected a number in \[0, inf\), got -0.1"),
        ("rise", {"p": 1.0}, r"p: expected a number in \(0, 1\), got 1.0"),
        ("rise", {"grid": 0}, "grid: expected an integer of at least 1, got 0"),
        (
            "rise",
            {"baseline": np.zeros(3)},
            r"baseline: expected a number, or an array that broadcasts to \(1, 3, 8, 8\), got shape \(3,\)",
        ),
        *((m, {"grid": (2, 9)}, "grid: 2x9 cells are more than the pixels of the images, which are 8x8") for m in CELLS),
        *((m, {"grid": 0}, "grid: expected an integer of at least 1, or a pair of them, got 0") for m in CELLS),
        *(
            (m, {"segments": SEGMENTS[0]}, r"segments: expected \(1, 8, 8\), one number a pixel, got shape \(8, 8\)")
            for m in CELLS
        ),
        *((m, {"baseline": np.inf}, "baseline: expected a finite number, got inf") for m in CELLS),
        ("lime", {"kernel_width": 0.0}, r"kernel_width: expected a number in \(0, inf\), got 0.0"),
        ("lime", {"ridge": -1.0}, r"ridge: expected a number in \[0, inf\), got -1.0"),
        (
            "occlusion",
            {"window": 1, "stride": 1, "baseline": "mean"},
            "window: one pixel is its own mean, .* take a larger window",
        ),
        ("occlusion", {"baseline": "median"}, r"baseline: expected a number, .* or one of \('mean', 'blur'\), got 'median'"),
        ("integrated_gradients", {"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ("integrated_gradients", {"baseline": np.nan}, "baseline: expected a finite number, got nan"),
        ("occlusion", {"window": (4, 9)}, "window: 4x9 is larger than the images, which are 8x8"),
        ("occlusion", {"window": 2, "stride": 3}, "stride: 3x3 skips pixels, the window is 2x2"),
        (
            "grad_cam",
            {"layer": "linear"},
            r"layer: 'linear' is none of those with spatial extent, which are conv1 \(6, 8, 8\), bn1",
        ),
        (
            "grad_cam",
            {"layer": "conv5"},
            r"'conv5' .* pool \(6, 4, 4\), conv3 \(5, 4, 4\), conv4 \(8, 4, 4\), relu \(8, 4, 4\)$",
        ),
        ("evidence_maps", {"sigma": 0.0}, r"sigma: expected a number in \(0, inf\), got 0.0"),
    ],
)
def test_bad_settings(method: str, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(method, net(), images(1, 3, 8, 8), **bad)


@pytest.mark.parametrize("method", CELLS)
@pytest.mark.parametrize(("segments", "got"), [(SEGMENTS.astype(float), "float64"), (SEGMENTS > 1, "bool"), ([[[1]]], "list")])
def test_segments_are_integers(method: str, segments: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"segments: expected an array of integers, .* got {got}"):
        ask(method, net(), images(1, 3, 8, 8), segments=segments)


@pytest.mark.parametrize("method", ["saliency", "smoothgrad", "integrated_gradients", "guided_backprop", "vargrad"])
def test_reduce(method: str) -> None:
    raw, maps = ask(method, net(), images(2, 3, 8, 8), reduce="sum").raw, {}
    for reduce in "maxabs", "sumabs", "sum":
        maps[reduce] = ask(method, net(), images(2, 3, 8, 8), reduce=reduce).map
    np.testing.assert_array_equal(maps["maxabs"], np.abs(raw).max(1))
    np.testing.assert_array_equal(maps["sumabs"], np.abs(raw).sum(1))
    np.testing.assert_array_equal(maps["sum"], raw.sum(1))
    with pytest.raises(ValueError, match=r"reduce: expected one of \('maxabs', 'sumabs', 'sum'\), got 'max'"):
        ask(method, net(), images(1, 3, 8, 8), reduce="max")


def test_a_model_that_returns_no_logits() -> None:
    with pytest.raises(ValueError, match=r"model: expected one row of logits an image, \(N,K\), got shape \(1, 6, 8, 8\)"):
        explain.saliency(net().conv1, images(1, 3, 8, 8))
