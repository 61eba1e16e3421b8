"""examples/report.py: its pages say what the net says, of every kind of image that a net may take."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import report as example
import train as training
from PIL import Image

import models
from minidl import Op, Tensor, explain, inference, metrics, weights
from minidl.array import Array
from minidl.train import Contract, DecisionRule, TrainedNet, load_run
from tests.view.test_report import Read, pixels

QUICK = ["--samples", "20"]
Run = tuple[pathlib.Path, TrainedNet]


def run_of(folder: pathlib.Path, contract: Contract, seed: int = 1) -> Run:
    """A folder with a net that nobody trained."""
    model = models.resnet8(**contract.arguments, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights.save_arrays(folder / "model.safetensors", model.state_dict(), contract.metadata())
    return folder, load_run(folder, training.MODELS)


def contract(classes: tuple[str, ...] = ("benign", "malignant"), channels: int = 3, size: tuple[int, int] = (16, 20),
             **settings: Any) -> Contract:  # fmt: skip
    arguments = {"num_classes": len(classes), "in_channels": channels}
    kind = {"dtype": "uint8", "range": (0, 255)} | settings
    return Contract("resnet8", arguments, classes, channels, *size, mean=(0.5,) * channels, std=(0.25,) * channels, **kind)


def rule(threshold: float, target: str = "malignant") -> DecisionRule:
    return DecisionRule(target, threshold, 0.94, 0.61, 452)


def png(path: pathlib.Path, size: tuple[int, int] = (40, 50), seed: int = 0) -> str:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    return str(path)


def text_of(path: pathlib.Path) -> str:
    return Read(path.read_text(encoding="utf-8")).text


def test_a_page_says_what_the_net_says(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, net = run_of(tmp_path / "run", contract(decision=rule(0.3), temperature=2.0, validation=452))
    file = png(tmp_path / "mole.png")
    assert example.main(["--run", str(run), file, *QUICK]) == 0, capsys.readouterr().err
    page = Read((run / "report" / "mole.html").read_text(encoding="utf-8"))
    p = net.probabilities(net.prepare(file))
    flagged = "Flagged as ‘malignant’" if net.decide(p)[0] == 1 else "Not flagged as ‘malignant’"
    assert flagged in page.text and f"Here it is {p[0, 1]:.1%}" in page.text and f"benign {p[0, 0]:.1%}" in page.text
    assert "lets about 61 pass" in page.text and "452 validation images" in page.text and "temperature 2" in page.text
    assert hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()[:16] in page.text
    assert "50 × 40 pixels" in page.text and "20 × 16 pixels" in page.text
    assert str(tmp_path) not in page.text and not (run / "report" / "index.html").exists()
    again = (run / "report" / "mole.html").read_bytes()
    left = run / "report" / f".mole.html.{os.getpid()}.tmp"  # as of a process that was killed
    left.touch()
    assert example.main(["--run", str(run / "model.safetensors"), file, *QUICK]) == 0
    assert (run / "report" / "mole.html").read_bytes() == again and not left.exists()
    whole, seen, *_, blank = (pixels(image["src"]) for image in page.all("img"))
    assert (whole == np.asarray(Image.open(file))).all()
    assert (seen == net.contract.image(file).transpose(1, 2, 0)).all()
    assert (blank == np.rint(255 * 0.5)).all(), "x = 0 is the mean of the training images"
    of_blank = net.probabilities(np.zeros((1, 3, 16, 20), np.float32))[0, 1]
    assert f"A blank image {of_blank:.1%} ‘malignant’" in page.text


def test_maps_are_those_of_the_margin(tmp_path: pathlib.Path) -> None:
    _, net = run_of(tmp_path / "run", contract(("a", "b", "c")))
    asked = example.Asked.of(net, "b", 30)
    x = net.prepare(png(tmp_path / "mole.png"))
    lrp, cam, rise = example.maps_of(asked, x, 1, lambda done, total: None)
    of = explain.lrp(net.model, x, 1, "margin", "sum")
    assert (lrp.values == of.map[0]).all() and lrp.values.sum() == pytest.approx(float(of.score[0] - of.delta[0]), rel=1e-3)  # type: ignore[index]
    assert (np.maximum(cam.values, 0) > 0).sum() > 0 > cam.values.min(), "both signs"
    assert (rise.values == explain.rise(net.model, x, 1, "margin", samples=30).map[0]).all()
    assert [m.method for m in (lrp, cam, rise)] == ["LRP", "Grad-CAM", "RISE"]


def test_what_is_taken_away_and_kept() -> None:
    """The tenth of the image where the map is largest, as long as that is above 0."""
    x = np.ones((1, 2, 20, 30), np.float32)
    values = np.full((20, 30), -0.5)
    values[5:10, 5:15], values[0, :2] = 2, 0.01  # 50 and 2 pixels, of 60 that may go
    (_, words, without), (_, _, alone), (_, _, other), (title, _, blank) = example.changes(x, values)
    assert "8.7% of the image" in words and title == "A blank image" and not blank.any()
    assert without[0, :, 7, 10].max() < 0.1 and without[0, :, 15, 25].min() > 0.99
    np.testing.assert_allclose(without + alone, x, atol=1e-6)
    assert other[0, :, 7, 10].min() > 0.9 and (x - other).sum() == pytest.approx((x - without).sum(), rel=0.5)
    assert [title for title, _, _ in example.changes(x, -np.abs(values))] == ["A blank image"]
    assert [title for title, _, _ in example.changes(np.ones((1, 1, 9, 1), np.float32), np.arange(9.0)[:, None])][-1] == title


KINDS: dict[str, tuple[Contract, Array]] = {}
for name, (channels, dtype, size) in {
    "grey": (1, "uint8", (16, 20)),
    "colour": (3, "uint8", (20, 16)),
    "16 bits": (1, "uint16", (16, 20)),
    "five channels": (5, "uint8", (16, 20)),
    "floats": (1, "float32", (16, 20)),
    "one pixel wide": (3, "uint8", (24, 1)),
    "one pixel high": (3, "uint8", (1, 24)),
    "a large file": (3, "uint8", (16, 20)),
}.items():
    rng = np.random.default_rng(0)
    shape = (900, 1300) if name == "a large file" else (40, 50)
    pixels_of = {"uint8": lambda a: 255 * a, "uint16": lambda a: 4095 * a, "float32": lambda a: 2000 * a - 1000}[dtype]
    array = pixels_of(rng.random((*shape, channels))).astype(dtype)
    ends = {"uint8": (0, 255), "uint16": (0, 4095 / 65535), "float32": (-1000, 1000)}[dtype]
    kind = {"dtype": "uint8" if dtype == "uint8" else "float32", "range": ends}
    KINDS[name] = contract(channels=channels, size=size, **kind), array


@pytest.mark.parametrize(
    "name", ["five channels", *(pytest.param(k, marks=pytest.mark.ci) for k in KINDS if k != "five channels")]
)
def test_every_kind_of_image(name: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    it, array = KINDS[name]
    if it.range[0] < 0:  # as x of such numbers has a mean and a deviation of that size
        it = replace(it, mean=(0.0,), std=(500.0,))
    run, net = run_of(tmp_path / "run", it)
    np.save(tmp_path / "scan.npy", array)
    assert example.main(["--run", str(run), str(tmp_path / "scan.npy"), "--target", "1", *QUICK]) == 0, capsys.readouterr().err
    page = Read((run / "report" / "scan.html").read_text(encoding="utf-8"))
    p = net.probabilities(net.prepare(str(tmp_path / "scan.npy")))
    assert f"malignant (suspicious) {example.report.probability(p[0, 1])}" in page.text
    assert ("5 channels" in page.text) == (it.channels == 5)
    assert len(page.all("img")) >= 6
    first = pixels(page.all("img")[0]["src"])
    assert first.std() > 3, "not black"


def test_a_net_with_one_logit(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, net = run_of(tmp_path / "run", contract(("malignant",), decision=rule(0.2)))
    file = png(tmp_path / "mole.png")
    z = float(inference.predict(net.model, net.prepare(file))[0, 0])
    p = 1 / (1 + np.exp(-z))
    assert example.main(["--run", str(run), file, *QUICK]) == 0, capsys.readouterr().err
    text = text_of(run / "report" / "mole.html")
    assert f"Here it is {p:.1%}" in text and "‘not malignant’" in text
    assert ("Not flagged" in text) == (p < 0.2)


def test_seven_classes(tmp_path: pathlib.Path) -> None:
    classes = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    run, net = run_of(tmp_path / "run", contract(classes, decision=rule(0.999, "mel")))
    file = png(tmp_path / "mole.png")
    assert example.main(["--run", str(run), file, *QUICK]) == 0
    text = text_of(run / "report" / "mole.html")
    p = net.probabilities(net.prepare(file))
    rival = classes[int(np.delete(p[0], 4).argmax() + (np.delete(p[0], 4).argmax() >= 4))]
    assert "Not flagged as ‘mel’" in text and f"Of the other classes ‘{rival}’ is the most probable" in text
    assert "What speaks for and against ‘mel’" in text
    assert example.main(["--run", str(run), file, *QUICK, "--target", "bcc"]) == 0
    other = text_of(run / "report" / "mole.html")
    assert "Not flagged as ‘mel’" in other and "What speaks for and against ‘bcc’" in other


def test_a_net_that_is_asked_by_mirror_images(tmp_path: pathlib.Path) -> None:
    run, net = run_of(tmp_path / "run", contract(decision=rule(0.3), test_flips="both"))
    file = png(tmp_path / "mole.png")
    x = net.prepare(file)
    alone = metrics.probabilities(net.model(Tensor(x)).data)
    answer, other = (example.report.probability(p[0, 1]) for p in (net.probabilities(x), alone))
    assert example.main(["--run", str(run), file, *QUICK]) == 0
    text = text_of(run / "report" / "mole.html")
    assert answer != other and f"Here it is {answer}" in text and "its mirror images; the maps" in text


def test_a_run_without_its_operating_point(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that was killed between its last epoch and its operating point: it is not said that none was chosen."""
    run, _ = run_of(tmp_path / "run", contract())
    row = {"epoch": 1, **{f"validation_{name}": 0.5 for name in ("loss", "accuracy")}}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert example.main(["--run", str(run), png(tmp_path / "mole.png"), *QUICK]) == 1
    assert "its operating point is missing" in capsys.readouterr().err


def test_without_a_rule_or_a_target(tmp_path: pathlib.Path) -> None:
    run, net = run_of(tmp_path / "run", contract(("a", "b")))
    files = [png(tmp_path / f"{k}.png", seed=k) for k in range(2)]
    assert example.main(["--run", str(run), *files, *QUICK]) == 0
    says = "ab"[int(net.probabilities(net.prepare(files[0]))[0].argmax())]
    text = text_of(run / "report" / "0.html")
    assert f"The net’s answer: ‘{says}’" in text and f"for and against ‘{says}’" in text and "No operating point" in text
    assert "in the order in which they were given" in text_of(run / "report" / "index.html")


def test_several_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a page, whatever it is called; what cannot be read is named and skipped."""
    run, net = run_of(tmp_path / "run", contract(decision=rule(0.5)))
    for folder in "one", "two":
        (tmp_path / folder).mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    odd = tmp_path / os.fsdecode(b"\xff<b>#?%.png")
    names = [tmp_path / "one/mole.png", tmp_path / "two/mole.png", tmp_path / "one/Mole.png", tmp_path / "index.png", odd]
    files = [png(path, seed=k) for k, path in enumerate(names)]
    broken = [str(tmp_path / "broken.png"), str(tmp_path / "nowhere.png"), str(tmp_path / "one")]
    out = tmp_path / "out"
    assert example.main(["--run", str(run), *files, *broken, *QUICK, "--out", str(out)]) == 1
    err = capsys.readouterr().err
    assert all(f"skipped {file}: " in err for file in broken) and "Traceback" not in err
    listed = Read((out / "index.html").read_text(encoding="utf-8"))
    links = [a["href"] for a in listed.all("a")]
    assert len(set(link.lower() for link in links)) == 5 and {path.name for path in out.iterdir()} == {*links, "index.html"}
    p = {example.page_names(files)[k]: net.probabilities(net.prepare(file))[0, 1] for k, file in enumerate(files)}
    assert links == sorted(links, key=lambda link: -p[link]) and set(links) == set(p)
    assert (
        "broken.png : is no image that can be read" in listed.text.replace(".png:", ".png :")
        and "nowhere.png: No such file" in listed.text
    )
    assert str(tmp_path) not in listed.text
    assert all("All images" in text_of(out / link) for link in links)
    assert example.main(["--run", str(run), broken[0], *QUICK, "--out", str(tmp_path / "none")]) == 1
    assert not (tmp_path / "none").exists()


def test_names_of_pages() -> None:
    assert example.page_names(["a/Index.png", "b/x y.png", "x-y.jpg", "ä.png", "a.tar.gz", "." * 3]) == [
        "Index-2.html", "x-y.html", "x-y-2.html", "image.html", "a.tar.html", "image-2.html"
    ]  # fmt: skip
    assert len(example.page_names(["n" * 250 + ".png"])[0]) < 100


def test_the_test_of_the_run_is_told(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = run_of(tmp_path / "run", contract())
    file = png(tmp_path / "mole.png")
    scores = {"images": 200, "auc": 0.9, "accuracy": 0.8, "majority_accuracy": 0.75}
    (run / "test.json").write_text(json.dumps(scores))  # as it was before there were intervals
    assert example.main(["--run", str(run), file, *QUICK]) == 0
    text = text_of(run / "report" / "mole.html")
    assert "tested on 200 images." in text and "AUC 0.900." in text and "right in 75.0%" in text and "flagged" not in text
    operating = {"sensitivity": 0.91, "specificity": None}
    ends = {"auc": [0.8, 0.95], "accuracy": None, "operating": {"sensitivity": [0.85, 0.97], "specificity": None}}
    (run / "test.json").write_text(json.dumps(scores | {"groups": 50, "operating": operating, "intervals": ends}))
    run_of(run, contract(decision=rule(0.3)))
    assert example.main(["--run", str(run), file, *QUICK]) == 0
    text = text_of(run / "report" / "mole.html")
    assert "AUC 0.900 (95% interval 0.800 to 0.950)" in text and "of 50 groups" in text
    assert "it flagged 91.0% (95% interval 85.0% to 97.0%) of the images of ‘malignant’" in text and "let" in text
    for damaged in (
        "{",
        "[]",
        '{"images": 0}',
        '{"images": 9, "auc": 3}',
        '{"images": 9, "auc": 0.5, "intervals": {"auc": [1]}}',
    ):
        (run / "test.json").write_text(damaged)
        assert example.main(["--run", str(run), file, *QUICK]) == 1
        assert "test.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--target", "nevus"], "--target: expected one of the classes 0 benign, 1 malignant, got nevus"),
        (["--samples", "0"], "--samples: expected an integer of at least 1, got 0"),
        (["--run", "nowhere"], "--run: nowhere holds no finished training"),
    ],
)
def test_errors_in_a_line(asked: list[str], message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = run_of(tmp_path / "run", contract())
    assert example.main(["--run", str(run), png(tmp_path / "mole.png"), *asked]) == 1
    assert message in capsys.readouterr().err


def test_a_net_that_lrp_has_no_rule_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **settings: Any) -> Any:
        raise example.NoRuleError(Op())

    monkeypatch.setattr(example.explain, "lrp", refuse)
    run, _ = run_of(tmp_path / "run", contract())
    assert example.main(["--run", str(run), png(tmp_path / "mole.png"), *QUICK]) == 0
    assert "LRP knows no rule for this net" in text_of(run / "report" / "mole.html")


def test_a_page_is_the_old_one_or_the_new_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Ctrl-C in the second of two: the first is there and whole, and one sentence is said."""
    run, _ = run_of(tmp_path / "run", contract())
    files = [png(tmp_path / f"{k}.png", seed=k) for k in range(2)]
    maps_of, calls = example.maps_of, []

    def interrupted(*args: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return maps_of(*args)

    monkeypatch.setattr(example, "maps_of", interrupted)
    assert example.main(["--run", str(run), *files, *QUICK]) == 130
    assert [path.name for path in (run / "report").iterdir()] == ["0.html"]
    assert re.search(r"^Stopped; pages written: 1\.$", capsys.readouterr().out, re.MULTILINE)
    Read((run / "report" / "0.html").read_text(encoding="utf-8"))
