import numpy as np
import pytest

import models
from minidl import nn, ops
from minidl.nn import Summary, summary, watch
from minidl.nn.summary import Row


def small():
    return nn.Sequential(
        nn.Conv2d(4, 6, (3, 1), stride=2, padding=(1, 0), groups=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(6 * 4 * 5, 3),
    )


def test_counts_by_hand():
    table = small().summary((4, 8, 9))
    values = 6 * 4 * 5
    assert table.rows == [
        Row("0", "Conv2d", (1, 6, 4, 5), 6 * 2 * 3 + 6, values * 2 * 3, 4 * values),
        Row("1", "BatchNormFrozen", (1, 6, 4, 5), 12, 0, 4 * values),
        Row("2", "ReLU", (1, 6, 4, 5), 0, 0, 4 * values),
        Row("4", "Reshape", (1, values), 0, 0, 0),
        Row("5", "Linear", (1, 3), 3 * values + 3, 3 * values, 12),
    ]
    assert table.parameters == 6 * 2 * 3 + 6 + 12 + 3 * values + 3
    assert table.multiply_adds == values * 6 + 3 * values
    assert table.bytes == 3 * 4 * values + 12


def test_bytes_follow_the_type():
    assert small().to(dtype=np.float64).summary((4, 8, 9)).bytes == 2 * small().summary((4, 8, 9)).bytes


def test_the_table_is_aligned_and_ends_with_the_totals():
    lines = str(summary(small(), (4, 8, 9))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["name", "op", "output", "parameters", "multiply-adds", "activation", "bytes"]
    assert lines[-1].split() == ["total", "417", "1,080", "1,452"]
    assert len(lines) == 5 + 4  # rows, head, two rules, total


def test_ops_between_the_layers_belong_to_the_module_that_calls_them():
    class Join(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Tanh())

        def forward(self, x):
            early = ops.exp(x)
            y = self.a(ops.relu(x))
            return (y + self.b(ops.relu(y)) * early) @ np.ones((3, 2), np.float32)

    rows = nn.Sequential(nn.Identity(), Join()).summary((3,)).rows
    assert [(r.name, r.op) for r in rows] == [
        ("1", "Exp"), ("1", "ReLU"), ("1.a", "Linear"), ("1", "ReLU"), ("1.b.0", "Linear"), ("1.b.1", "Tanh"),
        ("1", "Mul"), ("1", "Add"), ("1", "MatMul"),
    ]  # fmt: skip
    assert rows[-1].multiply_adds == 2 * 3


def test_shared_weights_count_once_and_unused_ones_in_the_total():
    class Tied(nn.Module):
        def __init__(self):
            self.used, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(self.used(x))

    table = Tied().summary((3,))
    assert [r.parameters for r in table.rows] == [12, 0] and [r.multiply_adds for r in table.rows] == [9, 9]
    assert table.parameters == 24


def test_resnet20_costs_what_is_known():
    table = models.resnet20().summary((3, 32, 32))
    assert table.parameters == sum(r.parameters for r in table.rows) == 269_722
    assert table.multiply_adds == 40_551_040  # the 41 million that are quoted for this net
    assert sum(r.op == "Add" for r in table.rows) == 9


def test_the_model_comes_back_as_it_was():
    net = small()
    net[1].eval()
    net.parameters()[0].requires_grad = False
    state, modes = net.state_dict(), [m.training for m in net.modules()]
    net.summary((4, 8, 9))
    assert [m.training for m in net.modules()] == modes
    assert all(np.array_equal(a, state[n]) for n, a in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and not net.parameters()[0].requires_grad
    assert not any("forward" in vars(m) for m in net.modules())


def test_the_model_comes_back_as_it_was_after_an_error():
    net = small()
    with pytest.raises(ValueError, match="groups: 2 does not divide 3 input"):
        net.summary((3, 8, 9))
    assert all(m.training for m in net.modules())
    assert not any("forward" in vars(m) for m in net.modules())


def test_a_model_without_parameters_or_ops():
    assert nn.ReLU().summary((2, 2)).multiply_adds == 0
    assert nn.Identity().summary((2, 2)) == Summary([], 0, 0, 0)
    assert str(nn.Identity().summary((2, 2))).splitlines()[-1].split() == ["total", "0", "0", "0"]


def test_watch_sees_every_call_in_its_nesting():
    net = nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU()))
    seen = []
    with watch(net, lambda name, x: seen.append(("in", name)), lambda name, y: seen.append(("out", name, y.data.tolist()))):
        net(np.array([[-1.0, 2.0]], np.float32))
    raw, y = [[-1.0, 2.0]], [[0.0, 2.0]]
    assert seen == [
        ("in", ""), ("in", "0"), ("out", "0", raw), ("in", "1"), ("in", "1.0"), ("out", "1.0", y), ("out", "1", y),
        ("out", "", y),
    ]  # fmt: skip
    net(np.ones((1, 2), np.float32))
    assert len(seen) == 8


def test_watch_nests_and_ends_after_an_error():
    net, outer, inner = nn.Sequential(nn.ReLU()), [], []
    x = np.ones((1, 2), np.float32)
    with watch(net, after=lambda name, y: outer.append(name)):
        with pytest.raises(ZeroDivisionError), watch(net, lambda name, x: inner.append(name)):
            net(x)
            raise ZeroDivisionError
        net(x)
        assert net.summary((2,)).rows[0].name == "0"
    net(x)
    assert inner == ["", "0"] and outer == ["0", ""] * 3
    assert not any("forward" in vars(m) for m in net.modules())
