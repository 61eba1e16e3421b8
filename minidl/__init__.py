"""minidl: a small deep-learning engine to read, step through and train with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minidl import check, data, kernels, nn, ops, optim, weights
from minidl.core import OPS, Op, Parameter, Step, Tensor, gradients, jvp, no_grad, tape, walk
from minidl.loss_scale import LossScale
from minidl.mixed import mixed
from minidl.nn import cost
from minidl.trace import trace

if TYPE_CHECKING:
    from minidl import attack, evaluate, explain, flow, metrics, train, view

__version__ = "0.1.0"

LATER = ("attack", "evaluate", "explain", "flow", "metrics", "train", "view")  # imported when first asked for

__all__ = [
    "OPS",
    "LossScale",
    "Op",
    "Parameter",
    "Step",
    "Tensor",
    "attack",
    "check",
    "cost",
    "data",
    "evaluate",
    "explain",
    "flow",
    "gradients",
    "jvp",
    "kernels",
    "metrics",
    "mixed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "tape",
    "trace",
    "train",
    "view",
    "walk",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in LATER:
        return import_module(f"minidl.{name}")
    raise AttributeError(f"module 'minidl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LATER])
