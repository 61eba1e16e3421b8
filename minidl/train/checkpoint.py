"""All that it takes to go on with a training, in one safetensors file that is replaced in one step.

    model.*       parameters and buffers, by name
    optimizer.*   its state, by name
    best.*        the parameters and buffers of the best epoch, where that is not the last one
    average.*     the state of the average of the weights, where there is one
    metadata      the number of the format; as JSON what is no array: `facts` of the caller (step, settings, history) and the
                  states of random generators

The learning rate and the batches need no state: both are functions of the step, see `minidl.optim` and `minidl.data.Loader`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from minidl import weights
from minidl.array import Array
from minidl.io.files import Path
from minidl.io.named_arrays import compare
from minidl.io.notes import short
from minidl.nn import Module
from minidl.optim import Optimizer, WeightAverage

Facts = dict[str, Any]

FORMAT = "3"  # of the facts that `minidl.train` writes; 2 had test scores, 1 neither settings nor digests nor a number
LIMITS = {"has_uint32": 1, "pos": 624, "buffer_pos": 4}  # of what NumPy does not check in the states of its generators


def save(
    path: Path,
    model: Module,
    optimizer: Optimizer,
    facts: Mapping[str, Any],
    best: Mapping[str, Array] | None = None,
    average: WeightAverage | None = None,
) -> None:
    """Write the checkpoint, with the state of the model in its best epoch, if that is another.

    Raises OSError where that fails, on a full disk for instance; the file that was there stays.

    Raises TypeError or ValueError for facts that JSON does not hold, as NaN.
    """
    arrays = {f"model.{name}": a for name, a in model.state_dict().items()}
    arrays |= {f"optimizer.{name}": a for name, a in optimizer.state_dict().items()}
    arrays |= {f"best.{name}": a for name, a in (best or {}).items()}
    arrays |= {f"average.{name}": a for name, a in (average.state_dict() if average else {}).items()}
    generators = [rng.bit_generator.state for rng in model.generators()]
    words = {"format": FORMAT, "facts": json.dumps(facts, allow_nan=False)}
    words["generators"] = json.dumps(generators, default=np.ndarray.tolist)
    weights.save_arrays(path, arrays, words)


def load(
    path: Path,
    model: Module,
    optimizer: Optimizer,
    check: Callable[[Facts], bool] = lambda facts: False,
    average: WeightAverage | None = None,
) -> tuple[Facts, dict[str, Array]]:
    """Put model, optimizer, average and generators into the state of the checkpoint; returns its facts, and the weights of the
    best epoch.

    Everything is looked at before anything changes, the facts by `check`, which raises TypeError or ValueError for those that
    cannot be, and tells whether the best epoch is another than the last. Raises FileNotFoundError, and ValueError for a damaged
    file, one that is no checkpoint, one of another format or model, or one that `check` refuses.
    """
    arrays, metadata = weights.load_arrays(path)
    if not {"facts", "generators"} <= metadata.keys():
        raise ValueError(f"{path} is no checkpoint of a training: it holds {sorted(metadata) or 'nothing'} beside its arrays")
    if (found := metadata.get("format", "1")) != FORMAT:
        whose = "an older" if found in ("1", "2") else "another"
        raise ValueError(
            f"{path} was written by {whose} minidl: checkpoints of format {short(found)} are not gone on with, this one reads "
            f"{FORMAT}; begin a new run, from the weights if you like (model.safetensors beside it, which any minidl reads)"
        )
    facts, states = (_parsed(path, name, kind, metadata) for name, kind in (("facts", dict), ("generators", list)))
    generators = model.generators()
    if len(states) != len(generators):
        raise ValueError(f"{path}: {len(states)} random generators, the model has {len(generators)}")
    for i, (rng, state) in enumerate(zip(generators, states, strict=True)):
        try:
            _check_generator(rng, state)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: the state of random generator {i} is none of a {_kind(rng)}: {error!r}") from error
    try:
        with_best = check(facts)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    known = ("model.", "optimizer.", *(["best."] if with_best else []), *(["average."] if average else []))
    mine, optimizers, best, averages = (_part(arrays, prefix) for prefix in ("model.", "optimizer.", "best.", "average."))
    if others := [name for name in arrays if not name.startswith(known)]:
        raise ValueError(f"{path} is no checkpoint of a training: it holds the arrays {sorted(others)[:5]}")
    try:
        compare(model._state(), mine, f"state of {type(model).__name__}")
        if with_best:
            compare(model._state(), best, "state of its best epoch")
        if average is not None:
            average.check(averages)
        optimizer.load_state_dict(optimizers)  # checks all before it changes anything
    except ValueError as error:
        raise ValueError(f"{path} is of another model. {error}") from error
    model.load_state_dict(mine)
    if average is not None:
        average.load_state_dict(averages)
    for rng, state in zip(generators, states, strict=True):
        rng.bit_generator.state = state
    return facts, best


def _parsed(path: Path, name: str, kind: type, metadata: Mapping[str, str]) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"it holds {constant}")

    try:
        found = json.loads(metadata[name], parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its {name} are damaged: {error}") from error
    if not isinstance(found, kind):
        raise ValueError(f"{path}: its {name} are damaged: expected a {kind.__name__}, got {type(found).__name__}")
    return found


def _kind(rng: np.random.Generator) -> str:
    return type(rng.bit_generator).__name__


def _check_generator(rng: np.random.Generator, state: Any) -> None:
    """Raises whatever NumPy raises for it, and ValueError where NumPy takes another state than this, or one that none has."""
    trial = type(rng.bit_generator)()
    trial.state = state
    taken = json.dumps(trial.state, default=np.ndarray.tolist, sort_keys=True)
    if taken != json.dumps(state, sort_keys=True):
        raise ValueError(f"got {state}, which NumPy reads as {taken}"[:300])
    flat = state | state["state"] if isinstance(state["state"], dict) else state
    if flat.get("inc", 1) % 2 == 0:
        raise ValueError(f"inc: expected an odd number, got {flat['inc']}")
    for name, most in LIMITS.items():
        if not 0 <= flat.get(name, 0) <= most:
            raise ValueError(f"{name}: expected 0 to {most}, got {flat[name]}")


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
