"""examples/step.py as it is used: a net is loaded, a page written and opened, the walk printed; and what cannot be."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import webbrowser
import zlib

import numpy as np
import pytest
import step as example  # examples/step.py
from PIL import Image

import models
from minidl import weights


@pytest.fixture
def net(tmp_path: pathlib.Path) -> list[str]:
    """Weights of a small net and an image for it."""
    weights.save(models.resnet8(num_classes=3, seed=1), tmp_path / "w.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "<b>mole.png")
    return ["--weights", str(tmp_path / "w.safetensors"), "--model", "resnet8", "--image", str(tmp_path / "<b>mole.png"),
            "--size", "16", "--pixels", "9", "--out", str(tmp_path / "out" / "step.html")]  # fmt: skip


def test_a_page_is_written_and_opened(
    net: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert example.main([*net, "--pixel", "3", "5", "--target", "2"]) == 0
    page = tmp_path / "out" / "step.html"
    assert opened == [page.as_uri()]
    assert re.fullmatch(r".*step\.html: \d\.\d MB in \d+\.\d s, peak memory [\d,]+ MiB\n", capsys.readouterr().out)
    text = page.read_text(encoding="utf-8")
    assert "<title>&lt;b&gt;mole.png: the way back</title>" in text
    found = re.search(r'id="data">(.*?)</script>', text)
    assert found
    data = json.loads(found[1])
    blob = re.search(r'id="blob">(.*?)</script>', text)
    assert blob
    at = np.frombuffer(zlib.decompress(base64.b64decode(blob[1])), np.int16, 3, data["pixels"]["columns"]["at"][0])
    assert data["target"] == 2 and at[1:].tolist() == [3, 5] and data["image"]["shape"] == [3, 16, 16]
    assert data["pixels"]["count"] >= 9


def test_the_terminal(net: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened all the same"))
    assert example.main([*net, "--no-open", "--text"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("step  op") and "Conv2d           conv1 " in printed and "gradient of image[0, " in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--target", "3"], "--target: expected one of the classes 0 class 0, 1 class 1, 2 class 2, got 3"),
        (["--pixel", "16", "0"], "picks: expected a row below 16 and a column below 16, got (16, 0)"),
        (["--limit", "1000"], "limit: expected at most 1,000 bytes"),
        (["--image", "no/such.png"], "no/such.png"),
    ],
)
def test_errors_in_a_line(net: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([*net, "--no-open", *more]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
