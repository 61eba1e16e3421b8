"""What comes in and goes out: images, checked against the model, and maps of one number a pixel."""

from __future__ import annotations

from minidl.arguments import channels_first, number, one_of
from minidl.array import Array, array_like, array_module, device_of, is_array, is_float, shape_of
from minidl.core import Tensor
from minidl.inference.scores import Target
from minidl.nn.module import Module, check_model

REDUCE = ("maxabs", "sumabs", "sum")


def check_images(model: Module, x: Array, target: Target = None, name: str = "target", images: str = "x") -> None:
    """x: (N,C,H,W), at least one, finite, of the type of the model's parameters and where they are; N targets, or one.

    name, images: what target and x are called in the error.
    """
    check_model(model)
    if not is_array(x) or not is_float(x.dtype):
        what = x.dtype if is_array(x) else type(x).__name__
        advice = f"; write {images}.data" if isinstance(x, Tensor) else ""
        raise TypeError(f"{images}: expected an array of floats, images as the model was trained on them, got {what}{advice}")
    if x.ndim != 4 or 0 in x.shape:
        raise ValueError(f"{images}: expected images (N,C,H,W), none of these 0, got shape {x.shape}")
    check_layout(model, x, images)
    for p in model.parameters()[:1]:
        if (p.dtype, p.device) != (x.dtype, device_of(x)):
            model_is, x_is = f"{p.dtype} on the {p.device}", f"{x.dtype} on the {device_of(x)}"
            raise ValueError(f"{images}: the model is {model_is}, {images} is {x_is}")
    if not bool(array_module(x).isfinite(x).all()):
        raise ValueError(f"{images}: holds NaN or infinity")
    if target is not None and shape_of(target) not in ((), (len(x),)):
        raise ValueError(f"{name}: expected one class, or one for each of the {len(x)} images, got {target!r}")


def check_layout(model: Module, x: Array, name: str = "x") -> None:
    """x (N,C,H,W) must not look like (N,H,W,C), unless the model's first convolution takes just these C."""
    first = next((p for p in model.parameters() if p.ndim == 4), None)
    if first is None or first.shape[1] != x.shape[1]:
        channels_first(x, name)


def number_or_array(value: float | Array, name: str) -> float | Array:
    """A number, checked, or an array as it came."""
    return number(value, name) if shape_of(value) == () else value


def as_images(value: float | Array, x: Array, name: str) -> Array:
    """`value`, one number or what broadcasts to (N,C,H,W), such as (C,1,1) for a colour, in the form of the images x."""
    xp, value = array_module(x), number_or_array(value, name)
    try:
        images = xp.broadcast_to(array_like(value, x, x.dtype), x.shape)
    except (ValueError, TypeError):
        got = f"shape {shape_of(value)}" if is_array(value) else repr(value)
        raise ValueError(f"{name}: expected a number, or an array that broadcasts to {x.shape}, got {got}") from None
    if not bool(xp.isfinite(images).all()):
        raise ValueError(f"{name}: holds NaN or infinity")
    return images


def check_reduce(reduce: str) -> None:
    one_of(reduce, "reduce", REDUCE)


def over_channels(raw: Array, reduce: str) -> Array:
    """(N,C,H,W) -> (N,H,W): "maxabs" the largest size, "sumabs" the sum of sizes, "sum" the sum, which keeps the sign."""
    check_reduce(reduce)
    if reduce == "sum":
        return raw.sum(1)
    size = array_module(raw).abs(raw)
    return size.max(1) if reduce == "maxabs" else size.sum(1)
