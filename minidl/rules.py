"""Other rules for the way back through a ReLU, as hooks on the steps of a walk.

    for step in walk(y):
        guided(step)

A ReLU lets the gradient gy through where its input was positive. Two methods that look into a net send something else on:

    plain       gx = gy * (x > 0)
    deconvnet   gx = gy * (gy > 0)              Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks"
    guided      gx = gy * (gy > 0) * (x > 0)    Springenberg, Dosovitskiy, Brox and Riedmiller 2015, "Striving for simplicity"

Neither arrives at a gradient of anything. A ReLU is whatever says by its `gate()` which entries it lets through: relu, also as
maximum(x, 0) or where(x > 0, x, 0), a leaky one, any clip, an op of your own. Of its gradient gx guided backprop sends
gx * (gy > 0) on. The rules meet ReLUs that are nodes of their own, whoever called for them; so run the model inside
`minidl.ops.unfused()`.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl.core import Step
from minidl.ops.dense import DenseBlock
from minidl.ops.fused import BatchNormFrozenReLU, BatchNormReLU, Conv2dReLU

Rule = Callable[[Step], None]


def plain(step: Step) -> None:
    """The gradient as it is."""


def guided(step: Step) -> None:
    """gx = gy * (gy > 0) * (x > 0). Raises ValueError at an op that holds a ReLU inside."""
    if is_relu(step) and step.gxs[0] is not None:
        step.gxs[0] = step.gxs[0] * (step.gy > 0)


def deconvnet(step: Step) -> None:
    """gx = gy * (gy > 0). Raises ValueError at an op that holds a ReLU inside."""
    if is_relu(step) and step.gxs[0] is not None:
        step.gxs[0] = step.gy * (step.gy > 0)


def is_relu(step: Step) -> bool:
    """Whether the op has gates, one for each entry of its first input. Raises ValueError where it holds a ReLU inside."""
    if isinstance(step.op, BatchNormReLU | BatchNormFrozenReLU | Conv2dReLU | DenseBlock):
        raise ValueError(f"{type(step.op).__name__} holds a ReLU inside that no rule can reach; use minidl.ops.unfused()")
    gate = step.op.gate()
    return (
        gate is not None
        and gate.shape == step.gy.shape
        and step.op.inputs[0] is not None
        and (step.op.inputs[0].shape == step.gy.shape)
    )
