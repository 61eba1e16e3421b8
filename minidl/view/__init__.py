"""Plots and pictures as PNG or SVG files. matplotlib is imported when the first one is drawn."""

from minidl.view.architecture import architecture
from minidl.view.maps import comparison, overlays
from minidl.view.pictures import gradient_pictures
from minidl.view.plots import confusion, curves
from minidl.view.stepper import stepper

__all__ = ["architecture", "comparison", "confusion", "curves", "gradient_pictures", "overlays", "stepper"]
