"""Judge of exercise 5: `minidl.cost`, which runs an image through the net."""

from types import ModuleType

import judge

from minidl import cost, nn

SHAPES = [(7, 2, 3, 8), (3, 1, 8, 8), (1, 2, 8, 4), (3, 2, 4, 6), (5, 1, 6, 2)]
NET = cost(nn.Sequential(*(nn.Conv2d(c_in, c_out, k, s, padding=k // 2) for k, s, c_in, c_out in SHAPES)), (3, 64, 64))


def test_parameters(exercise: ModuleType) -> None:
    weights = sum(c_out * c_in * k**2 for k, _, c_in, c_out in SHAPES)
    slips = {
        "the biases are missing: one for each filter": weights,
        "there is one bias for each filter, not for each channel that comes in": weights + sum(s[2] for s in SHAPES),
        "k in place of k^2: a kernel has k x k places": sum(c_out * (c_in * k + 1) for k, _, c_in, c_out in SHAPES),
        "one filter a layer: there are c_out of them": sum(c_in * k**2 + 1 for k, _, c_in, _ in SHAPES),
    }
    judge.equal(exercise.count_parameters([exercise.Conv(*shape) for shape in SHAPES]), NET.parameters, slips)


def test_receptive_field(exercise: ModuleType) -> None:
    last = NET.rows[-1].receptive_field
    assert last is not None
    late, j = 1, 1
    for k, s, _, _ in SHAPES:
        j *= s
        late += (k - 1) * j
    slips = {
        "the strides are missing: behind a stride of 2 a step is 2 pixels long": 1 + sum(k - 1 for k, *_ in SHAPES),
        "j grew too early: the stride of a layer makes the steps of the next one longer": late,
        "k in place of k - 1: two neighbours are one step apart": 1 + 7 + 3 * 2 + 1 * 2 + 3 * 4 + 5 * 8,
    }
    judge.equal(exercise.receptive_field([exercise.Conv(*shape) for shape in SHAPES]), int(last[0]), slips)
    judge.equal(exercise.receptive_field([]), 1, {"without layers a pixel sees itself: begin with r = 1": 0})
