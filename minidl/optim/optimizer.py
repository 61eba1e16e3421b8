"""Optimisers, learning-rate schedules and gradient clipping.

    optimiser = SGD(decay_groups(model, 5e-4), lr=0.1, momentum=0.9, nesterov=True)
    schedule = one_cycle(peak=0.2, total=steps)
    for k in range(steps):
        optimiser.lr = schedule(k)
        optimiser.zero_grad()
        loss(...).backward()
        optimiser.step()

A schedule is a function of the step alone, so a resumed run needs no state of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl import kernels
from minidl.arguments import count, counts, number, numbers
from minidl.array import Array, array_module, to_cpu
from minidl.core import Parameter
from minidl.io.named_arrays import compare, overwrite

if TYPE_CHECKING:
    from minidl.nn import Module

Schedule = Callable[[int], float]  # step, counted from 0 -> learning rate

NOT_NEGATIVE = "[0, inf)"
LARGE = 1 << 18  # numbers; gathering the gradient of a parameter as large as this costs as much as a kernel for it alone


@dataclass(frozen=True)
class _Place:
    """Where a parameter lies among its neighbours"""

    vectors: list[Array]  # of all of them the numbers, and each kind of state
    start: int
    data: Array  # the part of the first vector that is p.data


class Optimizer:
    """What the optimisers share: parameters in groups, a learning rate, and a state of arrays beside every parameter.

    params: parameters, or groups `{"params": [...], "weight_decay": ...}`, of which the second entry may be left out.

    Making an optimiser moves the parameters: small neighbours of one type come to lie side by side in one vector, and so does
    their state, so that one call of a kernel updates them all. From then on `p.data` is a view of that vector, and an array
    that was `p.data` before no longer follows. A parameter that is given another array, by hand or by the next optimiser, is
    updated to the same bits, by a call for it alone.

    Raises TypeError or ValueError where lr or a weight decay is no number of at least 0, params are none, no Parameters or no
    such groups, or one comes twice.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float, slots: Sequence[str]) -> None:
        self.lr = lr
        self.params: list[Parameter] = []
        self.weight_decay: list[float] = []  # of each parameter
        for group in _groups(params, weight_decay):
            self.params += group["params"]
            self.weight_decay += [number(group["weight_decay"], "weight_decay", NOT_NEGATIVE)] * len(group["params"])
        _check_parameters(self.params)
        for p in self.params:
            _in_rows(p)
        self.updates = np.zeros(len(self.params), np.int64)  # how many each parameter has had
        self.state = {slot: [array_module(p.data).zeros_like(p.data) for p in self.params] for slot in slots}
        self._lay_out()

    @property
    def lr(self) -> float:
        """The learning rate, which may be set before every step. Raises ValueError unless it is finite and not negative."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = number(lr, "lr", NOT_NEGATIVE)

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, weight_decay: float) -> None:
        """Change the array p and its `state` in place; g is its gradient, and this is its t-th update.

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
            p, g, state = self._together(run) if len(run) > 1 else self._alone(run[0])
            self.update(p, g, state, int(self.updates[run[0]]), self.weight_decay[run[0]])

    def _lay_out(self) -> None:
        """Put neighbours side by side. A large parameter stays where it is, and so do those that share one array."""
        sharing = Counter(id(p.data) for p in self.params)

        def kind(i: int) -> object:
            a = self.params[i].data
            return i if a.size > LARGE or sharing[id(a)] > 1 else (array_module(a), a.dtype)

        self._places: dict[int, _Place] = {}
        for _, neighbours in groupby(range(len(self.params)), kind):
            members = list(neighbours)
            if len(members) == 1:
                continue
            data, views = _side_by_side([self.params[i].data for i in members])
            vectors, starts = [data], accumulate((a.size for a in views), initial=0)
            for i, start, view in zip(members, starts, views, strict=False):
                self.params[i].data, self._places[i] = view, _Place(vectors, start, view)
            for arrays in self.state.values():
                vector, arrays[members[0] : members[-1] + 1] = _side_by_side([arrays[i] for i in members])
                vectors.append(vector)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_places"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lay_out()  # what deepcopy or pickle made of the views are arrays of their own

    def _in_place(self, i: int) -> bool:
        place = self._places.get(i)
        return place is not None and place.data is self.params[i].data

    def _runs(self) -> Iterator[list[int]]:
        """The parameters that have a gradient, in runs that lie side by side, decay alike and have had as many updates"""
        updates = self.updates.tolist()

        def kind(i: int) -> tuple[bool, int, float, int]:
            where = id(self._places[i].vectors) if self._in_place(i) else -i
            return self.params[i].grad is None, where, self.weight_decay[i], updates[i]

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
        _in_rows(p)
        return p.data, p.grad, [arrays[i] for arrays in self.state.values()]

    def zero_grad(self) -> None:
        """Let go of all gradients: the next backward starts from nothing."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Array]:
        """Copies of the state by name, such as `momentum.3` of the fourth parameter; not the learning rate, which is set.

        Each has the shape of its parameter.
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
        for name, target in self._arrays().items():
            overwrite(target, state[name])

    def _arrays(self) -> dict[str, Array]:
        slots = {f"{slot}.{i}": a for slot, arrays in self.state.items() for i, a in enumerate(arrays)}
        return {"updates": self.updates, **slots}


class SGD(Optimizer):
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr v, or p - lr (g' + momentum v) with `nesterov`

    Gradient descent with momentum, in PyTorch's form.

    Raises TypeError or ValueError for a momentum below 0, or 0 with `nesterov`, and as `Optimizer` does.

    Sutskever, Martens, Dahl and Hinton 2013, "On the importance of initialization and momentum in deep learning", section 2.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.momentum, self.nesterov = number(momentum, "momentum", NOT_NEGATIVE), nesterov
        if nesterov and self.momentum == 0:
            raise ValueError("nesterov: needs a momentum above 0, got 0")
        super().__init__(params, lr, weight_decay, ["momentum"])

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, weight_decay: float) -> None:
        """One step of the formula above, in place: p, g and `state`, (v,), of the same shape."""
        (v,) = state
        kernels.of(p).sgd_update(p, g, v, self.lr, self.momentum, self.nesterov, weight_decay)


class AdamW(Optimizer):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  p <- p - lr (weight_decay p + m_hat / (sqrt(v_hat) + eps)),
    m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t), t the number of updates of p

    Adam with decoupled weight decay.

    Raises TypeError or ValueError for betas that are not two numbers in [0, 1), an eps below 0, and as `Optimizer` does.

    Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1; Loshchilov and Hutter 2019, "Decoupled weight
    decay regularization", algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        self.betas, self.eps = numbers(betas, "betas", "[0, 1)", 2), number(eps, "eps", NOT_NEGATIVE)
        super().__init__(params, lr, weight_decay, ["m", "v"])

    def update(self, p: Array, g: Array, state: Sequence[Array], t: int, weight_decay: float) -> None:
        """One step of the formula above, in place: p, g and `state`, (m, v), of the same shape."""
        m, v = state
        kernels.of(p).adamw_update(p, g, m, v, t, self.lr, self.betas, self.eps, weight_decay)


def decay_groups(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """The usual two groups: weights of convolutions and linear layers decay; biases and batch norm (one axis) do not.

    Raises TypeError or ValueError for a weight decay that is no number of at least 0.
    """
    params, weight_decay = model.parameters(), number(weight_decay, "weight_decay", NOT_NEGATIVE)
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def clip_gradients(params: Iterable[Parameter], max_norm: float) -> float:
    """g <- g min(1, max_norm / |g|), |g| the joint L2 norm of all gradients g; returns |g| before.

    Raises ValueError, naming the first such parameter, where a gradient is not finite, TypeError or ValueError for a max_norm
    that is no number above 0.

    Pascanu, Mikolov and Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    max_norm, total, params = number(max_norm, "max_norm", "(0, inf)"), 0.0, list(params)
    for i, p in enumerate(params):
        if p.grad is not None:
            total += float(array_module(p.grad).square(p.grad, dtype="float64").sum())
            if not math.isfinite(total):
                raise ValueError(f"clip_gradients: the gradient of {_name(i, p)} is not finite")
    norm = math.sqrt(total)
    if norm > max_norm:
        for p in params:
            if p.grad is not None:
                p.grad = p.grad * (max_norm / norm)  # a new array: others may hold the old one
    return norm


# ---- learning rates as functions of the step


def constant(lr: float) -> Schedule:
    """lr(k) = lr, at every step k. Raises TypeError or ValueError where that is no number of at least 0."""
    lr = number(lr, "lr", NOT_NEGATIVE)
    return lambda k: lr


def step_decay(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """lr(k) = lr factor^(number of milestones that step k has reached).

    Raises TypeError or ValueError for an lr or a factor below 0, and for milestones that are no increasing integers from 0 on.
    """
    lr, factor = number(lr, "lr", NOT_NEGATIVE), number(factor, "factor", NOT_NEGATIVE)
    steps = counts(milestones, "milestones", 0)
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"milestones: expected increasing steps, got {milestones}")
    return lambda k: lr * factor ** sum(bool(k >= step) for step in steps)


def cosine(lr: float, total: int, warmup: int = 0) -> Schedule:
    """lr(k) = lr k / warmup in the first `warmup` steps, then lr / 2 (1 + cos(pi (k - warmup) / (total - warmup))), to 0.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts. Raises TypeError or ValueError for an lr below 0, a total
    below 1, and a warmup that is not from 0 to total - 1.
    """
    lr, total, warmup = number(lr, "lr", NOT_NEGATIVE), count(total, "total"), count(warmup, "warmup", 0)
    if warmup >= total:
        raise ValueError(f"warmup, total: expected 0 <= warmup < total, got {warmup} and {total}")
    return lambda k: _rise_and_fall(k, lr, warmup, total)


def one_cycle(peak: float, total: int, warmup: float = 0.3) -> Schedule:
    """lr(k) = peak k / w up to step w = warmup total, 30% of all, then peak / 2 (1 + cos(pi (k - w) / (total - w))), to 0.

    After Smith and Topin 2019, "Super-convergence", who fall linearly. Raises TypeError or ValueError for a peak below 0, a
    total below 1, and a warmup outside [0, 1).
    """
    peak, total, warmup = number(peak, "peak", NOT_NEGATIVE), count(total, "total"), number(warmup, "warmup", "[0, 1)")
    rise = warmup * total if warmup * total >= 1 else 0  # a rise of less than a step would be a single step with a rate of 0
    return lambda k: _rise_and_fall(k, peak, rise, total)


def _rise_and_fall(k: int, peak: float, warm: float, total: int) -> float:
    k = int(k)  # a NumPy number would make one of the learning rate
    if k < warm:
        return peak * (k / warm)
    return peak * 0.5 * (1 + math.cos(math.pi * (min(k, total) - warm) / (total - warm)))


# ---- checks


def _groups(params: Iterable[Any], weight_decay: float) -> list[dict[str, Any]]:
    """Parameters or groups of them -> groups in which nothing is left out."""
    if isinstance(params, Parameter | Mapping):
        raise TypeError("params: expected a list of parameters or of groups, got a single one; put it into a list")
    if hasattr(params, "parameters"):
        raise TypeError(f"params: expected parameters, got the {type(params).__name__}; write model.parameters()")
    items = list(params)
    if not any(isinstance(item, Mapping) for item in items):
        items = [{"params": items}]
    groups = []
    for group in items:
        if not isinstance(group, Mapping) or "params" not in group or not group.keys() <= {"params", "weight_decay"}:
            came = sorted(group) if isinstance(group, Mapping) else type(group).__name__
            raise ValueError(f"params: expected groups {{'params': [...], 'weight_decay': ...}}, got {came}")
        groups.append({"weight_decay": weight_decay, **group, "params": list(group["params"])})
    return groups


def _check_parameters(params: list[Parameter]) -> None:
    if not params:
        raise ValueError("params: expected at least one parameter, got none")
    seen: set[Parameter] = set()
    for i, p in enumerate(params):
        if not isinstance(p, Parameter):
            raise TypeError(f"params: expected Parameters, got {type(p).__name__}")
        if p in seen:
            raise ValueError(f"params: {_name(i, p)} comes twice and would be changed twice at every step")
        seen.add(p)


def _check_form(i: int, p: Parameter, what: str, a: Array) -> None:
    """Of the shape and type of p, and where p is"""
    if a.shape != p.data.shape or a.dtype != p.data.dtype or array_module(a) is not array_module(p.data):
        raise ValueError(
            f"step(): the {what} of {_name(i, p)} is {a.shape} {a.dtype}, expected {p.shape} {p.dtype} on the "
            f"{p.device}; make the optimiser after model.to(...)"
        )


def _in_rows(p: Parameter) -> None:
    """What kernels change in place lies row by row"""
    if not p.data.flags.c_contiguous:
        p.data = array_module(p.data).ascontiguousarray(p.data)


def _side_by_side(arrays: list[Array]) -> tuple[Array, list[Array]]:
    """One vector of the numbers of all, and the views of it that are equal to each"""
    vector = array_module(arrays[0]).concatenate([a.reshape(-1) for a in arrays])
    ends = accumulate(a.size for a in arrays)
    return vector, [vector[end - a.size : end].reshape(a.shape) for a, end in zip(arrays, ends, strict=True)]


def _name(i: int, p: Parameter) -> str:
    return f"parameter {i} ({p.name or 'no name'}, {p.shape})"
