"""Several heads: one net, a loss over all of them, scores of each."""

from __future__ import annotations

import csv
import json
import pathlib
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, gradients, kernels, metrics, nn, ops, weights
from minidl.check import gradient_check
from minidl.data import Dataset
from minidl.inference import evaluate, predict
from minidl.train import Settings, evaluate_run, fit, load_run
from minidl.train.balance import class_weights, counted
from minidl.train.decision import calibrated
from minidl.train.loss import Loss
from minidl.train.run import hold_out
from minidl.train.selection import names_of_scores, scores_of
from tests.gpu import strict_cupy
from tests.train.test_train import ROOT, SETTINGS, TEST, TRAIN, BreaksAt, Net, contents, read, same_run, without_times

CLASSES = {"kind": ("benign", "malignant"), "site": ("arm", "face", "leg")}
NETS = {"Net": lambda num_classes, in_channels: Net(num_classes)}
CHOOSES = replace(SETTINGS, epochs=4, validation=0.3, select="auc", balance="weights", patience=3)


def with_sites(d: Dataset, seed: int = 0) -> Dataset:
    """A second head, of which every fifth label is not known, and a first one of which the last three are not."""
    rng = np.random.default_rng(seed)
    site, kind = rng.permutation(len(d)) % 3, d.labels.copy()
    site[::5], kind[-3:] = -1, -1
    return Dataset(d.images, {"kind": kind, "site": site}, CLASSES, name=d.name)


BOTH, BOTH_TEST = with_sites(TRAIN), with_sites(TEST, 1)


# ---- the loss


def test_the_loss_is_the_sum_of_the_means_over_what_is_known() -> None:
    rng = np.random.default_rng(0)
    z, kind, site = rng.normal(size=(7, 5)), np.array([0, 1, -1, 1, 0, -1, 1]), np.array([2, -1, -1, 0, 1, 1, 0])
    weights = {"kind": np.array([0.5, 2.0]), "site": np.array([1.0, 3.0, 0.2])}
    for v in None, weights:
        loss = Loss(Net(), v, CLASSES)
        found, expected = loss(Tensor(z), np.stack([kind, site], 1)).item(), 0.0
        for labels, part, name in (kind, z[:, :2], "kind"), (site, z[:, 2:], "site"):
            known = labels >= 0
            log_p = part[known] - np.log(np.exp(part[known]).sum(1, keepdims=True))
            each, of_class = -log_p[np.arange(known.sum()), labels[known]], labels[known]
            expected += each.mean() if v is None else (v[name][of_class] * each).sum() / v[name][of_class].sum()
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_its_gradient(weighted: bool) -> None:
    """In float64, of logits of the net and of an auxiliary head, with labels that are not known, and a head without any."""
    rng = np.random.default_rng(1)
    net, z, aux = Net(), rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    net.auxiliary_weight = 0.3
    weights = {"kind": np.array([0.5, 2.0]), "site": np.array([1.0, 3.0, 0.2])} if weighted else None
    loss = Loss(net, weights, CLASSES)
    for site in [2, -1, 0, 1], [-1, -1, -1, -1]:
        labels = np.array([[0, 1, -1, 1], site]).T

        def of(logits: Tensor, others: Tensor, labels: np.ndarray = labels) -> Tensor:
            return loss((logits, others), labels)

        gradient_check(of, [z, aux])
        first, second = Tensor(z, requires_grad=True), Tensor(aux, requires_grad=True)
        g, g_aux = gradients(of(first, second), [first, second])
        unknown = labels < 0
        assert not g[unknown[:, 0], :2].any() and not g[unknown[:, 1], 2:].any() and np.isfinite(g).all() and g[:, :2].any()
        assert g_aux[0] == pytest.approx(0.3 * gradients(loss(second, labels), [second])[0][0])


def test_a_batch_of_which_nothing_is_known_changes_nothing() -> None:
    z = Tensor(np.ones((3, 5)), requires_grad=True)
    y = Loss(Net(), None, CLASSES)(z, np.full((3, 2), -1))
    assert y.item() == 0 and not gradients(y, [z])[0].any()


def test_logits_of_another_width() -> None:
    message = r"model: expected logits \(N,5\), 2 of kind and 3 of site, got shape \(3, 4\); make it with num_classes=5"
    with pytest.raises(ValueError, match=message):
        Loss(Net(), None, CLASSES)(Tensor(np.ones((3, 4))), np.zeros((3, 2), int))


def test_the_weights_of_classes_are_of_each_head() -> None:
    weights = class_weights(BOTH)
    for head, of_head in weights.items():
        n = np.bincount(BOTH.labels[head][BOTH.labels[head] >= 0])
        assert of_head.dtype == np.float32 and of_head * n == pytest.approx([n.sum() / len(n)] * len(n))


# ---- a run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    fit(Net(5), BOTH, CHOOSES, out)
    return out


def test_rows_tell_each_score_of_each_head(whole: pathlib.Path) -> None:
    first, held_out = hold_out(BOTH, None, CHOOSES)
    assert held_out is not None and (len(first), len(held_out)) == (28, 12)
    net, rows = load_run(whole, NETS), read(whole)
    best = max(rows, key=lambda row: row["validation_auc"])
    loss, logits, labels = evaluate(net.model, held_out, SETTINGS.batch_size, net.contract.normalize)
    assert loss == best["validation_loss"] and logits.shape == (12, 5) and labels is held_out.labels
    of_heads = []
    for head, columns in ("kind", slice(0, 2)), ("site", slice(2, 5)):
        known = labels[head] >= 0
        of_heads.append(scores_of(logits[known, columns], labels[head][known]))
        assert of_heads[-1] == {name: best[f"validation_{head}_{name}"] for name in of_heads[-1]}
        assert (
            best[f"train_{head}_majority_accuracy"]
            == np.bincount(first.labels[head][first.labels[head] >= 0]).max() / (first.labels[head] >= 0).sum()
        )
    for name in of_heads[0]:
        assert best[f"validation_{name}"] == pytest.approx(np.mean([scores[name] for scores in of_heads]))
    z = Tensor(logits)
    parts = [
        ops.cross_entropy(z[np.flatnonzero(labels[head] >= 0)][:, columns], labels[head][labels[head] >= 0]).item()
        for head, columns in (("kind", slice(0, 2)), ("site", slice(2, 5)))
    ]
    assert loss == pytest.approx(sum(parts), rel=1e-5)


def test_the_training_counts_what_is_known_alone(tmp_path: pathlib.Path) -> None:
    """A net that always answers the same: its accuracy is the share of that answer among the labels of a head."""
    kind, site = np.arange(32) % 2, np.where(np.arange(32) % 4, 1, -1)
    site[1] = 0
    d = Dataset(TRAIN.take(np.arange(32)).images, {"kind": kind, "site": site}, {"kind": ("a", "b"), "site": ("c", "d")})
    net = Net(4)
    for p in net.parameters():
        p.data[...] = 0
    net.linear.bias.data[:] = 0, 1, 0, 1
    rows = fit(net, d, replace(SETTINGS, epochs=1, lr=1e-9), tmp_path)
    assert rows[0]["train_kind_accuracy"] == 0.5 and rows[0]["train_site_accuracy"] == 23 / 24
    assert rows[0]["train_accuracy"] == (0.5 + 23 / 24) / 2


def test_heads_learn(tmp_path: pathlib.Path) -> None:
    """Light or dark, and red or green: both are found, the second from few labels."""
    rng = np.random.default_rng(0)
    light, green = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    images = rng.integers(0, 60, (200, 3, 16, 16)) + 80 * light[:, None, None, None]
    images[np.arange(200), green] += 80
    known = np.where(np.arange(200) % 3, green, -1)
    classes = {"light": ("no", "yes"), "green": ("no", "yes")}
    d = Dataset(images.astype(np.uint8), {"light": light, "green": known}, classes)
    rows = fit(Net(4), d.take(np.arange(150)), replace(SETTINGS, epochs=12, lr=0.1), tmp_path, d.take(np.arange(150, 200)))
    assert rows[-1]["validation_light_auc"] > 0.99 and rows[-1]["validation_green_auc"] > 0.99


def test_what_is_printed(whole: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Net(5), BOTH, replace(SETTINGS, epochs=1), tmp_path / "a", BOTH_TEST)
    counts, _, line, *decisions = capsys.readouterr().out.splitlines()
    n = np.bincount(BOTH.labels["kind"][BOTH.labels["kind"] >= 0])
    assert counts.startswith(f"training: 40 images: kind: 'benign' {n[0]}, 'malignant' {n[1]}, not known 3; site: 'arm' ")
    assert counts.endswith("not known 8")
    assert line.count("kind: accuracy ") == line.count("site: accuracy ") == 1 and line.count("always the largest class") == 4
    assert [text.split(":")[:2] for text in decisions] == [
        ["kind", " temperature"],
        ["kind", " operating point"],
        ["site", " temperature"],
    ]
    fit(Net(5), BOTH, replace(SETTINGS, epochs=1), tmp_path / "b")
    line = capsys.readouterr().out.splitlines()[1]
    assert "kind accuracy " in line and "site accuracy " in line and line.count("always the largest class") == 2


@pytest.mark.parametrize("at", [2, 3, 4])
def test_resumed_the_bits_are_the_same(whole: pathlib.Path, tmp_path: pathlib.Path, at: int) -> None:
    if at > len(read(whole)):  # an epoch is one step
        pytest.skip("patience ended the run before")
    stopped = BreaksAt(at, "interrupt")
    stopped.linear = Net(5).linear
    stopped.name_parameters()
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, BOTH, CHOOSES, tmp_path)
    assert without_times(read(tmp_path)) == without_times(read(whole))[: at - 1]
    fit(Net(5, seed=9), BOTH, CHOOSES, tmp_path, resume=True)
    assert same_run(whole, tmp_path)


KILLED = """
import pathlib, sys
from tests.train.test_heads import BOTH, CHOOSES, Net
from tests.train.test_train import BreaksAt
from minidl.train import fit
net = BreaksAt(3, "wait")
net.linear = Net(5).linear
net.name_parameters()
fit(net, BOTH, CHOOSES, pathlib.Path(sys.argv[1]))
"""


@pytest.mark.ci
def test_killed_and_resumed_the_bits_are_the_same(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"waiting\n":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    fit(Net(5, seed=9), BOTH, CHOOSES, tmp_path, resume=True)
    assert same_run(whole, tmp_path)


def test_a_resumed_run_has_the_same_heads(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    before = contents(tmp_path)
    swapped = Dataset(BOTH.images, dict(reversed(BOTH.labels.items())), CLASSES)
    renamed = {"kind": BOTH.labels["kind"], "place": BOTH.labels["site"]}
    other = Dataset(BOTH.images, renamed, {"kind": CLASSES["kind"], "place": CLASSES["site"]})
    for d in swapped, other:
        with pytest.raises(ValueError, match="was trained on other images or labels: the training labels are others"):
            fit(Net(5), d, CHOOSES, tmp_path, resume=True)
    assert contents(tmp_path) == before


# ---- the net and its test


def test_a_head_of_a_trained_net_is_a_net(whole: pathlib.Path) -> None:
    net = load_run(whole, NETS)
    assert net.classes == CLASSES and net.heads == ("kind", "site") and net.contract.arguments["num_classes"] == 5
    x = net.inputs(TEST.images)
    logits = predict(net.model, x)
    for name, columns in ("kind", slice(0, 2)), ("site", slice(2, 5)):
        head = net.head(name)
        assert head.classes == CLASSES[name] and head.heads == ()
        np.testing.assert_array_equal(predict(head.model, x), logits[:, columns])
        np.testing.assert_array_equal(head.inputs(TEST.images), x)
    with pytest.raises(ValueError, match=r"name: expected one of \('kind', 'site'\), got 'age'"):
        net.head("age")
    with pytest.raises(ValueError, match=r"name: expected one of \(\), got 'kind'"):
        net.head("kind").head("kind")


def test_the_test_tells_each_head(whole: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in contents(whole).items():
        (tmp_path / name).write_bytes(content)
    found = evaluate_run(tmp_path, NETS, BOTH_TEST)
    assert json.loads((tmp_path / "test.json").read_text()) == found
    net = load_run(whole, NETS)
    loss, logits, labels = evaluate(net.model, BOTH_TEST, SETTINGS.batch_size, net.contract.normalize)
    assert found["loss"] == loss and found["images"] == 21
    for head, columns in ("kind", slice(0, 2)), ("site", slice(2, 5)):
        known, of_head = labels[head] >= 0, found["heads"][head]
        assert of_head["images"] == known.sum() == np.array(of_head["confusion"]).sum() < 21
        expected = scores_of(logits[known, columns], labels[head][known])
        assert {name: of_head[name] for name in expected} == pytest.approx(expected)
        assert of_head["temperature"] == net.contract.temperature[head] and of_head["intervals"]["accuracy"] is not None
        rows = list(csv.DictReader((tmp_path / of_head["predictions"]).read_text().splitlines()))
        assert [row["label"] for row in rows] == [CLASSES[head][k] if k >= 0 else "" for k in labels[head]]
        assert list(rows[0]) == ["file", "group", "label", *(f"p_{name}" for name in CLASSES[head]), "decision"]
    assert found["heads"]["kind"]["decision"]["target"] == "malignant" and found["heads"]["kind"]["operating"]
    assert found["heads"]["site"]["decision"] is None
    assert found["accuracy"] == np.mean([found["heads"][head]["accuracy"] for head in CLASSES])
    capsys.readouterr()
    assert evaluate_run(tmp_path, NETS, BOTH_TEST) == found
    said = capsys.readouterr().out
    assert "kind: accuracy " in said and "site: accuracy " in said


def test_each_head_has_its_temperature_and_decides(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    _, held_out = hold_out(BOTH, None, CHOOSES)
    assert held_out is not None
    net = load_run(whole, NETS)
    _, logits, labels = evaluate(net.model, held_out, SETTINGS.batch_size, net.contract.normalize)
    for name, columns in ("kind", slice(0, 2)), ("site", slice(2, 5)):
        known = labels[name] >= 0
        temperature, _ = calibrated(logits[known, columns], labels[name][known])
        head = net.head(name)
        assert net.contract.temperature[name] == head.contract.temperature == temperature
        p = head.probabilities(net.inputs(held_out.images))
        np.testing.assert_allclose(p, metrics.probabilities(logits[:, columns], temperature), rtol=1e-5)
        rule = head.contract.decision
        if name == "site":
            assert rule is None and (head.decide(p) == p.argmax(1)).all()
        else:
            assert rule is not None and rule.target == "malignant" and rule.images == known.sum()
            assert (head.decide(p) == (p[:, 1] >= rule.threshold)).all()
    for ask in (lambda: net.probabilities(net.inputs(TEST.images)), lambda: net.decide(np.full((1, 5), 0.2))):
        with pytest.raises(ValueError, match=r"the net has the heads kind, site: ask one of them, net\.head\('kind'\)"):
            ask()
    wanted = replace(SETTINGS, epochs=1, validation=0.3, target="face", sensitivity=1.0)
    fit(Net(5), BOTH, wanted, tmp_path)
    decision = load_run(tmp_path, NETS).contract.decision
    assert decision["site"].target == "face" and decision["site"].wanted == 1 and decision["site"].sensitivity == 1
    assert decision["kind"].target == "malignant" and decision["kind"].wanted is None


def test_a_damaged_contract_of_heads(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arrays, words = weights.load_arrays(whole / "model.safetensors")
    contract = json.loads(words["contract"])
    for changed, message in (
        ({"classes": {}}, "classes: expected a name for each, got {}"),
        ({"classes": {"kind": ["a", "b"], "site": []}}, r"classes\['site'\]: expected at least one, got"),
        ({"classes": {"kind": ["a", "b"], "site": "abc"}}, r"classes\['site'\]: expected a name for each, got 'abc'"),
        (
            {"classes": {"kind": ["a", "b"], "site": ["c"]}, "decision": None},
            "classes: 3, but the net is built with num_classes=5",
        ),
        ({"temperature": {"kind": 1.0}}, "temperature: site is missing"),
        ({"temperature": {"kind": 1.0, "site": 0}}, r"temperature\['site'\]: expected a number in \(0, inf\), got 0"),
        ({"decision": {"kind": None, "site": None, "age": None}}, "decision: 'age' is unknown"),
        ({"decision": {"kind": None, "site": contract["decision"]["kind"]}}, r"decision\['site'\].target: expected one of"),
    ):
        weights.save_arrays(tmp_path / "model.safetensors", arrays, {"contract": json.dumps(contract | changed)})
        with pytest.raises(ValueError, match=f"what it says of its net is damaged: {message}"):
            load_run(tmp_path, NETS)


def test_the_gpu_gives_the_numbers_of_the_cpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in for CuPy, which refuses to mix with NumPy."""
    with kernels.use("reference"):
        settings = replace(CHOOSES, epochs=1)
        on_cpu = fit(Net(5), BOTH, settings, tmp_path / "cpu")
        monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
        on_gpu = fit(Net(5), BOTH, replace(settings, device="gpu"), tmp_path / "gpu")
    for a, b in zip(without_times(on_cpu), without_times(on_gpu), strict=True):
        assert b == pytest.approx(a, rel=1e-4)


# ---- what cannot be


def refused(d: Dataset, message: str, out: pathlib.Path, net: nn.Module | None = None, **more: Any) -> None:
    validation = more.pop("validation_set", None)
    with pytest.raises(ValueError, match=message):
        fit(net or Net(5), d, replace(SETTINGS, **more), out, validation)
    assert not out.exists()


def test_what_is_refused(tmp_path: pathlib.Path) -> None:
    out, kind, site = tmp_path / "run", BOTH.labels["kind"], BOTH.labels["site"]
    nothing = Dataset(BOTH.images, {"kind": kind, "site": np.full(40, -1)}, CLASSES)
    refused(nothing, "train_set: no label of site is known among 40 images; leave this head out", out)
    alone = Dataset(BOTH.images, {"kind": kind, "site": np.minimum(site, 0)}, {**CLASSES, "site": ("arm",)})
    refused(alone, r"train_set: expected at least two classes of site to tell apart, got \('arm',\)", out, Net(3))
    missing = Dataset(BOTH.images, {"kind": kind, "site": np.minimum(site, 1)}, CLASSES)
    refused(missing, "train_set: expected images of each of the 3 classes of site, got none of 'leg' among 32; leave", out)
    refused(
        BOTH,
        "balance: 'sample' draws by the classes of one head, got kind, site; write balance='weights'",
        out,
        balance="sample",
    )
    one = BOTH.head("kind")
    refused(BOTH, r"validation: expected the classes \{'kind': .*got \('benign', 'malignant'\)", out, validation_set=one)
    swapped = Dataset(BOTH.images, dict(reversed(BOTH.labels.items())), CLASSES)
    order = r"validation: expected the heads in the order of training, \['kind', 'site'\], got \['site', 'kind'\]"
    refused(BOTH, order, out, validation_set=swapped)
    empty = Dataset(BOTH.images, {"kind": kind, "site": np.full(40, -1)}, CLASSES)
    refused(BOTH, "validation: no label of site is known among 40 images", out, validation_set=empty)
    rare = site.copy()
    rare[rare == 2] = 1
    rare[3] = 2
    single = Dataset(BOTH.images, {"kind": kind, "site": rare}, CLASSES)
    refused(single, "class 'leg', of 1 images, would be missing from part", out, validation=0.2)


def test_a_net_with_another_number_of_logits(tmp_path: pathlib.Path) -> None:
    for d, net, message in (
        (BOTH, Net(4), "5 logits, 2 of kind and 3 of site, got 4; build Net for 5 classes, such as with num_classes=5"),
        (BOTH, Net(6), "5 logits, 2 of kind and 3 of site, got 6"),
        (TRAIN, Net(5), "2 logits, one for each class, got 5; build Net for 2 classes, such as with num_classes=2"),
    ):
        refused(d, f"model: expected {message}", tmp_path / "run", net)


def test_what_cannot_be_tested(whole: pathlib.Path) -> None:
    swapped = Dataset(BOTH_TEST.images, dict(reversed(BOTH_TEST.labels.items())), CLASSES)
    unknown = Dataset(BOTH_TEST.images, {**BOTH_TEST.labels, "site": np.full(21, -1)}, CLASSES, name="half")
    for d, message in (
        (TEST, r"test_set: expected the classes \{'kind': .*got \('benign', 'malignant'\)"),
        (swapped, "test_set: expected the heads in the order of training"),
        (unknown, "half: no label of site is known, nothing to evaluate it by; leave this head out"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_run(whole, NETS, d)
    assert not (whole / "test.json").exists()


def test_names_that_two_scores_would_have(tmp_path: pathlib.Path) -> None:
    """The accuracy of a head called majority would be the mean of what the largest classes get."""
    for names in ["majority"], ["balanced"], ["", "a"], ["a", "a_majority"], ["a_balanced", "a"]:
        with pytest.raises(ValueError, match=r"labels: the scores of a head called '.*' cannot be told from others"):
            names_of_scores(names)
        d = Dataset(TRAIN.images, dict.fromkeys(names, TRAIN.labels), dict.fromkeys(names, TRAIN.classes))
        refused(d, "labels: the scores of a head called", tmp_path / "run", Net(2 * len(names)))
    assert len(set(names_of_scores(["a", "b", "a_b"]))) == 5 + 3 * 4


def test_counted_in_words() -> None:
    d = Dataset(TRAIN.images, {"kind": np.full(40, -1), "site": np.arange(40) % 2}, CLASSES)
    assert counted(d) == (
        "40 images: kind: no label, not known 40; no image of 'benign', 'malignant'; "
        "site: 'arm' 20, 'face' 20; no image of 'leg'"
    )


def test_auxiliary_heads_learn_all_heads(tmp_path: pathlib.Path) -> None:
    class WithAuxiliary(Net):
        auxiliary_weight = 0.3

        def __init__(self) -> None:
            super().__init__(5)
            self.aux = nn.Linear(4, 5, rng=np.random.default_rng(3))
            self.name_parameters()

        def forward(self, x: Tensor) -> Any:
            y = ops.global_avg_pool2d(ops.relu(self.bn(self.conv(x))))
            return (self.linear(y), self.aux(y)) if self.training else self.linear(y)

    net = WithAuxiliary()
    before = net.aux.weight.data.copy()
    fit(net, BOTH, Settings(epochs=2, batch_size=16, lr=0.05, crop=2), tmp_path)
    changed = (net.aux.weight.data != before).any(1)
    assert changed.all()
