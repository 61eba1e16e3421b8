"""Up the gradient of another class, until the model sees that class."""

from __future__ import annotations

from collections.abc import Iterator

from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, normalize
from minidl.attack.common import PerChannel, attacked, check_bounds, class_gradients, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def fool(
    model: Module,
    x: Array,
    y: Target,
    bounds: Bounds = (0, 1),
    step_size: float = 0.1,
    steps: int = 100,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x <- x + step_size g / ||g||_2, g = dS_y/dx, clipped to the bounds, until the model answers y.

    The fooling images of Stanford's course cs231n, assignment 3 ("Network visualization"). No ball holds the image; what
    keeps the change small is to stop at once.

    Args:
        y: the class to reach, one for all or one for each image.
        step_size: the length of a step, in the units of x. The course's 1 is in units of normalised images of 224x224, about
            0.2 in those of [0, 1]; smaller steps end nearer to the border, so with a smaller change.
        steps: at most so many.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    step_size, steps, bounds = number(step_size, "step_size", "[0, inf)"), count(steps, "steps", 0), check_bounds(bounds)
    net = on_images(model, x, mean, std)

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        xp = array_module(x)
        todo = xp.arange(len(x))
        for _ in range(steps):
            logits, gx = class_gradients(net, x[todo], classes[todo][:, None])
            left = logits.argmax(1) != classes[todo]
            todo = todo[left]
            if len(todo) == 0:
                return
            x = x.copy()
            x[todo] = xp.clip(x[todo] + step_size * normalize(gx[left, 0]), *bounds)
            yield x

    params = {"method": "fool", "bounds": bounds, "targeted": True, "step_size": step_size, "steps": steps}
    return attacked(net, x, y, core, steps, bounds, True, batch_size, progress, keep_path, params)
