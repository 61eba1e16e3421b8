"""All that it takes to use a trained net on a new file: what `fit` writes into the metadata of `model.safetensors`.

    format          of these lines: 2
    architecture    the name under which the net is built, and the arguments that it is built with
    classes         their names, in the order of the logits; of several heads, name -> these, side by side
    channels, height, width
    dtype, range    of the pixels: see `range_of`
    window          of grey values that are cut out of a file, or null
    mean, std       of each channel, as `Normalize` takes them
    page            which image of each file, where files hold several
    test_flips      by the mean over which mirror images the net is asked, or "none"
    temperature     that makes its probabilities mean what they say, 1 where nobody has fitted one
    decision        when it says the class that must not be missed, see `DecisionRule`, or null: it says the likeliest class
    validation      how many images temperature and decision come from; 0 while the training goes on, and without any

An image comes to the net in one way, in training's evaluation and ever after: `image` reads it, `normalize` makes x of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from minidl.arguments import count, mapping, number, numbers, one_of, wrong
from minidl.array import Array
from minidl.data import Dataset, Normalize, read_image
from minidl.data.reading import as_held
from minidl.data.windows import checked_window, windowed
from minidl.inference.flips import FLIPS
from minidl.inference.heads import width
from minidl.io.notes import cut
from minidl.train.decision import DecisionRule
from minidl.train.settings import check_keys

KEY = "contract"  # in the metadata
FORMAT = 2  # 1 had neither temperature nor decision
DTYPES = ("uint8", "float32")
BITS16 = 65535
LARGEST = 65535  # side of an image


@dataclass(frozen=True)
class Contract:
    """What a net is, and which images (N,C,H,W) it takes. Raises TypeError or ValueError for what cannot be.

    Args:
        architecture, arguments: what builds it: `nets[architecture](**arguments)`.
        classes: the names of its K classes; of several heads, name -> these, in the order of the logits (N,K1+K2+...).
        channels, height, width: C, H and W of the images that it was trained on.
        dtype: of these, "uint8", or "float32", which files of 8 and 16 bits fill as x / 255 and as x / 65535.
        range: the pixels that stand for black and white, (low, high): (0, 255), or as `range_of` tells.
        mean, std: C numbers each; x = (image - mean) / std, where uint8 counts as image / 255.
        window: (low, high), the grey values that are cut out of a file, as in `read_image`; None: the file's own, or all.
        page: which image of a file with several, from 0; None where none has several.
        test_flips: the mean of the logits over which mirror images is the net's answer, as `inference.predict` takes it. What
            explains the net explains it without: a map of the image as it is.
        temperature: T of p = softmax(logits / T); of several heads, name -> T, or one for all.
        decision: a `DecisionRule`, or what it is made of; None: the likeliest class is the answer. Of several heads, by
            name.
        validation: how many images temperature and decision were determined on, 0 for none.
    """

    architecture: str
    arguments: Mapping[str, Any]
    classes: Any
    channels: int
    height: int
    width: int
    dtype: str
    range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window: tuple[float, float] | None = None
    page: int | None = None
    test_flips: str = "none"
    temperature: Any = 1.0
    decision: Any = None
    validation: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str) or not self.architecture:
            wrong(TypeError, "architecture", "the name of a net", self.architecture)
        if not isinstance(self.arguments, Mapping) or not all(isinstance(name, str) for name in self.arguments):
            wrong(TypeError, "arguments", "a mapping of names", self.arguments)
        for name, value in self.arguments.items():
            if not isinstance(value, str | bool | int | float):
                wrong(TypeError, f"arguments[{name!r}]", "a number, a string, True or False", value)
        if isinstance(self.classes, Mapping) and self.classes:
            of_heads = {head: _names(f"classes[{head!r}]", names) for head, names in self.classes.items()}
            object.__setattr__(self, "classes", of_heads)
        else:
            object.__setattr__(self, "classes", _names("classes", self.classes))
        for name in "channels", "height", "width":
            if (value := count(getattr(self, name), name)) > LARGEST:
                wrong(ValueError, name, f"at most {LARGEST}", value)
            object.__setattr__(self, name, value)
        for name, built_for in ("num_classes", width(self.classes)), ("in_channels", self.channels):
            if (given := self.arguments.get(name, built_for)) != built_for:
                what = "classes" if name == "num_classes" else "channels"
                raise ValueError(f"{what}: {built_for}, but the net is built with {name}={given!r}")
        one_of(self.dtype, "dtype", DTYPES)
        one_of(self.test_flips, "test_flips", FLIPS)
        low, high = numbers(self.range, "range", length=2)
        if low >= high or (self.dtype == "uint8" and (low, high) != (0, 255)):
            wrong(ValueError, "range", "(0, 255) of uint8, else (low, high), low < high", self.range)
        object.__setattr__(self, "range", (low, high))
        for name, interval in ("mean", "(-inf, inf)"), ("std", "(0, inf)"):
            object.__setattr__(self, name, numbers(getattr(self, name), name, interval, self.channels))
        Normalize(self.mean, self.std)  # which tells what float32 cannot divide by
        if self.page is not None:
            object.__setattr__(self, "page", count(self.page, "page", 0))
        if self.window is not None:
            object.__setattr__(self, "window", checked_window(self.window))
        object.__setattr__(self, "validation", count(self.validation, "validation", 0))
        if self.heads:
            for name, check in ("temperature", _temperature), ("decision", _decision):
                of_heads = self._of_each_head(name)
                checked = {head: check(value, f"{name}[{head!r}]", self.classes[head]) for head, value in of_heads.items()}
                object.__setattr__(self, name, checked)
        else:
            object.__setattr__(self, "temperature", _temperature(self.temperature, "temperature", self.classes))
            object.__setattr__(self, "decision", _decision(self.decision, "decision", self.classes))

    def _of_each_head(self, name: str) -> dict[str, Any]:
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return dict.fromkeys(self.heads, value)
        check_keys(value, name, list(self.heads))
        return {head: value[head] for head in self.heads}

    @staticmethod
    def of(
        train_set: Dataset,
        architecture: str,
        arguments: Mapping[str, Any] | None = None,
        page: int | None = None,
        test_flips: str = "none",
    ) -> Contract:
        """That of a net which learns these images (N,C,H,W); without arguments it is built by num_classes and in_channels.

        Raises TypeError or ValueError for arguments that no file can hold, and for a channel in which all pixels are equal.
        """
        _, C, H, W = train_set.images.shape
        if arguments is None:
            arguments = {"num_classes": width(train_set.classes), "in_channels": C}
        mapping(arguments, "arguments", "name -> value")
        mean, std = (a.tolist() for a in train_set.mean_std())
        dtype, around = train_set.images.dtype.name, range_of(train_set.images)
        about = dtype, around, mean, std, train_set.window, page, test_flips
        return Contract(architecture, dict(arguments), train_set.classes, C, H, W, *about)

    @property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        """The classes by head, of a net with several."""
        return self.classes if isinstance(self.classes, Mapping) else {}

    def head(self, name: str) -> Contract:
        """That of one head alone, as a net of its own that is not built anew: the arguments do not say how many classes it has.

        Raises ValueError for a head that is not there.
        """
        one_of(name, "name", tuple(self.heads))
        arguments = {key: value for key, value in self.arguments.items() if key != "num_classes"}
        own = {"classes": self.classes[name], "temperature": self.temperature[name], "decision": self.decision[name]}
        return replace(self, arguments=arguments, **own)

    # ---- in a file

    def metadata(self) -> dict[str, str]:
        """The entry of a safetensors file."""
        return {KEY: json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False)}

    @staticmethod
    def of_metadata(metadata: Mapping[str, str]) -> Contract:
        """Raises ValueError, in one sentence, where there is none, for another format, and where it is damaged."""
        if KEY not in metadata:
            raise ValueError(
                "does not say what its net takes: an older minidl or another program wrote it; train it again, from these "
                "weights if you like (examples/train.py --weights FILE), or read them alone with minidl.weights.load"
            )
        try:
            found = json.loads(metadata[KEY])
            if not isinstance(found, dict) or type(version := found.pop("format", None)) is not int:
                raise ValueError("expected a mapping with the number of its format")
            if version == FORMAT:
                check_keys(found, KEY, [f.name for f in fields(Contract)])
                return Contract(**found)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"what it says of its net is damaged: {cut(str(error))}") from error
        again = "resume its training, which writes it anew (examples/train.py --resume --out FOLDER), or train it again"
        advice = "install a newer minidl" if version > FORMAT else again
        raise ValueError(f"what it says of its net has format {version}, this minidl reads {FORMAT}; {advice}")

    # ---- an image, as the net takes it

    def image(self, source: str | os.PathLike[str] | Array) -> Array:
        """(C,H,W) of `dtype`, of a source: a file, or an array (H,W) or (H,W,C) as files hold it, uint8, uint16 or float32.

        It is resized as the training images were. Raises FileNotFoundError, and TypeError or ValueError for what is no such
        image, and for pixels of another depth than those that the net was trained on.
        """
        name = "the image" if isinstance(source, np.ndarray) else os.fsdecode(source)
        channels = self.channels if self.channels in (1, 3, 4) else None  # what a file is converted to
        if isinstance(source, np.ndarray):
            pixels = source if self.window is None else windowed(source, *self.window)
        else:
            pixels = read_image(source, channels, self.page, self.window)
        if pixels.dtype.name not in (*DTYPES, "uint16"):
            raise TypeError(f"{name}: expected uint8, uint16 or float32, got {pixels.dtype}")
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        if pixels.ndim != 3 or pixels.shape[2] != self.channels or not pixels.size:
            raise ValueError(f"{name}: expected (H,W) or (H,W,C) with {self.channels} channels, got shape {pixels.shape}")
        if not np.isfinite(pixels).all():
            raise ValueError(f"{name}: holds NaN or infinity")
        if self.dtype == "uint8" and pixels.dtype != np.uint8:
            raise ValueError(f"{name}: expected 8 bits a pixel, as the net was trained on, got more; convert it to 8 bits")
        if self.levels is None and pixels.dtype != np.float32:
            raise ValueError(f"{name}: expected float32, as the net was trained on numbers beyond [0, 1], got {pixels.dtype}")
        image = as_held(pixels, (self.height, self.width))
        if self.dtype == "uint8":
            return image
        if image.dtype == np.uint8:
            image = image.astype(np.float32) / np.float32(255)
        (low, high), least, most = self.range, float(image.min()), float(image.max())
        if not 2 * low - high <= least <= most <= 2 * high - low:
            raise ValueError(
                f"{name}: expected pixels like those that the net was trained on, {low:.4g} to {high:.4g}, got {least:.4g} to "
                f"{most:.4g} (16 bits count as x / 65535, 8 bits as x / 255); convert it to the same depth"
            )
        return image

    @property
    def normalize(self) -> Normalize:
        """f(images) = x, both (N,C,H,W), of images as `image` reads them."""
        return Normalize(self.mean, self.std)

    # ---- an image, as people see it

    @property
    def levels(self) -> int | None:
        """How many steps of grey there are from black to white; None of floats beyond [0, 1]."""
        low, high = self.range
        if self.dtype == "uint8":
            return 255
        return round(high * BITS16) if low == 0 and high <= 1 else None

    def unit(self, images: Array) -> Array:
        """The images (N,C,H,W) or (C,H,W) in their own range: (image - low) / (high - low), float32, nearly all in [0, 1]."""
        low, high = self.range
        unit: Array = images.astype(np.float32)
        if low:
            unit -= np.float32(low)
        unit /= np.float32(high - low)
        return unit

    @property
    def normalize_unit(self) -> Normalize:
        """f(unit(images)) = x, up to rounding."""
        low, high = (0.0, 1.0) if self.dtype == "uint8" else self.range
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        return Normalize(((mean - low) / (high - low)).tolist(), (std / (high - low)).tolist())

    def shown(self, images: Array) -> Array:
        """The images (N,C,H,W) or (C,H,W) for the eye: uint8 as they are, others as `unit` in [0, 1]."""
        return images if images.dtype == np.uint8 else np.clip(self.unit(images), 0, 1)

    def to_image(self, x: Array) -> Array:
        """What the net takes, x (N,C,H,W) or (C,H,W), back to an image for the eye, in [0, 1]."""
        mean, std = (np.asarray(a)[:, None, None] for a in (self.normalize_unit.mean, self.normalize_unit.std))
        return np.clip(x * std + mean, 0, 1)


def _names(name: str, classes: Any) -> tuple[str, ...]:
    if not isinstance(classes, tuple | list) or not all(isinstance(of_class, str) for of_class in classes):
        wrong(TypeError, name, "a name for each", classes)
    if not classes:
        wrong(ValueError, name, "at least one", classes)
    return tuple(classes)


def _temperature(value: Any, name: str, classes: tuple[str, ...]) -> float:
    return number(value, name, "(0, inf)")


def _decision(found: Any, name: str, classes: tuple[str, ...]) -> DecisionRule | None:
    """A rule as it is, or of its entries in a file; its target is one of the classes."""
    if found is None:
        return None
    if not isinstance(found, DecisionRule):
        check_keys(found, name, [f.name for f in fields(DecisionRule)])
        found = DecisionRule(**found)
    one_of(found.target, f"{name}.target", classes)
    return found


def range_of(images: Array) -> tuple[float, float]:
    """What stands for black and white in images (N,C,H,W): (0, 255) of uint8.

    Of floats in [0, 1], as 16 bits are read, (0, (2^b - 1) / 65535) with the fewest bits b that hold all pixels: b = 12 where a
    scanner has 12. Of other floats the least and the largest.
    """
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        return low, high
    ends = (float(np.float32(2**b - 1) / np.float32(BITS16)) for b in range(1, 17))
    return 0.0, next(end for end in ends if high <= end)
