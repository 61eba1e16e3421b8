"""One net that answers several questions, one with each head: its logits are these heads side by side, or a mapping of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minidl import ops
from minidl.arguments import mapping
from minidl.core import Tensor
from minidl.nn.module import Module, check_model

UNKNOWN = -1  # the label of an image of which the answer of a head is not known, see `minidl.data.Dataset`


def width(classes: Any) -> int:
    """How many logits answer for these classes: K, or of several heads, name -> classes, K1 + K2 + ..."""
    return sum(map(len, classes.values())) if isinstance(classes, Mapping) else len(classes)


def slices(classes: Mapping[str, Sequence[str]]) -> dict[str, slice]:
    """The columns of each head in logits (N,K1+K2+...), in the order of `classes`."""
    found, start = dict[str, slice](), 0
    for name, of_head in classes.items():
        found[name] = slice(start, start + len(of_head))
        start += len(of_head)
    return found


def side_by_side(logits: Tensor, classes: Mapping[str, Sequence[str]]) -> dict[str, Tensor]:
    """Logits (N,K1+K2+...), which hold the heads side by side: name -> (N,K_h). A linear layer of so many outputs is as many
    linear layers on the same features. Raises ValueError for logits of another width.
    """
    K = width(classes)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] != K:
        got = f"shape {logits.shape}" if isinstance(logits, Tensor) else type(logits).__name__
        of_each = " and ".join(f"{len(of_head)} of {name}" for name, of_head in classes.items())
        raise ValueError(f"model: expected logits (N,{K}), {of_each}, got {got}; make it with num_classes={K}")
    return {name: logits[:, columns] for name, columns in slices(classes).items()}


class Heads(Module):
    """x (N,C,H,W) -> name -> logits (N,K_h), of a model whose logits (N,K1+K2+...) hold the heads side by side.

    classes: name -> the classes of that head, in the order of the logits. Raises TypeError for what is no Module, or no
    dictionary, and when it is called ValueError for a model that answers another number of logits.
    """

    def __init__(self, model: Module, classes: Mapping[str, Sequence[str]]) -> None:
        check_model(model)
        self.model, self.classes = model, dict(mapping(classes, "classes", "head -> the names of its classes"))

    def forward(self, x: Tensor) -> Any:
        return side_by_side(self.model(x), self.classes)


class Head(Module):
    """One head of a model with several, as a model of its own: x (N,C,H,W) -> logits (N,K). All methods take it.

    A model has several heads where it returns a NamedTuple or a mapping of logits, whose fields or keys are their names, or a
    plain tuple or list, whose heads are named "0", "1", ...; one that returns plain logits has the head "". Raises TypeError
    for what is no Module. A call raises ValueError where it returns something else, or has no head of that name.
    """

    def __init__(self, model: Module, name: str) -> None:
        check_model(model)
        self.model, self.name = model, name

    def forward(self, x: Tensor) -> Tensor:
        heads = heads_of(self.model(x))
        if self.name not in heads:
            raise ValueError(f"head: the model has {list(heads)}, got {self.name!r}")
        return heads[self.name]


def heads_of(y: object) -> dict[str, Tensor]:
    """What a model returned, by the names of its heads. Raises ValueError where it is none of what `Head` tells."""
    heads: dict[str, Tensor]
    if isinstance(y, Tensor):
        heads = {"": y}
    elif isinstance(y, Mapping):
        heads = dict(y)
    elif isinstance(y, tuple | list):
        heads = dict(zip(getattr(y, "_fields", map(str, range(len(y)))), y, strict=True))
    else:
        heads = {}
    if not heads or not all(isinstance(logits, Tensor) for logits in heads.values()):
        raise ValueError(f"model: expected logits, or a tuple or a mapping of them, got {type(y).__name__}")
    return heads


def known_losses(
    logits: Tensor, labels: Mapping[str, Any], classes: Mapping[str, Sequence[str]], weights: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Of each head cross_entropy(logits (N,K_h), labels (N,)), the mean over the images whose label is known, 0 where none is.

    weights: (K_h,) of each head, as `class_weights` of `ops.cross_entropy`.
    """
    parts = side_by_side(logits, classes)
    return {
        name: ops.cross_entropy(z, labels[name], None if weights is None else weights[name], ignore_index=UNKNOWN)
        for name, z in parts.items()
    }
