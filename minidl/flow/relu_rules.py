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
`minidl.ops.unfused()`. An op that holds a ReLU inside says so by its `parts()`, and is an error here.
"""

from __future__ import annotations

from collections.abc import Callable

from minidl.core import Op, Step

Rule = Callable[[Step], None]


def plain(step: Step) -> None:
    """The gradient as it is."""


def guided(step: Step) -> None:
    """gx = gy * (gy > 0) * (x > 0). Raises ValueError at an op that holds a ReLU inside."""
    for i in gated(step):
        gx = step.gxs[i]
        step.gxs[i] = None if gx is None else gx * (step.gy > 0)


def deconvnet(step: Step) -> None:
    """gx = gy * (gy > 0). Raises ValueError at an op that holds a ReLU inside."""
    for i in gated(step):
        step.gxs[i] = None if step.gxs[i] is None else step.gy * (step.gy > 0)


def is_relu(step: Step) -> bool:
    """Whether the op has gates, one for each entry of its input. Raises ValueError where it holds a ReLU inside."""
    return bool(gated(step))


def gated(step: Step) -> list[int]:
    """Which input goes through the gates of the op: [0], but [1] of maximum(0, x), or [] of an op that has none.

    Raises ValueError where a rule cannot reach the gates: they are inside the op, or not one for each entry of that input.
    """
    op = step.op
    inside = next((part for part in op.parts() if part.gate is not Op.gate), None)
    if inside is not None:
        raise ValueError(
            f"{type(op).__name__} holds a {inside.__name__} inside that no rule can reach; use minidl.ops.unfused()"
        )
    gate = op.gate()
    if gate is None:
        return []
    i = op.needs.index(True)
    x = op.inputs[i]
    if x is None or not gate.shape == step.gy.shape == x.shape:
        raise ValueError(
            f"{type(op).__name__}.gate(): expected one gate for each entry of the input and of the output, which have "
            f"{None if x is None else x.shape} and {step.gy.shape}, got {gate.shape}; write the ReLU as an op of its own"
        )
    return [i]
