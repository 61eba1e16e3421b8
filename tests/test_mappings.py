"""Every dictionary that a public function takes: what is none is named in one sentence.

The walk reads the signatures. What takes a dictionary and has no row in `ROWS` makes it fail.
"""

import importlib
import inspect

import numpy as np
import pytest

import models
from minidl import data, explain, inference, metrics, nn, optim, train, view, weights
from tests.test_arguments import ROOMS

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8)).astype(np.uint8)
SET = data.Dataset(IMAGES, np.arange(8) % 2, ("benign", "malignant"))
NET = nn.Sequential(nn.Conv2d(3, 2, 3, rng=np.random.default_rng(0)), nn.GlobalAvgPool2d())
CURVE = {"a": metrics.roc_curve(np.array([0.2, 0.8]), np.array([0, 1]))}
PRECISION = {"a": metrics.precision_recall_curve(np.array([0.2, 0.8]), np.array([0, 1]))}
ONE_EPOCH = train.Settings(epochs=1, batch_size=4)

ROWS = {
    "minidl.data.Dataset masks": lambda no, out: data.Dataset(SET.images, SET.labels, SET.classes, no),
    "minidl.explain.evidence_maps target": lambda no, out: explain.evidence_maps(NET, IMAGES / np.float32(255), no),
    "minidl.inference.Heads classes": lambda no, out: inference.Heads(NET, no),
    "minidl.train.Contract arguments": lambda no, out: train.Contract.of(SET, "net", no),
    "minidl.train.evaluate_run nets": lambda no, out: train.evaluate_run(out, no, SET),
    "minidl.train.fit arguments": lambda no, out: train.fit(NET, SET, ONE_EPOCH, out, arguments=no),
    "minidl.train.load_run nets": lambda no, out: train.load_run(out, no),
    "minidl.view.accuracy_by_eps shares": lambda no, out: view.accuracy_by_eps(None, [0, 1], no, 0.1),
    "minidl.view.calibration tables": lambda no, out: view.calibration(None, no),
    "minidl.view.comparison maps": lambda no, out: view.comparison(None, IMAGES, no),
    "minidl.view.curves rows": lambda no, out: view.curves(None, [no]),
    "minidl.view.linearity sweeps": lambda no, out: view.linearity(None, no, SET.classes),
    "minidl.view.precision_recall curves": lambda no, out: view.precision_recall(None, no),
    "minidl.view.precision_recall intervals": lambda no, out: view.precision_recall(None, PRECISION, no),
    "minidl.view.roc curves": lambda no, out: view.roc(None, no),
    "minidl.view.roc intervals": lambda no, out: view.roc(None, CURVE, intervals=no),
    "minidl.view.roc points": lambda no, out: view.roc(None, CURVE, no),
    "minidl.weights.save_arrays arrays": lambda no, out: weights.save_arrays(out / "a.safetensors", no),
    "minidl.weights.save_arrays metadata": lambda no, out: weights.save_arrays(out / "a.safetensors", {}, no),
}
BY_MINIDL = {  # takes what minidl made
    "minidl.parallel.Buckets kinds": "what `fit` sums",
    "minidl.train.checkpoint.save best": "the weights that `fit` keeps",
    "minidl.train.checkpoint.save facts": "what a run tells of itself",
    "minidl.train.is_finished rows": "the rows of `fit`",
    "minidl.weights.fill state": "that of `load_state`",
}


def taking_dictionaries():
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in getattr(module, "__all__", dir(module)):
            made = getattr(module, name)
            if name.startswith("_") or not callable(made) or not getattr(made, "__module__", "").startswith(room):
                continue
            try:
                parameters = inspect.signature(made).parameters
            except ValueError:  # of what is built in
                continue
            yield from (f"{room}.{name} {p.name}" for p in parameters.values() if "Mapping[" in str(p.annotation))


def test_all_have_a_row():
    assert set(taking_dictionaries()) == ROWS.keys() | BY_MINIDL.keys()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(
    "value", ["a word", ["a list"], np.ones((2, 3)), models.resnet20], ids=["str", "list", "array", "function"]
)
def test_what_is_none_is_named(row, value, tmp_path):
    name = row.split()[1]
    with pytest.raises(TypeError, match=rf"^{name}(\[0\])?: expected a dictionary, .+, got {type(value).__name__}$"):
        ROWS[row](value, tmp_path)


def test_states():
    for take in (
        NET.load_state_dict,
        optim.SGD(NET.parameters(), 0.1).load_state_dict,
        optim.WeightAverage(NET, 0.9).load_state_dict,
    ):
        with pytest.raises(TypeError, match="expected a mapping of names to arrays, got list"):
            take([1])


def test_a_row_of_an_epoch_lacks_something():
    with pytest.raises(ValueError, match=r"^rows\[1\]: expected a line of metrics.jsonl, got none of its lr, train_accuracy"):
        whole = {"epoch": 1, "lr": 0.1, "train_loss": 1.0, "train_accuracy": 0.5, "train_majority_accuracy": 0.5}
        view.curves(None, [whole, {"epoch": 2, "train_loss": 1.0}])
