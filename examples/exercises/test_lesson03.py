"""Judge of exercise 3: the adjoint identity, then minidl's own gradient."""

from types import ModuleType

import judge
import numpy as np

from minidl.kernels import reference

rng = np.random.default_rng(3)
C, F, H, W, kh, kw = 2, 3, 6, 7, 3, 2
OH, OW, one, none = H - kh + 1, W - kw + 1, (1, 1), (0, 0)
cols, x = rng.normal(size=(C, kh, kw, OH, OW)), rng.normal(size=(C, H, W))


def last_wins(turned: bool = False, adds: bool = False) -> np.ndarray:
    """What fold gives where it overwrites, or where the window is put down turned around."""
    found = np.zeros((C, H, W))
    for u in range(kh):
        for v in range(kw):
            at = (kh - 1 - u, kw - 1 - v) if turned else (u, v)
            place = found[:, at[0] : at[0] + OH, at[1] : at[1] + OW]
            place[...] = place * adds + cols[:, u, v]
    return found


def test_fold_puts_every_window_back(exercise: ModuleType) -> None:
    wanted = reference.fold(cols[None], (1, C, H, W), one, none, one)[0]
    slips = {
        "where windows overlap the last one wins: write += in place of =": last_wins(),
        "the windows are turned around: cols[:, u, v] belongs u rows down and v columns to the right": last_wins(True, True),
    }
    judge.equal(exercise.fold(cols.copy(), H, W), wanted, slips)


def test_fold_is_the_adjoint_of_windows(exercise: ModuleType) -> None:
    windows = reference.windows(x[None], (kh, kw), one, none, one, (OH, OW))[0]
    judge.equal((exercise.fold(cols.copy(), H, W) * x).sum(), (windows * cols).sum(), {})  # <x, fold(C)> = <windows(x), C>


def test_the_gradient_of_the_image(exercise: ModuleType) -> None:
    w, gy = rng.normal(size=(F, C, kh, kw)), rng.normal(size=(F, OH, OW))

    def gradient(w: np.ndarray) -> np.ndarray:
        return reference.conv2d_grad_x(gy[None], w, (1, C, H, W), one, none, one, 1)[0]

    slips = {
        "the kernel was turned around and folded: fold puts windows back, which needs the kernel as it is": gradient(
            w[:, :, ::-1, ::-1]
        ),
        "gy is missing": reference.conv2d_grad_x(np.ones((1, F, OH, OW)), w, (1, C, H, W), one, none, one, 1)[0],
    }
    judge.equal(exercise.input_gradient(gy, w, H, W), gradient(w), slips)
