"""The page that walks from the score back to the image, one op at a time."""

from minidl.view.stepper.frame import Frame, frame
from minidl.view.stepper.page import stepper

__all__ = ["Frame", "frame", "stepper"]
