"""The examples with --device gpu, on the stand-in for CuPy; ground_truth.py has tests of its own."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import compare
import dense_or_residual
import fooling
import linearity
import numpy as np
import perturbation
import pytest
import report
import residual_or_plain
import saliency
import step
import train as training
from PIL import Image

import models
from minidl import kernels, train
from tests.gpu import strict_cupy

Main = Callable[[list[str]], int]
EXAMPLES: dict[str, tuple[Main, list[str], str]] = {  # with what makes them quick, and a file that they write
    "fooling": (fooling.main, ["--count", "2"], "fooled.png"),
    "saliency": (saliency.main, ["--image", "PNG", "--count", "1", "--masks", "9"], "methods.png"),
    "perturbation": (perturbation.main, ["--count", "1", "--iterations", "2"], "areas.png"),
    "study": (perturbation.main, ["--study", "1", "--iterations", "2"], ""),
    "linearity": (linearity.main, ["--image", "PNG"], "linearity.png"),
    "two nets": (linearity.main, ["--images", "100", "--epochs", "1", "--count", "1"], "linearity.png"),
    "step": (step.main, ["--no-open", "--text", "--pixels", "9"], "step.html"),
    "report": (report.main, ["PNG", "--samples", "9"], "mine.html"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert training.main(["--limit", "32", "--epochs", "1", "--batch-size", "16", "--out", str(out)]) == 0
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(out / "mine.png")
    return out


def asked(name: str, run: pathlib.Path, out: pathlib.Path) -> list[str]:
    rest = [str(run / "mine.png") if word == "PNG" else word for word in EXAMPLES[name][1]]
    return ["--device", "gpu", "--run", str(run), *rest, "--out", str(out / "step.html" if name == "step" else out)]


@pytest.mark.ci
@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example(name: str, run: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, _, written = EXAMPLES[name]
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("reference"):
        assert main(asked(name, run, tmp_path)) == 0
    assert not written or (tmp_path / written).stat().st_size > 1000


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_cupy(
    name: str,
    run: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert EXAMPLES[name][0](asked(name, run, tmp_path)) == 1
    assert capsys.readouterr().err.startswith("error: device 'gpu' needs CuPy, which is not installed")


@pytest.mark.parametrize("main", [residual_or_plain.main, dense_or_residual.main])
def test_comparisons_without_cupy(main: Main, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main(["--device", "gpu"]) == 1
    assert capsys.readouterr().err.startswith("error: device 'gpu' needs CuPy, which is not installed")


def test_a_comparison(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets are trained there, each step as a CUDA graph (see tests/gpu/graph_simulated.py), and their gradients taken there."""
    fit, places = train.fit, set()

    def without_a_graph(model: Any, train_set: Any, settings: Any, *rest: Any) -> Any:
        places.add((settings.device, settings.cuda_graph))
        return fit(model, train_set, replace(settings, cuda_graph=False), *rest)

    monkeypatch.setattr(compare, "fit", without_a_graph)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    few = ["--depths", "20", "--images", "8", "--batch-size", "8", "--epochs", "1"]
    with kernels.use("reference"):
        assert residual_or_plain.main(["--device", "gpu", *few, "--out", str(tmp_path)]) == 0
    assert places == {("gpu", True)} and (tmp_path / "figure.png").exists()


def test_what_a_step_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = strict_cupy.MemoryPool
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    monkeypatch.setattr(pool, "total_bytes", lambda self: 12345)
    with kernels.use("reference"):
        cost = dense_or_residual.step_cost(models.resnet8, True, (2, 3, 8, 8), "gpu", seconds=0)
    assert cost.seconds > 0 and cost.before == cost.peak == 12345
    assert strict_cupy.null.queued[-1] == "synchronize"
