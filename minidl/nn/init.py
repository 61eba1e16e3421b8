"""Random initial weights. A weight has the shape (out, in, ...): (O,I) of a linear layer, (F,C,kh,kw) of a convolution.

    fan_in  = values that are summed into one output = I or C kh kw
    fan_out = outputs that one input goes into       = O or F kh kw (of a stride of 1)

Each function returns a new float32 array of that shape; the same state of `rng` gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl import arguments
from minidl.arguments import counts, number, one_of
from minidl.array import Array

Shape = tuple[int, ...]
Init = Callable[[Shape, np.random.Generator], Array]

shared_rng = np.random.default_rng(0)  # of the layers made without one: a script makes the same net at every run


def generator(rng: np.random.Generator | None) -> np.random.Generator:
    """`rng`, or the shared generator for None. Raises TypeError for anything else."""
    return shared_rng if rng is None else arguments.generator(rng)


def he_normal(shape: Shape, rng: np.random.Generator, fan: str = "in") -> Array:
    """w ~ N(0, 2 / fan): keeps the variance of what runs forward (fan "in") or backward ("out") through relu layers.

    He, Zhang, Ren and Sun 2015, "Delving deep into rectifiers", section 2.2. shape: (O,I) or (F,C,kh,kw), that of the result.
    Raises TypeError where a size is no integer, ValueError for fewer than two sizes, one below 1, or another fan.
    """
    return _normal(shape, rng, math.sqrt(2 / _fan(shape, fan)))


def he_uniform(shape: Shape, rng: np.random.Generator, fan: str = "in") -> Array:
    """w ~ U(-a, a), a = sqrt(6 / fan): variance, shape, source and what is raised as of `he_normal`."""
    return _uniform(shape, rng, math.sqrt(6 / _fan(shape, fan)))


def glorot_normal(shape: Shape, rng: np.random.Generator) -> Array:
    """w ~ N(0, 2 / (fan_in + fan_out)): for tanh and sigmoid layers.

    Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks", section 4.2. The shape
    and what is raised are as of `he_normal`.
    """
    return _normal(shape, rng, math.sqrt(2 / (_fan(shape, "in") + _fan(shape, "out"))))


def glorot_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """w ~ U(-a, a), a = sqrt(6 / (fan_in + fan_out)): equation 16 of the source, which is that of `glorot_normal`.

    The shape and what is raised are as of `he_normal`.
    """
    return _uniform(shape, rng, math.sqrt(6 / (_fan(shape, "in") + _fan(shape, "out"))))


def fan_in_uniform(shape: Shape, rng: np.random.Generator) -> Array:
    """w ~ U(-a, a), a = 1 / sqrt(fan_in): for a last layer, whose logits then start small.

    LeCun, Bottou, Orr and Müller 1998, "Efficient BackProp", section 4.6, gives the order of magnitude; as in PyTorch.
    The shape and what is raised are as of `he_normal`.
    """
    return _uniform(shape, rng, 1 / math.sqrt(_fan(shape, "in")))


def orthogonal(shape: Shape, rng: np.random.Generator, gain: float = 1.0) -> Array:
    """gain times a random matrix (shape[0], the rest) with orthonormal rows, or columns where it is higher than wide.

    Saxe, McClelland and Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear networks".
    The signs of the diagonal of R make it uniform over all such matrices (Mezzadri 2007, "How to generate random
    matrices from the classical compact groups", section 5). The shape and what is raised are as of `he_normal`; a gain
    that is no finite number raises TypeError or ValueError, too.
    """
    gain = number(gain, "gain")
    columns, rows = _fan(shape, "in"), shape[0]
    a = arguments.generator(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(a)
    q = q * np.sign(np.diagonal(r))
    matrix = q if rows >= columns else q.T
    return np.ascontiguousarray(gain * matrix, np.float32).reshape(shape)


def _normal(shape: Shape, rng: np.random.Generator, std: float) -> Array:
    return arguments.generator(rng).standard_normal(shape, dtype=np.float32) * np.float32(std)


def _uniform(shape: Shape, rng: np.random.Generator, a: float) -> Array:
    return (arguments.generator(rng).random(shape, dtype=np.float32) * 2 - 1) * np.float32(a)


def _fan(shape: Shape, which: str) -> int:
    shape = counts(shape, "shape")
    if len(shape) < 2:
        raise ValueError(f"shape: expected (out, in, ...), at least two sizes, got {shape}")
    one_of(which, "fan", ("in", "out"))
    return math.prod(shape[1:]) if which == "in" else shape[0] * math.prod(shape[2:])
