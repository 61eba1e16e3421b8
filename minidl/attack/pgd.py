"""Many small steps down the score, each followed by a projection back into the ball."""

from __future__ import annotations

from collections.abc import Iterator

from minidl.arguments import count, flag, number, wrong
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, check_norm, normalize, project, random_in_ball
from minidl.attack.best import Best, check_output, loss_gradient, put
from minidl.attack.common import PerChannel, answers, attacked, check_bounds, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@contained
def pgd(
    model: Module,
    x: Array,
    y: Target = None,
    eps: float = 8 / 255,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    norm: str = "linf",
    step_size: float | None = None,
    steps: int = 40,
    random_start: bool = True,
    restarts: int = 1,
    best: bool = False,
    output: Output = "logprob",
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x <- project(x - step_size sign(d score_y / dx)), with norm "l2" x <- project(x - step_size g / ||g||_2), `steps` times.

    Projected gradient descent: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks", section
    2.1. It starts at random in the ball of eps around the image, and stays in it and in the bounds. A targeted attack
    goes up instead of down.

    Args:
        eps: the radius of the ball, in the units of x: of the largest change of a value with norm "linf", of the length of
            the whole change with "l2" (where 0.5 is usual on images of 32x32).
        step_size: of one step; None: eps / 4, which makes 2/255 of 8/255.
        random_start: False: start at the image itself.
        restarts: how often to start anew, with what did not succeed before; more than once implies `best`.
        best: return the first image that succeeds, or, where none does, the one whose margin came nearest to that; False: the
            image after the last step, as in the paper. Those that succeed at once, without an attack, stay as they are.
        output: the score, as in `explain.saliency`, or "dlr", see `apgd`.
        seed: of the starts; that of image i depends on (seed, i, restart) alone.
        keep_path: keep the images of every step: steps + 2 times the memory of x, as the start in the ball is one of them;
            with `restarts` so much for each.

    The other arguments, and what is raised, are those of `fgsm`. ValueError also for `restarts` without a random start.
    """
    check_norm(norm)
    eps, bounds = number(eps, "eps", "[0, inf)"), check_bounds(bounds)
    steps, seed = count(steps, "steps", 0), count(seed, "seed", 0)
    length = eps / 4 if step_size is None else number(step_size, "step_size", "[0, inf)")
    restarts = count(restarts, "restarts")
    random_start, best = flag(random_start, "random_start"), flag(best, "best") or restarts > 1
    check_output(output)
    if restarts > 1 and not random_start:
        wrong(ValueError, "restarts", "1 where random_start is False: all would be the same", restarts)
    net = on_images(model, x, mean, std)

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        xp, now = array_module(x), x
        kept = Best(net, x, classes, targeted) if best else None
        for run in range(restarts):
            at = xp.arange(len(x)) if kept is None else kept.todo
            here = x[at]
            if random_start and len(at):
                numbers = (at + part.start).tolist()
                here = project(here, random_in_ball(here, numbers, eps, norm, seed, run), eps, norm, bounds)
                now = put(now, at, here)
                yield now
            for _ in range(steps if len(at) else 0):
                logits, _, gx = loss_gradient(net, here, classes[at], targeted, output)
                if kept is not None:
                    stand = kept.see(at, here, logits)
                    at, here, gx = at[stand], here[stand], gx[stand]
                    if len(at) == 0:
                        break
                up = xp.sign(gx) if norm == "linf" else normalize(gx)
                here = project(x[at], here + length * up - x[at], eps, norm, bounds)
                now = put(now, at, here)
                yield now
            if kept is not None and len(at):
                kept.see(at, here, answers(net, here))
        if kept is not None:
            yield kept.x

    params = {
        "method": "pgd",
        "eps": eps,
        "bounds": bounds,
        "targeted": targeted,
        "norm": norm,
        "step_size": length,
        "steps": steps,
        "random_start": random_start,
        "restarts": restarts,
        "best": best,
        "output": output,
        "seed": seed,
    }
    most = restarts * (steps + random_start) + best
    return attacked(net, x, y, core, most, bounds, targeted, batch_size, progress, keep_path, params)
