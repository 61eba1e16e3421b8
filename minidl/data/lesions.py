"""Generated skin lesions, about which everything is known: what to learn, and where the evidence for it is.

Both classes hold a lesion, at a random place and of random size, and a distractor, a smooth freckle apart from it that
says nothing about the class. A malignant lesion has an irregular border and a dark nucleus off its centre; a benign one
has a smooth border, and a centred nucleus or none. Everything else (skin, light, sizes, colours, depths) varies in the
same way in both. The two pictures of a matched pair share all of it and differ in malignancy alone, so that the pixels in
which they differ are the evidence.

Colour follows Beer and Lambert: skin holds two pigments, melanin M(i,j) and blood B(i,j), and channel c absorbs

    I_c(i,j) = light * exp(-m_c M(i,j) - b_c B(i,j)).

Skin, lesion, nucleus and freckle each add pigment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minidl.data.checks import Array, integer
from minidl.data.dataset import Dataset

CLASSES = ("benign", "malignant")

# (m_c, b_c) of each channel: grey; or red, green, blue; and near infrared, which looks through melanin
ABSORBANCE = {
    1: ((0.80, 0.45),),
    3: ((0.52, 0.08), (0.84, 0.50), (1.10, 0.55)),
    4: ((0.52, 0.08), (0.84, 0.50), (1.10, 0.55), (0.15, 0.08)),
}

# What varies from picture to picture, uniformly from low to high. Lengths are in lesion radii.
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
TRIES = 32  # places looked at for the freckle


def lesions(n: int, size: int = 32, channels: int = 3, seed: int = 0, flip: bool = False) -> Dataset:
    """`n` generated pictures (n,channels,size,size) uint8, labels 0 "benign" and 1 "malignant" in turn, and masks.

    Picture i depends on (seed, i) alone, not on n; processors that round differently may differ in a grey level here and
    there. With `flip` it is the other one of its matched pair: the same in everything but malignancy. The masks,
    (n,size,size) bool:

    - "lesion": inside the border of this picture's lesion. Its radius is 4.5 to 6.5 pixels, in larger pictures 4% to 8%
      of the side, which is 0.5% to 2% of the area;
    - "distractor": inside the freckle's border; it and its soft edge are disjoint from the lesion's;
    - "evidence": the pixels that differ between the two pictures of the pair.

    Args:
        size: height and width, at least 32.
        channels: 1 (grey), 3 (RGB) or 4 (RGB and near infrared).

    Raises:
        TypeError, ValueError: n < 1, size < 32, channels none of these, seed < 0, or no integer.
    """
    n, size, seed = integer("n", n, 1), integer("size", size, 32), integer("seed", seed, 0)
    if channels not in tuple(ABSORBANCE):
        raise ValueError(f"channels must be 1, 3 or 4, got {channels!r}")
    images = np.empty((n, channels, size, size), np.uint8)
    lesion, distractor, evidence = (np.empty((n, size, size), bool) for _ in range(3))
    labels = (np.arange(n, dtype=np.int64) + bool(flip)) % 2
    step = max(1, 2**17 // size**2)  # pictures at a time, few enough to stay in the cache
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        scene = _draw(seed, range(part.start, part.stop), size, channels)
        benign, border_benign = _render(scene, malignant=False)
        other, border_other = _render(scene, malignant=True)
        malignant = labels[part, None, None] == 1
        images[part] = np.where(malignant[:, None], other, benign)
        lesion[part] = np.where(malignant, border_other, border_benign)
        distractor[part] = scene.freckle > 0.5
        evidence[part] = (benign != other).any(1)
    masks = {"lesion": lesion, "distractor": distractor, "evidence": evidence}
    return Dataset(images, labels, CLASSES, masks, name=f"lesions {size}x{size}")


@dataclass(frozen=True)
class _Scene:
    """What the two pictures of a pair share, for n pairs. Lengths are in pixels."""

    v: dict[str, Array]  # VARIES, drawn: (n,1,1) each
    r: Array  # (n,1,1) radius of the lesion
    dy: Array  # (n,S,S) from the lesion's centre
    dx: Array
    waves: Array  # (n,5) amplitudes of the harmonics, together of root mean square 1
    phases: Array  # (n,5)
    freckle: Array  # (n,S,S) from 0 outside to 1 inside
    texture: Array  # (n,2,S,S) of melanin and blood
    noise: Array  # (n,C,S,S)


def _draw(seed: int, numbers: range, size: int, channels: int) -> _Scene:
    rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in numbers]

    def uniform(*shape: int) -> Array:
        return np.stack([rng.random(shape, np.float32) for rng in rngs])

    def normal(*shape: int) -> Array:
        return np.stack([rng.standard_normal(shape, np.float32) for rng in rngs])

    u = uniform(len(VARIES))
    v = {name: (low + (high - low) * u[:, k])[:, None, None] for k, (name, (low, high)) in enumerate(VARIES.items())}
    waves, phases = uniform(len(HARMONICS)), 2 * np.pi * uniform(len(HARMONICS))
    waves /= np.sqrt((waves**2).sum(1, keepdims=True) / 2)

    smallest, largest = max(4.5, 0.04 * size), max(6.5, 0.08 * size)
    r = smallest + (largest - smallest) * v["radius"]
    soft = 0.5 * v["edge"] * r  # how far a soft edge reaches beyond its border
    y, x = np.indices((size, size), np.float32) + np.float32(0.5)
    room = REACH * r + soft
    cy, cx = (room + (size - 2 * room) * v[axis] for axis in ("row", "column"))
    freckle_r = v["freckle_radius"] * r
    fy, fx = _place_apart(uniform(TRIES, 2), cy, cx, room, freckle_r + soft, size)
    freckle = _fade(freckle_r - np.hypot(y - fy, x - fx), 2 * soft)
    texture = _one_over_f(normal(2, size, size))
    return _Scene(v, r, y - cy, x - cx, waves, phases, freckle, texture, normal(channels, size, size))


def _render(scene: _Scene, malignant: bool) -> tuple[Array, Array]:
    """The pictures (n,C,S,S) uint8 and what lies inside the lesions' borders (n,S,S) bool."""
    v, r = scene.v, scene.r

    # border(angle) / r = 1 + stretch cos 2(angle - a) + jag sum_k w_k cos(k angle + p_k), over its root mean square
    # over the angle, so that the area is pi r^2 in both classes
    angle = np.arctan2(scene.dy, scene.dx)
    border = 1 + v["stretch"] * np.cos(2 * (angle - v["stretch_angle"]))
    power = 1 + v["stretch"] ** 2 / 2
    if malignant:
        for k, w, p in zip(HARMONICS, scene.waves.T, scene.phases.T, strict=True):
            border += v["jag"] * w[:, None, None] * np.cos(k * angle + p[:, None, None])
        power += v["jag"] ** 2
    border = r * np.clip(border / np.sqrt(power), 0.5, REACH)
    inside = border - np.hypot(scene.dy, scene.dx)  # pixels to the border
    lesion = _fade(inside, v["edge"] * r)

    # nucleus: (1 - d^2 / radius^2)^2 of its centre's distance d, 0 beyond its radius
    off = r * v["nucleus_offset"] * malignant
    ny, nx = scene.dy - off * np.sin(v["nucleus_angle"]), scene.dx - off * np.cos(v["nucleus_angle"])
    nucleus = np.maximum(1 - (ny**2 + nx**2) / (r * v["nucleus_radius"]) ** 2, 0) ** 2
    if not malignant:
        nucleus *= v["nucleus_where_benign"] > 0.5

    melanin = v["skin_melanin"] + v["melanin_texture"] * scene.texture[:, 0] + v["freckle_depth"] * scene.freckle
    melanin += lesion * (v["depth"] + v["nucleus_depth"] * nucleus)
    blood = v["skin_blood"] + v["blood_texture"] * scene.texture[:, 1] + v["freckle_flush"] * scene.freckle
    blood += lesion * v["flush"]
    images = np.empty(scene.noise.shape, np.uint8)
    for c, (m, b) in enumerate(ABSORBANCE[scene.noise.shape[1]]):
        intensity = v["light"] * np.exp(-np.float32(m) * melanin - np.float32(b) * blood)
        images[:, c] = np.clip(255 * (intensity + v["camera_noise"] * scene.noise[:, c]), 0, 255)
    return images, inside > 0


def _fade(inside: Array, width: Array) -> Array:
    """1 inside a border, 0 outside, linear over `width` pixels across it."""
    faded: Array = np.clip(0.5 + inside / width, 0, 1)
    return faded


def _one_over_f(white: Array) -> Array:
    """White noise (...,S,S) filtered to an amplitude of 1/frequency, mean 0, expected variance 1."""
    S = white.shape[-1]
    f = np.hypot(np.fft.fftfreq(S)[:, None], np.fft.fftfreq(S))
    gain = np.divide(1, f, out=np.zeros_like(f), where=f > 0)
    gain /= np.sqrt((gain**2).mean())
    filtered: Array = np.fft.irfft2(np.fft.rfft2(white) * gain[:, : S // 2 + 1].astype(np.float32), (S, S))
    return filtered


def _place_apart(tries: Array, cy: Array, cx: Array, room: Array, margin: Array, size: int) -> tuple[Array, Array]:
    """A place (n,1,1) for a disc of radius `margin` in the picture that leaves `room` free around (cy, cx).

    The first of the `tries` (n,T,2) in [0, 1] that will do; else one of the four corners, where it always fits.
    """
    corners = np.broadcast_to(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32), (len(tries), 4, 2))
    places = margin + (size - 2 * margin) * np.concatenate([tries, corners], 1)  # (n,T+4,2)
    apart = np.hypot(places[..., :1] - cy, places[..., 1:] - cx) >= room + margin  # (n,T+4,1)
    picked = places[np.arange(len(tries)), apart[..., 0].argmax(1)]  # (n,2)
    return picked[:, :1, None], picked[:, 1:, None]
