"""What every lesson begins with: the way to the examples, whether to be quick, a place for images, the net of lesson 1.

    python examples/lessons/01_classification.py            # its images go into runs/lessons
    python examples/lessons/01_classification.py --quick    # the same cells on smaller sizes, into runs/lessons/quick

A notebook has no command line: there, MINIDL_QUICK=1 in the environment says the same, and an image stands under its cell.
MINIDL_LESSONS is another folder for what the lessons write.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import sys
import tempfile
from types import TracebackType
from typing import TYPE_CHECKING, Any

LESSONS = pathlib.Path(__file__).resolve().parent
ROOT = LESSONS.parents[1]
sys.path.insert(0, str(LESSONS.parent))  # a lesson calls the examples, which import each other as scripts in one folder do

import common  # noqa: E402
import numpy as np  # noqa: E402
import train as training  # noqa: E402 - examples/train.py

from minidl import data  # noqa: E402
from minidl.data import Dataset  # noqa: E402
from minidl.nn import Module  # noqa: E402
from minidl.train import Row, Settings, TrainedNet, fit, is_finished, load_run  # noqa: E402
from minidl.view import figure  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def is_script() -> bool:
    """Whether a lesson runs as a script, with a command line of its own, and not in a notebook or a test."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    return script is not None and pathlib.Path(script).resolve().parent == LESSONS


def is_quick() -> bool:
    if is_script():
        parser = argparse.ArgumentParser(description="One lesson of the course, from its aim to its image.")
        parser.add_argument("--quick", action="store_true", help="smaller sizes: to see that it runs, not what it teaches")
        if parser.parse_args().quick:
            return True
    return os.environ.get("MINIDL_QUICK", "0") not in ("", "0")


QUICK = is_quick()
FOLDER = pathlib.Path(os.environ.get("MINIDL_LESSONS") or ROOT / "runs" / "lessons") / ("quick" if QUICK else "")


def out(name: str) -> pathlib.Path:
    """Where a file, or a folder, of that name goes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    return FOLDER / name


# ---- images


def panels(title: str, columns: int = 1, width: float = 11, height: float = 3.6, **settings: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `columns` axes side by side, without the frame that they do not need; settings: as `Figure.subplots` has."""
    fig = figure.new(width, height, w_pad=0.1, h_pad=0.1)
    axes = list(fig.subplots(1, columns, squeeze=False, **settings)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=figure.GREY, labelsize=9)
    figure.title(fig, title)
    return fig, axes


def show(path: pathlib.Path, says: str, fig: Figure | None = None) -> None:
    """Draw `fig`, if there is one, into the file, and show it: under its cell, or as a path to look at. says: what one sees."""
    if fig is not None:
        figure.save(fig, path)
    if "ipykernel" in sys.modules:
        from IPython.display import Image, display

        display(Image(filename=str(path), alt=says))
    print(says if "ipykernel" in sys.modules else f"now look at {path}: {says}")


# ---- the net of lesson 1


def first_net() -> TrainedNet:
    """The net of lesson 1. It is trained where that was not done yet, or not to the end, in one to two minutes."""
    run = out("01_net")
    begun = (run / "settings.json").exists()
    if not begun or not is_finished(common.rows_of(run), Settings.of_run(run)):
        less = ["--limit", "1000", "--epochs", "2"] if QUICK else []
        if code := training.main(["--out", str(run), *(["--resume"] if begun else less)]):
            raise SystemExit(code)
    return load_run(run, training.MODELS)


# ---- other nets, which are trained for one lesson


def fitted(model: Module, train_set: Dataset, settings: Settings, validation: Dataset | None = None) -> list[Row]:
    """Train `model` in place, in a folder that is gone afterwards and without a line for every epoch; what `fit` returns."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return fit(model, train_set, settings, folder, validation)


def lesion_or_skin(n: int, seed: int) -> Dataset:
    """n images of 16x16 in random order, half of them with a benign or malignant lesion, half of bare skin: soon learnt."""
    with_lesion = data.lesions(n // 2, seed=seed).images
    without = data.lesions(n // 2, seed=seed + 1000, without=["lesion"]).images
    images = np.concatenate([with_lesion, without]).reshape(-1, 3, 16, 2, 16, 2).mean((3, 5)).astype(np.uint8)
    order = np.random.default_rng(seed).permutation(len(images))
    return Dataset(images[order], np.repeat([1, 0], n // 2)[order], ("skin", "lesion"), name="lesions or skin 16x16")


# ---- the end


def stopped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nStopped. The same command begins the lesson anew; a net that is trained stays.")
    else:
        sys.__excepthook__(kind, error, trace)


if is_script():
    sys.excepthook = stopped
