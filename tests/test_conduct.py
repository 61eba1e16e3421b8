"""A Tensor in a learner's hands: what is written by habit works as expected, or says in one sentence what to write."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minidl import Parameter, Tensor, gradients, nn, no_grad, ops, optim

t = Tensor([[1.0, -2.0, 3.0]])
one = Tensor([0.25])
trained = Tensor([1.0, 2.0], requires_grad=True)
loss = ops.mean(trained * trained)
labels = np.array([0, 1, 2])

WORKS: list[tuple[str, Callable[[], Any], Any]] = [
    ("float", lambda: float(loss), 2.5),
    ("int", lambda: int(loss), 2),
    ("format", lambda: f"{loss:.3f}", "2.500"),
    ("format of one element", lambda: f"{one:6.2f}", "  0.25"),
    ("format without a form", lambda: f"{loss}", repr(loss)),
    ("bool", lambda: (bool(Tensor([0.0])), bool(Tensor(0.0)), bool(one)), (False, False, True)),
    ("an if", lambda: "yes" if loss else "no", "yes"),
    ("less", lambda: bool(loss < 0.1), False),
    ("an order of elements", lambda: (t > 0).tolist(), [[True, False, True]]),
    ("an order of two", lambda: (t >= Tensor([[1.0, 1.0, 9.0]])).tolist(), [[True, False, False]]),
    ("an array first", lambda: (np.zeros(3) < t).tolist(), [[True, False, True]]),
    ("asarray", lambda: (np.asarray(t).dtype, np.asarray(t).tolist()), (np.dtype(np.float32), [[1, -2, 3]])),
    ("asarray shares the memory", lambda: np.shares_memory(np.asarray(t), t.data), True),
    ("asarray of another type", lambda: np.asarray(t, np.float64).dtype, np.dtype(np.float64)),
    ("a mean of two", lambda: float(np.mean([Tensor(1.0), Tensor(3.0)])), 2.0),
    ("iteration", lambda: [x.item() for x in Tensor([1.0, 2.0])], [1.0, 2.0]),
    ("in a list", lambda: (t in [one, t], t in [one]), (True, False)),
    ("in a set", lambda: len({t, one, t}), 2),
    ("in a dictionary", lambda: {t: 1, one: 2}[one], 2),
    ("index", lambda: [one, t].index(t), 1),
    ("equal to another object", lambda: (t == one, t == t, t != one, t == None, t == "a"), (False, True, True, False, False)),  # noqa: E711
    ("an array times it", lambda: (np.ones(3, "f") * t).data.tolist(), [[1, -2, 3]]),
    ("a matrix times it", lambda: (np.ones((2, 1), "f") @ t).data.tolist(), [[1, -2, 3]] * 2),
    ("a number of NumPy minus it", lambda: (np.float64(1) - t).dtype, np.dtype(np.float32)),
    ("a ufunc of arithmetic", lambda: type(np.add(t, np.ones(3, "f"))), Tensor),
    ("a power of a number of NumPy", lambda: (t ** np.int64(2)).data.tolist(), [[1, 4, 9]]),
    ("a power of an array of no axes", lambda: (t ** np.array(2)).dtype, np.dtype(np.float32)),
    ("integers to floats", lambda: (Tensor([1, 2, 3]).to(dtype="float32") * 2).data.tolist(), [2, 4, 6]),
    ("a copy", lambda: copy.deepcopy(t).data.tolist(), [[1, -2, 3]]),
    ("a pickle", lambda: pickle.loads(pickle.dumps(t)).data.tolist(), [[1, -2, 3]]),
    ("x += of what is computed", lambda: _added(t * 1).data.tolist(), [[2, -1, 4]]),
    ("a matrix of NumPy", lambda: type(Tensor(np.matrix([[1.0, 2.0]])).data), np.ndarray),
    ("big-endian numbers", lambda: (Tensor(np.array([1.0, 2.0], ">f4")) * 2).data.tolist(), [2, 4]),
    ("big-endian becomes native", lambda: Tensor(np.array([1.0], ">f8")).dtype, np.dtype(np.float64)),
]


def _added(x: Tensor) -> Tensor:
    x += 1.0
    return x


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize(("call", "right"), [row[1:] for row in WORKS], ids=[row[0] for row in WORKS])
def test_it_works(call: Callable[[], Any], right: Any) -> None:
    assert call() == right


def _in_place(p: Any) -> None:
    p -= 0.1 * p.data


def _set(x: Tensor) -> None:
    x[0] = 1.0


def _scale_a_weight() -> None:
    layer = nn.Linear(2, 2)
    layer.weight *= 0.5


def _replace_a_weight() -> None:
    layer = nn.Linear(2, 2)
    layer.weight = layer.weight * 0.5  # type: ignore[assignment]


SAYS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: t == labels, TypeError, "t == an array (3,): tensors are compared by identity; write t.data == ..."),
    (lambda: np.mean(t == labels), TypeError, "write t.data == ..."),
    (lambda: labels == t, TypeError, "write t.data == ..."),
    (lambda: t != 3, TypeError, "t != 3: tensors are compared by identity; write t.data != ..."),
    (lambda: 1.5 == t, TypeError, "write t.data == ..."),
    (lambda: bool(t), ValueError, "the truth of a tensor of shape (1, 3): write t.data.any() or t.data.all()"),
    (lambda: float(t), TypeError, "float(t): expected one element, got shape (1, 3); write t.data, or ops.mean(t)"),
    (lambda: f"{t:.3f}", TypeError, "expected one element, got shape (1, 3)"),
    (lambda: list(Tensor(3.0)), TypeError, "a tensor of no axes has nothing to loop over; write t.item()"),
    (lambda: len(Tensor(3.0)), TypeError, "len(t): a tensor of no axes has no length; write t.size"),
    (lambda: np.asarray(loss), TypeError, "np.asarray(t): t has a history, which an array would lose; write t.data"),
    (lambda: np.mean([loss, loss]), TypeError, "write t.data"),
    (lambda: np.exp(t), TypeError, "np.exp(t): NumPy would lose the history of a Tensor; write ops.exp(t), or np.exp(t.data)"),
    (lambda: np.abs(t), TypeError, "write ops.abs(t), or np.absolute(t.data)"),
    (lambda: np.floor(t), TypeError, "write np.floor(t.data)"),
    (lambda: t.sum(), AttributeError, "a Tensor has no 'sum': write ops.sum(t)"),
    (lambda: t.reshape(3), AttributeError, "write ops.reshape(t)"),
    (lambda: t.view(3), AttributeError, "write ops.reshape(t, shape)"),
    (lambda: t.numpy(), AttributeError, "write t.data"),
    (lambda: t.astype("float64"), AttributeError, "write t.to(dtype=...)"),
    (lambda: t.T, AttributeError, "write ops.transpose(t)"),
    (lambda: t.cumsum(), AttributeError, "its array is t.data"),
    (lambda: t.nonsense, AttributeError, "a Tensor has no 'nonsense': it has data, grad, op"),
    (lambda: Parameter(np.ones(2)).zero_grad(), AttributeError, "a Parameter has no 'zero_grad': write t.grad = None"),
    (lambda: Tensor([1, 2, 3]) * 2, TypeError, "input 0: expected floats, got int64; write x.to(dtype='float32')"),
    (lambda: t ** Tensor(2.0), TypeError, "x ** exponent: expected a number, got Tensor"),
    (lambda: t ** "2", TypeError, "x ** exponent: expected a number, got str"),
    (
        lambda: _in_place(Parameter(np.ones(2))),
        TypeError,
        "p -= ...: would make a new tensor and leave the Parameter",
    ),
    (lambda: _in_place(Tensor([1.0], requires_grad=True)), TypeError, "write p.data -= ..."),
    (lambda: _set(t), TypeError, "t[...] = value: backward would not see it; write t.data[...] = value"),
    (_scale_a_weight, TypeError, "p *= ...: would make a new tensor"),
    (_replace_a_weight, TypeError, "Linear.weight: is a Parameter, and Tensor would take it out of training"),
    (
        lambda: optim.SGD(nn.Linear(2, 2), 0.1),
        TypeError,
        "got the Linear; write model.parameters()",
    ),
    (lambda: Tensor(np.ma.masked_array([1.0, 2.0], [0, 1])), TypeError, "got a masked one; write a.filled(value)"),
    (
        lambda: nn.Linear(4, 2)(np.ones((1, 4))),
        TypeError,
        "input 0: float64, while weight is float32; write x.to(",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), SAYS, ids=[message[:40] for _, _, message in SAYS])
def test_it_says_what_to_write(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_arithmetic_with_an_array_first_keeps_the_history() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (gx,) = gradients(ops.sum(np.array([3.0, 5.0], "f") * x), [x])
    assert gx.tolist() == [3, 5]


def test_an_error_names_the_layer_without_being_asked_to() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"x: expected \(N, 4\)") as found:
        net(np.ones((1, 3, 2, 2), np.float32))
    assert "in layer 3, Linear of input (1, 5) float32, 3.weight (2, 4) float32" in found.value.__notes__[0]
    assert net[1].weight.name == "1.weight"


def test_names_that_somebody_gave_stay() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.name = "mine"
    nn.Sequential(layer)(np.ones((1, 2), np.float32))
    assert (layer.weight.name, layer.bias.name if layer.bias is not None else "") == ("mine", "0.bias")


def test_a_part_that_was_called_alone_gets_its_whole_name() -> None:
    inner = nn.Sequential(nn.Linear(2, 2))
    inner(np.ones((1, 2), np.float32))
    assert inner[0].weight.name == "0.weight"
    nn.Sequential(nn.Flatten(), inner)(np.ones((1, 2), np.float32))
    assert inner[0].weight.name == "1.0.weight"


@pytest.mark.parametrize("hidden", [[[nn.Linear(1, 1)]], {"a": [nn.Linear(1, 1)]}, {nn.Linear(1, 1)}, ({"a": Parameter(1.0)},)])
def test_what_a_container_hides_is_found(hidden: Any) -> None:
    net = nn.Module()
    net.blocks = hidden
    with pytest.raises(TypeError, match=r"Module.blocks: a \w+ hides its modules or parameters from training"):
        net.parameters()


def test_no_grad_is_not_wasted_on_a_generator() -> None:
    def batches() -> Any:
        yield ops.relu(trained)

    for block in (no_grad(), ops.unfused(), nn.Linear(1, 1).frozen()):
        with pytest.raises(TypeError, match=r"batches would run outside of it.*; write `with [\w.]+\(...\):` inside"):
            block(batches)

    @no_grad()
    def once() -> Tensor:
        return ops.relu(trained)

    assert not once().requires_grad and ops.relu(trained).requires_grad


def test_a_forward_of_an_instance_is_called_in_a_sequence() -> None:
    net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU())
    net[2].forward = lambda x: x * 0.0 - 7.0
    assert (net.eval()(np.ones((1, 1, 2, 2), np.float32)).data == -7).all()


def test_a_step_without_a_gradient_is_an_error() -> None:
    optimiser = optim.SGD([Parameter(np.ones(2, np.float32))], 0.1)
    with pytest.raises(ValueError, match=r"step\(\): no parameter has a gradient; call loss.backward\(\) first"):
        optimiser.step()


def test_the_shortest_cycle_trains() -> None:
    assert optim.one_cycle(0.1, total_steps=1)(0) == 0.1
    assert all(optim.one_cycle(0.1, total)(0) > 0 for total in (1, 2, 3)) and optim.one_cycle(0.1, 10)(0) == 0


@pytest.mark.parametrize("make", [lambda ps: optim.SGD(ps, 0.1, momentum=0.9), lambda ps: optim.AdamW(ps, 0.1)])
def test_a_parameter_of_any_layout_trains(make: Callable[[Any], optim.Optimizer]) -> None:
    wide = nn.Linear(1024, 512)
    wide.weight.data = nn.init.orthogonal((512, 1024), np.random.default_rng(0))
    strided = Parameter(np.ones((6, 4), np.float32)[::2, ::2])
    given, late = (Parameter(np.ones((3, 2), np.float32)) for _ in range(2))
    given.data = np.ones((2, 3), np.float32).T
    for p in (wide.weight, strided, given, late):
        optimiser = make([p])
        if p is late:
            p.data = np.ones((2, 3), np.float32).T
        p.grad, before = np.ones_like(p.data), p.data.copy()
        optimiser.step()
        assert not np.array_equal(p.data, before) and p.data.flags.c_contiguous
