"""When a net says the class that must not be missed: the rule, what it is chosen by, and when it is written."""

from __future__ import annotations

import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minidl import metrics
from minidl.data import Dataset
from minidl.inference import evaluate, predict
from minidl.train import DecisionRule, Settings, evaluate_run, fit, load_run, loop
from minidl.train.decision import calibrated, chosen, decide, suspicious
from tests.train.test_train import SETTINGS, TEST, TRAIN, Net, same_run

NETS = {"Net": lambda num_classes, in_channels: Net(num_classes)}
TWO, THREE = ("benign", "malignant"), ("nevus", "keratosis", "melanoma")
RULE = DecisionRule("malignant", 0.3, 0.9, 0.6, 12)


def p_of(*last: float) -> Any:
    """Of two classes, with these probabilities of the second."""
    return np.array([[1 - p, p] for p in last])


def test_two_classes() -> None:
    p = p_of(0.29, 0.3, 0.31, 1.0, 0.0)
    assert decide(p, TWO, RULE).tolist() == [0, 1, 1, 1, 0]  # flagged at the threshold itself
    assert decide(p, TWO, None).tolist() == [0, 0, 0, 1, 0]
    assert decide(p[:, ::-1], ("malignant", "benign"), RULE).tolist() == [1, 0, 0, 0, 1]
    assert decide(p_of(0.5), TWO).tolist() == [0]  # of equal ones the first
    # a threshold above a half: what is not flagged is the other class, though the target is likelier
    assert decide(p_of(0.6), TWO, replace(RULE, threshold=0.8)).tolist() == [0]


def test_several_classes() -> None:
    rule = replace(RULE, target="melanoma", threshold=0.2)
    p = np.array([[0.7, 0.1, 0.2], [0.7, 0.11, 0.19], [0.41, 0.41, 0.18], [0.0, 0.0, 1.0], [0.1, 0.75, 0.15]])
    assert decide(p, THREE, rule).tolist() == [2, 0, 0, 2, 1]
    assert decide(p, THREE, replace(rule, threshold=0.999)).tolist() == [0, 0, 0, 2, 1]
    assert decide(np.array([[0.1, 0.2, 0.7]]), THREE, replace(rule, threshold=0.8)).tolist() == [1]  # the likeliest other
    assert decide(np.array([[0.0, 0.0, 1.0]]), THREE, replace(rule, target="nevus")).tolist() == [2]
    assert decide(np.array([[0.0, 0.0, 1.0]]).astype(np.float32), THREE).dtype == np.int64


@pytest.mark.parametrize(
    ("p", "error", "message"),
    [
        (np.array([[0.5, np.nan]]), ValueError, r"p: expected rows in \[0, 1\] that add up to 1, got .*nan.* in row 0"),
        (np.array([[0.5, 0.5], [0.4, 0.4]]), ValueError, "in row 1; see TrainedNet.probabilities"),
        (np.array([[-0.5, 1.5]]), ValueError, r"expected rows in \[0, 1\]"),
        (np.array([[0.2, 0.3, 0.5]]), ValueError, r"p: expected \(N,2\), .*got shape \(1, 3\)"),
        (np.array([0.5, 0.5]), ValueError, r"got shape \(2,\)"),
        (np.empty((0, 2)), ValueError, "N > 0"),
        (np.array([[0, 1]]), TypeError, "p: expected an array of probabilities, got dtype"),
        ([[0.5, 0.5]], TypeError, "p: expected an array of probabilities"),
    ],
)
def test_what_are_no_probabilities(p: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decide(p, TWO, RULE)
    with pytest.raises(ValueError, match="target: expected one of"):
        decide(p_of(0.5), ("a", "b"), RULE)


def test_who_is_suspicious() -> None:
    assert (suspicious(TWO), suspicious(TWO, "benign"), suspicious(THREE), suspicious(THREE, "keratosis")) == (1, 0, None, 1)
    with pytest.raises(ValueError, match=r"target: expected one of \('benign', 'malignant'\), got 'cancer'"):
        suspicious(TWO, "cancer")


def test_the_threshold_is_that_of_the_operating_point() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(200) < 0.3).astype(np.int64)
    p = p_of(*(1 / (1 + np.exp(-(rng.normal(size=200) + 1.5 * labels - 1)))))
    for wanted in (None, 0.95):
        rule, told = chosen(p, labels, TWO, 1, wanted)
        point = metrics.operating_point(p[:, 1], labels, sensitivity=wanted)
        assert rule == DecisionRule("malignant", *point, images=200, wanted=wanted)
        decisions = decide(p, TWO, rule)
        assert (decisions[labels == 1] == 1).mean() == rule.sensitivity and (
            decisions[labels == 0] == 0
        ).mean() == rule.specificity
        assert str(rule) in told and "200 validation images" in told
    assert rule is not None and rule.sensitivity >= 0.95
    other, _ = chosen(p, labels, TWO, 0)
    assert other is not None and other.target == "benign"


def test_a_sensitivity_out_of_reach_is_said() -> None:
    labels = np.array([0, 1, 0, 1])
    rule, told = chosen(p_of(0.4, 0.9, 0.5, 0.3), labels, TWO, 1, 0.95)  # the least likely image is malignant
    assert rule is None and told == (
        "operating point: none for 'malignant', so that the likeliest class decides: sensitivity: expected what a threshold "
        "reaches, here at most 0.5, got 0.95; more takes calling every image 1"
    )
    rule, told = chosen(p_of(0.5, 0.5, 0.5, 0.5), labels, TWO, 1)
    assert rule is None and "scores: expected different ones" in told


def test_the_temperature() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    logits = 5 * (np.eye(2)[labels] + rng.normal(size=(300, 2)))
    assert calibrated(logits, labels)[0] == metrics.fit_temperature(logits, labels) > 1
    right = np.array([[1.0, 0], [0, 1.0]])
    temperature, told = calibrated(right, np.array([0, 1]))  # never wrong: the colder, the likelier
    assert temperature == 1 and told.startswith(
        "temperature: 1, as none fits the 2 validation images: logits: expected an image"
    )
    assert calibrated(right, np.array([1, 0]))[0] == 1


# ---- in a run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(Net(), TRAIN, replace(SETTINGS, select="loss"), out, TEST)
    return out


def test_a_run_has_the_rule_of_the_weights_that_it_keeps(whole: pathlib.Path) -> None:
    net = load_run(whole, NETS)
    _, logits, labels = evaluate(net.model, TEST, SETTINGS.batch_size, net.contract.normalize)
    assert net.contract.temperature == calibrated(logits, labels)[0] and net.contract.validation == 21
    p = metrics.probabilities(logits, net.contract.temperature)
    assert net.contract.decision == chosen(p, labels, TEST.classes, 1)[0] is not None
    x = net.inputs(TEST.images)
    assert net.probabilities(x, 5).dtype == np.float64
    np.testing.assert_allclose(net.probabilities(x, 5), p, atol=1e-6)
    np.testing.assert_array_equal(net.decide(p), decide(p, TEST.classes, net.contract.decision))
    np.testing.assert_array_equal(net.probabilities(x), metrics.probabilities(predict(net.model, x), net.contract.temperature))


def test_logits_that_are_not_finite_have_no_probabilities(whole: pathlib.Path) -> None:
    net = load_run(whole, NETS)
    x = net.inputs(TEST.images[:3])
    x[1] = np.nan
    with pytest.raises(ValueError, match="logits: expected finite numbers, got others in 1 of 3 rows"):
        net.probabilities(x)


def test_ended_before_the_rule_it_is_resumed_for_it(
    whole: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, select="loss")

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(loop, "_determined", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(Net(), TRAIN, settings, tmp_path, TEST)
    assert load_run(tmp_path, NETS).contract.decision is None
    with pytest.raises(ValueError, match=r"its operating point is missing, .*--resume --out"):
        evaluate_run(tmp_path, NETS, TEST)
    assert not (tmp_path / "test.json").exists()
    fit(Net(seed=3), TRAIN, settings, tmp_path, TEST, resume=True)
    assert same_run(whole, tmp_path)
    capsys.readouterr()
    fit(Net(seed=4), TRAIN, settings, tmp_path, TEST, resume=True)  # a finished run
    assert same_run(whole, tmp_path) and "operating point: 'malignant' where" in capsys.readouterr().out


def test_a_run_without_validation_images_says_that_it_has_no_rule(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Net(), TRAIN, SETTINGS, tmp_path)
    contract = load_run(tmp_path, NETS).contract
    assert (contract.decision, contract.temperature, contract.validation) == (None, 1.0, 0)
    assert "operating point: none, for there are no validation images" in capsys.readouterr().out


def test_a_target_of_several_classes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_set, validation = (Dataset(d.images, np.arange(len(d)) % 3, THREE) for d in (TRAIN, TEST))
    nets = {"Net": lambda num_classes, in_channels: Net(num_classes)}
    fit(Net(3), train_set, SETTINGS, tmp_path / "none", validation)
    contract = load_run(tmp_path / "none", nets).contract
    assert contract.decision is None and contract.validation == 21
    assert "operating point" not in capsys.readouterr().out
    evaluate_run(tmp_path / "none", nets, validation)  # nothing is missing
    fit(Net(3), train_set, replace(SETTINGS, target="keratosis"), tmp_path / "one", validation)
    rule = load_run(tmp_path / "one", nets).contract.decision
    assert rule is not None and rule.target == "keratosis"


@pytest.mark.parametrize(
    ("classes", "asked", "given", "message"),
    [
        (("mole",), {}, TEST, r"train_set: expected at least two classes to tell apart, got \('mole',\)"),
        (TWO, {"target": "cancer"}, TEST, r"target: expected one of \('benign', 'malignant'\), got 'cancer'"),
        (THREE, {"sensitivity": 0.9}, TEST, r"sensitivity: 0\.9 of which class\? set target, one of \('nevus', "),
        (
            TWO,
            {"sensitivity": 0.9},
            None,
            r"sensitivity: 0\.9 takes a threshold that validation images give, .* validation=0\.15",
        ),
    ],
)
def test_a_wrong_target_is_told_before_any_epoch(
    tmp_path: pathlib.Path, classes: tuple[str, ...], asked: dict[str, Any], given: Dataset | None, message: str
) -> None:
    train_set, validation = (d and Dataset(d.images, np.arange(len(d)) % len(classes), classes) for d in (TRAIN, given))
    assert train_set is not None
    with pytest.raises(ValueError, match=message):
        fit(Net(len(classes)), train_set, replace(SETTINGS, **asked), tmp_path / "run", validation)
    assert not (tmp_path / "run").exists()


def test_settings_of_a_decision() -> None:
    assert Settings(sensitivity=np.float32(0.5)).sensitivity == 0.5
    for wrong in 0, 1.1, float("nan"):
        with pytest.raises(ValueError, match=r"sensitivity: expected a number in \(0, 1\]"):
            Settings(sensitivity=wrong)
    with pytest.raises(TypeError, match="target: expected a string, got 1"):
        Settings(target=1)  # type: ignore[arg-type]
