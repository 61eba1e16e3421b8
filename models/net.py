"""What all networks share: they say which images they take."""

from __future__ import annotations

import traceback

from minidl import Tensor, nn
from minidl.arguments import count
from minidl.array import Array


def sizes(num_classes: int, in_channels: int, seed: int) -> tuple[int, int, int]:
    """What all of them are made with, checked."""
    return count(num_classes, "num_classes"), count(in_channels, "in_channels"), count(seed, "seed", 0)


class Net(nn.Module):
    """A network whose first layer is a convolution, for images (N,C,H,W) with H and W of at least `smallest`

    A call raises ValueError for another number of channels, and for smaller images, with the layer that ran out of pixels.
    """

    smallest = 1

    def __call__(self, x: Tensor | Array) -> Tensor:
        x = x if isinstance(x, Tensor) else Tensor(x)
        _, first = next(self.named_parameters())  # (F,C,kh,kw)
        if x.ndim == 4 and x.shape[1] != first.shape[1]:
            raise ValueError(f"x: expected images of {first.shape[1]} channels, (N,{first.shape[1]},H,W), got {x.shape}")
        try:
            return super().__call__(x)
        except ValueError as error:
            if x.ndim != 4 or min(x.shape[2:]) >= self.smallest:
                raise
            names = {module: name for name, module in self.named_modules()}
            callers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
            layer = [names[module] for module in callers if isinstance(module, nn.Module)][-1]
            least, found = f"{self.smallest}x{self.smallest}", "{}x{}".format(*x.shape[2:])
            raise ValueError(f"x: expected images of at least {least}, got {found}: {layer} runs out of pixels") from error
