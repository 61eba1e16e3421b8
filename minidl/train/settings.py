"""All that a training run can be told."""

from __future__ import annotations

import json
import pathlib
from dataclasses import asdict, dataclass, fields
from typing import Any

from minidl.arguments import count, number, one_of, wrong
from minidl.array import DEVICES
from minidl.io.files import Path
from minidl.mixed import PRECISIONS

FLIPS = {"none": (), "horizontal": ("horizontal",), "both": ("horizontal", "vertical")}
PLACES = ("root", "device", "cuda_graph")  # settings that say where, not what: they may change when a run is resumed


@dataclass(frozen=True)
class Settings:
    """All that a run can be told. Raises TypeError or ValueError for a value that cannot be."""

    epochs: int = 15
    batch_size: int = 128
    lr: float = 0.2  # the peak of the one-cycle schedule
    warmup: float = 0.3  # the share of the steps in which the learning rate rises to its peak
    weight_decay: float = 5e-4  # of weights; biases and batch norm do not decay
    crop: int = 4  # pixels that an image is padded by before a window of its own size is cut out of it
    flip: str = "horizontal"
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"  # of the activations in training: "float16" or "bfloat16" is mixed precision, see `minidl.mixed`
    cuda_graph: bool = False  # each step as one CUDA graph, see `minidl.train.cuda_graph`: the same numbers, sooner

    # what is trained on what: `fit` writes these down and leaves them to its caller
    model: str = ""
    data: str = ""
    root: str = "data"
    size: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "crop": 0, "seed": 0, "size": 1, "limit": 1}.items():
            if getattr(self, name) is not None or name not in ("size", "limit"):
                object.__setattr__(self, name, count(getattr(self, name), name, least))
        for name, interval in {"lr": "(0, inf)", "warmup": "[0, 1)", "weight_decay": "[0, inf)"}.items():
            object.__setattr__(self, name, number(getattr(self, name), name, interval))
        for name, choices in {"precision": PRECISIONS, "flip": FLIPS, "device": DEVICES}.items():
            one_of(getattr(self, name), name, choices)
        for name in ("model", "data", "root"):
            if not isinstance(getattr(self, name), str):
                wrong(TypeError, name, "a string", getattr(self, name))
        if not isinstance(self.cuda_graph, bool):
            wrong(TypeError, "cuda_graph", "True or False", self.cuda_graph)
        if self.cuda_graph and self.device != "gpu":
            raise ValueError(f"cuda_graph: it needs device 'gpu', got {self.device!r}")

    @staticmethod
    def of_run(out: Path) -> Settings:
        """The settings of the run in the folder `out`. Raises FileNotFoundError, and ValueError for a damaged file."""
        path = pathlib.Path(out, "settings.json")
        if not path.is_file():
            raise FileNotFoundError(f"nothing to resume in {out}: {path.name} is missing")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            check_keys(found, "settings", [f.name for f in fields(Settings)])
            return Settings(**found)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged or of another version: {error}") from error

    def continues(self, run: Settings) -> None:
        """Raises ValueError that lists the settings in which this differs from the run that it is to continue."""
        same_settings(run.what(), self.what())

    def what(self) -> dict[str, Any]:
        """Those that a resumed run keeps: all that say what is done, and not where."""
        return {name: value for name, value in asdict(self).items() if name not in PLACES}


def check_keys(found: Any, name: str, expected: list[str]) -> None:
    """Raises ValueError unless `found` is a dict with these keys and no others."""
    if not isinstance(found, dict):
        wrong(ValueError, name, f"a mapping of {', '.join(expected)}", found)
    if differing := [f"{key} is missing" for key in expected if key not in found] + [
        f"{key!r} is unknown" for key in found if key not in expected
    ]:
        raise ValueError(f"{name}: {', '.join(differing)}")


def same_settings(old: dict[str, Any], new: dict[str, Any]) -> None:
    check_keys(old, "settings", list(new))
    if conflicts := [f"{name} was {old[name]!r} and now is {value!r}" for name, value in new.items() if old[name] != value]:
        raise ValueError(f"a resumed run keeps its settings, but {', '.join(conflicts)}")
