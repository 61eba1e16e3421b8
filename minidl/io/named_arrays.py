"""States as named arrays: comparing what came with what a module or an optimiser expects, and taking it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minidl.array import Array, device_of, is_array, is_float, to_device
from minidl.io.notes import cut, kind, some


def compare(
    expected: Mapping[str, Array], came: Mapping[str, Array], what: str, strict: bool = True
) -> tuple[list[str], list[str]]:
    """The names that are missing in `came`, and those that are unexpected there.

    Raises ValueError with the entries that do not fit, by name, the first 100 of them: of another shape or kind of number,
    and, if `strict`, the missing and the unexpected ones too, TypeError for what is no mapping. `what` names the owner of the
    state in these messages.
    """
    if not isinstance(came, Mapping):
        raise TypeError(f"{what}: expected a mapping of names to arrays, got {type(came).__name__}")
    missing = [name for name in expected if name not in came]
    unexpected = [name for name in came if name not in expected]
    problems = [f"{cut(name, 120)}: {_form(came[name])}, expected {_form(a)}" for name, a in expected.items()
                if name in came and not _fits(came[name], a)]  # fmt: skip
    if strict:
        problems = [f"{cut(name, 120)}: missing, expected {_form(expected[name])}" for name in missing] + problems
        problems += [f"{cut(str(name), 120)}: unexpected, {_form(came[name])}" for name in unexpected]
    if problems:
        raise ValueError(f"{what}: {len(problems)} of the entries do not fit\n  " + some(problems, 100, "\n  "))
    return missing, unexpected


def overwrite(target: Array, value: Array) -> None:
    """target[...] = value, wherever the two live; the type of `target` stays."""
    target[...] = to_device(value, device_of(target))


def _fits(value: Any, like: Array) -> bool:
    """Same shape, and a type that can be cast without loss of meaning: any number to float, but no float to integer."""
    kinds = "fiub" if is_float(like.dtype) else "iub"
    return is_array(value) and value.shape == like.shape and value.dtype.kind in kinds


def _form(value: Any) -> str:
    return f"{value.shape} {value.dtype}" if is_array(value) else kind(value)
