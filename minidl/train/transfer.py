"""Published weights as a beginning: what is loaded of a file, what stays as it was trained, and what learns more slowly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from minidl import weights
from minidl.array import Array, is_array
from minidl.io import adapt
from minidl.io.files import Path
from minidl.io.notes import short, some
from minidl.nn import Linear, Module
from minidl.optim import decay_groups
from minidl.train.settings import Settings

AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that published files have, and a net that is made without them has not


# ---- what is loaded


def start_from(model: Module, path: Path, key: str | None = None, prefix: str = "") -> list[str]:
    """Load published weights into `model`; in words, what of them is other than it was published.

    path, key, prefix: as in `minidl.weights.load`. Of these a net may differ from the one that was published, and no others:

    - its last linear layer, and those of its auxiliary heads, answer another number of classes: they stay as they were drawn;
    - its images have another number of channels: the first convolution is fitted as `weights.load(adapt_input=True)` says;
    - the file has auxiliary heads and the net has none, or the other way round: they are left out, or stay as drawn.

    Raises FileNotFoundError, and ValueError where the weights are those of another net; the model is then as it was.
    """
    mine, told, skip = model._state(), list[str](), list[str]()
    came = adapt.joined(weights.load_state(path, key=key, prefix=prefix), mine)
    for name in heads(model):
        its, published = mine[f"{name}.weight"], _array(came, f"{name}.weight")
        if published is not None and published.shape[1:] == its.shape[1:] and len(published) != len(its):
            told.append(f"{name} answers {len(published):,} classes in the file and {len(its):,} in this net: it begins anew")
            skip.append(name)
    for name in AUXILIARY:
        in_net, in_file = (any(entry.startswith(f"{name}.") for entry in names) for names in (mine, came))
        if in_net and not in_file:
            told.append(f"{name} is not in the file: it begins anew")
            skip.append(name)
        if in_file and not in_net:
            told.append(f"{name} of the file is left out: this net is made without")
            came = {entry: value for entry, value in came.items() if not entry.startswith(f"{name}.")}
    first = next((name for name, a in mine.items() if a.ndim == 4), "")
    kernels = _array(came, first)
    if kernels is not None and kernels.ndim == 4 and kernels.shape[1] != (C := mine[first].shape[1]):
        told.append(f"{first} takes {kernels.shape[1]} channels in the file and {C} in this net: its weights are shared out")
    weights.fill(model, came, path, skip=skip, adapt_input=True)
    return [f"{os.fsdecode(path)}: {text}" for text in told or ["all its weights are taken as they are, the head, too"]]


def _array(state: Mapping[str, Any], name: str) -> Array | None:
    value = state.get(name)
    return value if is_array(value) else None


def heads(model: Module) -> list[str]:
    """The names of the layers that answer: the last linear layer, and the last ones of auxiliary heads with as many outputs."""
    linear = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear)]
    if not linear:
        return []
    *others, (last, answer) = linear
    ends = {name.split(".")[0]: (name, layer) for name, layer in others if name.split(".")[0] in AUXILIARY}
    return [name for name, layer in ends.values() if layer.weight.shape[0] == answer.weight.shape[0]] + [last]


# ---- what stays, and what learns more slowly


def frozen_layers(model: Module, freeze: Sequence[str]) -> list[Module]:
    """The layers of these names, such as "layer1", with all below them. Raises ValueError for a name that is none of them."""
    layers = dict(model.named_modules())
    for name in freeze:
        if name not in layers or not name:
            known = some([short(child) for child, _ in model.named_children()])
            raise ValueError(f"freeze: expected layers of the net, such as {known}, got {short(name)}")
    return [layers[name] for name in freeze]


def still(layers: Sequence[Module]) -> ExitStack:
    """Inside, these layers evaluate (batch norm takes and keeps its running statistics) and get no gradients."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.evaluating())
            stack.enter_context(layer.frozen())
        return stack.pop_all()


def parameter_groups(model: Module, settings: Settings) -> list[dict[str, Any]]:
    """Those of `optim.decay_groups` without what is frozen; all but the heads learn at `body_lr` times the rate.

    Raises ValueError where nothing is left.
    """
    stays = {id(p) for layer in frozen_layers(model, settings.freeze) for p in layer.parameters()}
    layers = dict(model.named_modules())
    answers = {id(p) for name in heads(model) for p in layers[name].parameters()}
    if settings.body_lr != 1 and not answers:
        raise ValueError(f"body_lr: {settings.body_lr:g}, but the net has no linear layer at its end, which is its head")
    groups = []
    for group in decay_groups(model, settings.weight_decay):
        params = [p for p in group["params"] if id(p) not in stays]
        if settings.body_lr == 1:
            groups.append({**group, "params": params})
            continue
        body, head = ([p for p in params if (id(p) in answers) is of_head] for of_head in (False, True))
        groups.append({**group, "params": body, "lr": settings.body_lr * settings.lr})
        groups.append({**group, "params": head})
    if not any(group["params"] for group in groups):
        raise ValueError(f"freeze: {', '.join(map(short, settings.freeze))} is all that the net has, nothing would be trained")
    return groups
