"""From a scene to the image of it, benign or malignant.

Colour follows Beer and Lambert: skin holds two pigments, melanin M(i,j) and blood B(i,j), a pen leaves a third, ink K(i,j), and
channel c absorbs

    I_c(i,j) = light * exp(-m_c M(i,j) - b_c B(i,j) - k_c K(i,j)).

Skin, lesion, nucleus and freckle each add melanin and blood.
"""

from __future__ import annotations

import numpy as np

from minidl.array import Array
from minidl.data.lesions.scene import HARMONICS, REACH, Scene, fade

# (m_c, b_c, k_c) of each channel: grey; or red, green, blue; and near infrared, which looks through melanin
ABSORBANCE = {
    1: ((0.80, 0.45, 0.90),),
    3: ((0.52, 0.08, 0.80), (0.84, 0.50, 1.20), (1.10, 0.55, 0.25)),
    4: ((0.52, 0.08, 0.80), (0.84, 0.50, 1.20), (1.10, 0.55, 0.25), (0.15, 0.08, 0.50)),
}


def render(scene: Scene, malignant: bool) -> tuple[Array, Array]:
    """The images (n,C,S,S) uint8 and what lies inside the lesions' borders (n,S,S) bool."""
    v, r = scene.v, scene.r

    # border(angle) / r = 1 + stretch cos 2(angle - a) + jag sum_h w_h cos(h angle + p_h), over its root mean square
    # over the angle, so that the area is pi r^2 in both classes
    angle = np.arctan2(scene.dy, scene.dx)
    border = 1 + v["stretch"] * np.cos(2 * (angle - v["stretch_angle"]))
    power = 1 + v["stretch"] ** 2 / 2
    if malignant:
        for h, w, p in zip(HARMONICS, scene.waves.T, scene.phases.T, strict=True):
            border += v["jag"] * w[:, None, None] * np.cos(h * angle + p[:, None, None])
        power += v["jag"] ** 2
    border = r * np.clip(border / np.sqrt(power), 0.5, REACH)
    inside = border - np.hypot(scene.dy, scene.dx)  # pixels to the border
    if not scene.lesion:
        inside = np.full_like(inside, -np.inf)
    lesion = fade(inside, v["edge"] * r)

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
    for c, (m, b, k) in enumerate(ABSORBANCE[scene.noise.shape[1]]):
        intensity = v["light"] * np.exp(-np.float32(m) * melanin - np.float32(b) * blood - np.float32(k) * scene.ink)
        images[:, c] = np.clip(255 * (intensity + v["camera_noise"] * scene.noise[:, c]), 0, 255)
    return images, inside > 0
