"""All that a training run can be told."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from minidl.arguments import count, flag, number, numbers, one_of, pair, wrong
from minidl.array import DEVICES
from minidl.data import ColorJitter
from minidl.data.windows import checked_window
from minidl.io.files import Path
from minidl.mixed import PRECISIONS

FLIPS = {"none": (), "horizontal": ("horizontal",), "both": ("horizontal", "vertical")}
SELECT = ("last", "auc", "balanced_accuracy", "accuracy", "loss")
BALANCE = ("none", "weights", "sample")
OPTIMIZERS = ("sgd", "adamw")
TEXTS = ("model", "data", "root", "weights", "prefix", "target")
STRENGTHS = ("brightness", "contrast", "saturation", "hue")  # of `colour`
PLACES = ("root", "device", "cuda_graph", "lazy")  # settings that say where, not what: they may change when a run is resumed


@dataclass(frozen=True)
class Settings:
    """All that a run can be told. Raises TypeError or ValueError for a value that cannot be."""

    epochs: int = 15
    batch_size: int = 128
    lr: float = 0.2  # the peak of the one-cycle schedule; adamw wants one of about 0.001
    warmup: float = 0.3  # the share of the steps in which the learning rate rises to its peak
    weight_decay: float = 5e-4  # of weights; biases and batch norm do not decay
    crop: int = 4  # pixels that an image is padded by before a window of its own size is cut out of it
    flip: str = "horizontal"
    rotate: float = 0.0  # degrees: each image is turned by an angle in [-rotate, rotate], see `data.RandomRotation`
    zoom: float | tuple[float, float] = 0.0  # (low, high), factors as in `data.RandomZoom`; z stands for (1 - z, 1 + z)
    colour: tuple[float, ...] = ()  # up to four strengths, as `data.ColorJitter` takes them: brightness, contrast, ...
    test_flips: bool = False  # whether the net is asked by the mean over the flips that it is trained with
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # of the activations in training: "float16" or "bfloat16" is mixed precision, see `minidl.mixed`
    cuda_graph: bool = False  # each step as one CUDA graph, see `minidl.train.cuda_graph`: the same numbers, sooner
    sync_batch_norm: bool = False  # statistics over the batch of all ranks, see `minidl.parallel`; one rank has it anyway

    validation: float = 0.0  # the share of the training images that is held out, to choose an epoch by
    select: str = "last"  # the epoch whose weights are kept: the last, or the best on the validation images by this score
    patience: int | None = None  # stop after so many epochs that were no better; None: never
    target: str = ""  # the class that must not be missed, by its name; "": of two classes the second, of more none
    sensitivity: float | None = None  # of it, wanted on the validation images; None: the best of Youden's J
    balance: str = "none"  # classes of different sizes: see `minidl.train.balance`
    optimizer: str = "sgd"  # with Nesterov momentum of 0.9
    ema: float = 0.0  # the decay of `optim.WeightAverage`, whose weights are judged and kept; 0: the last weights
    weights: str = ""  # a file of published weights to begin with, see `minidl.train.transfer`
    key: str | None = None  # the entry of that file
    prefix: str = ""  # of the names in it
    freeze: tuple[str, ...] = ()  # layers that stay as they are, such as "layer1", their batch norms in evaluation
    body_lr: float = 1.0  # all but the heads learn at this multiple of lr

    # what is trained on what: `fit` writes these down and leaves them to its caller
    model: str = ""
    data: str = ""
    root: str = "data"
    size: int | tuple[int, int] | None = None  # of the images: (H, W), one number where they are square
    channels: int | None = None
    page: int | None = None
    window: tuple[float, float] | None = None  # the grey values that become black and white
    groups: str | None = None  # what finds in the name of a file whom it shows
    lazy: bool = False  # whether the images are left on disk
    limit: int | None = None
    aux: bool = False  # whether the net is made with its auxiliary heads

    def __post_init__(self) -> None:
        for name, least in {
            "epochs": 1,
            "batch_size": 1,
            "crop": 0,
            "seed": 0,
            "channels": 1,
            "page": 0,
            "limit": 1,
            "patience": 1,
        }.items():
            if getattr(self, name) is not None or name not in ("channels", "page", "limit", "patience"):
                object.__setattr__(self, name, count(getattr(self, name), name, least))
        if self.size is not None:
            H, W = pair(self.size, "size")
            object.__setattr__(self, "size", H if H == W else (H, W))
        for name, interval in {
            "lr": "(0, inf)",
            "warmup": "[0, 1)",
            "weight_decay": "[0, inf)",
            "ema": "[0, 1)",
            "validation": "[0, 1)",
            "body_lr": "[0, inf)",
            "rotate": "[0, 180]",
        }.items():
            object.__setattr__(self, name, number(getattr(self, name), name, interval))
        if self.sensitivity is not None:
            object.__setattr__(self, "sensitivity", number(self.sensitivity, "sensitivity", "(0, 1]"))
        for name, choices in {
            "precision": PRECISIONS,
            "flip": FLIPS,
            "device": DEVICES,
            "select": SELECT,
            "balance": BALANCE,
            "optimizer": OPTIMIZERS,
        }.items():
            one_of(getattr(self, name), name, choices)
        self._check_augmentation()
        object.__setattr__(self, "window", checked_window(self.window))
        for name in (*TEXTS, "key", "groups"):
            if not isinstance(value := getattr(self, name), str) and (name in TEXTS or value is not None):
                wrong(TypeError, name, "a string", getattr(self, name))
        if not isinstance(self.freeze, tuple | list) or not all(isinstance(name, str) for name in self.freeze):
            wrong(TypeError, "freeze", "the names of layers, such as ('layer1',)", self.freeze)
        object.__setattr__(self, "freeze", tuple(self.freeze))
        for name in ("cuda_graph", "sync_batch_norm", "aux", "lazy", "test_flips"):
            object.__setattr__(self, name, flag(getattr(self, name), name))
        if self.test_flips and self.flip == "none":
            raise ValueError("test_flips: a net is asked by the flips that it is trained with, and flip is 'none'; set it, too")
        if self.patience is not None and self.select == "last":
            raise ValueError(f"patience: {self.patience} epochs that were no better, by which score? set select, such as 'auc'")
        if (self.key is not None or self.prefix) and not self.weights:
            raise ValueError("key, prefix: they say which entries of a file are the weights; set weights, the file")
        if self.cuda_graph and self.device != "gpu":
            raise ValueError(f"cuda_graph: it needs device 'gpu', got {self.device!r}")

    def _check_augmentation(self) -> None:
        if isinstance(self.zoom, tuple | list):
            low, high = numbers(self.zoom, "zoom", "(0, inf)", 2)
            if low > high:
                wrong(ValueError, "zoom", "a number in [0, 1), or (low, high), low <= high", self.zoom)
            object.__setattr__(self, "zoom", (low, high))
        else:
            object.__setattr__(self, "zoom", number(self.zoom, "zoom", "[0, 1)"))
        colour = numbers(self.colour, "colour", "[0, inf)")
        if len(colour) > len(STRENGTHS):
            wrong(ValueError, "colour", f"up to {len(STRENGTHS)} strengths, {', '.join(STRENGTHS)}", self.colour)
        ColorJitter(*colour)
        object.__setattr__(self, "colour", colour)

    @staticmethod
    def of_run(out: Path) -> Settings:
        """The settings of the run in the folder `out`. Raises FileNotFoundError, and ValueError for a damaged file."""
        path = pathlib.Path(out, "settings.json")
        if not path.is_file():
            raise FileNotFoundError(f"nothing to resume in {out}: {path.name} is missing")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            found = completed(found, (*LATER, "lazy"))
            check_keys(found, "settings", [f.name for f in fields(Settings)])
            return Settings(**found)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or of another version: {error}") from error

    def continues(self, run: Settings) -> None:
        """Raises ValueError that lists the settings in which this differs from the run that it is to continue."""
        same_settings(run.what(), self.what())

    def what(self) -> dict[str, Any]:
        """Those that a resumed run keeps: all that say what is done, and not where."""
        return {name: _as_json(value) for name, value in asdict(self).items() if name not in PLACES}


LATER = (  # than the first runs
    *("channels", "page", "validation", "select", "patience", "balance", "optimizer"),
    *("weights", "key", "prefix", "freeze", "body_lr", "aux"),
    *("rotate", "zoom", "colour", "test_flips", "window", "groups"),
    *("target", "sensitivity", "ema", "sync_batch_norm"),
)


def check_keys(found: Any, name: str, expected: list[str]) -> None:
    """Raises ValueError unless `found` is a dict with these keys and no others."""
    if not isinstance(found, dict):
        wrong(ValueError, name, f"a mapping of {', '.join(expected)}", found)
    if differing := [f"{key} is missing" for key in expected if key not in found] + [
        f"{key!r} is unknown" for key in found if key not in expected
    ]:
        raise ValueError(f"{name}: {', '.join(differing)}")


def completed(found: Any, later: Sequence[str] = LATER) -> Any:
    """Settings as a file holds them, with those that came after it was written, as things were then."""
    return {name: _as_json(getattr(Settings, name)) for name in later} | found if isinstance(found, dict) else found


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def same_settings(old: dict[str, Any], new: dict[str, Any]) -> None:
    old = completed(old)
    check_keys(old, "settings", list(new))
    if conflicts := [f"{name} was {old[name]!r} and now is {value!r}" for name, value in new.items() if old[name] != value]:
        raise ValueError(f"a resumed run keeps its settings, but {', '.join(conflicts)}")
