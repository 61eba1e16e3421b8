"""The benchmark for a machine with a GPU, rehearsed without one: at the smallest sizes, on the stand-in for CuPy."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidl import kernels
from tests.benchmarks import gpu
from tests.gpu import strict_cupy

REHEARSAL = gpu.Options(rehearse=True)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("reference"):
        yield


def test_it_refuses_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy(devices=0))
    with pytest.raises(SystemExit) as stop:
        gpu.main([])
    assert stop.value.code == 1
    assert "nothing to measure: device 'gpu' needs a CUDA device, and CuPy finds none" in capsys.readouterr().err


def test_it_compares_cpu_and_gpu(monkeypatch: pytest.MonkeyPatch, stand_in: None) -> None:
    """The right answer, and one that is wrong by a hundredth"""
    found = gpu.agreement("resnet8", 2, 2)
    assert found["same_bits"] and found["difference"] < 1e-6 and found["cpu"][0] != found["cpu"][1]
    right = gpu._losses
    monkeypatch.setattr(gpu, "_losses", lambda *case: [x * 1.01 ** (case[1] == "gpu") for x in right(*case)])
    assert gpu.agreement("resnet8", 2, 2)["difference"] > 0.009


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("peak", 3, "GB/s"),
        ("kernels", 13, "conv2d_grad_w 3x3 of 2x64x8x8"),
        ("agreement", 1, "have the same bits"),
        ("resnet20", 1, "; CPU after 15 epochs: 85.6%)"),
        ("fast", 1, "of the test images right (always the largest class: "),
        ("explain", 2, "on the CPU (of 1 images)"),
    ],
)
def test_parts(name: str, rows: int, words: str, stand_in: None) -> None:
    part, _, _ = gpu.PARTS[name]
    found = part(REHEARSAL)
    assert len(found) == rows and all(r["value"] > 0 or name == "agreement" for r in found)
    assert words in gpu.table({"device": "none", "rehearse": True, "parts": {name: {"rows": found}}})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["steps", "tests"])
def test_parts_with_processes(name: str, stand_in: None) -> None:
    part, _, _ = gpu.PARTS[name]
    found = part(REHEARSAL)
    assert {r["what"].split(": ")[-1] for r in found} >= ({"minidl"} if name == "steps" else {"tests on the device"})


def test_what_fails_is_told_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--rehearse", "--json", str(tmp_path / "found.json"), "--only", "peak", "kernels", "explain"]
    monkeypatch.setitem(gpu.PARTS, "kernels", (gpu.hot_paths, 100, {"MINIDL_KERNELS": "nonsense"}))
    monkeypatch.setitem(gpu.PARTS, "explain", (gpu.explanations, 1, {}))
    gpu.main(arguments)
    told = capsys.readouterr().out
    assert "FAILED: ValueError: MINIDL_KERNELS: expected one of" in told
    assert "FAILED: not done after 0 s" in told and "peak: copy of an array" in told
    first = json.loads((tmp_path / "found.json").read_text())["parts"]
    monkeypatch.undo()
    gpu.main(arguments[:-1])  # without explain
    second = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert second["peak"] == first["peak"] and len(second["kernels"]["rows"]) == 13
    with pytest.raises(SystemExit, match="is of another machine or of other options"):
        gpu.main([*arguments, "--quick"])
