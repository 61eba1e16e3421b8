"""Differentiation in one file: Tensor, Op, the tape, the walk back along it, and the way forward.

An op instance *is* the node of the graph. It holds its inputs and whatever `forward` saved as named attributes; `push` and
`backward` stand under its `forward`. `walk(y)` visits the nodes from y to the leaves and applies the chain rule at each,
`jvp(y, xs, txs)` visits them from the leaves to y:

    gx_i = (dy/dx_i)^T gy          gy: gradient of the final scalar with respect to this node's output
    ty   = sum_i (dy/dx_i) tx_i    tx_i: tangent of an input, how much it changes; ty: how much this node's output does

Each of the two is the other's transpose, <ty, gy> = sum_i <tx_i, gx_i>.

Second derivatives are outside the design: `backward` computes with plain arrays and records nothing.

An array that is changed in place between forward and backward is not noticed: `backward` takes the arrays as they are then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import Any

import numpy as np

from minidl import inputs, kernels
from minidl.array import Array, array_module, device_of, is_float, sum_to, to_device
from minidl.conduct import Conduct
from minidl.contexts import Block, Setting
from minidl.inputs import Line
from minidl.mixed import FLOAT32, HALF, cast, half
from minidl.sharing import apart_from

Grads = Sequence[Array | None]  # one gradient per input of an op, None where none is needed

OPS: dict[str, type[Op]] = {}  # every op class by its name; the tests demand a gradient check for each

creation = count()  # creation numbers: sorted by them, the ops stand in topological order

_recording = Setting("no_grad", True)  # whether ops record
frozen: Setting[dict[int, Parameter]] = Setting("model.frozen", {})  # by id, as tensors do not compare


def no_grad() -> Block[None]:
    """Inside `with no_grad():` (or in a function decorated with `@no_grad()`) ops keep no graph and save no memory for it."""
    return Block(None, (_recording, False))


def recording() -> bool:
    """Whether ops keep a graph."""
    return _recording.value


class Tensor(Conduct):
    """An array, the gradient that arrived at it, and the op that made it.

    `data` is the array (NumPy or CuPy). Python numbers and lists of floats become float32. `grad` is None until a
    `backward()` reaches a leaf that requires a gradient, then an array of the shape of `data`. `op` is None at a leaf.

    Raises TypeError for what are no numbers, for a Tensor, and where integers are to require a gradient.
    """

    is_parameter = False

    def __init__(self, data: Any, requires_grad: bool = False, name: str = "") -> None:
        self.data: Array = inputs.numbers(data, requires_grad)
        self.grad: Array | None = None
        self.op: Op | None = None
        self.requires_grad = requires_grad
        self.name = name

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis; () of a scalar."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self.data.size

    @property
    def dtype(self) -> Any:
        """The type of the elements, NumPy's."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """`"cpu"` or `"gpu"`."""
        return device_of(self.data)

    def item(self) -> float:
        """The only element, as a Python number. Raises ValueError if there are several."""
        return self.data.item()

    def detach(self) -> Tensor:
        """A leaf with the same array, so of the same shape, and no history."""
        return Tensor(self.data, name=self.name)

    def to(self, device: str | None = None, dtype: Any = None) -> Tensor:
        """This tensor on `"cpu"` or `"gpu"`, or in another float type, of the same shape; gradients flow back.

        Raises TypeError for another type, ValueError for another device, RuntimeError for "gpu" where CuPy or a GPU is missing.
        """
        to_dtype = self.dtype if dtype is None else np.dtype(dtype)
        to_place = self.device if device is None else device
        if not is_float(self.dtype) and is_float(to_dtype):  # integers and bools, through which no gradient flows
            return Tensor(to_device(self.data, to_place).astype(to_dtype), name=self.name)
        return self if (to_place, to_dtype) == (self.device, self.dtype) else To(to_place, to_dtype)(self)

    def backward(self, gy: Array | None = None, keep_graph: bool = False) -> None:
        """Add d self / d leaf to `leaf.grad` for every leaf that requires it.

        gy: the gradient that arrives here, of the shape of `data`; 1 by default, for a scalar. The graph is given back as
        it is used, so that its memory is free for the next step, unless `keep_graph`: then backward may run again.
        What is raised is as in `walk`.
        """
        for step in walk(self, gy, keep_graph=keep_graph, apart=False):
            del step  # or its arrays would live on through the next step

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        made = f" made by {type(self.op).__name__}" if self.op else ""
        values = f" {self.data}" if self.size <= 16 else ""
        return f"<{type(self).__name__}{name} {self.shape} {self.dtype}{made}{values}>"

    def __add__(self, other: Any) -> Tensor:
        return Add()(self, _operand(other, self))

    def __radd__(self, other: Any) -> Tensor:
        return Add()(_operand(other, self), self)

    def __sub__(self, other: Any) -> Tensor:
        return Sub()(self, _operand(other, self))

    def __rsub__(self, other: Any) -> Tensor:
        return Sub()(_operand(other, self), self)

    def __mul__(self, other: Any) -> Tensor:
        return Mul()(self, _operand(other, self))

    def __rmul__(self, other: Any) -> Tensor:
        return Mul()(_operand(other, self), self)

    def __truediv__(self, other: Any) -> Tensor:
        return Div()(self, _operand(other, self))

    def __rtruediv__(self, other: Any) -> Tensor:
        return Div()(_operand(other, self), self)

    def __neg__(self) -> Tensor:
        return Neg()(self)

    def __pow__(self, exponent: Any) -> Tensor:
        return Pow(inputs.exponent(exponent))(self)

    def __matmul__(self, other: Any) -> Tensor:
        return MatMul()(self, _operand(other, self))

    def __rmatmul__(self, other: Any) -> Tensor:
        return MatMul()(_operand(other, self), self)

    def __getitem__(self, index: Any) -> Tensor:
        return GetItem(index)(self)


class Parameter(Tensor):
    """A leaf that training changes: a Tensor that requires a gradient and that a Module finds by itself."""

    is_parameter = True

    def __init__(self, data: Any, name: str = "") -> None:
        super().__init__(data, requires_grad=True, name=name)
        if not self.data.flags.c_contiguous:  # which optimisers change in place, row by row
            self.data = self.data.copy(order="C")

    @property
    def requires_grad(self) -> bool:
        """Whether training changes it, as it was set; inside `frozen` blocks, in their thread, it requires none."""
        required: bool = self.__dict__["requires_grad"]
        return required and (not frozen.state()[1] or not self.frozen_here())

    @requires_grad.setter
    def requires_grad(self, required: bool) -> None:
        if required and self.frozen_here():
            where = "this thread is inside `with model.frozen():`"
            raise RuntimeError(f"{type(self).__name__}.requires_grad = True: {where}; leave that block first")
        self.__dict__["requires_grad"] = required

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, frozen in this thread>" if self.frozen_here() else super().__repr__()

    def frozen_here(self) -> bool:
        """Whether this thread is inside a block that froze it"""
        return frozen.holds(self)


class Op:
    """One call of one operation, and the node it leaves in the graph.

    A subclass writes `forward(*arrays) -> array`, `push(*txs) -> ty` and `backward(gy) -> one gradient per input`; what is no
    float tensor (strides, labels, indices) goes to its constructor. Of txs, one tangent per input, those are None whose input
    does not change; gradients that `needs` says nobody wants may be None. The first line of each docstring is the formula.

    A call takes tensors of the shapes that the op wants. It raises TypeError where one holds no floats, or another type of them
    than the others, and ValueError where one is empty or on another device.
    """

    inputs: tuple[Tensor | None, ...] = ()
    needs: tuple[bool, ...] = ()
    made: int = -1  # creation number
    where: Line | None = None  # the line outside minidl that called for this op
    freed = unfolds = False  # unfolds: whether it stands for other ops, which a walk that comes to it makes by `unfold`
    precision: tuple[str, ...] = ()  # what the inputs are inside `minidl.mixed`, over and over; (): as they come

    def __init_subclass__(cls) -> None:
        if not cls.__name__.startswith("_"):  # a shared base is no op
            OPS[cls.__name__] = cls
        own = vars(cls)
        if "push" not in own and ("forward" in own or "backward" in own):
            cls.push = Op.push  # type: ignore[method-assign]  # that of its base class belongs to another forward

    def forward(self, *xs: Any) -> Array:
        """y from the arrays xs of the inputs, of whatever shapes the op takes."""
        raise NotImplementedError(f"write forward in class {type(self).__name__}: y from the arrays of its inputs")

    def push(self, *txs: Any) -> Array:
        """ty[m] = sum_k dy[m]/dx[k] tx[k]

        Summed over all inputs x: ty has the shape of y, and txs, the tangents, have those of the inputs.
        """
        raise NotImplementedError(f"write push in class {type(self).__name__}: ty = sum_i (dy/dx_i) tx_i over its inputs")

    def backward(self, gy: Array) -> Grads:
        """gx[k] = sum_m dy[m]/dx[k] gy[m]

        For each input x: gy has the shape of y, and each gx that of its x.
        """
        raise NotImplementedError(f"write backward in class {type(self).__name__}: gx_i = (dy/dx_i)^T gy for each input")

    def gate(self) -> Array | None:
        """Which entries let the gradient through (a relu's open gates), bools of the shape of y; None: it has no gates."""
        return None

    def parts(self) -> tuple[type[Op], ...]:
        """The ops that this one is made of, in their order; () for a single op."""
        return ()

    def unfold(self) -> list[Op]:
        """The ops that it stands for, oldest first, the last of which gives y; of one that `unfolds`."""
        raise NotImplementedError(f"write unfold in class {type(self).__name__}: the ops that it stands for, the oldest first")

    def tangents(self, *txs: Array | None) -> list[Any]:
        """txs, of the shape of its input each, with zeros in place of None; None stays for an input that is not there."""
        return [
            array_module(x.data).zeros_like(x.data) if tx is None and x is not None else tx
            for x, tx in zip(self.inputs, txs, strict=False)
        ]

    def __call__(self, *given: Any) -> Tensor:
        xs = tuple(x if x is None or isinstance(x, Tensor) else Tensor(x) for x in given)
        mix = half() is not None
        if mix:
            xs = cast(xs, self.precision)
        records = _recording.state()[0]
        self.needs = tuple([x is not None and records and x.requires_grad for x in xs])
        try:
            inputs.check(xs, mix=mix and self.precision != ())
            y = Tensor(self.forward(*[None if x is None else x.data for x in xs]))
        except Exception as error:
            error.add_note(inputs.note(self, xs))
            raise
        if any(self.needs):
            self.inputs, self.made, self.where = xs, next(creation), inputs.users_line()
            y.op, y.requires_grad = self, True
        return y

    def free(self) -> None:
        """Let go of the inputs and of all that forward saved."""
        where = self.where
        self.__dict__.clear()
        self.where, self.freed = where, True

    def __repr__(self) -> str:
        return f"<{inputs.in_words(self, self.inputs, self.where)}>"


@dataclass(slots=True)
class Step:
    """What one step of a walk knows: the op, the gradient gy of its output, and those of its inputs, gxs, which may be changed.

    Each has the shape of what it is the gradient of; None of an input that needs none.
    """

    op: Op
    gy: Array
    gxs: list[Array | None]


def tape(y: Tensor) -> list[Op]:
    """Every op that y, of any shape, depends on, newest first: the order of creation is a topological one.

    An explicit stack, no recursion: a chain of 10,000 ops is no problem. Raises RuntimeError where the graph was given back.
    """
    found: set[Op] = set()
    todo = [y.op]
    while todo:
        op = todo.pop()
        if op is not None and op not in found:
            if op.freed:
                raise RuntimeError(
                    f"the graph behind {type(op).__name__} (called at {inputs.place(op.where)}) was given back by an earlier "
                    "backward(); run the forward pass again, or call that backward with keep_graph=True"
                )
            found.add(op)
            for x in op.inputs:
                todo.append(None if x is None else x.op)
    return sorted(found, key=attrgetter("made"), reverse=True)


def walk(
    y: Tensor,
    gy: Array | None = None,
    *,
    leaves: dict[Tensor, Array] | None = None,
    keep_graph: bool = True,
    apart: bool = True,
) -> Iterator[Step]:
    """Walk back from y to the leaves, one op a step; the body of the loop over it is the hook.

    Each `Step` shows the op, `gy` and the gradients `gxs` of the inputs before they travel on; changing the list, or an array
    in it, changes what travels (guided backpropagation is no more than this), and nothing else: no two arrays that the walk
    hands out share memory. At the end the gradients of the leaves are added to `leaf.grad`, or, where a dictionary `leaves`
    is given, stored there: an error on the way leaves every leaf as it was.

    apart=False: arrays are shared where that saves a copy, for a loop that changes none of them.

    gy: of the shape of y; 1 by default, for a scalar. Raises ValueError where y requires no gradient, gy is missing or does not
    fit y, or an op returns a gradient of another shape or type than its input, or another number of them, TypeError for gy that
    is no array, or where an op returns no tuple of arrays, RuntimeError where the graph was given back.
    """
    gy = inputs.first_gradient(y, gy)
    arriving: dict[Op | Tensor, Array] = {y.op or y: gy}  # at an op, or at a leaf
    todo = tape(y)[::-1]
    while todo:
        gy = arriving.pop(op := todo.pop(), None)
        if gy is None:  # a hook set every gradient on the way here to None
            continue
        if op.unfolds:
            todo += op.unfold()
            arriving[todo[-1]] = gy
            if not keep_graph:
                op.free()
            continue
        try:
            gxs = op.backward(gy)
            if not isinstance(gxs, tuple | list) or len(gxs) != len(op.inputs):
                inputs.refuse_gradients(gxs, len(op.inputs))
            step = Step(op, gy, list(gxs))
            if apart:
                step.gxs = apart_from([gy], step.gxs)
            yield step
            for x, need, gx in zip(op.inputs, op.needs, step.gxs, strict=True):
                if x is None or not need or gx is None:
                    continue
                if isinstance(gx, Conduct) or getattr(gx, "shape", None) != x.data.shape or gx.dtype != x.data.dtype:
                    inputs.refuse_misfit(gx, x)
        except Exception as error:
            error.add_note(f"in the backward of {op!r}, gradient {gy.shape} {gy.dtype}")
            raise
        handed_on, onward = {id(gy)}, list(zip(op.inputs, op.needs, step.gxs, strict=True))
        if not keep_graph:
            op.free()
        del step, gy, gxs  # before the sums need room
        for x, need, gx in onward:
            if x is None or not need or gx is None:
                continue
            to = x.op or x
            first = to not in arriving
            if first and (apart or (x.op is None and (id(gx) in handed_on or gx.base is not None))):
                gx = gx.copy()  # the receiver's own: what was handed out stays as it is, and no leaf shares its gradient
            handed_on.add(id(gx))
            gx = gx if first else kernels.of(gx).add(arriving[to], gx)
            arriving[to] = np.asarray(gx) if isinstance(gx, np.generic) else gx  # NumPy makes scalars of 0-d sums
        del onward, x, gx  # before the next op needs room
    for leaf, gx in arriving.items():
        assert isinstance(leaf, Tensor)
        if leaves is not None:
            leaves[leaf] = gx
        else:
            leaf.grad = gx if leaf.grad is None else array_module(gx).asarray(leaf.grad + gx)  # of a 0-d sum, too


def gradients(y: Tensor, xs: Sequence[Tensor], gy: Array | None = None, keep_graph: bool = True) -> list[Array]:
    """dy/dx for each x of xs, leaf or not, as arrays; zeros where y does not depend on x. Leaves every `.grad` alone.

    Each has the shape of its x; gy and all else that is raised are as in `walk`. Without `keep_graph` the graph is given back
    as it is used, which takes less memory. Raises TypeError where xs are no Tensors, ValueError where one requires no gradient.
    """
    inputs.check_required("gradients(y, xs)", xs)
    leaves, inner = dict[Tensor, Array](), dict[Op, Array]()
    wanted = {x.op for x in xs if x.op is not None}
    for step in walk(y, gy, leaves=leaves, keep_graph=keep_graph, apart=False):
        if step.op in wanted:
            inner[step.op] = step.gy
            if len(inner) == len(wanted) and all(x.op is not None for x in xs):
                break  # what lies behind leads to none of them
    found = [leaves.get(x) if x.op is None else inner.get(x.op) for x in xs]
    found = [array_module(x.data).zeros_like(x.data) if g is None else g for x, g in zip(xs, found, strict=True)]
    return [g for g in apart_from([], found) if g is not None]


def pushes(y: Tensor, arrived: dict[Op | Tensor, Array]) -> Iterator[tuple[Op, list[Array | None], Array]]:
    """Push tangents forward to y, the oldest op first: op, txs and ty of each that something changes.

    arrived: the tangent of each tensor, by its op or, of a leaf, by itself. Those of the outputs are added on the way.
    """
    ops = tape(y)[::-1]
    outputs = {x.op: x for op in ops for x in op.inputs if x is not None and x.op is not None} | {y.op: y}
    for op in ops:
        txs = [None if x is None else arrived.get(x.op or x) for x in op.inputs]
        if all(tx is None for tx in txs):
            continue
        try:
            ty, like = op.push(*txs), outputs[op].data
            if ty.shape != like.shape or ty.dtype != like.dtype:
                raise ValueError(f"push returned {ty.shape} {ty.dtype} for an output of {like.shape} {like.dtype}")
        except Exception as error:
            error.add_note(f"in the push of {op!r}, tangents {', '.join('None' if t is None else str(t.shape) for t in txs)}")
            raise
        ty = array_module(ty).asarray(ty)  # NumPy makes scalars of 0-d sums
        yield op, txs, ty
        arrived[op] = array_module(ty).asarray(ty + arrived[op]) if op in arrived else ty


def jvp(y: Tensor, xs: Sequence[Tensor], txs: Sequence[Array]) -> Array:
    """ty = sum_i (dy/dx_i) tx_i: how y changes when each x of xs, leaf or not, changes by a small tx. Forward mode.

    txs: one array for each x, of its shape and type. Zeros where y depends on none of them. It is the transpose of
    `gradients`: <jvp(y, xs, txs), gy> = sum_i <tx_i, gx_i> with gxs = gradients(y, xs, gy). The graph stays as it is.

    Raises ValueError where y or an x requires no gradient (nothing was recorded then), or a tx does not fit its x, TypeError
    where xs are no Tensors or a tx is no array, RuntimeError where the graph was given back, NotImplementedError where an op on
    the way has no `push`.
    """
    if not y.requires_grad:
        raise ValueError(f"jvp(y, xs, txs): no graph leads to y, which depends on nothing that requires a gradient: {y!r}")
    arrived: dict[Op | Tensor, Array] = {}
    for x, tx in zip(xs, inputs.tangents(xs, txs), strict=True):
        at = x.op or x
        arrived[at] = arrived[at] + tx if at in arrived else tx
    for _ in pushes(y, arrived):
        pass
    ty = arrived.get(y.op or y)
    xp = array_module(y.data)
    return xp.zeros_like(y.data) if ty is None else apart_from(list(txs), [xp.asarray(ty)])[0]


# ---- arithmetic, the only ops with operators; shapes broadcast as in NumPy


def _operand(other: Any, like: Tensor) -> Any:
    """A number on either side of an operator takes the type and the place of the tensor on the other."""
    is_number = isinstance(other, int | float | np.generic)
    return Tensor(array_module(like.data).asarray(other, dtype=like.dtype)) if is_number else other


def sum_of(*parts: Array | None) -> Any:
    """The sum of those that are there: of what the tangent of each input adds to that of the output."""
    there = [part for part in parts if part is not None]
    return sum(there[1:], there[0]) if there else None


class Add(Op):
    """y = a + b"""

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return kernels.of(a).add(a, b) if a.shape == b.shape else a + b

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta + tb"""
        ta, tb = self.tangents(ta, tb)
        return ta + tb

    def backward(self, gy: Array) -> Grads:
        """ga = gy, gb = gy: both get all of it, summed over the axes along which they were repeated"""
        return [sum_to(gy, shape) if need else None for shape, need in zip(self.shapes, self.needs, strict=True)]


class Sub(Op):
    """y = a - b"""

    def forward(self, a: Array, b: Array) -> Array:
        self.shapes = a.shape, b.shape
        return a - b

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta - tb"""
        ta, tb = self.tangents(ta, tb)
        return ta - tb

    def backward(self, gy: Array) -> Grads:
        """ga = gy, gb = -gy, summed over the axes along which they were repeated"""
        ga = sum_to(gy, self.shapes[0]) if self.needs[0] else None
        gb = sum_to(-gy, self.shapes[1]) if self.needs[1] else None
        return ga, gb


class Mul(Op):
    """y = a * b"""

    def forward(self, a: Array, b: Array) -> Array:
        self.a, self.b = a, b
        return a * b

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta b + a tb"""
        return sum_of(None if ta is None else ta * self.b, None if tb is None else self.a * tb)

    def backward(self, gy: Array) -> Grads:
        """ga = gy b, gb = gy a, summed over the axes along which they were repeated"""
        ga = sum_to(gy * self.b, self.a.shape) if self.needs[0] else None
        gb = sum_to(gy * self.a, self.b.shape) if self.needs[1] else None
        return ga, gb


class Div(Op):
    """y = a / b"""

    def forward(self, a: Array, b: Array) -> Array:
        self.a_shape, self.b = a.shape, b
        self.y = a / b
        return self.y

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta / b - tb y / b"""
        return sum_of(None if ta is None else ta / self.b, None if tb is None else -tb * (self.y / self.b))

    def backward(self, gy: Array) -> Grads:
        """ga = gy / b, gb = -gy y / b, summed over the axes along which they were repeated

        b^2 would overflow where b does not.
        """
        ga = sum_to(gy / self.b, self.a_shape) if self.needs[0] else None
        gb = sum_to(-gy * (self.y / self.b), self.b.shape) if self.needs[1] else None
        return ga, gb


class Neg(Op):
    """y = -x"""

    def forward(self, x: Array) -> Array:
        return -x

    def push(self, tx: Array) -> Array:
        """ty = -tx"""
        return -tx

    def backward(self, gy: Array) -> Grads:
        """gx = -gy"""
        return (-gy,)


class Pow(Op):
    """y = x^n, n a number"""

    precision = (FLOAT32,)

    def __init__(self, n: float) -> None:
        self.n = n

    def forward(self, x: Array) -> Array:
        self.x = x
        return x**self.n

    def push(self, tx: Array) -> Array:
        """ty = n x^(n-1) tx"""
        return tx * self.slope()

    def backward(self, gy: Array) -> Grads:
        """gx = n x^(n-1) gy"""
        return (gy * self.slope(),)

    def slope(self) -> Array:
        """dy/dx = n x^(n-1), and 0 for n = 0, where 0 x^-1 would be nan at x = 0"""
        return array_module(self.x).zeros_like(self.x) if self.n == 0 else self.n * self.x ** (self.n - 1)


class MatMul(Op):
    """y[..., i, k] = sum_j a[..., i, j] b[..., j, k], the leading axes broadcast; both have at least two axes"""

    precision = (HALF,)

    def forward(self, a: Array, b: Array) -> Array:
        if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul: expected a (..., I, J) and b (..., J, K), got {a.shape} and {b.shape}")
        self.a, self.b = a, b
        return kernels.of(a).matmul(a, b)

    def push(self, ta: Array | None, tb: Array | None) -> Array:
        """ty = ta b + a tb, products of matrices"""
        k = kernels.of(self.a)
        return sum_of(None if ta is None else k.matmul(ta, self.b), None if tb is None else k.matmul(self.a, tb))

    def backward(self, gy: Array) -> Grads:
        """ga = gy b^T, gb = a^T gy, summed over the leading axes along which they were repeated"""
        k = kernels.of(gy)
        ga = sum_to(k.matmul(gy, self.b.swapaxes(-1, -2)), self.a.shape) if self.needs[0] else None
        gb = sum_to(k.matmul(self.a.swapaxes(-1, -2), gy), self.b.shape) if self.needs[1] else None
        return ga, gb


class GetItem(Op):
    """y = x[index], index as in NumPy: integers, slices, None, ..., and arrays of integers or bools"""

    def __init__(self, index: Any) -> None:
        parts, single = index if isinstance(index, tuple) else (index,), int | np.integer | slice | None | type(...)
        inputs.check_index(parts)
        self.index = index
        self.repeats = not all(isinstance(i, single) for i in parts)  # any sequence may name an element twice

    def forward(self, x: Array) -> Array:
        self.shape = x.shape
        return x[self.index]

    def push(self, tx: Array) -> Array:
        """ty = tx[index]"""
        return tx[self.index]

    def backward(self, gy: Array) -> Grads:
        """gx[index] += gy: gy at the places that were taken, 0 elsewhere"""
        xp = array_module(gy)
        gx = xp.zeros(self.shape, gy.dtype)
        if self.repeats:
            xp.add.at(gx, self.index, gy)
        else:
            gx[self.index] = gy
        return (gx,)


class To(Op):
    """y = x on another device or in another float type"""

    def __init__(self, device: str, dtype: Any) -> None:
        if not is_float(np.dtype(dtype)):
            raise TypeError(f"to(dtype=...): expected a float type, got {np.dtype(dtype)}")
        self.device, self.dtype = device, dtype

    def forward(self, x: Array) -> Array:
        self.came_from = device_of(x), x.dtype
        return to_device(x, self.device).astype(self.dtype, copy=False)

    def push(self, tx: Array) -> Array:
        """ty = tx, on that device or in that type"""
        return to_device(tx, self.device).astype(self.dtype, copy=False)

    def backward(self, gy: Array) -> Grads:
        """gx = gy, on the device of x and in its type"""
        device, dtype = self.came_from
        return (to_device(gy, device).astype(dtype, copy=False),)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """y[..., i, k] = sum_j a[..., i, j] b[..., j, k]: (..., I, J) x (..., J, K) -> (..., I, K); also `a @ b`.

    Raises ValueError for shapes that do not fit.
    """
    return MatMul()(a, b)


def getitem(x: Tensor, index: Any) -> Tensor:
    """y = x[index], x of any shape, indexed as in NumPy. Elements that are named twice receive the sum of both gradients.

    Raises TypeError for an index that is a Tensor, IndexError for one that x has not.
    """
    return GetItem(index)(x)
