"""Judge of exercise 14: minidl's gradient at cells inside, at the border, and behind a closed gate."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, gradients, ops

rng = np.random.default_rng(14)
x, w, gy = rng.normal(size=(2, 4, 5)), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=(3, 4, 5))
x[0, 2, 2], x[1, 0, 0], x[1, 3, 4], x[0, 1, 3] = 1, 2, 0.5, -1  # open gates inside and in two corners, and a closed one


def gradient(relu: bool = True, turned: bool = False) -> np.ndarray:
    leaf = Tensor(x[None], requires_grad=True)
    y = ops.conv2d(ops.relu(leaf) if relu else leaf, Tensor(w[:, :, ::-1, ::-1] if turned else w), padding=1)
    return gradients(y, [leaf], gy[None])[0][0]


def wrapped(c: int, i: int, j: int) -> float:
    """Where an index of -1 takes the last row, and one too large is skipped."""
    places = [(f, u, v) for f, u, v in np.ndindex(3, 3, 3) if i + 1 - u < 4 and j + 1 - v < 5]
    return float(sum(w[f, c, u, v] * gy[f, i + 1 - u, j + 1 - v] for f, u, v in places))


def test_inside(exercise: ModuleType) -> None:
    at = 0, 2, 2
    slips = {
        "the kernel is turned around: weight (u, v) leads to a = i + 1 - u, not i - 1 + u": gradient(turned=True)[at],
        "gy is missing": w[:, 0].sum(),
        "the weight is missing": gy[:, 1:4, 1:4].sum(),
        "all filters f count, not the first alone": (w[0, 0, ::-1, ::-1] * gy[0, 1:4, 1:4]).sum(),
    }
    judge.equal(exercise.one_cell(gy, w, x, *at), gradient()[at], slips)


def test_at_the_border(exercise: ModuleType) -> None:
    for at in (1, 0, 0), (1, 3, 4):
        slips = {"an index of -1 is the last row: skip what lies outside": wrapped(*at)} if at[1] == 0 else {}
        try:
            judge.equal(exercise.one_cell(gy, w, x, *at), gradient()[at], slips)
        except IndexError:
            judge.no("an index beyond the last row or column: skip what lies outside")


def test_behind_a_closed_gate(exercise: ModuleType) -> None:
    at = 0, 1, 3
    judge.equal(exercise.one_cell(gy, w, x, *at), 0.0, {"the gate of the relu is missing": gradient(relu=False)[at]})
