"""Memory for time: what is forgotten on the way there, and computed again on the way back.

    for block in blocks:
        x = ops.recompute(block, x)

A graph keeps what every op needs for its backward. Of a block that is recomputed it keeps the input alone. When a walk comes to
it, the block is run again, and the walk goes on through the ops that this has made. So what is held of k blocks are k inputs,
and what one block needs. Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost", section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Any, TypeVar

from minidl.arguments import function
from minidl.array import Array, array_module, capturing
from minidl.contexts import Block, Setting
from minidl.core import Op, Tensor, creation, pushes, recording, tape
from minidl.ops.fused import fusing

T = TypeVar("T")


class _First:
    """What happens once, as it happens"""

    def __init__(self, outside: _Run | None) -> None:
        self.values, self.outside = list[Any](), outside

    def once(self, act: Callable[[], Any]) -> Any:
        self.values.append(act() if self.outside is None else self.outside.once(act))
        return self.values[-1]


class _Again:
    """What happened, one after the other"""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = iter(values)

    def once(self, act: Callable[[], Any]) -> Any:
        for value in self.values:
            return value
        raise RuntimeError(_OTHER)


_Run = _First | _Again
_OTHER = (
    "recompute(f, *xs): f computed something else when it was run again; expected a function of its arguments, of parameters "
    "that stay as they are until the walk back, and of nothing that it changes or draws outside of `ops.once`"
)
_run: Setting[_Run | None] = Setting("recompute", None)


def once(act: Callable[[], T]) -> T:
    """y = act(), of any shape; but where `recompute` runs a function again, what it returned before, and nothing happens.

    For what a layer draws or changes, such as a mask of its own, or running statistics. What act raises is raised.
    """
    run = _run.value
    return act() if run is None else run.once(act)


class _Recomputed(Op):
    """y = f(xs): it stands for the ops of f, and a walk meets these"""

    unfolds = True

    def __init__(self, f: Callable[..., Tensor], xs: Sequence[Tensor]) -> None:
        self.f, self.count, self.settings, self.happened = f, len(xs), copy_context(), list[Any]()

    def first(self, xs: Sequence[Tensor]) -> Tensor:
        """f(xs), forgotten but for what it takes to run it again"""
        run = _First(_run.value)
        y, leaves, ops = self._run_f(run, xs, [x.requires_grad for x in xs])
        if not ops:  # there is nothing to forget
            return next((x for x, leaf in zip(xs, leaves, strict=True) if leaf is y), y)
        self.taken = _outside(ops, leaves)
        self.inputs, self.needs = (*xs, *self.taken), (*(x.requires_grad for x in xs), *(True for _ in self.taken))
        self.made, self.where, self.y, self.happened = ops[-1].made, ops[-1].where, y.data, run.values
        for op in ops:
            op.free()  # whoever has kept a tensor of them is told
        forgotten = Tensor(self.y)
        forgotten.op, forgotten.requires_grad = self, True
        return forgotten

    def push(self, *txs: Array | None) -> Array:
        """ty from the pushes of the ops of f, one after the other"""
        ops, leaves = self._again()
        others = [Tensor(x.data, requires_grad=True) for x in self.taken]  # with no graph behind them
        _put(ops, self.taken, others)
        arrived: dict[Op | Tensor, Array] = {
            leaf: tx for leaf, tx in zip([*leaves, *others], txs, strict=True) if tx is not None
        }
        y = Tensor(self.y)
        y.op, y.requires_grad = ops[-1], True
        for _ in pushes(y, arrived):
            pass
        return arrived[ops[-1]] if ops[-1] in arrived else array_module(self.y).zeros_like(self.y)

    def unfold(self) -> list[Op]:
        """The ops of f, made again on the inputs of this one, the oldest first"""
        ops, leaves = self._again()
        _put(ops, [*leaves, *self.taken], self.inputs)
        return ops

    def _again(self) -> tuple[list[Op], list[Tensor]]:
        """The ops of f, made again, and the leaves that they begin with. Raises RuntimeError where y is another one."""
        xs = [x for x in self.inputs[: self.count] if x is not None]
        y, leaves, ops = self._run_f(_Again(self.happened), xs, self.needs[: self.count])
        same = ops and [*map(id, _outside(ops, leaves))] == [*map(id, self.taken)]
        if not same or not _equal(y.data, self.y):
            raise RuntimeError(_OTHER)
        return ops, leaves

    def _run_f(self, run: _Run, xs: Sequence[Tensor], needs: Sequence[bool]) -> tuple[Tensor, list[Tensor], list[Op]]:
        """y = f(leaves), in the settings of the first time; the leaves; and the ops that f has made, the oldest first"""
        leaves = [Tensor(x.data, requires_grad=need, name=x.name) for x, need in zip(xs, needs, strict=True)]
        start = next(creation)
        y = self.settings.copy().run(_during, run, self.f, leaves)
        if not isinstance(y, Tensor):
            raise TypeError(f"f: expected a function that returns a Tensor, got {type(y).__name__}")
        return y, leaves, [op for op in reversed(tape(y)) if op.made >= start]


def recompute(f: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    """y = f(*xs), of whatever shapes f takes and gives, without keeping what is inside: a walk back computes it again.

    f: a module, or any function that returns a Tensor. The gradients of xs, and of the parameters and tensors that f takes from
    elsewhere, have the same bits as without; a mask of a dropout is drawn once, and running statistics move once. The second
    run has the settings of the first: whether the model evaluates, is frozen, mixes precisions, and so on. Hooks on a walk meet
    the ops of f. Blocks may be nested. Inside `no_grad()` nothing is kept anyway; inside `ops.unfused()`, where layers are
    looked at, every op stays a node of its own and nothing is forgotten.

    Raises TypeError where f returns no Tensor. A walk raises RuntimeError where f computes something else the second time,
    `gradients` where it is asked about a tensor from inside.

    Chen, Xu, Zhang and Guestrin 2016, "Training deep nets with sublinear memory cost", section 3.
    """
    function(f, "f", "of Tensors")
    given = [x if isinstance(x, Tensor) else Tensor(x) for x in xs]
    if recording() and fusing():
        return _Recomputed(f, given).first(given)
    y = f(*given)
    if not isinstance(y, Tensor):
        raise TypeError(f"f: expected a function that returns a Tensor, got {type(y).__name__}")
    return y


def _during(run: _Run, f: Callable[..., Tensor], xs: Sequence[Tensor]) -> Tensor:
    with Block(None, (_run, run)):
        return f(*xs)


def _outside(ops: Sequence[Op], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Parameters, and tensors from elsewhere, that the ops take besides the leaves, in the order in which they meet them"""
    made, known = set(ops), {id(leaf) for leaf in leaves}
    found: dict[int, Tensor] = {}
    for op in ops:
        for x, need in zip(op.inputs, op.needs, strict=True):
            if need and x is not None and x.op not in made and id(x) not in known:
                found[id(x)] = x
    return list(found.values())


def _put(ops: Sequence[Op], tensors: Sequence[Tensor], others: Sequence[Tensor | None]) -> None:
    """Where the ops take one of the tensors, they now take the other one, which holds the same"""
    other_of = dict(zip(map(id, tensors), others, strict=True))
    for op in ops:
        op.inputs = tuple(other_of.get(id(x), x) for x in op.inputs)


def _equal(y: Array, before: Array) -> bool:
    """The same numbers, NaN included; where a CUDA graph is captured nothing can be read back, and it is taken for granted"""
    if (y.shape, y.dtype) != (before.shape, before.dtype):
        return False
    if capturing(y) or bool((y == before).all()):  # mostly, and of one bool for each number
        return True
    return bool(((y == before) | ((y != y) & (before != before))).all())
