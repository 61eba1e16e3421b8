"""minidl: a small deep-learning engine to read, step through and train with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minidl import check, data, kernels, nn, ops, optim, weights
from minidl.core import OPS, Op, Parameter, Step, Tensor, gradients, jvp, no_grad, tape, walk
from minidl.mixed import mixed
from minidl.plain import plain

if TYPE_CHECKING:
    from minidl import analysis, attack, evaluate, explain, flow, inference, metrics, parallel, train, view
    from minidl.analysis.cost import cost
    from minidl.flow.trace import trace
    from minidl.train.loss_scale import LossScale

__version__ = "0.1.0"

LATER = {  # imported when first asked for: rooms, and names in rooms
    **dict.fromkeys(
        ("analysis", "attack", "evaluate", "explain", "flow", "inference", "metrics", "parallel", "train", "view"), ""
    ),
    "LossScale": "train",
    "cost": "analysis",
    "trace": "flow",
}

__all__ = [
    "OPS",
    "LossScale",
    "Op",
    "Parameter",
    "Step",
    "Tensor",
    "analysis",
    "attack",
    "check",
    "cost",
    "data",
    "evaluate",
    "explain",
    "flow",
    "gradients",
    "inference",
    "jvp",
    "kernels",
    "metrics",
    "mixed",
    "nn",
    "no_grad",
    "ops",
    "optim",
    "parallel",
    "plain",
    "tape",
    "trace",
    "train",
    "view",
    "walk",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in LATER:
        room = LATER[name]
        return getattr(import_module(f"minidl.{room}"), name) if room else import_module(f"minidl.{name}")
    raise AttributeError(f"module 'minidl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *LATER])
