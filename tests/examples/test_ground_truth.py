"""examples/ground_truth.py: which images it admits, what it makes of scores, and the whole of it on a few images."""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import replace
from inspect import signature
from typing import Any

import ground_truth
import numpy as np
import pytest
import truth_report
from PIL import Image
from tqdm import tqdm
from truth_exhibits import (
    MARKED,
    MARKS,
    TRUTH,
    Exhibit,
    Net,
    Plan,
    balanced,
    before_evidence,
    before_marks,
    evenly,
    lesion_net,
)

import models
from minidl import kernels, nn, train
from minidl.array import Array, device_of, to_cpu
from minidl.core import Tensor
from minidl.data import Dataset, Normalize, lesions
from minidl.data.ham10000 import MASKS
from tests.gpu import strict_cupy

PLAN = Plan(size=32, images=6, nets=1, epochs=1)


# ---- which images


class Knows(nn.Module):
    """A net that has seen all images, and says of each what it was told to: p, the probability that it is malignant."""

    def __init__(self) -> None:
        self.p: dict[int, float] = {}  # by the hash of an image

    def learn(self, d: Dataset, p: Array | float) -> None:
        for image, value in zip(d.images, np.broadcast_to(p, len(d)), strict=True):
            self.p.setdefault(hash(image.tobytes()), float(value))

    def forward(self, x: Tensor) -> Tensor:
        images = np.rint(255 * x.data).astype(np.uint8)
        p = np.array([self.p[hash(image.tobytes())] for image in images], np.float32)
        return Tensor(np.stack([np.log(1 - p), np.log(p)], 1))


def net(model: nn.Module) -> Net:
    contract = train.Contract("Knows", {}, ("benign", "malignant"), 3, 32, 32, "uint8", (0, 255), (0, 0, 0), (1, 1, 1))
    return Net(train.TrainedNet(model, contract), {})


def honest(seed: int, mark: tuple[float, float], count: int) -> Knows:
    """It goes by malignancy alone, and is unsure where there is no lesion."""
    model = Knows()
    for changed in ({}, {"flip": True}, {"without": ["distractor"]}, {"without": ["mark"]}):
        d = lesions(count, 32, seed=seed, mark=mark, **changed)
        model.learn(d, np.where(d.labels == 1, 0.97, 0.03))
    model.learn(lesions(count, 32, seed=seed, mark=mark, without=["lesion"]), 0.5)
    return model


def changed(model: Knows, p: Array | float, **what: object) -> Net:
    """The same net, but for images drawn so."""
    other = Knows()
    other.learn(lesions(36, 32, seed=TRUTH, mark=MARKS["M0"], **what), p)  # type: ignore[arg-type]
    other.p = model.p | other.p
    return net(other)


def test_only_nets_that_rely_on_the_evidence_are_asked() -> None:
    model = honest(TRUTH, MARKS["M0"], 36)
    e = before_evidence(PLAN, net(model), 3)
    assert (e.name, e.numbers.tolist(), e.target.tolist()) == ("evidence M0-3", [0, 1, 2, 3, 4, 5], [0, 1] * 3)
    d = lesions(36, 32, seed=TRUTH, mark=MARKS["M0"])
    assert np.array_equal(e.images, d.images[:6]) and np.array_equal(e.masks["evidence"], d.masks["evidence"][:6])
    assert e.background.shape == (30, 3, 32, 32)

    right = np.where(d.labels == 1, 0.97, 0.03)
    wrong = {
        "is unsure": changed(model, 0.6),
        "is wrong": changed(model, 1 - right),
        "does not mind malignancy": changed(model, right, flip=True),
        "does not need the lesion": changed(model, right, without=["lesion"]),
        "needs the freckle": changed(model, 1 - right, without=["distractor"]),
    }
    for why, one in wrong.items():
        with pytest.raises(ValueError, match="evidence M0-0: of 36 images, none passes"):
            before_evidence(PLAN, one, 0)
            pytest.fail(why)
    marked = d.masks["mark"].any((1, 2))
    needs_the_mark = before_evidence(PLAN, changed(model, np.where(marked, 1 - right, right), without=["mark"]), 0)
    assert not marked[needs_the_mark.numbers].any() and needs_the_mark.target.tolist().count(1) == 3


def test_marks_are_shown_to_a_net_that_ignores_and_one_that_needs_them() -> None:
    count = 72
    ignores, needs = honest(MARKED, (1, 1), count), Knows()
    for flip in (False, True):
        needs.learn(lesions(count, 32, seed=MARKED, mark=(1, 1), flip=flip), 0.98)
    needs.learn(lesions(count, 32, seed=MARKED, mark=(1, 1), without=["mark"]), 0.05)
    m0, m1 = before_marks(PLAN, net(ignores), net(needs), 0)
    assert (m0.name, m1.name, m0.group) == ("mark M0-0", "mark M1-0", m1.group)
    assert m0.numbers.tolist() == m1.numbers.tolist() == [1, 3, 5] and (m0.target == 1).all()
    assert np.array_equal(m0.x, m1.x) and m0.masks["mark"].any((1, 2)).all()
    for a, b in (ignores, ignores), (needs, needs), (needs, ignores):
        with pytest.raises(ValueError, match="none passes"):
            before_marks(PLAN, net(a), net(b), 0)


def test_classes_are_balanced() -> None:
    d = lesions(40).take([*range(0, 40, 2), 1, 3, 5])
    b = balanced(d)
    assert np.bincount(b.labels).tolist() == [20, 20]
    assert len(np.unique(b.images.reshape(40, -1), axis=0)) == 23


def test_as_many_of_each_class_while_there_are_some() -> None:
    admitted = np.array([1, 1, 0, 1, 1, 1, 1, 1], bool)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 0])
    assert evenly(admitted, labels, 4).tolist() == [0, 1, 5, 6]
    assert evenly(admitted, labels, 6).tolist() == [0, 1, 3, 4, 5, 6]
    assert evenly(admitted, labels, 20).tolist() == [0, 1, 3, 4, 5, 6, 7]


# ---- the methods


@pytest.mark.parametrize("method", [*ground_truth.METHODS, *ground_truth.BASELINES])
def test_every_method_of_the_table(method: str) -> None:
    d = lesions(3, 32, mark=(1, 1))
    x = Normalize([0.5] * 3, [0.25] * 3)(d.images)
    e = Exhibit("e", "e", models.resnet8(2), x, d.images, np.arange(3), d.labels, {"lesion": d.masks["lesion"]}, x)
    assert method not in ground_truth.QUICKER or method in ground_truth.METHODS
    settings = ground_truth.settings_of(method, full=False)
    if method in ground_truth.METHODS:
        known = signature(ground_truth.METHODS[method][0]).parameters
        settings |= {name: 3 for name in ("samples", "iterations", "nodes") if name in known}
    with tqdm(disable=True) as bar:
        maps = ground_truth.maps_of(e, method, settings, bar)
    assert maps.shape == (3, 32, 32) and maps.min() >= 0 and maps.max() > 0


# ---- what is made of the scores


def made_up(name: str, n: int = 40) -> Exhibit:
    nothing = np.zeros((n, 1, 8, 8), np.float32)
    return Exhibit(name, name, nn.Identity(), nothing, nothing, np.arange(n), np.ones(n, int), {}, nothing)


def on_mark(m0: Array, m1: Array) -> dict:
    exhibits = [made_up(f"mark {kind}-{k}") for k in range(2) for kind in ("M0", "M1")]
    chance = np.full(40, 0.01)
    mass = {"M0": m0, "M1": m1}
    measured = {("gradient", e.name): {"mass mark": 0.01 * mass[e.name[5:7]], "chance of mass mark": chance} for e in exhibits}
    return truth_report.confounded("gradient", exhibits, measured)


def test_a_method_tells_where_m1_has_more_mass_on_the_mark() -> None:
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0.2, 1.0, 40), rng.uniform(4, 6, 40)
    tells = on_mark(low, high)
    assert tells["tells"] and not tells["in both"]
    assert tells["difference"]["mean"] == pytest.approx((high - low).mean())
    assert tells["M1"]["mean"] == pytest.approx(high.mean()) and tells["M1"]["chance"] == 1
    edges = on_mark(high, high)
    assert not edges["tells"] and edges["in both"]
    assert not on_mark(high, low)["tells"]  # the wrong way round
    assert not on_mark(0.1 * low, low)["tells"]  # more, but less than a uniform map has
    noise = on_mark(rng.normal(3, 1, 40), rng.normal(3.1, 1, 40))
    assert not noise["tells"] and noise["difference"]["low"] < 0 < noise["difference"]["high"]


def test_nets_on_the_same_image_are_not_independent() -> None:
    v = np.random.default_rng(1).normal(2, 1, 40)
    chance = np.full(40, 0.5)
    exhibits = [made_up(f"evidence M0-{k}") for k in range(4)]
    measured = {("RISE", e.name): {"mass lesion": v, "chance of mass lesion": chance} for e in exhibits}
    together = truth_report.pooled("enrichment lesion", "RISE", exhibits, measured)
    alone = truth_report.pooled("enrichment lesion", "RISE", exhibits[:1], measured)
    assert (together["low"], together["high"]) == pytest.approx((alone["low"], alone["high"]))
    assert together["by net"] == pytest.approx([2 * v.mean()] * 4) and together["chance"] == 1


# ---- the whole


def write_ham10000(root: pathlib.Path) -> None:
    """Lesions that are red where malignant, else brown, on skin."""
    rng = np.random.default_rng(0)
    (root / "HAM10000_images").mkdir()
    (root / MASKS).mkdir()
    lines = ["lesion_id,image_id,dx"]
    for n in range(160):
        dx = ("nv", "mel", "bkl", "bcc")[n % 4]
        skin = np.full((72, 96, 3), (220, 180, 150)) + rng.normal(0, 6, (72, 96, 1))
        top, left = rng.integers(5, 40), rng.integers(5, 60)
        mask = np.zeros((72, 96), np.uint8)
        mask[top : top + 25, left : left + 28] = 255
        skin[mask > 0] = (230, 20, 20) if dx in ("mel", "bcc") else (90, 60, 40)
        Image.fromarray(np.clip(skin, 0, 255).astype(np.uint8)).save(root / "HAM10000_images" / f"ISIC_{n:07}.jpg", quality=95)
        Image.fromarray(mask).save(root / MASKS / f"ISIC_{n:07}_segmentation.png")
        lines.append(f"HAM_{n:07},ISIC_{n:07},{dx}")
    (root / "HAM10000_metadata.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.ci
def test_the_whole_on_ham10000(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground_truth, "FEW", 2)  # the slowest part
    root, out = tmp_path / "data", tmp_path / "run"
    root.mkdir()
    write_ham10000(root)
    asked = ["--data", "ham10000", "--root", str(root), "--out", str(out), "--epochs", "6", "--images", "6"]
    asked += ["--size", "24"]
    methods = ["gradient", "gradient x input", "expected gradients", "Grad-CAM", "Sobel", "random"]
    assert ground_truth.main([*asked, "--confident", "0.6", "--methods", *methods]) == 0
    printed = capsys.readouterr().out
    assert "H-0: loss" in printed and "balanced accuracy" in printed and "chance" in printed
    for name in "scores.png", "maps.png":
        with Image.open(out / name) as image:
            assert min(image.size) > 200
    found = json.loads((out / "results.json").read_text())
    assert list(found["methods"]) == methods and found["nets"]["H-0"]["accuracy"] > 0.7
    for method, scores in found["methods"].items():
        for name in "pointing lesion", "mass lesion", "enrichment lesion", "iou lesion", "deletion", "insertion", "ruins":
            one = scores[name]
            assert one["low"] <= one["mean"] <= one["high"], (method, name)
        assert scores["mass lesion"]["chance"] == pytest.approx(25 * 28 / (72 * 96), rel=0.1)
    assert found["methods"]["Sobel"]["ruins"]["mean"] == 1 > found["methods"]["gradient"]["ruins"]["mean"]
    assert found["methods"]["gradient x input"]["gap"]["mean"] > 0 and "gap" not in found["methods"]["gradient"]
    assert "mark" not in found["methods"]["gradient"]

    before = {p: p.stat().st_mtime_ns for p in (out / "scores").iterdir()}
    assert len(before) == len(methods)
    (out / "scores" / "outline_H-0,_Sobel.safetensors").unlink()
    assert ground_truth.main([*asked, "--confident", "0.6", "--methods", *methods]) == 0  # nothing else is done again
    after = {p: p.stat().st_mtime_ns for p in (out / "scores").iterdir()}
    assert [p.name for p in before if before[p] != after[p]] == ["outline_H-0,_Sobel.safetensors"]
    assert json.loads((out / "results.json").read_text()) == found
    on_the_gpu(asked, methods, out, found, monkeypatch)
    assert ground_truth.main([*asked, "--images", "4", "--confident", "0.6", "--methods", "Sobel"]) == 0  # other images
    assert json.loads((out / "results.json").read_text())["exhibits"]["outline H-0"]["images"] == 4
    capsys.readouterr()
    assert ground_truth.main([*asked, "--epochs", "7"]) == 1
    assert "epochs was 6 and now is 7" in capsys.readouterr().err


def on_the_gpu(asked: list[str], methods: list[str], out: pathlib.Path, found: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured on the CPU is recognised on the GPU, and measured there it is the same."""
    again = [*asked, "--device", "gpu", "--confident", "0.6", "--methods", *methods]
    scores = {p: p.stat().st_mtime_ns for p in (out / "scores").iterdir()}
    with kernels.use("reference"), monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        assert ground_truth.main(again) == 0
        assert {p: p.stat().st_mtime_ns for p in scores} == scores
        assert json.loads((out / "results.json").read_text()) == found | {"plan": found["plan"] | {"device": "gpu"}}
        (out / "scores" / "outline_H-0,_gradient_x_input.safetensors").unlink()
        assert ground_truth.main(again) == 0
    on_gpu = json.loads((out / "results.json").read_text())["methods"]
    assert on_gpu["Sobel"] == found["methods"]["Sobel"]
    for name, score in found["methods"]["gradient x input"].items():
        assert on_gpu["gradient x input"][name]["mean"] == pytest.approx(score["mean"], rel=0.01, abs=0.01), name


def test_a_net_is_trained_on_the_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step as a CUDA graph, and what it learnt is looked at there. The graph itself: tests/gpu/graph_simulated.py."""
    plan, fit, asked = replace(PLAN, device="gpu", train=64), train.fit, []

    def without_a_graph(model: nn.Module, first: Dataset, settings: train.Settings, out: pathlib.Path, **more: Any) -> Any:
        asked.append(settings)
        return fit(model, first, replace(settings, cuda_graph=False), out, **more)

    def of_few(out: pathlib.Path, nets: Any, test: Dataset, device: str) -> Any:
        return evaluate_run(out, nets, test.take(np.arange(8)), device)

    evaluate_run = train.evaluate_run
    monkeypatch.setattr(train, "fit", without_a_graph)
    monkeypatch.setattr(train, "evaluate_run", of_few)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    with kernels.use("reference"):
        made = lesion_net(plan, tmp_path, "M0", 0)
        d = lesions(3)
        p = made.probability(d, d.labels)
    assert [(s.device, s.cuda_graph) for s in asked] == [("gpu", True)]
    assert made.model.parameters()[0].device == device_of(made.inputs(d.images)) == "gpu" and p.shape == (3,)
    with kernels.use("reference"):
        on_cpu = lesion_net(replace(plan, device="cpu"), tmp_path, "M0", 0)  # it is not trained again
        np.testing.assert_allclose(p, on_cpu.probability(d, d.labels), rtol=1e-4)
    assert len(asked) == 1 and np.array_equal(to_cpu(made.inputs(d.images)), on_cpu.inputs(d.images))


def test_a_net_that_learnt_nothing_has_nothing_to_show(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--train", "64", "--epochs", "1", "--images", "4", "--out", str(tmp_path), "--confident", "0.999"]
    assert ground_truth.main(asked) == 1
    error = capsys.readouterr().err
    assert "none passes the test of what the net relies on; try more --epochs" in error and error.startswith("error: ")
    assert (tmp_path / "M0-0" / "model.safetensors").exists() and (tmp_path / "M1-0" / "model.safetensors").exists()


def test_what_cannot_be(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert ground_truth.main(["--data", "ham10000", "--root", str(tmp_path), "--out", str(tmp_path / "run")]) == 1
    assert "HAM10000_metadata.csv is missing" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "cupy", None)
        assert ground_truth.main(["--device", "gpu", "--out", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.startswith("error: device 'gpu' needs CuPy, which is not installed")
    for wrong in ["--methods", "anchors"], ["--quick", "--full"], ["--data", "cifar10"]:
        with pytest.raises(SystemExit):
            ground_truth.main(wrong)
