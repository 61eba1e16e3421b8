"""Which epoch is the best: the scores of a model on a dataset, and the rows of a run, compared by one of them.

accuracy            the share that is right; `majority_accuracy` beside it, what the largest class gets for every answer
balanced_accuracy   the mean of that share over the classes
auc                 of two classes that of the difference of their logits; of more, the mean over the classes of that of the
                    class's probability, the class against all others
loss                the mean cross-entropy, of which less is better
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
from minidl.nn import Module
from minidl.train.settings import Settings

Row = dict[str, Any]  # one line of metrics.jsonl

PREFIX = "validation_"  # of the scores in a row


def scores(model: Module, dataset: Dataset, prepare: Augmentation, batch_size: int | None = None, flips: str = "none") -> Row:
    """How good the model is on the images of `dataset`, as `fit` and `evaluate_run` write it down; `prepare` normalises them.

    The AUC is there where every class has images. Of a loss that is NaN or infinite there is nothing else. batch_size, flips:
    as in `minidl.inference.evaluate`; with the batch_size of the training, this takes no more memory.
    """
    loss, logits, labels = evaluate(model, dataset, batch_size, prepare, flips)
    return {"loss": loss} | (scores_of(logits, labels) if math.isfinite(loss) else {})


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


def described(row: Mapping[str, Any], prefix: str = "") -> str:
    """The scores in words: accuracy never without what the largest class alone gets."""
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
