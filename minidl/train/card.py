"""What a trained net is, on one page: what it learned from, how well it does, and what it must not be used for.

Mitchell et al. 2019, "Model cards for model reporting".
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from minidl.data import Dataset
from minidl.train.balance import class_counts
from minidl.train.contract import Contract
from minidl.train.run import hold_out
from minidl.train.scoring import LEVEL, with_interval
from minidl.train.settings import Settings

SCORES = {  # where they stand in test.json, and what they are called
    ("accuracy",): "accuracy, likeliest class",
    ("balanced_accuracy",): "balanced accuracy, likeliest class",
    ("operating", "accuracy"): "accuracy, operating point",
    ("operating", "balanced_accuracy"): "balanced accuracy, operating point",
    ("operating", "sensitivity"): "sensitivity, operating point",
    ("operating", "specificity"): "specificity, operating point",
    ("auc",): "AUC",
    ("average_precision",): "average precision",
    ("ece_uncalibrated",): "expected calibration error, before the temperature",
    ("ece",): "expected calibration error",
    ("brier",): "Brier score",
}
ALWAYS = ("epochs", "batch_size", "lr", "seed")  # settings that are told, default or not


def card(
    contract: Contract,
    settings: Settings,
    found: Mapping[str, Any],
    train_set: Dataset,
    test_set: Dataset,
    validation: Dataset | None = None,
) -> str:
    """The card of a run in Markdown, of its contract, its settings, what `evaluate_run` found, and the sets that `fit` took."""
    train_set, test_set = (_without_images(d) for d in (train_set, test_set))
    given = validation is not None
    train_set, validation = hold_out(train_set, validation and _without_images(validation), settings)
    sets = {"training": train_set, "validation": validation, "test": test_set}
    parts = [
        f"# {_text(contract.architecture)} on {_text(settings.data or train_set.name)}",
        _purpose(contract),
        "## Data",
        _data({name: d for name, d in sets.items() if d is not None}),
        _split(settings, train_set, validation, given),
        "## How well it does",
        _scores(found),
        _classes(found, test_set),
        *(f"Note: {_text(note)}." for note in found["notes"]),
        "## When it decides",
        _decision(contract, found),
        "## What it must not be used for",
        _limits(contract, found, test_set),
        "## How it was made",
        _settings(settings),
        _versions(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _without_images(dataset: Dataset) -> Dataset:
    """The same labels and groups, of which alone a split is made."""
    return replace(dataset, images=np.zeros((len(dataset), 1, 1, 1), np.uint8), masks={}, window=None)


def _purpose(contract: Contract) -> str:
    size = f"{contract.height}x{contract.width} pixels (height x width)"
    depth = "8 bits" if contract.dtype == "uint8" else f"numbers from {contract.range[0]:.4g} to {contract.range[1]:.4g}"
    channels = f"{contract.channels} channel{'s' * (contract.channels > 1)}"
    return f"It tells {len(contract.classes)} classes apart in images of {size}, {channels} and {depth}."


def _data(sets: Mapping[str, Dataset]) -> str:
    classes = next(iter(sets.values())).classes
    rows = [["images", *(f"{len(d):,}" for d in sets.values())]]
    for k, name in enumerate(classes):
        rows.append([_text(name), *(f"{class_counts(d)[k]:,}" for d in sets.values())])
    if any(d.groups is not None for d in sets.values()):
        rows.append(["groups", *("unknown" if d.groups is None else f"{len(np.unique(d.groups)):,}" for d in sets.values())])
    return _table(["", *sets], rows)


def _split(settings: Settings, train_set: Dataset, validation: Dataset | None, given: bool) -> str:
    told = []
    if validation is None:
        told.append("There are no validation images.")
    elif given:
        told.append("The validation images are a set of their own.")
    else:
        told.append(
            f"The validation images are {settings.validation:.0%} of the training images, drawn by seed {settings.seed}."
        )
    if train_set.groups is None:
        told.append("No groups are known: two images of one patient may stand in two sets.")
    elif validation is not None and not given:
        told.append("All images of a group stand in the same one of these two.")
    return " ".join(told)


def _scores(found: Mapping[str, Any]) -> str:
    groups = found["groups"]
    over = "images" if groups is None else f"{groups:,} groups"
    rows = [["accuracy of always the largest class", f"{found['majority_accuracy']:.3f}"]]
    for name, called in SCORES.items():
        if name[0] in found:
            if name == ("average_precision",) and found["target"] is not None:
                called += f" of {_text(found['target'])}"
            rows.append([called, with_interval(found, *name)])
    table = _table([f"of {found['images']:,} test images", f"value and {LEVEL:.0%} interval"], rows)
    return f"{table}\n\nThe intervals are those of the bootstrap over {over}. The test was looked at once, after the training."


def _classes(found: Mapping[str, Any], test_set: Dataset) -> str:
    counts = class_counts(test_set)
    several = "auc_per_class" in found
    rows = []
    for name, n in zip(test_set.classes, counts, strict=True):
        auc = [with_interval(found, "auc_per_class", name)] if several else []
        rows.append([_text(name), f"{n:,}", with_interval(found, "recall", name), *auc])
    return _table(["class", "test images", "recall, likeliest class", *(["AUC against all others"] if several else [])], rows)


def _decision(contract: Contract, found: Mapping[str, Any]) -> str:
    told = f"Its probabilities are those of softmax(logits / {contract.temperature:.4g})"
    if contract.validation and contract.temperature == 1:
        told += f": no temperature fits the {contract.validation:,} validation images."
    elif contract.validation:
        told += f", a temperature from {contract.validation:,} validation images."
    else:
        told += ", and nobody has fitted a temperature: there were no validation images."
    rule = contract.decision
    if rule is None:
        return f"{told} It has no operating point: it says the likeliest class."
    why = "the largest sensitivity + specificity" if rule.wanted is None else f"a sensitivity of at least {rule.wanted:g}"
    told += (
        f" It says {_text(rule.target)} where the probability of that is at least {rule.threshold:.4g}, and else the likeliest "
        f"of the other classes. This threshold was chosen on the {rule.images:,} validation images, for {why}. There the "
        f"sensitivity was {rule.sensitivity:.3f} and the specificity {rule.specificity:.3f}, which looks better than it is; on "
        f"the test images they are {with_interval(found, 'operating', 'sensitivity')} and "
        f"{with_interval(found, 'operating', 'specificity')}."
    )
    return told


def _limits(contract: Contract, found: Mapping[str, Any], test_set: Dataset) -> str:
    told = [
        "It must not decide about patients. Nobody has tested it in a clinic, and it is no medical device.",
        "It knows these classes alone, and says one of them of any image, of a photograph of a cat, too.",
        "The figures hold for images of the same source. Another camera, another hospital or other patients are another test.",
        "Where a class is rarer or more frequent than in the test images, its probabilities are wrong.",
    ]
    accuracy = found["accuracy"]
    if accuracy <= found["majority_accuracy"]:
        told.append("Its likeliest class is right no more often than always the largest class. It is no use by that.")
    if test_set.groups is None:
        told.append("The test may hold patients of the training, and then its figures are too good.")
    if contract.decision is None:
        told.append("It weighs a missed case like a false alarm.")
    return "\n".join(f"- {line}" for line in told)


def _settings(settings: Settings) -> str:
    default = Settings()
    changed = {k: v for k, v in vars(settings).items() if v != getattr(default, k) or k in ALWAYS}
    return _table(["setting", "value"], [[_text(k), _text(str(v))] for k, v in changed.items()]) + (
        "\n\nThe others are those of `minidl.train.Settings`."
    )


def _versions() -> str:
    try:
        mine = version("minidl")
    except PackageNotFoundError:
        mine = "not installed"
    return f"minidl {mine}, NumPy {np.__version__}, Python {platform.python_version()}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(name: str) -> str:
    """On one line, and no part of a table or of its markup."""
    return "".join(f"\\{c}" if c in r"\`*_|<>[]#" else c for c in " ".join(name.split()))
