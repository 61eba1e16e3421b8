"""Pixels that are missing, put in from those around them."""

from __future__ import annotations

from minidl.array import Array, array_module

TOLERANCE = 1e-7  # of what is left of the equations, to their right-hand side


def imputed(x: Array, missing: Array) -> Array:
    """u = x where nothing is missing, elsewhere u_i = sum_j w_ij u_j / sum_j w_ij over the 8 neighbours j in the image

    w = 1/6 for the four beside i, 1/12 for those at its corners: x (N,C,H,W), missing (N,1,H,W) bool, some pixel of each image
    not missing; float64. Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods".

    The equations of the missing pixels are symmetric and positive definite: conjugate gradients, all images at once (Hestenes
    and Stiefel 1952, "Methods of conjugate gradients for solving linear systems").
    """
    xp = array_module(x)
    inside = xp.asarray(missing, "float64")
    degree = _around(xp.ones((1, 1, *x.shape[2:])))
    size = xp.abs(x.astype("float64")).max((1, 2, 3), keepdims=True)
    units = xp.where(size > 0, size, 1)  # so that no square overflows
    u = x / units * (1 - inside)
    residual = inside * _around(u)
    direction, size = residual, _squares(residual)
    enough = TOLERANCE**2 * size
    while bool((size > enough).any()):
        change = inside * (degree * direction - _around(direction))
        working = size > enough  # an image that is done waits for the others
        step = xp.where(working, size, 0) / xp.where(working, (direction * change).sum((2, 3), keepdims=True), 1)
        u += step * direction
        residual = residual - step * change
        before, size = size, _squares(residual)
        direction = residual + size / xp.where(working, before, 1) * direction
    return xp.where(missing, u * units, x)


def _around(u: Array) -> Array:
    """u_i / 3 + sum_j w_ij u_j, 0 beyond the image: the window (1,2,1) x (1,2,1) over 12, whose middle cancels."""
    p = array_module(u).pad(u, ((0, 0), (0, 0), (1, 1), (1, 1)))
    down = 2 * p[:, :, 1:-1]
    down += p[:, :, :-2]
    down += p[:, :, 2:]
    across = 2 * down[..., 1:-1]
    across += down[..., :-2]
    across += down[..., 2:]
    across /= 12
    return across


def _squares(a: Array) -> Array:
    return (a * a).sum((2, 3), keepdims=True)
