"""minidl: a small deep-learning engine to read, step through and train with."""

from minidl import check, kernels, ops
from minidl.core import OPS, Op, Parameter, Step, Tensor, gradients, no_grad, tape, walk

__all__ = ["OPS", "Op", "Parameter", "Step", "Tensor", "check", "gradients", "kernels", "no_grad", "ops", "tape", "walk"]
