"""plots and images as PNG, SVG, PDF or JPEG files, or in a notebook. matplotlib is imported when the first one is drawn.

What draws takes the path of a file first, None where none is to be written, and returns the `Drawing`, which a notebook shows.
"""

from minidl.view.architecture import architecture
from minidl.view.attacks import accuracy_by_eps, fooled, images_of_classes, linearity
from minidl.view.calibration import calibration
from minidl.view.figure import Drawing
from minidl.view.images import gradient_images
from minidl.view.maps import comparison, overlays
from minidl.view.plots import confusion, curves
from minidl.view.roc import precision_recall, roc
from minidl.view.stepper import Frame, frame, stepper

__all__ = [
    "Drawing",
    "Frame",
    "accuracy_by_eps",
    "architecture",
    "calibration",
    "comparison",
    "confusion",
    "curves",
    "fooled",
    "frame",
    "gradient_images",
    "images_of_classes",
    "linearity",
    "overlays",
    "precision_recall",
    "roc",
    "stepper",
]
