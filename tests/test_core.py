"""The tape, the walk along it, leaves and their gradients, memory, and errors that name the user's line."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl import OPS, Op, Parameter, Tensor, core, gradients, inputs, no_grad, ops, tape, walk
from minidl.array import Array
from minidl.check import gradient_check
from minidl.core import Grads


def leaf(*shape: int, seed: int = 0, name: str = "") -> Tensor:
    return Tensor(np.random.default_rng(seed).uniform(0.5, 2, shape), requires_grad=True, name=name)


def line_after() -> int:
    """The number of the line behind the one that calls."""
    return sys._getframe(1).f_lineno + 1


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Only reference counts free memory: what survives is held, or in a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


# ---- tensors


def test_lists_become_float32_and_arrays_stay_what_they_are() -> None:
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor(3.5).shape == ()
    assert Tensor([1, 2]).dtype.kind == "i"
    for dtype in (np.float32, np.float64, np.uint8):
        array = np.ones(3, dtype)
        assert Tensor(array).data is array
    assert isinstance(Tensor(np.float64(2)).data, np.ndarray)


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(TypeError, match=r"data is a Tensor already; use t\.detach\(\)"):
        Tensor(Tensor(1.0))
    eight_bits = pytest.importorskip("ml_dtypes").float8_e5m2  # of NumPy's kind "f", as long double is
    strange = (np.ones(2, eight_bits), "float8_e5m2"), (np.ones(2, np.longdouble), np.dtype(np.longdouble).name)
    for data, dtype in (("abc", "<U3"), (np.ones(2, complex), "complex128"), ([None], "object"), *strange):
        with pytest.raises(TypeError, match=f"expected numbers, got dtype {dtype}"):
            Tensor(data)
    with pytest.raises(TypeError, match="only float arrays have gradients, got dtype uint8"):
        Tensor(np.ones(3, np.uint8), requires_grad=True)


def test_what_a_tensor_shows() -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), name="x")
    assert (x.shape, x.ndim, x.size, len(x), x.device) == ((2, 3), 2, 6, 2, "cpu")
    assert repr(x).startswith("<Tensor 'x' (2, 3) float64 [[0.")
    assert repr(ops.exp(leaf(100))) == "<Tensor (100,) float64 made by Exp>"
    assert repr(Parameter(np.ones((5, 5), np.float32), "w")) == "<Parameter 'w' (5, 5) float32>"
    assert ops.sum(x).item() == 15.0
    assert [row.shape for row in x] == [(3,), (3,)]
    assert x.detach().data is x.data
    with pytest.raises(ValueError, match="size 1"):
        x.item()


def test_to_another_float_type_and_back() -> None:
    x = leaf(3)
    y = x.to(dtype=np.float32)
    assert y.dtype == np.float32
    ops.sum(y * 2).backward()
    assert x.grad is not None and x.grad.dtype == np.float64
    assert x.to(dtype="float64") is x
    with pytest.raises(TypeError, match=r"to\(dtype=...\): expected a float type, got float8_e5m2"):
        Tensor(np.ones(2)).to(dtype=pytest.importorskip("ml_dtypes").float8_e5m2)
    with pytest.raises(TypeError, match=r"to\(dtype=...\): expected a float type, got int64"):
        x.to(dtype=np.int64)
    with pytest.raises(ValueError, match=r"device: expected one of .*, got 'tpu'"):
        x.to("tpu")


# ---- graphs of every shape


def test_a_chain_of_ten_thousand_ops() -> None:
    x = leaf(2)
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    assert len(tape(y)) == 10_000
    ops.sum(y).backward()
    np.testing.assert_allclose(x.grad, np.full(2, 1.0001**10_000))


def test_a_long_chain_is_released_without_recursion(no_gc: None) -> None:
    y = leaf(1)
    for _ in range(100_000):
        y = -y
    op = weakref.ref(tape(y)[-1])
    assert op() is not None
    del y
    assert op() is None


def test_diamonds() -> None:
    x = leaf(2, 3)
    y = x
    for _ in range(40):  # 2^40 paths
        y = (y + y * 0.5) * 0.7
    ops.sum(y).backward()
    np.testing.assert_allclose(x.grad, np.full((2, 3), 1.05**40))
    gradient_check(lambda x: ops.exp(x) * ops.tanh(x) + ops.sum(x) / x, [x])


def test_the_gradient_waits_for_all_that_uses_a_tensor() -> None:
    """An op created early but used late, and one used at once."""
    x = leaf(3)
    early = ops.exp(x)
    late = ops.tanh(x)
    y = ops.sum(late * early + early)
    seen = [type(step.op).__name__ for step in walk(y)]
    assert seen == ["Sum", "Add", "Mul", "Tanh", "Exp"]
    np.testing.assert_allclose(
        x.grad, np.exp(x.data) * (np.tanh(x.data) + 1) + np.exp(x.data) * (1 - np.tanh(x.data) ** 2), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("f", "derivative"),
    [
        (lambda x: x * x, lambda x: 2 * x),
        (lambda x: x + x, lambda x: 2 + 0 * x),
        (lambda x: x - x, lambda x: 0 * x),
        (lambda x: x / x, lambda x: 0 * x),
        (lambda x: ops.concat([x, x], axis=0), lambda x: 2 + 0 * x),
        (lambda x: ops.maximum(x, x), lambda x: 1 + 0 * x),
    ],
)
def test_a_tensor_used_twice_by_one_op(f: Any, derivative: Any) -> None:
    x = leaf(2, 3)
    ops.sum(f(x)).backward()
    np.testing.assert_allclose(x.grad, derivative(x.data), atol=1e-12)


def test_a_leaf_without_history_gets_a_copy_of_the_gradient() -> None:
    x, gy = leaf(3), np.ones(3)
    x.backward(gy)
    assert x.grad is not None and not np.shares_memory(x.grad, gy)
    x.backward(gy)
    np.testing.assert_array_equal(x.grad, [2, 2, 2])
    np.testing.assert_array_equal(gy, np.ones(3))


# ---- backward, once and again


def test_gradients_add_up_until_they_are_reset() -> None:
    x = leaf(3)
    for _ in range(3):
        ops.sum(x * 2).backward()
    np.testing.assert_array_equal(x.grad, [6, 6, 6])
    x.grad = None
    ops.sum(x).backward()
    np.testing.assert_array_equal(x.grad, [1, 1, 1])


def test_a_kept_graph_serves_again() -> None:
    x = leaf(3)
    y = ops.sum(ops.exp(x))
    y.backward(keep_graph=True)
    y.backward(keep_graph=True)
    np.testing.assert_allclose(x.grad, 2 * np.exp(x.data))
    y.backward()
    np.testing.assert_allclose(x.grad, 3 * np.exp(x.data))


def test_a_used_graph_says_whose_it_was() -> None:
    x = leaf(3)
    line = line_after()
    h = ops.exp(x)
    y, z = ops.sum(h), ops.mean(h)
    y.backward()
    before = x.grad.copy()
    again = r"the graph behind {} \(called at .*test_core.py:{} in .*was given back by an earlier backward\(\); run the forward"
    with pytest.raises(RuntimeError, match=again.format("Sum", line + 1)):
        y.backward()
    with pytest.raises(RuntimeError, match=again.format("Exp", line)):
        z.backward()
    np.testing.assert_array_equal(x.grad, before)


def test_backward_needs_a_gradient_to_start_with() -> None:
    y = ops.exp(leaf(2, 3))
    for gy, complaint in (
        (None, r"gy: needed where the output is no scalar; y has shape \(2, 3\)"),
        (np.ones((3, 2)), r"gy: expected \(2, 3\) float64 on the cpu, as y is, got \(3, 2\) float64"),
        (np.ones((2, 3), np.float32), r"expected \(2, 3\) float64 .* got \(2, 3\) float32"),
    ):
        with pytest.raises(ValueError, match=complaint):
            y.backward(gy)
    with pytest.raises(TypeError, match="gy: expected an array, got Tensor"):
        y.backward(Tensor(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"no gradient to compute: .* depends on nothing that requires one"):
        ops.sum(Tensor(np.ones(3))).backward()


def test_only_what_requires_a_gradient_gets_one() -> None:
    x, w = leaf(2, 3), Tensor(np.ones((4, 3)))
    y = ops.linear(x, w)
    assert y.op is not None and y.op.needs == (True, False, False)
    assert y.op.backward(np.ones((2, 4)))[1] is None
    ops.sum(y).backward()
    assert x.grad is not None and w.grad is None


# ---- gradients()


def test_gradients_leaves_grad_alone() -> None:
    x, w, elsewhere = leaf(3), leaf(3, seed=1), leaf(2)
    h = ops.exp(x)
    y = ops.sum(h * w)
    x.grad = np.full(3, 5.0)
    gx, gh, gy, ge, gx_again = gradients(y, [x, h, y, elsewhere, x])
    np.testing.assert_allclose(gx, h.data * w.data)
    np.testing.assert_array_equal(gx, gx_again)
    np.testing.assert_array_equal(gh, w.data)
    np.testing.assert_array_equal(gy, 1.0)
    np.testing.assert_array_equal(ge, [0, 0])
    np.testing.assert_array_equal(x.grad, [5, 5, 5])
    assert w.grad is None and elsewhere.grad is None
    y.backward()  # the graph is still there
    np.testing.assert_allclose(x.grad, 5 + gx)


def test_gradients_of_an_inner_tensor_off_the_path_are_zero() -> None:
    x = leaf(3)
    aside = ops.exp(x)
    assert not gradients(ops.sum(ops.tanh(x)), [aside])[0].any()


def test_gradients_of_what_needs_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"xs\[1\] does not require a gradient: <Tensor 'frozen'"):
        gradients(ops.sum(leaf(3)), [leaf(3), Tensor([1.0], name="frozen")])


def test_gradients_keeps_the_graph_or_gives_it_back() -> None:
    x = Tensor([3.0], requires_grad=True)
    y = ops.sum(x * x)
    for _ in range(2):
        assert gradients(y, [x])[0] == 6
    assert gradients(y, [x], keep_graph=False)[0] == 6
    with pytest.raises(RuntimeError, match="given back"):
        gradients(y, [x])


def test_gradients_takes_a_cotangent() -> None:
    x = leaf(3)
    gy = np.array([1.0, 0, 2])
    np.testing.assert_array_equal(gradients(x * 3, [x], gy)[0], 3 * gy)


# ---- hooks: the body of the loop over walk


def test_a_hook_sees_every_step_and_may_change_what_travels() -> None:
    """Guided backpropagation: through a relu only positive gradients travel."""
    x = Tensor(np.array([-1.0, 2, 3]), requires_grad=True)
    y = ops.sum(ops.relu(x) * np.array([5.0, -7, 11]))
    seen = []
    for step in walk(y):
        seen.append((type(step.op).__name__, step.gy.shape, [gx is not None for gx in step.gxs]))
        if isinstance(step.op, ops.activation.ReLU):
            step.gxs[0] = np.maximum(step.gxs[0], 0)
    assert seen == [("Sum", (), [True]), ("Mul", (3,), [True, False]), ("ReLU", (3,), [True])]
    np.testing.assert_array_equal(x.grad, [0, 0, 11])


def test_a_hook_may_cut_a_branch_off() -> None:
    x = leaf(3)
    y = ops.sum(ops.exp(x) * 0 + x * 2 + ops.log(ops.sqrt(x)))
    steps = []
    for step in walk(y):
        steps.append(type(step.op).__name__)
        if isinstance(step.op, ops.elementwise.Log):
            step.gxs = [None]
    assert "Log" in steps and "Sqrt" not in steps
    np.testing.assert_array_equal(x.grad, [2, 2, 2])


def test_what_a_hook_changes_in_place_changes_nothing_else() -> None:
    """y = sum((3 a + 5 b)^2): the two inputs of Add get one array from its backward, and so would two hooks."""
    right = {}
    for change in ("nothing", "gxs", "gy"):
        a, b = leaf(2), leaf(2)
        y = ops.sum((a * 3 + b * 5) ** 2)
        for step in walk(y):
            if type(step.op).__name__ == "Add" and change == "gxs":
                step.gxs[0] *= 2  # type: ignore[operator]
            if type(step.op).__name__ == "Add" and change == "gy":
                step.gy *= 0
        right[change] = a.grad, b.grad
    np.testing.assert_array_equal(right["gxs"], (2 * right["nothing"][0], right["nothing"][1]))
    np.testing.assert_array_equal(right["gy"], right["nothing"])


def test_a_walk_hands_out_arrays_of_which_no_two_share_memory() -> None:
    x, z = leaf(2, 3), leaf(2, 3)
    h = ops.reshape(x + z, (3, 2)) - ops.transpose(x)
    y = ops.mean(h + ops.broadcast_to(ops.sum(h), (3, 2)) + ops.reshape(z, (3, 2)))
    arrays, steps = [], list(walk(y))
    for step in steps:
        arrays += [step.gy, *(gx for gx in step.gxs if gx is not None)]
    arrays += [x.grad, z.grad]
    assert all(a.flags.writeable for a in arrays)
    assert not [(i, j) for j, a in enumerate(arrays) for i, b in enumerate(arrays[:j]) if np.shares_memory(a, b)]


def test_gradients_are_arrays_of_their_own_to_write_to() -> None:
    a, b = leaf(3), leaf(3)
    h = a * 2
    found = gradients(ops.sum(h + b), [h, b, h, a])
    for i, g in enumerate(found):
        g += i
        assert not any(np.shares_memory(g, other) for other in found[:i])
    assert [g.tolist() for g in found] == [[1] * 3, [2] * 3, [3] * 3, [5] * 3]


def test_an_op_that_gives_two_inputs_one_array_gives_two_leaves_one_each() -> None:
    class Twice(Op):
        def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
            return a + b

        def backward(self, gy: np.ndarray) -> list[np.ndarray]:
            return [2 * gy] * 2

    del OPS["Twice"]
    a, b = leaf(3), leaf(3)
    ops.sum(Twice()(a, b)).backward()
    assert not np.shares_memory(a.grad, b.grad)


@pytest.mark.parametrize("index", [(0, 0, 0), [0, 0, 0], range(0, 1), np.array([0, 0, 0]), ((0, 0, 0),)])
def test_any_sequence_may_name_an_element_twice(index: object) -> None:
    g = Tensor(np.ones((1, 1, 2)), requires_grad=True)
    y = g[:, index] if not (isinstance(index, tuple) and isinstance(index[0], tuple)) else g[:, index[0]]
    (gx,) = gradients(ops.sum(y), [g])
    np.testing.assert_array_equal(gx, np.full((1, 1, 2), y.shape[1]))


def test_a_quotient_whose_square_would_overflow() -> None:
    for size in (1e25, 1e-25):
        a, b = (Tensor(np.array([size], np.float32), requires_grad=True) for _ in range(2))
        np.testing.assert_allclose(gradients(ops.sum(a / b), [a, b]), [[1 / size], [-1 / size]], rtol=1e-6)


def test_a_walk_may_stop_early() -> None:
    x = leaf(3)
    h = ops.exp(x)
    y = ops.sum(h * 2)
    for step in walk(y):
        if step.op is h.op:
            np.testing.assert_array_equal(step.gy, [2, 2, 2])
            break
    assert x.grad is None
    y.backward()
    assert x.grad is not None


def test_a_hook_of_the_wrong_shape_is_refused() -> None:
    x = leaf(3)
    with pytest.raises(ValueError, match=r"backward returned \(2,\) float64 for an input of \(3,\) float64"):
        for step in walk(ops.sum(x)):
            step.gxs[0] = np.ones(2)


# ---- no_grad


def test_without_recording_nothing_is_kept() -> None:
    x = leaf(3)
    with no_grad():
        y = ops.exp(x)
        with no_grad():
            pass
        assert ops.exp(x).op is None
    assert y.op is None and not y.requires_grad
    assert ops.exp(x).requires_grad


def test_recording_comes_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), no_grad():
        _ = 1 / 0
    assert ops.exp(leaf(3)).requires_grad


def test_no_grad_as_a_decorator_of_a_recursive_function() -> None:
    x = leaf(3)

    @no_grad()
    def f(depth: int) -> Tensor:
        if depth:
            f(depth - 1)
        return ops.exp(x)

    assert not f(3).requires_grad
    assert ops.exp(x).requires_grad


def test_recording_is_off_in_one_thread_only() -> None:
    x = leaf(3)
    inside, checked = threading.Event(), threading.Event()
    seen: list[bool] = []

    @no_grad()
    def silent() -> None:
        inside.set()
        checked.wait(10)
        seen.append(ops.exp(x).requires_grad)

    thread = threading.Thread(target=silent)
    thread.start()
    inside.wait(10)
    here = ops.exp(x).requires_grad
    checked.set()
    thread.join()
    assert here and seen == [False]
    assert ops.exp(x).requires_grad


# ---- errors name the op, the shapes and the user's line


def test_a_forward_error_names_op_shapes_and_line() -> None:
    x, w = leaf(2, 3, name="images"), leaf(4, 5)
    with pytest.raises(ValueError) as caught:
        line = line_after()
        ops.linear(x, w)
    (note,) = caught.value.__notes__
    expected = f"in Linear of images (2, 3) float64, input (4, 5) float64, None, called at {__file__}:{line} in test_a_"
    assert note.startswith(expected)


class _Faulty(Op):
    """y = x, with a backward that fails"""

    def forward(self, x: Array) -> Array:
        return x * 1

    def backward(self, gy: Array) -> Grads:
        raise FloatingPointError("lost a digit")


def test_a_backward_error_names_the_line_that_called_for_the_op() -> None:
    x = leaf(2, 3, name="x")
    line = line_after()
    y = _Faulty()(x)
    z = ops.sum(y)
    with pytest.raises(FloatingPointError, match="lost a digit") as caught:
        z.backward()
    (note,) = caught.value.__notes__
    where = f"called at {__file__}:{line} in test_a_backward_error_names_the_line_that_called_for_the_op>"
    assert note == f"in the backward of <_Faulty of x (2, 3) float64, {where}, gradient (2, 3) float64"


def test_the_line_is_the_users_also_through_functions_of_the_package() -> None:
    x = leaf(2, 4)
    line = line_after()
    parts = ops.split(x, 2)
    assert parts[0].op is not None and parts[0].op.where is not None
    code, number = parts[0].op.where
    assert (code.co_filename, number) == (__file__, line)
    assert f"{__file__}:{line}" in repr(parts[0].op)


def test_a_neighbour_of_the_package_is_no_part_of_it() -> None:
    """A file in a folder whose name only begins like the package's is the user's."""
    code = compile("def f(ops, x):\n    return ops.exp(x)", inputs._PACKAGE.rstrip("/\\") + "_user/script.py", "exec")
    functions: dict[str, Any] = {}
    exec(code, functions)
    y = functions["f"](ops, leaf(3))
    assert y.op.where[0].co_filename.endswith("minidl_user/script.py")


def test_an_error_in_backward_leaves_every_leaf_as_it_was() -> None:
    x, w = leaf(3), leaf(3, seed=1)
    y = ops.sum(_Faulty()(x) * w)  # the gradient of w arrives before the error
    with pytest.raises(FloatingPointError):
        y.backward()
    assert x.grad is None and w.grad is None


def test_a_gradient_of_the_wrong_type_is_an_error_of_the_op() -> None:
    class _Widening(Op):
        def forward(self, x: Array) -> Array:
            return x * 1

        def backward(self, gy: Array) -> Grads:
            return (gy.astype(np.float64),)

    x = Tensor(np.ones(3, np.float32), requires_grad=True)
    with pytest.raises(ValueError, match=r"backward returned \(3,\) float64 for an input of \(3,\) float32") as caught:
        ops.sum(_Widening()(x)).backward()
    assert "in the backward of <_Widening of" in caught.value.__notes__[0]


# ---- memory


def _graph() -> tuple[Tensor, Tensor, list[weakref.ref[Any]]]:
    x = leaf(4, 3)
    h = ops.exp(x)
    k = ops.tanh(h)
    loss = ops.sum(k * h)
    held = [weakref.ref(o) for o in (h, k, h.data, k.data, h.op, k.op)]
    return x, loss, held


def test_after_backward_nothing_keeps_the_graph_although_the_loss_lives(no_gc: None) -> None:
    x, loss, held = _graph()
    assert all(ref() is not None for ref in held)
    loss.backward()
    assert [ref() for ref in held] == [None] * len(held)
    assert x.grad is not None
    assert loss.op is not None and loss.op.inputs == ()


def test_without_backward_the_graph_goes_with_its_last_tensor(no_gc: None) -> None:
    _, loss, held = _graph()
    op = weakref.ref(loss.op)
    del loss
    assert [ref() for ref in [*held, op]] == [None] * (len(held) + 1)


def test_the_step_before_is_forgotten_when_an_op_computes_its_gradient(no_gc: None) -> None:
    outputs: list[weakref.ref[Array]] = []
    gradients_seen: list[weakref.ref[Array]] = []
    alive = []

    class _Watch(Op):
        def forward(self, x: Array) -> Array:
            y = x + 1
            outputs.append(weakref.ref(y))
            return y

        def backward(self, gy: Array) -> Grads:
            gradients_seen.append(weakref.ref(gy))
            alive.append([sum(ref() is not None for ref in refs) for refs in (outputs, gradients_seen)])
            return (gy * 2,)

    y = leaf(3)
    for _ in range(4):
        y = _Watch()(y)
    ops.sum(y).backward()
    assert alive == [[4, 1], [3, 1], [2, 1], [1, 1]]  # the last one is y, the others are inputs of ops not yet visited


def test_memory_comes_back_while_backward_goes_on(no_gc: None) -> None:
    """What a step of the walk has used is free before the next step."""
    x = leaf(4)
    y = x
    arrays = []
    for _ in range(5):
        y = ops.exp(y * 0.1)
        arrays.append(weakref.ref(y.data))
    y = ops.sum(y)
    alive = []
    for step in walk(y, keep_graph=False):
        if isinstance(step.op, ops.elementwise.Exp):
            alive.append(sum(ref() is not None for ref in arrays))
    assert alive == [5, 4, 3, 2, 1]


def test_gradients_and_no_grad_leave_no_graph_behind(no_gc: None) -> None:
    x, loss, held = _graph()
    gradients(loss, [x])
    del loss
    assert [ref() for ref in held] == [None] * len(held)
    with no_grad():
        h = ops.exp(x)
        ref = weakref.ref(h.data)
        y = ops.tanh(h)
        del h
    assert ref() is None and y.op is None


def test_an_error_in_backward_leaves_no_cycle(no_gc: None) -> None:
    x = leaf(3)
    y = ops.sum(_Faulty()(x))
    op = weakref.ref(tape(y)[-1])
    try:
        y.backward()
    except FloatingPointError:
        pass
    del y
    assert op() is None


def test_an_array_changed_in_place_is_taken_as_it_is_at_backward() -> None:
    """The documented limit: nothing notices the change, and the gradient is that of the new values."""
    x = leaf(3)
    y = ops.sum(x * x)
    x.data[...] = 10
    y.backward()
    np.testing.assert_array_equal(x.grad, [20, 20, 20])


def test_gradients_of_leaves_share_no_memory() -> None:
    a, b, c, d = (leaf(2, 3, seed=i) for i in range(4))
    y = ops.concat([a + b, ops.reshape(c, (2, 3)), ops.broadcast_to(d, (2, 3))], axis=0)
    gy = np.ones(y.shape)
    y.backward(gy)
    arrays = [a.grad, b.grad, c.grad, d.grad, gy]
    for i, first in enumerate(arrays):
        assert first is not None and (i == 4 or first.flags.writeable)
        assert not any(np.shares_memory(first, second) for second in arrays[i + 1 :])


def test_an_accumulated_gradient_is_a_new_array() -> None:
    x = leaf(3)
    ops.sum(x).backward()
    first = x.grad
    ops.sum(x).backward()
    np.testing.assert_array_equal(first, [1, 1, 1])


# ---- types and shapes


def test_scalars_take_the_type_of_the_tensor() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    sums = x + 1, 1 - x, x + np.int64(2), -x
    products = 2.5 * x, 1 / x, x / np.float64(3), np.float64(3) * x, x**2, x ** np.float64(0.5)
    bounded = ops.clip(x, np.float64(0), np.float64(1)), ops.leaky_relu(x, np.float64(0.1))
    for y in sums + products + bounded:
        assert y.dtype == np.float32
    with pytest.raises(TypeError, match=r"x \*\* exponent: expected a number, got Tensor; for a Tensor write ops"):
        x**x


def test_the_power_zero_has_gradient_zero_also_at_zero() -> None:
    x = Tensor(np.array([0.0, 2.0]), requires_grad=True)
    ops.sum(x**0).backward()
    np.testing.assert_array_equal(x.grad, [0, 0])


def test_an_array_may_stand_on_either_side_of_an_operator() -> None:
    a = np.arange(1.0, 7).reshape(2, 3)
    x = Tensor(np.full((2, 3), 2.0), requires_grad=True)
    for y, values in ((a * x, 2 * a), (x * a, 2 * a), (a - x, a - 2), (x / a, 2 / a), (a / x, a / 2), (a + x, a + 2)):
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, values)
    np.testing.assert_array_equal((a @ Tensor(np.ones((3, 1)))).data, a.sum(axis=1, keepdims=True))


def test_types_do_not_mix_unasked() -> None:
    single, double = Tensor(np.ones(3, np.float32)), Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(TypeError, match=r"input 1: float64, while input 0 is float32; write x.to\(dtype='float32'\)"):
        single + double
    assert (single.to(dtype=np.float64) + double).dtype == np.float64


def test_integer_images_are_refused_with_advice() -> None:
    image = Tensor(np.zeros((1, 3, 8, 8), np.uint8))
    with pytest.raises(TypeError, match=r"input 0: expected floats, got uint8; write x.to\(dtype='float32'\)"):
        ops.relu(image)
    with pytest.raises(TypeError, match="input 1: expected floats, got bool"):
        ops.maximum(leaf(3), Tensor(np.ones(3, bool)))


def test_empty_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"input 0: empty, shape \(0, 3, 8, 8\)"):
        ops.relu(Tensor(np.zeros((0, 3, 8, 8))))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,3\) \(4,\)") as caught:
        leaf(2, 3) + leaf(4)
    assert "in Add of input (2, 3) float64, input (4,) float64" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match=r"expected a \(..., I, J\) and b \(..., J, K\), got \(2, 3\) and \(2, 3\)"):
        leaf(2, 3) @ leaf(2, 3)


def test_results_of_no_dimension_are_arrays() -> None:
    x, s = leaf(2, 3), leaf()
    y = ops.sum(x) * s
    assert isinstance(y.data, np.ndarray) and y.shape == ()
    steps = list(walk(y))
    assert all(isinstance(step.gy, np.ndarray) for step in steps)
    assert isinstance(s.grad, np.ndarray) and s.grad.shape == ()
    y.backward()
    assert isinstance(s.grad, np.ndarray)
    np.testing.assert_allclose(s.grad, 2 * x.data.sum())
    assert isinstance(gradients(ops.sum(x * s), [s])[0], np.ndarray)


def test_an_index_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"an index must be an array or a number, got a Tensor; use its .data"):
        leaf(3)[Tensor(np.array([0, 1]))]


def test_elements_named_twice_receive_both_gradients() -> None:
    x = leaf(3)
    ops.sum(x[[0, 0, 2]] * np.array([1.0, 2, 4])).backward()
    np.testing.assert_array_equal(x.grad, [3, 0, 4])


def test_private_bases_are_no_ops() -> None:
    assert "_Faulty" not in core.OPS and "_Reduction" not in core.OPS
    assert core.OPS["Conv2d"] is ops.conv.Conv2d
