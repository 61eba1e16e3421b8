"""How good answers are, and how sure that is. Arrays in, plain numbers out."""

from minidl.metrics.calibration import (
    Reliability,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    probabilities,
    reliability,
)
from minidl.metrics.classification import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    majority_accuracy,
    recall_per_class,
    sensitivity,
    specificity,
)
from minidl.metrics.intervals import Interval, bootstrap, bootstrap_score
from minidl.metrics.operating_points import OperatingPoint, operating_point
from minidl.metrics.roc import (
    PrecisionRecallCurve,
    ROCCurve,
    auc,
    auc_per_class,
    average_precision,
    macro_auc,
    precision_recall_curve,
    roc_curve,
)

__all__ = [
    "Interval",
    "OperatingPoint",
    "PrecisionRecallCurve",
    "ROCCurve",
    "Reliability",
    "accuracy",
    "auc",
    "auc_per_class",
    "average_precision",
    "balanced_accuracy",
    "bootstrap",
    "bootstrap_score",
    "brier_score",
    "confusion_matrix",
    "expected_calibration_error",
    "fit_temperature",
    "macro_auc",
    "majority_accuracy",
    "negative_log_likelihood",
    "operating_point",
    "precision_recall_curve",
    "probabilities",
    "recall_per_class",
    "reliability",
    "roc_curve",
    "sensitivity",
    "specificity",
]
