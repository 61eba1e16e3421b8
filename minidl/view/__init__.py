"""plots and images as PNG, SVG, PDF or JPEG files. matplotlib is imported when the first one is drawn."""

from minidl.view.architecture import architecture
from minidl.view.attacks import accuracy_by_eps, fooled, images_of_classes, linearity
from minidl.view.calibration import calibration
from minidl.view.images import gradient_images
from minidl.view.maps import comparison, overlays
from minidl.view.plots import confusion, curves
from minidl.view.roc import precision_recall, roc
from minidl.view.stepper import stepper

__all__ = [
    "accuracy_by_eps",
    "architecture",
    "calibration",
    "comparison",
    "confusion",
    "curves",
    "fooled",
    "gradient_images",
    "images_of_classes",
    "linearity",
    "overlays",
    "precision_recall",
    "roc",
    "stepper",
]
