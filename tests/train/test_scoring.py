"""What predictions are worth: scores with intervals over groups, in a table, on a card, and in the test of a run."""

from __future__ import annotations

import csv
import json
import pathlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minidl import metrics
from minidl.train import DecisionRule, evaluate_run, fit, load_run, scoring
from minidl.train.card import card
from minidl.train.decision import decide
from minidl.train.predictions import Predictions, score_of
from minidl.train.scoring import scored, summary
from tests.train.test_train import SETTINGS, TEST, TRAIN, Net, contents

NETS = {"Net": lambda num_classes, in_channels: Net(num_classes)}
RULE = DecisionRule("c1", 0.3, 0.9, 0.5, 10)


def drawn(N: int, K: int, groups: int = 0, seed: int = 0, rule: DecisionRule | None = RULE) -> Predictions:
    rng = np.random.default_rng(seed)
    labels, classes = np.arange(N) % K, tuple(f"c{k}" for k in range(K))
    p = metrics.probabilities(1.5 * np.eye(K)[labels] + rng.normal(size=(N, K)))
    whom = [f"patient {n}" for n in rng.integers(0, groups, N)] if groups else [""] * N
    return Predictions(classes, [f"{n}.png" for n in range(N)], whom, labels, p, decide(p, classes, rule))


def test_two_classes_by_hand() -> None:
    found = drawn(60, 2)
    p, labels, decisions = found.p, found.labels, found.decisions
    scores = scored(found, 1, 2.0)
    likeliest = p.argmax(1)
    assert scores["accuracy"] == (likeliest == labels).mean() and scores["majority_accuracy"] == 0.5
    assert scores["auc"] == metrics.auc(p[:, 1], labels)
    assert scores["average_precision"] == metrics.average_precision(p[:, 1], labels)
    assert scores["brier"] == metrics.brier_score(p, labels) and scores["ece"] == metrics.expected_calibration_error(p, labels)
    raw = p**2 / (p**2).sum(1, keepdims=True)  # softmax(z) of softmax(z / 2)
    assert scores["ece_uncalibrated"] == pytest.approx(metrics.expected_calibration_error(raw, labels))
    operating = scores["operating"]
    assert operating["sensitivity"] == (decisions[labels == 1] == 1).mean() > (likeliest[labels == 1] == 1).mean()
    assert operating["specificity"] == (decisions[labels == 0] == 0).mean()
    assert operating["balanced_accuracy"] == pytest.approx((operating["sensitivity"] + operating["specificity"]) / 2)
    assert operating["confusion"][1][1] == ((decisions == 1) & (labels == 1)).sum()
    assert scores["recall"] == {f"c{k}": (likeliest[labels == k] == k).mean() for k in (0, 1)}
    assert (scores["target"], scores["groups"], scores["notes"]) == ("c1", None, [])


@pytest.mark.parametrize("groups", [0, 12])
def test_intervals_are_those_of_the_bootstrap_over_groups(groups: int) -> None:
    """Beside `bootstrap_score`, which draws the same samples."""
    found = drawn(60, 2, groups)
    scores = scored(found, 1)
    whom = found.grouped
    kwargs: dict[str, Any] = {"groups": whom, "resamples": scoring.RESAMPLES}
    flagged = (found.decisions == 1).astype(np.int64)
    for ends, score, answers in (
        (scores["intervals"]["accuracy"], metrics.accuracy, found.p),
        (scores["intervals"]["auc"], metrics.auc, score_of(found.p, 1)),
        (scores["intervals"]["brier"], metrics.brier_score, found.p),
        (scores["intervals"]["operating"]["sensitivity"], metrics.sensitivity, flagged),
        (scores["intervals"]["operating"]["specificity"], metrics.specificity, flagged),
    ):
        interval = metrics.bootstrap_score(score, answers, found.labels, **kwargs)
        assert ends == pytest.approx([interval.low, interval.high], abs=1e-12)
    assert scores["groups"] == (groups or None)


def test_intervals_over_groups_are_wider_than_over_images() -> None:
    alone = drawn(20, 2)
    five = Predictions(alone.classes, alone.names * 5, [str(n) for n in range(20)] * 5, *(np.concatenate([a] * 5) for a in (
        alone.labels, alone.p, alone.decisions)))  # fmt: skip
    wide, narrow = (scored(f, 1)["intervals"]["accuracy"] for f in (five, replace(five, groups=[""] * 100)))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_several_classes() -> None:
    found = drawn(90, 3)
    scores = scored(found, 1)
    each = metrics.auc_per_class(found.p, found.labels)
    assert list(scores["auc_per_class"].values()) == each.tolist() and scores["auc"] == pytest.approx(each.mean())
    assert np.array(scores["operating"]["confusion"]).shape == (3, 3)
    assert "operating" not in scored(drawn(90, 3, rule=None), 1, by_rule=False)
    scores = scored(drawn(90, 3, rule=None))
    assert "operating" not in scores and scores["target"] is None
    assert scores["average_precision"] == pytest.approx(
        np.mean([metrics.average_precision(found.p[:, k], found.labels == k) for k in range(3)])
    )


def test_what_cannot_be_had_is_null_and_said() -> None:
    one = scored(replace(drawn(20, 2), groups=["same"] * 20), 1)
    assert (
        one["accuracy"] > 0.5
        and one["intervals"]["accuracy"] is None
        and one["intervals"]["recall"] == {"c0": None, "c1": None}
    )
    assert one["notes"] == ["all images are of one group, of which nobody knows how others differ: no intervals"]
    healthy = drawn(20, 2)
    absent = scored(replace(healthy, labels=np.zeros(20, np.int64)), 1)
    assert "auc" not in absent and absent["average_precision"] is None and absent["operating"]["sensitivity"] is None
    assert absent["recall"]["c1"] is None and absent["intervals"]["operating"]["sensitivity"] is None
    assert absent["intervals"]["operating"]["specificity"] is not None
    (said,) = (note for note in absent["notes"] if note.startswith("cannot be had, for the images lack a class: "))
    for name in "recall of 'c1'", "auc", "average precision", "sensitivity at the operating point":
        assert name in said
    # every draw with a sick patient has the same one
    sick = np.array([1] * 4 + [0] * 16)
    lone = scored(replace(healthy, labels=sick, groups=["a"] * 4 + [f"b{n}" for n in range(16)]), 1)
    for name in ("sensitivity", "balanced_accuracy"):
        assert lone["operating"][name] is not None and lone["intervals"]["operating"][name] is None
    assert lone["intervals"]["auc"] is None and lone["intervals"]["operating"]["specificity"] is not None
    (said,) = (note for note in lone["notes"] if note.startswith("no interval, for a class has images of one group alone: "))
    assert "auc" in said and "specificity" not in said
    json.dumps([one, absent, lone], allow_nan=False)


def test_samples_without_a_class_are_left_out_and_said() -> None:
    labels = np.array([1, 1] + [0] * 18)
    scores = scored(replace(drawn(20, 2), labels=labels), 1)
    (said,) = (
        note for note in scores["notes"] if note.startswith("the interval may be too narrow, for samples that lack a cl")
    )
    assert "auc (" in said and "accuracy (" not in said.replace("balanced accuracy (", "")
    assert scores["intervals"]["auc"] is not None


def test_a_score_that_no_sample_changes_is_no_certainty() -> None:
    """All of 10 patients are found, and as many would be found of most others: a sensitivity of 1 [1, 1] says too much."""
    found = drawn(20, 2)
    scores = scored(replace(found, decisions=np.ones(20, np.int64)), 1)
    assert scores["operating"]["sensitivity"] == 1 and scores["intervals"]["operating"]["sensitivity"] is None
    (said,) = (note for note in scores["notes"] if note.startswith("no interval, for all samples give the same"))
    assert "sensitivity at the operating point, specificity at the operating point" in said
    assert scores["intervals"]["operating"]["accuracy"] is not None


def test_probabilities_that_are_rounded_are_told_apart() -> None:
    logits = np.array([[0, 40.0], [0, 50.0], [0, 1.0]])  # the first two are 1 in float64
    p = metrics.probabilities(logits)
    assert p[0, 1] == p[1, 1] == 1 and (np.diff(score_of(p, 1)[:2]) > 9).all()
    np.testing.assert_allclose(score_of(p, 1), logits[:, 1], rtol=1e-12)


def test_the_summary_tells_accuracy_beside_the_largest_class() -> None:
    found = drawn(40, 2)
    text = summary(scored(replace(found, labels=np.minimum(found.labels + (np.arange(40) % 4 == 0), 1)), 1))
    assert "(always the largest class: 75.0%)" in text.splitlines()[0] and text.splitlines()[1].startswith(
        "at the operating po"
    )


# ---- a table


def test_a_table_is_read_back_to_the_bit(tmp_path: pathlib.Path) -> None:
    classes = ("a,b", "two\nlines", 'quo"te')
    found = replace(drawn(9, 3, 4), classes=classes, names=["x,y.png", "new\nline.png", "\udcff.png", *map(str, range(6))])
    found.labels[2] = -1
    found.write(tmp_path / "p.csv")
    again = Predictions.read(tmp_path / "p.csv", classes)
    for name in "names", "groups", "labels", "p", "decisions":
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    with open(tmp_path / "p.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        head, first, *_ = csv.reader(file)
    assert head == ["file", "group", "label", *(f"p_{name}" for name in classes), "decision"] and first[0] == "x,y.png"
    assert len(again.known().labels) == 8 and again.known().names[2] == "0"
    with pytest.raises(ValueError, match=r"p\.csv: expected predictions of the classes \('a', 'b'\), got the columns"):
        Predictions.read(tmp_path / "p.csv", ("a", "b"))
    whole = (tmp_path / "p.csv").read_bytes()
    for line in b"10,,", b"10,,,0.5,0.25,0.25,nobody", b'10,,,0.5,0.25,half,"a,b"':
        (tmp_path / "p.csv").write_bytes(whole + line + b"\n")
        with pytest.raises(ValueError, match=r"p\.csv is damaged: "):
            Predictions.read(tmp_path / "p.csv", classes)


# ---- in a run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    fit(Net(), TRAIN, replace(SETTINGS, data="lesions"), out, TEST)
    return out


def test_the_test_of_a_run(run: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name, content in contents(run).items():
        (tmp_path / name).write_bytes(content)
    names, groups = np.array([f"{n}.png" for n in range(21)]), np.arange(21) // 3
    test_set = replace(TEST, names=names, groups=groups)
    found = evaluate_run(tmp_path, NETS, test_set)
    net = load_run(tmp_path, NETS)
    p = net.probabilities(net.inputs(TEST.images), SETTINGS.batch_size)
    predictions = Predictions.read(tmp_path / "predictions.csv", TEST.classes)
    np.testing.assert_allclose(predictions.p, p, atol=1e-6)
    np.testing.assert_array_equal(predictions.decisions, net.decide(predictions.p))
    np.testing.assert_array_equal(predictions.labels, TEST.labels)
    assert predictions.names[20] == "20.png" and predictions.groups[20] == "6" and found["groups"] == 7
    again = scored(predictions, 1, net.contract.temperature)
    assert again == {name: found[name] for name in again}
    assert found["temperature"] == net.contract.temperature and found["decision"]["images"] == 21
    # an older test said less, and is completed on the same images
    first = "epoch images loss accuracy majority_accuracy balanced_accuracy auc confusion digests".split()
    old = {name: found[name] for name in first}
    (tmp_path / "test.json").write_text(json.dumps(old))
    with pytest.raises(FileExistsError, match="was tested already, on other images"):
        evaluate_run(tmp_path, NETS, TEST.take(np.arange(20)))
    assert evaluate_run(tmp_path, NETS, test_set) == found
    (tmp_path / "test.json").write_text(json.dumps(found | {"speed": 1}))
    with pytest.raises(ValueError, match=r"test\.json is damaged: test: 'speed' is unknown"):
        evaluate_run(tmp_path, NETS, test_set)


def test_a_card(run: pathlib.Path) -> None:
    classes = ("a|b", "new\nline")
    train_set, test_set = (replace(d, classes=classes, groups=np.arange(len(d))) for d in (TRAIN, TEST))
    predictions = replace(drawn(21, 2), classes=classes, labels=TEST.labels, groups=[str(n) for n in range(21)])
    found = {"images": 21} | scored(predictions, 1)
    contract = replace(load_run(run, NETS).contract, classes=classes, decision=replace(RULE, target=classes[1], wanted=0.95))
    text = card(contract, replace(SETTINGS, validation=0.3, target=classes[1]), found, train_set, test_set)
    for told in (
        "| a\\|b | 14 | 6 | 11 |",
        "| groups | 28 | 12 | 21 |",
        "bootstrap over 21 groups",
        "It says new line where the probability of that is at least 0.3",
        "for a sensitivity of at least 0.95",
        "accuracy of always the largest class | 0.524 |",
        "It must not decide about patients",
        f"NumPy {np.__version__}",
        "| epochs | 3 |",
        "| batch\\_size | 16 |",
    ):
        assert told in text, told
    without = replace(contract, decision=None, validation=0, temperature=1.0)
    sets = (replace(d, classes=classes) for d in (TRAIN, TEST))
    text = card(without, SETTINGS, {k: v for k, v in found.items() if k != "operating"}, *sets)
    for told in (
        "There are no validation images.",
        "No groups are known",
        "It has no operating point",
        "The test may hold patients",
    ):
        assert told in text, told
    assert "\n\n\n" not in text
