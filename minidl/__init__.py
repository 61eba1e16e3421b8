"""minidl: a small deep-learning engine to read, step through and train with."""

from minidl import check, data, kernels, nn, ops, optim, weights
from minidl.core import OPS, Op, Parameter, Step, Tensor, gradients, no_grad, tape, walk
from minidl.loss_scale import LossScale
from minidl.mixed import mixed
from minidl.nn import cost
from minidl.plain import plain
from minidl.trace import trace

__all__ = [
    "OPS",
    "LossScale",
    "Op",
    "Parameter",
    "Step",
    "Tensor",
    "check",
    "cost",
    "data",
    "gradients",
    "kernels",
    "mixed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "plain",
    "tape",
    "trace",
    "walk",
    "weights",
]
