"""Module: a function with parameters, and a tree of the modules that it is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from minidl.arguments import flag
from minidl.array import Array, is_array, is_float, to_cpu, to_device
from minidl.contexts import Block, Setting
from minidl.core import Parameter, Tensor, frozen
from minidl.io.named_arrays import compare, overwrite

T = TypeVar("T")
Told = Callable[[str, Tensor], None]

_LEAVE_FIRST = "this thread is inside `with model.evaluating():`, where the model does not train; leave that block first"
_evaluating: Setting[dict[int, Module]] = Setting("model.evaluating", {})  # by id, as a module of yours may compare otherwise
watchers: Setting[dict[int, tuple[str, Told | None, Told | None]]] = Setting("watchers", {})  # by id: name, before, after


def check_model(model: object, name: str = "model") -> None:
    """Raises TypeError for what is no Module, with what to write where it holds or makes one."""
    if isinstance(model, Module):
        return
    came = f"{model.__name__}, a {type(model).__name__}" if hasattr(model, "__name__") else type(model).__name__
    advice = ""
    if isinstance(getattr(model, "model", None), Module):
        advice = f"; write {name}.model"
    elif callable(model) and hasattr(model, "__name__"):
        advice = "; pass the net that it makes, or a Module whose forward calls it"
    raise TypeError(f"{name}: expected a minidl.nn.Module, got {came}{advice}")


class Module:
    """A subclass sets attributes in its constructor and computes y from x in `forward`; nothing else is needed.

    Attributes that are a Parameter or a Module are found by themselves, in the order in which they were set. An array that
    belongs to the state without being trained, such as a running mean, is set by `self.register_buffer(name, array)`. Names are
    those
    of the attributes, joined by dots: `layer1.0.conv1.weight`. Shapes are a matter of the subclass. Raises TypeError where a
    list, tuple, dict or set holds modules or parameters, which would hide there.
    """

    buffer_names: tuple[str, ...] = ()
    _named = False  # whether the parameters have their names

    def forward(self, x: Tensor) -> Tensor:
        """y from x, of the shapes that the docstring of the subclass tells. Raises NotImplementedError where there is none."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, x: Tensor | Array) -> Tensor:
        """`forward(x)`; an array becomes a Tensor first. With the first call parameters get their names, for errors to show."""
        if not self._named:
            self._name_parameters()
        x = x if isinstance(x, Tensor) else Tensor(x)
        return self._watched(x) if watchers.state()[1] else self.forward(x)

    def _watched(self, x: Tensor) -> Tensor:
        """`forward(x)`, of which those are told who watch this module, see `analysis.watch`"""
        told = [watched[id(self)] for watched, _ in watchers.state()[1] if id(self) in watched]
        for name, before, _ in reversed(told):
            if before is not None:
                before(name, x)
        y = self.forward(x)
        for name, _, after in told:
            if after is not None:
                after(name, y)
        return y

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(self.__dict__.get(name), Parameter) and not isinstance(value, Parameter | None):
            raise TypeError(
                f"{type(self).__name__}.{name}: is a Parameter, and {type(value).__name__} would take it out of training; "
                f"write .{name}.data[...] = ... for other values, or set another Parameter"
            )
        object.__setattr__(self, name, value)

    def register_buffer(self, name: str, array: Array) -> None:
        """Set an attribute, an array of any shape, that is saved, loaded and moved with the parameters, but not trained.

        Raises TypeError for what is no array.
        """
        if not is_array(array):
            raise TypeError(f"buffer {name!r}: expected an array, got {type(array).__name__}")
        setattr(self, name, array)
        self.buffer_names = (*self.buffer_names, name)

    # ---- what it is made of, each in definition order

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one. Raises TypeError where a list, tuple, dict or set hides some."""
        for name, value in tuple(vars(self).items()):  # as they are now: another thread may give names to parameters
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, _CONTAINERS) and _holds_parameters(value):
                raise TypeError(
                    f"{type(self).__name__}.{name}: a {type(value).__name__} hides its modules or parameters from "
                    "training; use nn.ModuleList or nn.Sequential, or attributes"
                )

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module, named "", and all below it; one that is used in several places comes once."""
        return _each_once((prefix.removesuffix("."), module) for prefix, module in self._tree(""))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter; one that is used in several places comes once, under its first name."""
        return _each_once(
            (prefix + name, value)
            for prefix, module in self._tree("")
            for name, value in tuple(vars(module).items())
            if isinstance(value, Parameter)
        )

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Every array, of any shape, that belongs to the state without being trained."""
        return _each_once(
            (prefix + name, getattr(module, name)) for prefix, module in self._tree("") for name in module.buffer_names
        )

    def modules(self) -> list[Module]:
        """This module and all below it, each once."""
        return [module for _, module in self.named_modules()]

    def parameters(self) -> list[Parameter]:
        """Every parameter, each once."""
        return [p for _, p in self.named_parameters()]

    def generators(self) -> list[np.random.Generator]:
        """The random generators of the layers (dropout), each once: their state belongs in a checkpoint of a training."""
        found = (("", v) for m in self.modules() for v in tuple(vars(m).values()) if isinstance(v, np.random.Generator))
        return [rng for _, rng in _each_once(found)]

    def name_parameters(self) -> Self:
        """Write its dotted name into the `.name` of every parameter, for errors and traces to show."""
        for name, p in self.named_parameters():
            p.name = name
        return self

    def _name_parameters(self) -> None:
        """As `name_parameters`, but a name that somebody else gave stays; and never again, for all modules below"""
        for name, p in self.named_parameters():
            p.name = name if not p.name or f".{name}".endswith(f".{p.name}") else p.name
        for module in self.modules():
            module._named = True

    def _tree(self, prefix: str) -> Iterator[tuple[str, Module]]:
        """This module and all below it, with the prefix of the names of their attributes."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._tree(f"{prefix}{name}.")

    # ---- modes and places

    def train(self, mode: bool = True) -> Self:
        """Into training: batch norm takes the statistics of the batch, dropout drops.

        Raises RuntimeError inside `evaluating()`, in its thread, TypeError for a mode that is neither True nor False.
        """
        mode, modules = flag(mode, "mode"), self.modules()
        if mode and any(module._evaluates_here() for module in modules):
            raise RuntimeError(f"{type(self).__name__}.train(): {_LEAVE_FIRST}")
        for module in modules:
            module.__dict__["training"] = mode
        return self

    def eval(self) -> Self:
        """Into evaluation: batch norm takes its running statistics, dropout lets everything through."""
        return self.train(False)

    @property
    def training(self) -> bool:
        """Whether this module trains, as `train()` and `eval()` set it; inside `evaluating()`, in its thread, it never does."""
        trains: bool = self.__dict__.get("training", True)
        return trains and not self._evaluates_here()

    @training.setter
    def training(self, mode: bool) -> None:
        if flag(mode, "training") and self._evaluates_here():
            raise RuntimeError(f"{type(self).__name__}.training = True: {_LEAVE_FIRST}")
        self.__dict__["training"] = mode

    def evaluating(self) -> Block[Self]:
        """Inside `with model.evaluating():` the model evaluates, in this thread alone: its modes are not changed.

        Other models train in there as ever, and so does this one in other threads. Raises RuntimeError for `train()` inside.
        """
        return Block(self, (_evaluating, {id(module): module for module in self.modules()}))

    def frozen(self) -> Block[Self]:
        """Inside `with model.frozen():` no parameter requires a gradient, so that only those of the input are computed.

        This holds in this thread alone; `requires_grad` is not changed, and what else has parameters keeps them. Raises
        RuntimeError where one is told to require a gradient inside.
        """
        return Block(self, (frozen, {id(p): p for p in self.parameters()}))

    def _evaluates_here(self) -> bool:
        """Whether this thread is inside a `with ....evaluating():` of this module or of one above it"""
        return _evaluating.holds(self)

    def to(self, device: str | None = None, dtype: Any = None) -> Self:
        """Parameters and buffers to `"cpu"` or `"gpu"`, those of float type to another float type; in place, returns self.

        Make the optimiser afterwards: its state stays where the parameters were when it was made. Raises TypeError for a
        dtype that is no float type, ValueError for another device, RuntimeError for "gpu" where CuPy or a GPU is missing.
        """
        if dtype is not None and not is_float(np.dtype(dtype)):
            raise TypeError(f"to(dtype=...): expected a float type, got {np.dtype(dtype)}")

        def move(a: Array) -> Array:
            a = a if device is None else to_device(a, device)
            return a if dtype is None or not is_float(a.dtype) else a.astype(dtype, copy=False)

        for p in self.parameters():
            p.data, p.grad = move(p.data), None if p.grad is None else move(p.grad)
        for module in self.modules():
            for name in module.buffer_names:
                setattr(module, name, move(getattr(module, name)))
        return self

    # ---- states

    def state_dict(self) -> dict[str, Array]:
        """Copies of parameters and buffers as NumPy arrays of their shapes, by name and in PyTorch's order."""
        return {name: np.array(to_cpu(a)) for name, a in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy the arrays of `state` into parameters and buffers of the same shape, cast. Returns (missing, unexpected) names.

        Everything is checked before anything changes: raises ValueError that lists entries that have not the shape that they
        must have, with both, and TypeError for a `state` that is no mapping. With strict=False, missing and unexpected names
        are no error and the rest is loaded.
        """
        mine = self._state()
        missing, unexpected = compare(mine, state, f"state of {type(self).__name__}", flag(strict, "strict"))
        for name, target in mine.items():
            if name in state:
                overwrite(target, state[name])
        return missing, unexpected

    def _state(self) -> dict[str, Array]:
        """The arrays themselves, by name: of each module its parameters, its buffers, then its children."""
        state: dict[str, Array] = {}
        for prefix, module in self._tree(""):
            mine = tuple(vars(module).items())
            state |= {prefix + name: value.data for name, value in mine if isinstance(value, Parameter)}
            state |= {prefix + name: getattr(module, name) for name in module.buffer_names}
        return state

    # ---- looking at it

    def extra_repr(self) -> str:
        """What `repr` shows between the brackets."""
        return ""

    def __repr__(self) -> str:
        """The tree; inside `evaluating()` or `frozen()`, what holds in this thread stands before it."""
        evaluates, parameters = self._evaluates_here(), self.parameters()
        stilled = bool(parameters) and all(p.frozen_here() for p in parameters)
        here = " and ".join(["evaluating"] * evaluates + ["frozen"] * stilled)
        return f"{here}, in this thread: {self._tree_as_text()}" if here else self._tree_as_text()

    def _tree_as_text(self) -> str:
        children = [(name, _text(child)) for name, child in self.named_children()]
        rows = [f"{name}: {text}".replace("\n", "\n  ") for name, text in children]
        inside = "\n  " + "\n  ".join(rows) + "\n" if rows else ""
        return f"{type(self).__name__}({self.extra_repr()}{inside})"


def _text(module: Module) -> str:
    """Its repr, without what holds in this thread, which stands once, before the whole tree"""
    return module._tree_as_text() if type(module).__repr__ is Module.__repr__ else repr(module)


_CONTAINERS = (list, tuple, dict, set, frozenset, deque)


def _holds_parameters(value: Any) -> bool:
    """Whether a container, or one in it, and so on, holds a Module or a Parameter"""
    inside = value.values() if isinstance(value, dict) else value
    return any(isinstance(v, Module | Parameter) or (isinstance(v, _CONTAINERS) and _holds_parameters(v)) for v in inside)


def _each_once(named: Iterator[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    seen: set[int] = set()
    for name, value in named:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value
