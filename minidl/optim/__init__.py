"""Optimisers, learning-rate schedules, clipping."""

from minidl.optim.optimizer import (
    SGD,
    AdamW,
    Optimizer,
    Schedule,
    clip_gradients,
    constant,
    cosine,
    decay_groups,
    one_cycle,
    step_decay,
)

__all__ = [
    "SGD",
    "AdamW",
    "Optimizer",
    "Schedule",
    "clip_gradients",
    "constant",
    "cosine",
    "decay_groups",
    "one_cycle",
    "step_decay",
]
