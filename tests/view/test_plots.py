"""The plots are read back as images: what must be seen is there, in its colour, and a failed save leaves the old file."""

from __future__ import annotations

import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minidl import view
from minidl.view.figure import BLUE, GREY, ORANGE

VALIDATION = {"validation_loss": 1.2, "validation_accuracy": 0.6, "validation_majority_accuracy": 0.4}
TRAINING = {"train_loss": 1.0, "train_accuracy": 0.5, "train_majority_accuracy": 0.4}
ROWS = [{"epoch": e, "lr": 0.1 / e} | {k: v / e for k, v in (VALIDATION | TRAINING).items()} for e in range(1, 6)]


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def count(x: np.ndarray, color: str, tolerance: int = 24) -> int:
    """How many pixels have about that colour."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(x - wanted) <= tolerance).all(-1).sum())


def test_curves(tmp_path: pathlib.Path) -> None:
    view.curves(tmp_path / "c.png", ROWS, "a run")
    x = pixels(tmp_path / "c.png")
    assert count(x, ORANGE) > 500 and count(x, BLUE) > 500
    assert (x[:5] == 255).all() and (x[-5:] == 255).all() and (x[:, :5] == 255).all() and (x[:, -5:] == 255).all()  # all fits


@pytest.mark.parametrize("rows", [ROWS[:1], [{**ROWS[0], "lr": 0.0, "train_loss": 0.0, "validation_loss": 0.0}]])
def test_curves_of_one_epoch(tmp_path: pathlib.Path, rows: list[dict[str, float]]) -> None:
    view.curves(tmp_path / "c.png", rows)
    assert count(pixels(tmp_path / "c.png"), BLUE) > 20
    with pytest.raises(ValueError, match="rows: no epoch to draw"):
        view.curves(tmp_path / "c.png", [])


def test_curves_without_validation_have_none_and_say_what_the_largest_class_gets(tmp_path: pathlib.Path) -> None:
    view.curves(tmp_path / "c.png", [{k: v for k, v in row.items() if k not in VALIDATION} for row in ROWS])
    x = pixels(tmp_path / "c.png")
    assert count(x, ORANGE) > 500 and count(x, BLUE) == 0
    with_baseline = count(x, GREY)
    view.curves(tmp_path / "d.png", [row | {"validation_majority_accuracy": 5.0} for row in ROWS])
    view.curves(tmp_path / "e.png", ROWS)
    assert count(pixels(tmp_path / "e.png"), GREY) > count(pixels(tmp_path / "d.png"), GREY) and with_baseline > 0


@pytest.mark.parametrize("K", [1, 2, 10, 40])
def test_confusion(tmp_path: pathlib.Path, K: int) -> None:
    names = [f"class {k}" for k in range(K)]
    view.confusion(tmp_path / "right.png", np.eye(K, dtype=np.int64) * 1234, names, "all right")
    x = pixels(tmp_path / "right.png")
    dark = count(x, "#08306b", 8)  # the colour of 100%
    if K > 1:
        view.confusion(tmp_path / "wrong.png", np.zeros((K, K), np.int64), names, "nothing there")
        assert dark > 2 * count(pixels(tmp_path / "wrong.png"), "#08306b", 8)  # the diagonal, apart from the colour bar
    assert (x[:3] == 255).all() and (x[-3:] == 255).all() and (x[:, :3] == 255).all() and (x[:, -3:] == 255).all()
    with pytest.raises(ValueError, match=rf"expected \({K}, {K}\) for {K} classes, got \({K + 1}, {K}\)"):
        view.confusion(tmp_path / "c.png", np.zeros((K + 1, K), np.int64), names)


def test_a_failed_save_leaves_the_old_image(tmp_path: pathlib.Path) -> None:
    (tmp_path / "c.png").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(OSError):
            view.curves(tmp_path / "c.png", ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "c.png").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_imported_before_it_is_needed() -> None:
    script = "import sys, minidl, minidl.view; print([m for m in ('matplotlib', 'PIL', 'tqdm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
