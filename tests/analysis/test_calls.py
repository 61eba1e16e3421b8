import numpy as np
import pytest

from minidl import nn
from minidl.analysis import cost, watch


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
        assert cost(net, (2,)).rows[0].name == "0"
    net(x)
    assert inner == ["", "0"] and outer == ["0", ""] * 3
    assert not any("forward" in vars(m) for m in net.modules())
