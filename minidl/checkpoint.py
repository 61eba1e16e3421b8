"""All that it takes to go on with a training, in one safetensors file that is replaced in one step.

    model.*       parameters and buffers, by name
    optimizer.*   its state, by name
    metadata      what is no array, as JSON: `facts` of the caller (step, settings, history), states of random generators

The learning rate and the batches need no state: both are functions of the step, see `minidl.optim` and `minidl.data.Loader`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from minidl import weights
from minidl.nn import Module
from minidl.optim import Optimizer


def save(path: str | os.PathLike[str], model: Module, optimizer: Optimizer, facts: Mapping[str, Any]) -> None:
    """Write the checkpoint. Raises OSError where that fails, on a full disk for instance; the file that was there stays."""
    arrays = {f"model.{name}": a for name, a in model.state_dict().items()}
    arrays |= {f"optimizer.{name}": a for name, a in optimizer.state_dict().items()}
    generators = [rng.bit_generator.state for rng in model.generators()]
    weights.save_arrays(path, arrays, {"facts": json.dumps(facts), "generators": json.dumps(generators)})


def load(path: str | os.PathLike[str], model: Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put model, optimizer and generators into the state of the checkpoint; returns its facts.

    Raises FileNotFoundError, and ValueError for a damaged file, one that is no checkpoint, or one of another model.
    """
    arrays, metadata = weights.load_arrays(path)
    if not {"facts", "generators"} <= metadata.keys():
        raise ValueError(f"{path} is no checkpoint of a training: it holds {sorted(metadata) or 'nothing'} beside its arrays")
    facts, generators = json.loads(metadata["facts"]), json.loads(metadata["generators"])
    if len(generators) != len(model.generators()):
        raise ValueError(f"{path}: {len(generators)} random generators, the model has {len(model.generators())}")
    try:
        model.load_state_dict(_part(arrays, "model."))
        optimizer.load_state_dict(_part(arrays, "optimizer."))
    except ValueError as error:
        raise ValueError(f"{path} is of another model. {error}") from error
    for rng, state in zip(model.generators(), generators, strict=True):
        rng.bit_generator.state = state
    return facts  # type: ignore[no-any-return]


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
