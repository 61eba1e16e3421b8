"""What would the model most like to see? Gradient ascent from noise."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl import ops
from minidl.arguments import count, counts, number
from minidl.array import Array, array_like, array_module, is_array, shape_of, to_device
from minidl.attack.ball import Bounds, normalize, random_in_ball
from minidl.attack.common import PerChannel, attacked, check_bounds, class_gradients, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.core import Tensor
from minidl.inference.batches import Progress
from minidl.nn.module import Module, check_model


@contained
def class_image(
    model: Module,
    shape: tuple[int, int, int],
    y: int | Array,
    bounds: Bounds = (0, 1),
    step_size: float = 0.5,
    steps: int = 200,
    decay: float = 0.02,
    blur_every: int = 2,
    sigma: float = 0.5,
    jitter: int = 4,
    noise: float = 0.1,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x <- x + step_size g / ||g||_2 - decay (x - grey), g = dS_y/dx, from noise around grey, clipped to the bounds.

    Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks", section 2, made smoother as in Stanford's
    course cs231n, assignment 3: in each step the image is shifted at random while g is computed, and it is blurred every
    few steps. Grey is the mean of the images, where that is given, else the middle of the bounds.

    Args:
        shape: (C,H,W) of the image.
        y: the class, or several (N,), for one image each.
        step_size: the length of a step, in the units of the image.
        decay: the share of its distance from grey that every value loses in a step.
        blur_every, sigma: after so many steps, a Gaussian blur with a standard deviation of so many pixels; 0: never.
        jitter: shifts of up to so many pixels, each way; what leaves at one side comes in at the other.
        noise: the start is grey + uniform(-noise, noise), in the units of the image.
        seed: of the start and the shifts; the start of image i depends on (seed, i) alone.

    The other arguments, and what is raised, are those of `fgsm`. `delta` is the way from the noise.
    """
    check_model(model)
    step_size, decay, sigma, noise = (
        number(value, name, "[0, inf)")
        for name, value in (("step_size", step_size), ("decay", decay), ("sigma", sigma), ("noise", noise))
    )
    steps, blur_every, jitter, seed = (
        count(value, name, 0)
        for name, value in (("steps", steps), ("blur_every", blur_every), ("jitter", jitter), ("seed", seed))
    )
    C, H, W = counts(shape, "shape", length=3)
    bounds = check_bounds(bounds)
    like = next(iter(model.parameters()), None)
    dtype, device = ("float32", "cpu") if like is None else (like.dtype, like.device)
    y = y if shape_of(y) else np.full(1, y.item() if is_array(y) else y)  # type: ignore[union-attr]
    blank = to_device(np.zeros((len(y), C, H, W), dtype), device)  # type: ignore[arg-type]
    xp = array_module(blank)
    net = on_images(model, blank, mean, std)
    grey = sum(bounds) / 2 if mean is None else array_like(mean, blank, dtype).reshape(1, -1, 1, 1)
    start = xp.clip(blank + grey + random_in_ball(blank, range(len(blank)), noise, "linf", seed), *bounds)
    shifts = np.random.default_rng(seed).integers(-jitter, jitter + 1, (steps, 2)).tolist()

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        for t, (rows, columns) in enumerate(shifts, 1):
            _, gx = class_gradients(net, xp.roll(x, (rows, columns), (2, 3)), classes[:, None])
            up = xp.roll(normalize(gx[:, 0]), (-rows, -columns), (2, 3))
            x = x + step_size * up - decay * (x - grey)
            if blur_every and sigma and t % blur_every == 0:
                x = ops.gaussian_blur(Tensor(x), sigma).data
            x = xp.clip(x, *bounds)
            yield x

    params = {
        "method": "class_image",
        "bounds": bounds,
        "targeted": True,
        "step_size": step_size,
        "steps": steps,
        "decay": decay,
        "blur_every": blur_every,
        "sigma": sigma,
        "jitter": jitter,
        "noise": noise,
        "seed": seed,
    }
    return attacked(net, start, y, core, steps, bounds, True, batch_size, progress, keep_path, params)
