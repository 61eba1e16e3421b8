"""What an image of a lesion holds and where, drawn at random: all but malignancy, which the images of a pair differ in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from minidl.array import Array
from minidl.data.lesions.marks import MARK_VARIES, Mark

# What varies from image to image, uniformly from low to high. Lengths are in lesion radii.
VARIES = {
    "light": (0.75, 1.05),
    "skin_melanin": (0.05, 0.80),
    "skin_blood": (0.10, 0.60),
    "melanin_texture": (0.04, 0.12),  # standard deviation of the 1/f texture
    "blood_texture": (0.04, 0.12),
    "camera_noise": (0.005, 0.02),  # standard deviation, of the full range
    "radius": (0.0, 1.0),  # 0: the smallest, 1: the largest
    "row": (0.0, 1.0),  # 0: as far up as the lesion fits, 1: as far down
    "column": (0.0, 1.0),
    "depth": (0.45, 1.10),  # melanin of the lesion
    "flush": (0.0, 0.40),  # blood of the lesion
    "edge": (0.15, 0.30),  # width over which lesion and freckle fade
    "stretch": (0.0, 0.15),
    "stretch_angle": (0.0, 2 * np.pi),
    "jag": (0.05, 0.10),  # root mean square of the malignant border's irregularity
    "nucleus_depth": (0.40, 1.00),  # melanin
    "nucleus_radius": (0.50, 0.65),
    "nucleus_offset": (0.35, 0.50),  # where malignant
    "nucleus_angle": (0.0, 2 * np.pi),
    "nucleus_where_benign": (0.0, 1.0),  # above 1/2 there is one, in the centre
    "freckle_radius": (0.30, 0.45),
    "freckle_depth": (0.30, 1.10),  # melanin
    "freckle_flush": (0.0, 0.60),  # blood
}
HARMONICS = np.arange(3, 8, dtype=np.float32)  # lobes a turn of the irregular border
REACH = 1.4  # no border is further from the lesion's centre
TRIES = 32  # places looked at for the freckle, and for the mark


@dataclass(frozen=True)
class Scene:
    """What the two images of a pair share, for n pairs. Lengths are in pixels."""

    v: dict[str, Array]  # VARIES, drawn: (n,1,1) each
    r: Array  # (n,1,1) radius of the lesion
    dy: Array  # (n,S,S) from the lesion's centre
    dx: Array
    waves: Array  # (n,5) amplitudes of the harmonics, together of root mean square 1
    phases: Array  # (n,5)
    freckle: Array  # (n,S,S) from 0 outside to 1 inside
    ink: Array  # (n,S,S) pigment of the mark, or (n,1,1) of zeros where no image has one
    texture: Array  # (n,2,S,S) of melanin and blood
    noise: Array  # (n,C,S,S)
    lesion: bool  # whether there is one


def sample(
    seed: int, numbers: range, size: int, channels: int, mark: Array, without: Collection[str], freckle: float = 1.0
) -> Scene:
    """The pairs of these `numbers`. mark: (n,) probabilities of a mark; without: what is left out; freckle: its probability."""
    u = _Uniform(seed, numbers)
    v = vary(VARIES, u(len(VARIES)))
    waves, phases = u(len(HARMONICS)), 2 * np.pi * u(len(HARMONICS))
    waves /= np.sqrt((waves**2).sum(1, keepdims=True) / 2)

    smallest, largest = max(4.5, 0.04 * size), max(6.5, 0.08 * size)
    r = smallest + (largest - smallest) * v["radius"]
    soft = 0.5 * v["edge"] * r  # how far a soft edge reaches beyond its border
    y, x = np.indices((size, size), np.float32) + np.float32(0.5)
    room = REACH * r + soft
    cy, cx = (room + (size - 2 * room) * v[axis] for axis in ("row", "column"))
    freckle_r = v["freckle_radius"] * r
    fy, fx = place_apart(u(TRIES, 2), [(cy, cx, room)], freckle_r + soft, size)
    there = _Uniform(seed, numbers, 2)(1)[..., None] < freckle  # a generator of its own, so that nothing else changes
    freckles = fade(freckle_r - np.hypot(y - fy, x - fx), 2 * soft) * (there & ("distractor" not in without))
    texture, noise = _one_over_f(u.normal(2, size, size)), u.normal(channels, size, size)

    ink = np.zeros((len(numbers), 1, 1), np.float32)
    if mark.any() and "mark" not in without:
        u = _Uniform(seed, numbers, 1)  # a generator of its own, so that neither size nor channels change a mark
        pen = Mark(vary(MARK_VARIES, u(len(MARK_VARIES))), r)
        ky, kx = place_apart(u(TRIES, 2), [(cy, cx, room), (fy, fx, freckle_r + soft)], pen.radius, size)
        ink = pen.ink(y - ky, x - kx) * (pen.v["chance"] < mark[:, None, None])
    return Scene(v, r, y - cy, x - cx, waves, phases, freckles, ink, texture, noise, "lesion" not in without)


class _Uniform:
    """Random numbers (n,...), those of image i from a generator of its own."""

    def __init__(self, seed: int, numbers: range, *key: int) -> None:
        self.rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i, *key))) for i in numbers]

    def __call__(self, *shape: int) -> Array:
        return np.stack([rng.random(shape, np.float32) for rng in self.rngs])

    def normal(self, *shape: int) -> Array:
        return np.stack([rng.standard_normal(shape, np.float32) for rng in self.rngs])


def vary(ranges: dict[str, tuple[float, float]], u: Array) -> dict[str, Array]:
    """Numbers u (n,K) in [0, 1] stretched to K ranges: name -> (n,1,1)"""
    return {name: (low + (high - low) * u[:, k])[:, None, None] for k, (name, (low, high)) in enumerate(ranges.items())}


def fade(inside: Array, width: Array | float) -> Array:
    """1 inside a border, 0 outside, linear over `width` pixels across it."""
    faded: Array = np.clip(0.5 + inside / width, 0, 1)
    return faded


def place_apart(tries: Array, taken: list[tuple[Array, Array, Array]], margin: Array, size: int) -> tuple[Array, Array]:
    """A place (n,1,1) for a disc of radius `margin` in the image that touches none of the discs `taken`, (y, x, radius) each.

    The first of the `tries` (n,T,2) in [0, 1] that will do; else one of the four corners: both freckle and mark are so small
    that, even at 32 pixels, one is always free.
    """
    corners = np.broadcast_to(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), (len(tries), 4, 2))
    places = margin + (size - 2 * margin) * np.concatenate([tries, corners], 1)  # (n,T+4,2)
    apart = [np.hypot(places[..., :1] - y, places[..., 1:] - x) >= radius + margin for y, x, radius in taken]
    free = np.logical_and.reduce(apart)[..., 0]  # (n,T+4)
    picked = places[np.arange(len(tries)), free.argmax(1)]  # (n,2)
    return picked[:, :1, None], picked[:, 1:, None]


def _one_over_f(white: Array) -> Array:
    """White noise (...,S,S) filtered to an amplitude of 1/frequency, mean 0, expected variance 1."""
    S = white.shape[-1]
    f = np.hypot(np.fft.fftfreq(S)[:, None], np.fft.fftfreq(S))
    gain = np.divide(1, f, out=np.zeros_like(f), where=f > 0)
    gain /= np.sqrt((gain**2).mean())
    filtered: Array = np.fft.irfft2(np.fft.rfft2(white) * gain[:, : S // 2 + 1].astype(np.float32), (S, S))
    return filtered
