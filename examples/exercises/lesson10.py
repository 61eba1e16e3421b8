"""Exercise 10: the learning rates of body and head, and a step. `python -m pytest examples/exercises -k lesson10` judges it."""

from typing import Any

import numpy as np

from minidl.nn import Module


def groups(model: Module, head: Module, lr: float, factor: float) -> list[dict[str, Any]]:
    """Two groups for an optimiser: the parameters of `head`, a layer of `model`, learn at lr, all others at factor * lr.

    A group is {"params": a list of parameters, "lr": a number}. Each parameter of the model is in one of them.
    """
    raise NotImplementedError("write groups in examples/exercises/lesson10.py: the parameters of the head, and all others")


def step(p: np.ndarray, g: np.ndarray, v: np.ndarray, lr: float, momentum: float) -> tuple[np.ndarray, np.ndarray]:
    """One step of gradient descent with momentum: the new p and the new v, from the gradient g, all of one shape.

    v is the velocity: momentum times what it was, plus the gradient. Then p goes lr times v down.
    """
    raise NotImplementedError("write step in examples/exercises/lesson10.py: first the new v, then p with it")


# Hint 1: model.parameters() has all of them, those of the head among them. The body are the ones that are left.
#
# Hint 2: tensors are not compared by ==. Compare who they are: {id(p) for p in head.parameters()}.
#
# Hint 3: an optimiser refuses a parameter that comes twice, for it would be changed twice at every step.
#
# Hint 4: step has two lines and a return. Plain gradient descent is what is left where momentum is 0.
