"""What a training leaves of its test: figures of how well the net does, and its card. `train.py` draws them at its end.

roc.png           how well it orders the images, with the operating point; of several classes, each against all others
calibration.png   whether its probabilities mean what they say, before and after the temperature
confusion.png     which class was taken for which, at the operating point
card.md           what the net is, on one page
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from minidl import metrics, view
from minidl.data import Dataset
from minidl.io import files
from minidl.metrics import Interval, OperatingPoint
from minidl.train import Settings, TrainedNet
from minidl.train.card import card
from minidl.train.predictions import Predictions, score_of
from minidl.view import figure

MOST = 12  # curves
FILES = ("roc.png", "calibration.png", "confusion.png", "card.md")


def write(
    out: pathlib.Path,
    title: str,
    net: TrainedNet,
    settings: Settings,
    sets: tuple[Dataset, Dataset, Dataset | None],
) -> None:
    """All of `FILES` into the folder of a run that was tested; sets: training, test and, if there is one, validation."""
    found = json.loads((out / "test.json").read_text(encoding="utf-8"))
    predictions = Predictions.read(out / "predictions.csv", net.classes)
    roc(out / "roc.png", title, net, found, predictions)
    calibration(out / "calibration.png", title, net, predictions)
    confusion(out / "confusion.png", title, net, found)
    text = card(net.contract, settings, found, *sets)
    files.write(out / "card.md", text.encode("utf-8", "backslashreplace"))  # the name of a class may be no text


def roc(path: pathlib.Path, title: str, net: TrainedNet, found: Mapping[str, Any], predictions: Predictions) -> None:
    """Of two classes the target's curve; of more one of each class that the test has, against all others; of many the worst."""
    two, K = len(net.classes) == 2, len(net.classes)
    target = None if found["target"] is None else net.classes.index(found["target"])
    labels, what = predictions.labels, "test images" if two else "each class against all others"
    shown = [1 if target is None else target] if two else list(range(K))
    if K > MOST:
        of_class = [found["auc_per_class"][name] for name in net.classes]
        worst = sorted((k for k in shown if of_class[k] is not None), key=lambda k: of_class[k])[:MOST]
        shown = sorted({*worst, *([] if target is None else [target])})
        what = f"the {len(worst)} of {K} classes that it tells worst from all others"
    curves, intervals, points = {}, {}, {}
    for k in shown:
        ones = labels == k
        if not 0 < ones.sum() < len(ones):
            continue
        name = net.classes[k]
        curves[name] = metrics.roc_curve(score_of(predictions.p, k), ones)
        ends = found["intervals"]["auc"] if two else found["intervals"]["auc_per_class"][name]
        if ends is not None:
            intervals[name] = Interval(curves[name].auc, *ends)
        if k == target and net.contract.decision is not None:
            operating = found["operating"]
            points[name] = [OperatingPoint(net.contract.decision.threshold, operating["sensitivity"], operating["specificity"])]
    if not curves:
        path.unlink(missing_ok=True)
        print(f"{path.name} cannot be drawn: the test images are of one class")
        return
    marked = f"; the operating point was chosen on {net.contract.validation:,} validation images" if points else ""
    view.roc(path, curves, points, intervals, f"{title}: {what}\nin brackets 95% intervals{marked}")


def calibration(path: pathlib.Path, title: str, net: TrainedNet, predictions: Predictions) -> None:
    p, labels, temperature = predictions.p, predictions.labels, net.contract.temperature
    fitted = net.contract.validation > 0
    tables = {"before the temperature" if fitted else "no temperature fitted": predictions.uncalibrated(temperature)}
    if fitted:
        tables[f"temperature {temperature:.3g}"] = p
    drawn = {name: metrics.reliability(of, labels) for name, of in tables.items()}
    view.calibration(path, drawn, f"{title}: the probability of the likeliest class")


def confusion(path: pathlib.Path, title: str, net: TrainedNet, found: Mapping[str, Any]) -> None:
    if net.contract.decision is None:
        matrix, what = found["confusion"], "the likeliest class"
        told = f"accuracy {found['accuracy']:.1%}\n(always the largest class: {found['majority_accuracy']:.1%})"
    else:
        matrix, what = found["operating"]["confusion"], f"at the operating point of {figure.name(found['target'])}"
        told = f"sensitivity {found['operating']['sensitivity']:.3f}, specificity {found['operating']['specificity']:.3f}"
    view.confusion(path, np.array(matrix), net.classes, f"{title}\n{what}\n{told}")
