"""Parameters in groups, each with a learning rate and a weight decay of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minidl.arguments import number, wrong
from minidl.core import Parameter
from minidl.nn.module import Module, check_model


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """The usual two groups: weights of convolutions and linear layers decay; biases and batch norm (one axis) do not.

    Raises TypeError or ValueError for a weight decay that is no number of at least 0.
    """
    check_model(model)
    params, weight_decay = model.parameters(), number(weight_decay, "weight_decay", "[0, inf)")
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def groups_of(params: Iterable[Any], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters or groups of them -> groups in which nothing is left out."""
    if isinstance(params, Parameter | Mapping):
        raise TypeError("params: expected a list of parameters or of groups, got a single one; put it into a list")
    items = listed(params)
    if not any(isinstance(item, Mapping) for item in items):
        items = [{"params": items}]
    groups = []
    for group in items:
        if not isinstance(group, Mapping) or "params" not in group or not group.keys() <= {"params", "lr", "weight_decay"}:
            came = sorted(group) if isinstance(group, Mapping) else type(group).__name__
            raise ValueError(f"params: expected groups {{'params': [...], 'lr': ..., 'weight_decay': ...}}, got {came}")
        if isinstance(group["params"], Parameter):
            raise TypeError("params: expected a list of parameters in each group, got a single one; put it into a list")
        whole = {"lr": lr, "weight_decay": weight_decay, **group, "params": list(group["params"])}
        groups.append(whole | {name: number(whole[name], name, "[0, inf)") for name in ("lr", "weight_decay")})
    return groups


def listed(params: Iterable[Any]) -> list[Any]:
    """Raises TypeError for a model, which has parameters and is none, and for what is not several of anything."""
    if hasattr(params, "parameters"):
        raise TypeError(f"params: expected parameters, got the {type(params).__name__}; write model.parameters()")
    if not isinstance(params, Iterable):
        wrong(TypeError, "params", "parameters, as of model.parameters()", params)
    return list(params)


def check_parameters(params: list[Parameter]) -> None:
    if not params:
        raise ValueError("params: expected at least one parameter, got none")
    seen: set[Parameter] = set()
    for i, p in enumerate(params):
        if not isinstance(p, Parameter):
            raise TypeError(f"params: expected Parameters, got {type(p).__name__}")
        if p in seen:
            raise ValueError(f"params: {name_of(i, p)} comes twice and would be changed twice at every step")
        seen.add(p)


def name_of(i: int, p: Parameter) -> str:
    return f"parameter {i} ({p.name or 'no name'}, {p.shape})"
