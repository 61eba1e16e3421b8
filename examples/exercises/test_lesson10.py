"""Judge of exercise 10: a step with gradients of 1 moves every parameter by its learning rate; two steps are those of SGD."""

from types import ModuleType

import judge
import numpy as np

from minidl import Parameter, nn, optim

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


def test_two_steps_with_momentum(exercise: ModuleType) -> None:
    """Two, for in the first v is 0, and momentum does nothing."""
    rng = np.random.default_rng(10)
    start, lr, momentum = rng.normal(size=(2, 3)), 0.5, 0.9
    g1, g2 = rng.normal(size=(2, 2, 3))
    p, v = start, np.zeros_like(start)
    for g in g1, g2:
        found = exercise.step(p, g, v, lr, momentum)
        if not isinstance(found, tuple) or len(found) != 2:
            judge.no("step returns the new p and the new v: end it with `return p, v`")
        p, v = found
    theirs = Parameter(start.copy(), "p")
    optimizer = optim.SGD([theirs], lr=lr, momentum=momentum)
    for theirs.grad in g1.copy(), g2.copy():
        optimizer.step()
    slips = {
        "uphill: subtract lr v": 2 * start - theirs.data,
        "momentum does nothing: v should be momentum v + g": start - lr * (g1 + g2),
        "p moves by the v from before this gradient: first the new v, then p": start - lr * g1,
        "the learning rate is missing": start - (1 + momentum) * g1 - g2,
        "g counts with 1 - momentum: that is a running mean, here it counts in full": start
        - (1 - momentum) * lr * ((1 + momentum) * g1 + g2),
        "p moves by g, not by v": start - lr * (momentum * g1 + g2),
    }
    judge.equal(p, theirs.data, slips)
    judge.equal(v, momentum * g1 + g2, {"v holds the learning rate, too: only p's step has it": lr * (momentum * g1 + g2)})
