"""How good answers are, and how sure that is. Arrays in, plain numbers out."""

from minidl.metrics.classification import accuracy, auc, balanced_accuracy, confusion_matrix
from minidl.metrics.intervals import Interval, bootstrap

__all__ = [
    "Interval",
    "accuracy",
    "auc",
    "balanced_accuracy",
    "bootstrap",
    "confusion_matrix",
]
