"""Projected gradient descent that chooses its steps itself: long ones first, half as long where they do not help any more."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from minidl.arguments import count, flag, number, wrong
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, check_norm, normalize, project, random_in_ball
from minidl.attack.best import Best, check_output, loss_gradient, put
from minidl.attack.common import PerChannel, attacked, check_bounds, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.scores import Output, Target
from minidl.nn import Module

MOMENTUM = 0.75  # alpha
ENOUGH = 0.75  # rho: such a share of the steps of a period has to be up


@dataclass
class Climber:
    """Images on their way: now (n,C,H,W) of the numbers `at` (n,), from x towards or away from the classes `aim` (n,)."""

    at: Array
    x: Array
    aim: Array
    now: Array
    before: Array  # the step
    loss: Array  # (n,)
    gx: Array
    top: Array  # where the loss was largest
    top_loss: Array
    top_gx: Array
    step: Array  # (n,)
    checked_step: Array  # at the last checkpoint
    checked_loss: Array  # the largest until then
    ups: Array  # how many steps since then raised the loss

    def those(self, which: Array) -> Climber:
        """Those of `which` (n,) bool; itself where these are all."""
        return self if bool(which.all()) else Climber(*(getattr(self, f.name)[which] for f in fields(self)))

    def move(self, eps: float, norm: str, bounds: Bounds, share: float) -> None:
        """One step, of which only a share is gone, and the rest in the direction of the step before."""
        up = array_module(self.x).sign(self.gx) if norm == "linf" else normalize(self.gx)
        after = project(self.x, self.now + wide(self.step) * up - self.x, eps, norm, bounds)
        if share < 1:
            change = share * (after - self.now) + (1 - share) * (self.now - self.before)
            after = project(self.x, self.now + change - self.x, eps, norm, bounds)
        self.before, self.now = self.now, after

    def arrive(self, loss: Array, gx: Array) -> None:
        """Loss (n,) and its gradient where it is now."""
        xp, better = array_module(loss), loss > self.top_loss
        self.ups = self.ups + (loss > self.loss)
        self.loss, self.gx, self.top_loss = loss, gx, xp.where(better, loss, self.top_loss)
        self.top, self.top_gx = xp.where(wide(better), self.now, self.top), xp.where(wide(better), gx, self.top_gx)

    def check(self, period: int) -> None:
        """After a period of so many steps: those that are stuck go back to their top, and on in steps half as long."""
        xp, same = array_module(self.x), (self.step == self.checked_step) & (self.top_loss == self.checked_loss)
        stuck = (self.ups < ENOUGH * period) | same
        self.checked_step, self.checked_loss, self.ups = self.step, self.top_loss, xp.zeros_like(self.ups)
        self.step, self.loss = xp.where(stuck, self.step / 2, self.step), xp.where(stuck, self.top_loss, self.loss)
        self.now, self.gx = xp.where(wide(stuck), self.top, self.now), xp.where(wide(stuck), self.top_gx, self.gx)


def wide(a: Array) -> Array:
    """(n,) -> (n,1,1,1)"""
    return a[:, None, None, None]


@contained
def apgd(
    model: Module,
    x: Array,
    y: Target = None,
    eps: float = 8 / 255,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    norm: str = "linf",
    steps: int = 100,
    candidates: int = 0,
    random_start: bool = True,
    restarts: int = 1,
    output: Output = "dlr",
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """z = project(x + step sign(g)),    x <- project(x + 0.75 (z - x) + 0.25 (x - x_before)),    g = d loss / dx

    with norm "l2" g / ||g||_2 in the place of sign(g). The step is 2 eps at first. At checkpoints, after 22% of the steps and
    then in shorter and shorter periods, it is halved, and the search goes on from the best image, where fewer than 0.75 of the
    steps of a period raised the loss, or neither the step nor the largest loss changed since the last checkpoint. Auto-PGD:
    Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    algorithm 1, section 4 for the loss.

    Returns the first image that succeeds, or, where none does, the one whose margin came nearest to that. What succeeds
    without an attack stays as it is.

    Args:
        eps, norm, random_start: as in `pgd`.
        steps: so many for each start; 100 in the paper.
        candidates: 0: away from y. k: once for each of the k best other classes, each time towards that class; the paper's
            targeted attack takes 9. What succeeds first is what counts.
        restarts: how often to start anew (towards each candidate), with what did not succeed before.
        output: what is climbed. "dlr" is (max_{k != y} S_k - S_y) / (S_1 - S_3), S_1 >= S_2 >= ... the sorted logits, and
            towards a class t (S_t - max_{k != t} S_k) / (S_1 - (S_3 + S_4) / 2): unlike "logprob", the cross-entropy, it has a
            gradient where the softmax is saturated. Of 3 classes both take S_1 - S_3, of 2 the numerator is all. Also the other
            scores of `explain.saliency`.
        seed: of the starts; that of image i depends on (seed, i, start) alone.
        keep_path: keep the images of every step, at most (steps + 1) starts + 2 times the memory of x.

    The other arguments, and what is raised, are those of `fgsm`. ValueError also for `restarts` without a random start, and for
    `candidates` of a targeted attack.
    """
    check_norm(norm)
    check_output(output)
    eps, bounds = number(eps, "eps", "[0, inf)"), check_bounds(bounds)
    steps, seed = count(steps, "steps", 0), count(seed, "seed", 0)
    candidates, restarts = count(candidates, "candidates", 0), count(restarts, "restarts")
    if not flag(random_start, "random_start") and restarts > 1:
        wrong(ValueError, "restarts", "1 where random_start is False: all would be the same", restarts)
    if targeted and candidates:
        wrong(ValueError, "candidates", "0 of a targeted attack, whose class is y", candidates)
    net = on_images(model, x, mean, std)

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        xp = array_module(x)
        kept, now = Best(net, x, classes, targeted), x
        others = kept.logits.copy()
        others[xp.arange(len(x)), classes] = -float("inf")
        ranked = (-others).argsort(axis=1)[:, :-1]  # (N,K-1), the best first
        for run in range(restarts * max(1, min(candidates, ranked.shape[1]))):
            at = kept.todo
            if len(at) == 0:
                break
            start = x[at]
            if random_start:
                start = project(
                    start, random_in_ball(start, (at + part.start).tolist(), eps, norm, seed, run), eps, norm, bounds
                )
                now = put(now, at, start)
                yield now
            towards = bool(candidates) or targeted
            aim = ranked[at, run // restarts] if candidates else classes[at]
            logits, loss, gx = loss_gradient(net, start, aim, towards, output)
            stand, step = kept.see(at, start, logits), xp.full(len(at), 2 * eps, x.dtype)
            climber = Climber(at, x[at], aim, start, start, loss, gx, start, loss, gx, step, step, loss, xp.zeros_like(at))
            last = 0
            for k in range(1, steps + 1):
                climber = climber.those(stand)
                if len(climber.at) == 0:
                    break
                climber.move(eps, norm, bounds, MOMENTUM if k > 1 else 1)
                now = put(now, climber.at, climber.now)
                yield now
                logits, loss, gx = loss_gradient(net, climber.now, climber.aim, towards, output)
                stand = kept.see(climber.at, climber.now, logits)
                climber.arrive(loss, gx)
                if k in periods:
                    climber.check(k - last)
                    last = k
        yield kept.x

    periods = checkpoints(steps)
    params = {
        "method": "apgd",
        "eps": eps,
        "bounds": bounds,
        "targeted": targeted,
        "norm": norm,
        "steps": steps,
        "candidates": candidates,
        "random_start": random_start,
        "restarts": restarts,
        "output": output,
        "seed": seed,
    }
    most = restarts * max(1, candidates) * (steps + random_start) + 1
    return attacked(net, x, y, core, most, bounds, targeted, batch_size, progress, keep_path, params)


def checkpoints(steps: int) -> set[int]:
    """w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)"""
    found, p, period = set[int](), 0.22, 0.22
    while p <= 1:
        found.add(math.ceil(round(p * steps, 9)))  # 0.5 + 0.06 is more than 0.56
        period = max(period - 0.03, 0.06)
        p += period
    return found
