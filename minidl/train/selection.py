"""Which epoch is the best: the scores of a model on a dataset, and the rows of a run, compared by one of them.

accuracy            the share that is right; `majority_accuracy` beside it, what the largest class gets for every answer
balanced_accuracy   the mean of that share over the classes
auc                 of two classes that of the difference of their logits; of more, the mean over the classes of that of the
                    class's probability, the class against all others
loss                the mean cross-entropy, of which less is better; of several heads the sum of theirs

Of several heads each score is the mean over these, and beside it stands that of each, such as `malignancy_auc`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minidl import metrics
from minidl.array import Array
from minidl.data import Augmentation, Dataset
from minidl.inference.evaluation import evaluate
from minidl.inference.heads import UNKNOWN, slices
from minidl.nn import Module
from minidl.parallel import ALONE, Communicator
from minidl.train.settings import Settings

Row = dict[str, Any]  # one line of metrics.jsonl

PREFIX = "validation_"  # of the scores in a row
SCORES = ("loss", "accuracy", "majority_accuracy", "balanced_accuracy", "auc")


def scores(
    model: Module,
    dataset: Dataset,
    prepare: Augmentation,
    batch_size: int | None = None,
    flips: str = "none",
    world: Communicator = ALONE,
) -> Row:
    """How good the model is on the images of `dataset`, as `fit` and `evaluate_run` write it down; `prepare` normalises them.

    The AUC is there where every class has images. Of a loss that is NaN or infinite there is nothing else. batch_size, flips,
    world: as in `minidl.inference.evaluate`; with the batch_size of the training, this takes no more memory.
    """
    loss, logits, labels = evaluate(model, dataset, batch_size, prepare, flips, world)
    if not math.isfinite(loss):
        return {"loss": loss}
    if not dataset.heads:
        return {"loss": loss} | scores_of(logits, labels)
    rows = {head: scores_of(*known) for head, known in by_head(logits, labels, dataset.classes).items()}
    each = {f"{head}_{name}": value for head, row in rows.items() for name, value in row.items()}
    return {"loss": loss} | mean_over(rows) | each


def by_head(logits: Array, labels: Mapping[str, Array], classes: Mapping[str, Sequence[str]]) -> dict[str, tuple[Array, Array]]:
    """Of each head the logits (n,K_h) and labels (n,) of the images whose label is known: of (N,K1+K2+...) and (N,) each."""
    found = {}
    for head, columns in slices(classes).items():
        known = labels[head] != UNKNOWN
        found[head] = logits[known, columns], labels[head][known]
    return found


def mean_over(rows: Mapping[str, Row]) -> Row:
    """The mean over the heads of each score that all of them have."""
    shared = [name for name in SCORES if all(name in row for row in rows.values())]
    return {name: float(np.mean([row[name] for row in rows.values()])) for name in shared}


def names_of_scores(heads: Sequence[str]) -> list[str]:
    """What a row calls the scores of a run with these heads. Raises ValueError where two would be called the same."""
    names = [*SCORES, *(f"{head}_{name}" for head in heads for name in SCORES if name != "loss")]
    for head in heads:
        if not head or any(names.count(f"{head}_{name}") > 1 for name in SCORES):
            raise ValueError(f"labels: the scores of a head called {head!r} cannot be told from others; give it another name")
    return names


def scores_of(logits: Array, labels: Array) -> Row:
    """The scores, but for the loss, of logits (N,K) beside labels (N,)."""
    counts = np.bincount(labels, minlength=logits.shape[1])
    row = {
        "accuracy": metrics.accuracy(logits, labels),
        "majority_accuracy": metrics.majority_accuracy(labels),
        "balanced_accuracy": metrics.balanced_accuracy(logits, labels),
    }
    return row | ({"auc": auc(logits, labels)} if len(counts) > 1 and counts.all() else {})


def auc(logits: Array, labels: Array) -> float:
    """Of two classes that of logit 1 - logit 0; of K the mean of K areas, each of a class's probability against all others."""
    if logits.shape[1] == 2:
        z = logits.astype(np.float64)
        return metrics.auc(z[:, 1] - z[:, 0], labels)
    return metrics.macro_auc(metrics.probabilities(logits), labels)


def described(row: Mapping[str, Any], prefix: str = "", heads: Sequence[str] = ()) -> str:
    """The scores in words, of several heads those of each: accuracy never without what the largest class alone gets."""
    if heads:
        return "; ".join(f"{head}: {described(row, f'{prefix}{head}_')}" for head in heads)
    accuracy, majority = row[f"{prefix}accuracy"], row[f"{prefix}majority_accuracy"]
    text = f"accuracy {accuracy:.1%} (always the largest class: {majority:.1%})"
    text += f", balanced {row[f'{prefix}balanced_accuracy']:.1%}"
    return text + (f", AUC {row[f'{prefix}auc']:.3f}" if f"{prefix}auc" in row else "")


def validated(row: Mapping[str, Any]) -> bool:
    """Whether the row of an epoch has its scores: that of the last checkpoint may not, see `minidl.train.loop`."""
    return f"{PREFIX}loss" in row


def best_epoch(rows: Sequence[Mapping[str, Any]], select: str) -> int | None:
    """The index of the row whose weights are kept, the first of equal ones; None while none is validated.

    With "last" it is the last row, whatever it scores.
    """
    if select == "last":
        return len(rows) - 1 if rows else None
    sign = -1 if select == "loss" else 1
    found = [sign * row[PREFIX + select] for row in rows if validated(row)]
    return int(np.argmax(found)) if found else None


def is_finished(rows: Sequence[Mapping[str, Any]], settings: Settings) -> bool:
    """Whether a run with these rows has nothing left to train: all epochs are done, or `patience` of them were no better."""
    if len(rows) >= settings.epochs:
        return True
    best = best_epoch(rows, settings.select)
    done = sum(map(validated, rows))
    return settings.patience is not None and best is not None and done - 1 - best >= settings.patience
