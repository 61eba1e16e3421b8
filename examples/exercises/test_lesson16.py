"""Judge of exercise 16: the term that minidl's masks learn with, and a flat mask."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, gradients
from minidl.explain import meaningful

m = np.random.default_rng(16).uniform(size=(4, 6))
dy, dx = np.diff(m, axis=0), np.diff(m, axis=1)


def asked(exercise: ModuleType, m: np.ndarray) -> tuple[float, np.ndarray]:
    found = exercise.total_variation(m.copy())
    if not isinstance(found, tuple) or len(found) != 2:
        judge.no("it should return two things, the value and the gradient: `return value, g`")
    return found


def parts(second: float = 1, first: float = -1, down: float = 1, across: float = 1) -> np.ndarray:
    """The gradient with factors: of the second and the first cell of a difference, of those down and across."""
    g = np.zeros_like(m)
    for whole, d, factor in (g, dy, down), (g.T, dx.T, across):
        whole[1:] += 2 * second * factor * d
        whole[:-1] += 2 * first * factor * d
    return g


def test_value(exercise: ModuleType) -> None:
    slips = {
        "these are sizes, not squares": np.abs(dy).sum() + np.abs(dx).sum(),
        "only the differences down: those across count, too": (dy**2).sum(),
        "only the differences across: those down count, too": (dx**2).sum(),
        "the mean in place of the sum": (dy**2).mean() + (dx**2).mean(),
    }
    wanted = meaningful.total_variation(Tensor(m[None, None]), 2.0).data[0]
    judge.equal(asked(exercise, m)[0], wanted, slips)


def test_gradient(exercise: ModuleType) -> None:
    leaf = Tensor(m[None, None], requires_grad=True)
    wanted = gradients(meaningful.total_variation(leaf, 2.0), [leaf], np.ones(1))[0][0, 0]
    slips = {
        "the sign is turned around: + at the second cell of a difference": -wanted,
        "the 2 of the square is missing": wanted / 2,
        "only the second cell of each difference: the first has the opposite slope": parts(first=0),
        "only the first cell of each difference: the second has the opposite slope": parts(second=0),
        "both cells of a difference get the same sign": parts(first=1),
        "only the differences down": parts(across=0),
        "only the differences across": parts(down=0),
    }
    judge.equal(asked(exercise, m)[1], wanted, slips)


def test_a_flat_mask_has_none(exercise: ModuleType) -> None:
    value, g = asked(exercise, np.full((3, 3), 0.5))
    judge.equal(value, 0.0, {})
    judge.equal(g, np.zeros((3, 3)), {})
