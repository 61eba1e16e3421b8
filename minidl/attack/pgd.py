"""Many small steps down the score, each followed by a projection back into the ball."""

from __future__ import annotations

from collections.abc import Iterator

from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, check_norm, normalize, project, random_in_ball
from minidl.attack.common import PerChannel, attacked, check_bounds, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.gradients import input_gradient
from minidl.inference.scores import Target
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
    output: str = "logprob",
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
        seed: of the start; that of image i depends on (seed, i) alone.
        keep_path: keep the images of every step: steps + 2 times the memory of x, as the start in the ball is one of them.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    check_norm(norm)
    eps, bounds = number(eps, "eps", "[0, inf)"), check_bounds(bounds)
    steps, seed = count(steps, "steps", 0), count(seed, "seed", 0)
    length = eps / 4 if step_size is None else number(step_size, "step_size", "[0, inf)")
    net, towards = on_images(model, x, mean, std), 1 if targeted else -1

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        now = x
        if random_start:
            now = project(x, random_in_ball(x, range(part.start, part.stop), eps, norm, seed), eps, norm, bounds)
            yield now
        for _ in range(steps):
            gx, _, _ = input_gradient(net, now, classes, output)
            direction = array_module(x).sign(gx) if norm == "linf" else normalize(gx)
            now = project(x, now + towards * length * direction - x, eps, norm, bounds)
            yield now

    params = {
        "method": "pgd",
        "eps": eps,
        "bounds": bounds,
        "targeted": targeted,
        "norm": norm,
        "step_size": length,
        "steps": steps,
        "random_start": random_start,
        "output": output,
        "seed": seed,
    }
    return attacked(net, x, y, core, steps + random_start, bounds, targeted, batch_size, progress, keep_path, params)
