"""scikit-learn as an oracle for the metrics, where it is installed: to 1e-12, on drawn answers with ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics

theirs = pytest.importorskip("sklearn.metrics")
dummy = pytest.importorskip("sklearn.dummy")
base = pytest.importorskip("sklearn.base")
calibration = pytest.importorskip("sklearn.calibration")
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
    every = theirs.recall_score(labels, answers, labels=np.arange(K), average=None, zero_division=np.nan)
    np.testing.assert_allclose(metrics.recall_per_class(logits, labels), every, atol=1e-12)
    majority = dummy.DummyClassifier(strategy="most_frequent").fit(logits, labels)
    assert metrics.majority_accuracy(labels) == pytest.approx(majority.score(logits, labels), abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), P=st.integers(1, 40), Q=st.integers(1, 40), levels=st.sampled_from((2, 5, 10**6)))
def test_of_two(seed: int, P: int, Q: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [P, Q]))
    scores = rng.integers(0, levels, P + Q) / levels
    assert metrics.auc(scores, labels) == pytest.approx(theirs.roc_auc_score(labels, scores), abs=1e-12)
    ours, want = metrics.roc_curve(scores, labels), theirs.roc_curve(labels, scores, drop_intermediate=False)
    for a, b in zip(ours, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert ours.auc == pytest.approx(theirs.auc(*want[:2]), abs=1e-12)
    for a, b in zip(metrics.precision_recall_curve(scores, labels), theirs.precision_recall_curve(labels, scores), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    assert metrics.average_precision(scores, labels) == pytest.approx(theirs.average_precision_score(labels, scores), abs=1e-12)
    decisions = scores >= 0.5
    assert metrics.sensitivity(decisions, labels) == pytest.approx(theirs.recall_score(labels, decisions), abs=1e-12)
    of_zeros = theirs.recall_score(labels, decisions, pos_label=0)
    assert metrics.specificity(decisions, labels) == pytest.approx(of_zeros, abs=1e-12)
    assert metrics.brier_score(scores[:, None], labels) == pytest.approx(theirs.brier_score_loss(labels, scores), abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), N=st.integers(1, 60), K=st.integers(2, 8), levels=st.sampled_from((2, 4, 10**6)))
def test_of_probabilities(seed: int, N: int, K: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(0, levels, (N + K, K)) * 3 / levels
    labels = rng.permutation(np.append(np.arange(K), rng.integers(0, K, N)))
    p = metrics.probabilities(logits)
    if K > 2:
        for multi_class in "ovr", "ovo":
            want = theirs.roc_auc_score(labels, p, multi_class=multi_class, average="macro")
            assert metrics.macro_auc(p, labels, multi_class) == pytest.approx(want, abs=1e-12)
    every = [theirs.roc_auc_score(labels == k, p[:, k]) for k in range(K)]
    np.testing.assert_allclose(metrics.auc_per_class(p, labels), every, atol=1e-12)
    want = theirs.brier_score_loss(labels, p[:, 1] if K == 2 else p, labels=np.arange(K))
    assert metrics.brier_score(p, labels) == pytest.approx(want, abs=1e-12)
    assert metrics.negative_log_likelihood(logits, labels) == pytest.approx(theirs.log_loss(labels, p), abs=1e-12)
    for bins in 1, 5, 15:
        table = metrics.reliability(p, labels, bins, target=1)
        frequency, confidence = calibration.calibration_curve(labels == 1, p[:, 1], n_bins=bins)
        np.testing.assert_allclose(table.frequency[table.counts > 0], frequency, atol=1e-12)
        np.testing.assert_allclose(table.confidence[table.counts > 0], confidence, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), N=st.integers(40, 80), K=st.integers(2, 6))
def test_temperature(seed: int, N: int, K: int) -> None:
    """Theirs is searched less finely: ours is as likely at least"""
    frozen = pytest.importorskip("sklearn.frozen")
    rng = np.random.default_rng(seed)
    labels = np.append(np.tile(np.arange(K), 5), rng.integers(0, K, N))
    logits = 2 * rng.normal(size=(N + 5 * K, K)) + 2 * np.eye(K)[labels]

    class Net(base.ClassifierMixin, base.BaseEstimator):
        classes_ = np.arange(K)

        def fit(self, X: np.ndarray, y: np.ndarray) -> Net:
            self.fitted_ = True
            return self

        def predict(self, X: np.ndarray) -> np.ndarray:
            return X.argmax(1)

        def decision_function(self, X: np.ndarray) -> np.ndarray:
            return X if K > 2 else X[:, 1] - X[:, 0]

    net = frozen.FrozenEstimator(Net().fit(logits, labels))
    scaled = calibration.CalibratedClassifierCV(net, method="temperature").fit(logits, labels).predict_proba(logits)
    ours = metrics.probabilities(logits, metrics.fit_temperature(logits, labels))
    np.testing.assert_allclose(ours, scaled, atol=2e-3)
    assert theirs.log_loss(labels, ours) <= theirs.log_loss(labels, scaled) + 1e-12
