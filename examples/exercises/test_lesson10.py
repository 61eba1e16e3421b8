"""Judge of exercise 10: one step of SGD with gradients of 1, which moves every parameter by its learning rate."""

from types import ModuleType

import judge
import numpy as np

from minidl import nn, optim

RATE, FACTOR = 0.5, 0.1


def test_one_step_moves_each_by_its_rate(exercise: ModuleType) -> None:
    rng = np.random.default_rng(10)
    head = nn.Linear(4, 2, rng=rng)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, rng=rng), nn.BatchNorm2d(4), nn.GlobalAvgPool2d(), head)
    params, of_head = model.parameters(), {id(p) for p in head.parameters()}
    before = [p.data.copy() for p in params]
    made = exercise.groups(model, head, RATE, FACTOR)
    if made is None:
        judge.no("the function returns nothing: end it with `return [...]`")
    try:
        optimizer = optim.SGD(made, lr=99.0)
    except (TypeError, ValueError) as error:
        judge.no(f"the optimiser refuses these groups: {error}")
    for p in params:
        p.grad = np.ones_like(p.data)
    optimizer.step()
    moved = np.array([np.abs(old - p.data).max() for p, old in zip(params, before, strict=True)])
    is_head = np.array([id(p) in of_head for p in params])
    slips = {
        "body and head are exchanged: the head learns at lr": np.where(is_head, FACTOR * RATE, RATE),
        "all learn at lr: the body learns at factor * lr": np.full(len(params), RATE),
        "the factor is the body's learning rate: it should be factor * lr": np.where(is_head, RATE, FACTOR),
        "the body is in no group: it does not move": np.where(is_head, RATE, 0),
        "the head is in no group: it does not move": np.where(is_head, 0, FACTOR * RATE),
        'a group has no "lr", and so the optimiser\'s': np.where(is_head, 99, FACTOR * RATE),
    }
    judge.equal(moved, np.where(is_head, RATE, FACTOR * RATE), slips, tolerance=1e-5)
