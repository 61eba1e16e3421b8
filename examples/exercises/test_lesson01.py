"""Judge of exercise 1: minidl's own confusion matrix."""

from types import ModuleType

import judge
import numpy as np

from minidl import metrics


def test_every_image_is_counted_where_it_belongs(exercise: ModuleType) -> None:
    rng = np.random.default_rng(1)
    labels, logits = rng.integers(0, 3, 60), rng.normal(size=(60, 3))
    wanted, once = metrics.confusion_matrix(logits, labels), np.zeros((3, 3))
    once[labels, logits.argmax(1)] += 1
    judge.equal(
        exercise.confusion_matrix(logits.argmax(1), labels, 3),
        wanted,
        {
            "rows and columns are exchanged: a row is the truth, a column the answer": wanted.T,
            "each pair is counted once: with `matrix[labels, answers] += 1` an index that comes twice counts once": once,
            "these are shares: it should be counts": wanted / wanted.sum(),
            "these are shares of each row: it should be counts": wanted / wanted.sum(1, keepdims=True),
        },
    )


def test_a_class_that_nobody_has(exercise: ModuleType) -> None:
    judge.equal(
        exercise.confusion_matrix(np.array([0, 2]), np.array([0, 0]), 4),
        np.array([[1, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4]),
        {"only classes that occur have rows: make `classes` of them": np.array([[1, 0, 1]])},
    )
