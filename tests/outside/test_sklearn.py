"""scikit-learn as an oracle for the metrics, where it is installed: to 1e-12, on drawn answers with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics

theirs = pytest.importorskip("sklearn.metrics")
pytestmark = pytest.mark.oracle
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(seed=st.integers(0, 2**32 - 1), N=st.integers(1, 60), K=st.integers(1, 25), kind=st.sampled_from(INTEGERS))
def test_of_several_classes(seed: int, N: int, K: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.integers(0, 4, (N, K)).astype(np.float32), rng.integers(0, K, N).astype(kind)
    answers = logits.argmax(1)
    assert metrics.accuracy(logits, labels) == pytest.approx(theirs.accuracy_score(labels, answers), abs=1e-12)
    want = theirs.confusion_matrix(labels, answers, labels=np.arange(K))
    np.testing.assert_array_equal(metrics.confusion_matrix(logits, labels), want)
    recalls = theirs.recall_score(labels, answers, labels=np.unique(labels), average="macro", zero_division=0)
    assert metrics.balanced_accuracy(logits, labels) == pytest.approx(recalls, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), P=st.integers(1, 40), Q=st.integers(1, 40), levels=st.sampled_from((2, 5, 10**6)))
def test_of_two(seed: int, P: int, Q: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [P, Q]))
    scores = rng.integers(0, levels, P + Q) / levels
    assert metrics.auc(scores, labels) == pytest.approx(theirs.roc_auc_score(labels, scores), abs=1e-12)
