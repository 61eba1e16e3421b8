"""What becomes of the images of a batch before the net learns from them: turned, zoomed, cropped, mirrored, lit otherwise."""

from __future__ import annotations

from minidl.data import Augmentation, ColorJitter, Compose, RandomCrop, RandomFlip, RandomRotation, RandomZoom
from minidl.train.contract import Contract
from minidl.train.settings import FLIPS, STRENGTHS, Settings

COLOURS = 3


def augmentation(settings: Settings, contract: Contract) -> Compose:
    """f(images, rng) -> x, both (N,C,H,W): all that the settings ask for, in the order above, and the contract's `normalize`.

    What lies beyond an image is filled with the mean of its channel. Raises ValueError where the images have no colours, whose
    saturation or hue is to change, or no black from which light is counted.
    """
    fill = contract.mean
    steps: list[Augmentation] = []
    if settings.rotate:
        steps.append(RandomRotation(settings.rotate, fill))
    if settings.zoom:
        share = settings.zoom
        steps.append(RandomZoom(share if isinstance(share, tuple) else (1 - share, 1 + share), fill))
    steps.append(RandomCrop(settings.crop, fill=fill))
    steps += [RandomFlip(axis=axis) for axis in FLIPS[settings.flip]]
    if any(settings.colour):
        _check_colours(settings, contract)
        steps.append(ColorJitter(*settings.colour))
    return Compose([*steps, contract.normalize])


def _check_colours(settings: Settings, contract: Contract) -> None:
    strengths = dict(zip(STRENGTHS, settings.colour, strict=False))
    if contract.levels is None:
        low, high = contract.range
        raise ValueError(
            f"colour: expected images whose black is 0, as all light is counted from there, got {low:.4g} to {high:.4g}; cut a "
            "window of grey values out of them (--window LOW,HIGH), or leave colour out"
        )
    if contract.channels != COLOURS and (name := next((n for n in STRENGTHS[2:] if strengths.get(n)), None)):
        light = [f"{strengths[n]:g}" for n in STRENGTHS[:2]]
        raise ValueError(
            f"colour: expected images of 3 channels for a {name} of {strengths[name]:g}, got {contract.channels}; write "
            f"colour=({', '.join(light)}) (--colour {' '.join(light)}), brightness and contrast alone"
        )
