"""What the optimisers share: parameters in groups, a state beside each, one step for all, and state_dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from minidl.arguments import number
from minidl.array import Array, array_module, to_cpu
from minidl.core import Parameter
from minidl.io.named_arrays import compare, overwrite
from minidl.optim.flat import lay_out, put_in_rows
from minidl.optim.groups import check_parameters, groups_of, name_of


class Optimizer:
    """What the optimisers share: parameters in groups, a learning rate, and a state of arrays beside every parameter.

    params: parameters, or groups `{"params": [...], "lr": ..., "weight_decay": ...}`, of which the last two may be left out.

    A group's own learning rate is kept as a multiple of `lr`, in `lr_scale`: `optimizer.lr = schedule(step)` scales all groups,
    and each goes on with lr times its lr_scale.

    Making an optimiser moves the parameters: small neighbours of one type come to lie side by side in one vector, and so does
    their state, so that one call of a kernel updates them all. From then on `p.data` is a view of that vector, and an array
    that was `p.data` before no longer follows. A parameter that is given another array, by hand or by the next optimiser, is
    updated to the same bits, by a call for it alone.

    Raises TypeError or ValueError where a learning rate or a weight decay is no number of at least 0, lr is 0 and that of a
    group is not, params are none, no Parameters or no such groups, or one comes twice.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float, slots: Sequence[str]) -> None:
        self.lr = lr
        self.params: list[Parameter] = []
        self.weight_decay: list[float] = []  # of each parameter
        scales: list[float] = []
        for group in groups_of(params, self.lr, weight_decay):
            self.params += group["params"]
            self.weight_decay += [group["weight_decay"]] * len(group["params"])
            scales += [_multiple(group["lr"], self.lr)] * len(group["params"])
        check_parameters(self.params)
        self.lr_scale = np.array(scales)  # of each parameter: its learning rate is lr * lr_scale
        for p in self.params:
            put_in_rows(p)
        self.updates = np.zeros(len(self.params), np.int64)  # how many each parameter has had
        self.state = {slot: [array_module(p.data).zeros_like(p.data) for p in self.params] for slot in slots}
        self._places = lay_out(self.params, self.state)

    @property
    def lr(self) -> float:
        """The learning rate, which may be set before every step. Raises ValueError unless it is finite and not negative."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = number(lr, "lr", "[0, inf)")

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, lr: float, weight_decay: float) -> None:
        """Change the array p and its `state` in place; g is its gradient, lr its learning rate, and this is its t-th update.

        p, g and each of `state` have the same shape, any. Raises NotImplementedError where a subclass has none.
        """
        raise NotImplementedError

    def step(self) -> None:
        """Change every parameter by its `.grad`; one whose `.grad` is None stays as it is.

        Raises ValueError where none has a gradient: nothing would be trained.
        """
        if all(p.grad is None for p in self.params):
            raise ValueError("step(): no parameter has a gradient; call loss.backward() first, for a loss that depends on them")
        for i, p in enumerate(self.params):
            if p.grad is not None:
                _check_form(i, p, "gradient", p.grad)
                if not self._in_place(i):  # else its state is as it is
                    for slot, arrays in self.state.items():
                        _check_form(i, p, slot, arrays[i])
        for run in self._runs():
            self.updates[run] += 1
            data, g, state = self._together(run) if len(run) > 1 else self._alone(run[0])
            lr = self.lr * float(self.lr_scale[run[0]])
            self.update(data, g, state, int(self.updates[run[0]]), lr, self.weight_decay[run[0]])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_places"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._places = lay_out(self.params, self.state)  # what deepcopy or pickle made of the views are arrays of their own

    def _in_place(self, i: int) -> bool:
        place = self._places.get(i)
        return place is not None and place.data is self.params[i].data

    def _runs(self) -> Iterator[list[int]]:
        """The parameters that have a gradient, in runs that lie side by side, learn and decay alike, and are as old"""
        updates, scales = self.updates.tolist(), self.lr_scale.tolist()

        def kind(i: int) -> tuple[bool, int, float, float, int]:
            where = id(self._places[i].vectors) if self._in_place(i) else -i
            return self.params[i].grad is None, where, scales[i], self.weight_decay[i], updates[i]

        for (missing, *_), run in groupby(range(len(self.params)), kind):
            if not missing:
                yield list(run)

    def _together(self, run: list[int]) -> tuple[Array, Array, list[Array]]:
        """Numbers, gradients and state of a run, a vector each"""
        first, last = self._places[run[0]], self._places[run[-1]]
        p, *state = (vector[first.start : last.start + last.data.size] for vector in first.vectors)
        gradients = (self.params[i].grad for i in run)
        return p, array_module(p).concatenate([g.reshape(-1) for g in gradients if g is not None]), state

    def _alone(self, i: int) -> tuple[Array, Array, list[Array]]:
        p = self.params[i]
        assert p.grad is not None
        put_in_rows(p)
        return p.data, p.grad, [arrays[i] for arrays in self.state.values()]

    def zero_grad(self) -> None:
        """Let go of all gradients: the next backward starts from nothing."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Copies of the state by name, such as `momentum.3` of the fourth parameter; not the learning rate, which is set.

        Each has the shape of its parameter; `updates` and `lr_scale` have a number for each parameter, (P,).
        """
        return {name: np.array(to_cpu(a)) for name, a in self._arrays().items()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Go on from `state`, a `state_dict()`, in which each entry has the shape of its parameter.

        Raises ValueError that lists every entry that does not fit, TypeError for what is no mapping, both before any change.
        """
        compare(self._arrays(), state, f"state of {type(self).__name__}")
        updates = to_cpu(state["updates"])
        if updates.dtype.kind == "b" or int(updates.min()) < 0 or int(updates.max()) >= 2**63:
            raise ValueError(f"updates: expected counts, int64 and none below 0, got {updates.dtype} {updates[:5].tolist()}")
        if not np.isfinite(scales := to_cpu(state["lr_scale"])).all() or (scales < 0).any():
            raise ValueError(f"lr_scale: expected finite numbers of at least 0, got {scales[:5].tolist()}")
        for name, target in self._arrays().items():
            overwrite(target, state[name])

    def _arrays(self) -> dict[str, Array]:
        slots = {f"{slot}.{i}": a for slot, arrays in self.state.items() for i, a in enumerate(arrays)}
        return {"updates": self.updates, "lr_scale": self.lr_scale, **slots}


def _multiple(lr: float, of: float) -> float:
    """The learning rate of a group as a multiple of that of the optimiser, 1 where they are equal."""
    if of == 0 and lr > 0:
        raise ValueError(f"lr: expected a number above 0 where a group has its own, {lr}, which is kept as a multiple, got 0.0")
    return 1.0 if lr == of else lr / of


def _check_form(i: int, p: Parameter, what: str, a: Array) -> None:
    """Of the shape and type of p, and where p is"""
    if a.shape != p.data.shape or a.dtype != p.data.dtype or array_module(a) is not array_module(p.data):
        raise ValueError(
            f"step(): the {what} of {name_of(i, p)} is {a.shape} {a.dtype}, expected {p.shape} {p.dtype} on the "
            f"{p.device}; make the optimiser after model.to(...)"
        )
