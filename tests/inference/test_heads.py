"""One head of a net whose logits are several side by side: everything that asks a model answers as for a net of that head."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, cost, explain, nn
from minidl.array import Array
from minidl.inference import Heads, predict
from minidl.inference.heads import Head
from tests.explain.nets import Net
from tests.inference.askers import ASKERS, SIZE, state

CLASSES = {"other": ("x", "y"), "asked": ("a", "b", "c")}
OF_ALL = {"cost", "stepper", "randomization"}  # which show the names of layers, and so the rest of the net, too
BY_OP = {"trace", "pixel_flow"}  # which have an entry for each op, and one more for the choice of the head


def both_and_alone() -> tuple[nn.Module, Net, Array]:
    """The head "asked" of a net with two, and a net that has no other; images."""
    both, alone = Net(classes=5), Net(classes=3)
    for own, shared in ((alone.linear.weight, both.linear.weight), (alone.linear.bias, both.linear.bias)):
        own.data = shared.data[2:].copy()
    body = {name: a for name, a in both.state_dict().items() if not name.startswith("linear")}
    alone.load_state_dict(alone.state_dict() | body)
    x = np.random.default_rng(1).uniform(0, 1, (2, 3, SIZE, SIZE)).astype(np.float32)
    return Head(Heads(both, CLASSES), "asked").eval(), alone.eval(), x


def close(a: Any, b: Any, where: str) -> None:
    if isinstance(a, np.ndarray | np.generic | float):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=where)
    elif is_dataclass(a):
        for f in fields(a):
            if f.name not in ("params", "history"):
                close(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for k, (one, other) in enumerate(zip(a, b, strict=True)):
            close(one, other, f"{where}[{k}]")
    elif not callable(a):
        assert a == b, where


@pytest.mark.parametrize("name", sorted(ASKERS))
def test_whoever_asks_a_head_gets_the_answer_of_a_net_with_no_other(name: str) -> None:
    head, alone, x = both_and_alone()
    before = state(head)
    answer = ASKERS[name](head, x)
    assert state(head) == before
    if name in OF_ALL:
        assert "model.model.conv" in str(answer)
    else:
        close(answer[1:] if name in BY_OP else answer, ASKERS[name](alone, x), name)


def test_what_a_net_of_heads_costs() -> None:
    """A layer inside may return several; a net that does is asked about one."""
    head, alone, _ = both_and_alone()
    assert isinstance(head, Head)
    found, expected = cost(head, (3, SIZE, SIZE)), cost(alone, (3, SIZE, SIZE))
    assert found.multiply_adds == expected.multiply_adds + 2 * 8 and found.rows[-1].shape == (1, 3)
    with pytest.raises(ValueError, match="model: expected it to return a Tensor, got dict; of several heads ask one"):
        cost(head.model, (3, SIZE, SIZE))


def test_maps_of_all_heads_at_once() -> None:
    """`evidence_maps` of the heads side by side."""
    head, alone, x = both_and_alone()
    assert isinstance(head, Head)
    maps = explain.evidence_maps(head.model, x, {"asked": 1})
    assert list(maps) == ["other", "asked"]
    close(maps["asked"], explain.evidence_maps(alone, x, {"": 1})[""], "evidence")
    assert np.abs(maps["other"].raw - maps["asked"].raw).max() > 1e-3


def test_heads_of_a_net_with_another_number_of_logits() -> None:
    x = np.zeros((1, 3, SIZE, SIZE), np.float32)
    message = r"model: expected logits \(N,5\), 2 of other and 3 of asked, got shape \(1, 4\); make it with num_classes=5"
    with pytest.raises(ValueError, match=message):
        predict(Head(Heads(Net(classes=4), CLASSES), "asked"), x)
    with pytest.raises(ValueError, match=r"head: the model has \['other', 'asked'\], got 'third'"):
        predict(Head(Heads(Net(classes=5), CLASSES), "third"), x)
    assert list(Heads(Net(classes=5), CLASSES)(Tensor(x))) == ["other", "asked"]
