"""examples/evidence.py: where maps of two heads point, on maps made by hand and on a net that hardly was trained."""

from __future__ import annotations

import json
import pathlib

import common
import evidence as example
import numpy as np
import perturbation
import predict
import pytest
from PIL import Image

import models
from minidl import inference, train
from minidl.data import Dataset, lesions
from minidl.train import Contract, Settings, TrainedNet

LONG = "a question with a very long name, of which each word counts"


def points(*at: tuple[int, int]) -> np.ndarray:
    """Maps (N,6,8), each with one pixel."""
    maps = np.zeros((len(at), 6, 8))
    for n, (i, j) in enumerate(at):
        maps[n, i, j] = 1
    return maps


def by_hand(second: str | None) -> example.Task:
    """Four images, in which the place of the first head is the left half, and of the second the lower right corner."""
    left, corner = np.zeros((4, 6, 8), bool), np.zeros((4, 6, 8), bool)
    left[:, :, :4], corner[:, 3:, 5:] = True, True
    labels = {LONG: np.array([0, 1, 0, 1]), "site": np.array([0, 0, 1, 1])}
    classes = {LONG: ("benign", "malignant " * 9), "site": ("arm", "leg")}
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 6, 8)).astype(np.uint8)
    d = Dataset(images, labels, classes, {"left": left, "corner": corner}, groups=np.array(["a", "a", "b", "c"]))
    arguments = {"num_classes": 4, "in_channels": 3}
    contract = Contract("resnet8", arguments, classes, 3, 6, 8, "uint8", (0, 255), (0.5,) * 3, (0.2,) * 3)
    net = TrainedNet(models.resnet8(**arguments).eval(), contract)
    return example.Task(net, d, {LONG: "left", "site": second})


def test_where_maps_point() -> None:
    """Three of four on the left, the fourth in the corner; of the other head one on its own place, and one on the left."""
    task = by_hand("corner")
    maps = {
        ("m", LONG): points((0, 0), (5, 3), (2, 1), (4, 6)),
        ("m", "site"): points((3, 5), (0, 4), (2, 7), (0, 3)),
        ("flat", LONG): np.ones((4, 6, 8)),
        ("flat", "site"): np.ones((4, 6, 8)),
    }
    found = example.results(task, ["m", "flat"], maps)
    json.dumps(found)
    m, flat = found["methods"]["m"], found["methods"]["flat"]
    assert (m[LONG][LONG]["mean"], m[LONG]["site"]["mean"]) == (0.75, 0.25)
    assert (m["site"]["site"]["mean"], m["site"][LONG]["mean"]) == (0.25, 0.25)
    for head in LONG, "site":
        assert flat[head][LONG]["mean"] == flat[head][LONG]["chance"] == 0.5
        assert flat[head]["site"]["mean"] == pytest.approx(9 / 48) == flat[head]["site"]["chance"]
    assert m[LONG][LONG]["low"] == 0 and m[LONG][LONG]["high"] == 1  # groups are drawn whole: two of three are right
    text = example.table(found).splitlines()
    assert [line.split()[0] for line in text] == ["highest", "m", "flat", "chance"]
    assert "75.0% [0.0%, 100.0%]" in text[1] and text[0].count("on its place") == 2 and text[3].endswith("18.8%")


def test_a_head_of_which_no_place_is_known() -> None:
    task = by_hand(None)
    maps = {("m", LONG): points(*[(0, 0)] * 4), ("m", "site"): points(*[(0, 7)] * 4)}
    found = example.results(task, ["m"], maps)
    assert found["methods"]["m"] == {
        LONG: {LONG: {"mean": 1, "low": 1, "high": 1, "chance": 0.5}},
        "site": {LONG: {"mean": 0, "low": 0, "high": 0, "chance": 0.5}},
    }
    assert example.table(found).splitlines()[0].count("on its place") == 1


@pytest.mark.parametrize("second", ["corner", None])
def test_the_figure_of_long_names(tmp_path: pathlib.Path, second: str | None) -> None:
    task = by_hand(second)
    maps = example.all_maps(task, ["gradient", "centre"])
    assert maps["gradient", LONG].shape == (4, 6, 8) and (maps["gradient", LONG] != maps["gradient", "site"]).any()
    assert (maps["centre", LONG] == maps["centre", "site"]).all()
    example.draw_evidence(tmp_path / "evidence.png", task, maps, ["gradient", "centre"])
    with Image.open(tmp_path / "evidence.png") as image:
        assert min(image.size) > 400


def test_a_net_that_answers_nothing_rightly() -> None:
    task = by_hand("corner")
    with pytest.raises(ValueError, match="dataset: of 4 images the net answers none rightly for both heads; try more --epochs"):
        example.few(task.images, np.zeros(4, bool), 2)


QUICK = ["--train", "64", "--epochs", "1", "--images", "20", "--methods", "SpineNet's style", "LRP", "random"]


@pytest.mark.ci
def test_from_lesions_to_the_table(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All images with a freckle are admitted: a net that hardly was trained answers none rightly."""
    monkeypatch.setattr(example, "answered", lambda net, d: np.ones(len(d), bool))
    out = tmp_path / "run"
    assert example.main([*QUICK, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} >= {"evidence.json", "evidence.png", "net"}
    found = json.loads((out / "evidence.json").read_text())
    assert list(found["methods"]) == ["SpineNet's style", "LRP", "random"] and 1 <= found["images"] <= 20
    assert found["places"] == {"malignancy": "lesion", "freckle": "freckle"}
    printed = capsys.readouterr().out
    assert (
        "malignancy: on its place  on that of freckle" in printed and "training: 64 images: malignancy: 'benign' 32" in printed
    )
    assert example.main([*QUICK, "--out", str(out)]) == 0  # the net is there
    assert "training: 64" not in capsys.readouterr().out and json.loads((out / "evidence.json").read_text()) == found
    assert example.main([*QUICK[2:], "--train", "32", "--out", str(out)]) == 1
    assert "a resumed run keeps its settings, but limit was 64 and now is 32" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out, d = tmp_path_factory.mktemp("runs") / "two", lesions(32, freckle=0.5)
    arguments = {"num_classes": 4, "in_channels": 3}
    settings = Settings(epochs=1, batch_size=16, crop=2, model="resnet8", data="two heads")
    train.fit(models.resnet8(**arguments), d, settings, out, arguments=arguments)
    return out


def test_the_other_examples_ask_one_head(
    two_heads: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mole.png"
    Image.fromarray(lesions(1, seed=3).images[0].transpose(1, 2, 0)).save(file)
    asked = ["--run", str(two_heads), "--image", str(file)]
    for name, classes in ("malignancy", ("benign", "malignant")), ("freckle", ("absent", "present")):
        loaded = common.load(perturbation.parser().parse_args([*asked, "--head", name]))
        assert loaded.classes == classes and inference.predict(loaded.model, loaded.inputs(loaded.images)).shape == (1, 2)
    known = "--head: expected one of the net's heads, malignancy, freckle, got"
    for wrong, message in ([], f"{known} nothing"), (["--head", "site"], f"{known} site"):
        assert perturbation.main([*asked, *wrong, "--out", str(tmp_path)]) == 1
        assert message in capsys.readouterr().err
    assert predict.main([str(file), "--run", str(two_heads), "--head", "freckle"]) == 0
    assert "absent" in (printed := capsys.readouterr().out) or "present" in printed
    assert predict.main([str(file), "--run", str(two_heads)]) == 1
    assert f"{known} nothing" in capsys.readouterr().err


def test_ham10000_that_is_not_there(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main(["--data", "ham10000", "--root", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "HAM10000_metadata.csv is missing; get HAM10000 from" in capsys.readouterr().err
