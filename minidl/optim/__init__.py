"""Optimisers, learning-rate schedules and gradient clipping.

optimiser = SGD(decay_groups(model, 5e-4), lr=0.1, momentum=0.9, nesterov=True)
schedule = one_cycle(max_lr=0.2, total_steps=steps)
for k in range(steps):
    optimiser.lr = schedule(k)
    optimiser.zero_grad()
    loss(...).backward()
    optimiser.step()
"""

from minidl.optim.adamw import AdamW
from minidl.optim.average import WeightAverage
from minidl.optim.clipping import clip_gradients
from minidl.optim.groups import decay_groups
from minidl.optim.optimizer import Optimizer
from minidl.optim.schedules import Schedule, constant, cosine, one_cycle, step_decay
from minidl.optim.sgd import SGD

__all__ = [
    "SGD",
    "AdamW",
    "Optimizer",
    "Schedule",
    "WeightAverage",
    "clip_gradients",
    "constant",
    "cosine",
    "decay_groups",
    "one_cycle",
    "step_decay",
]
