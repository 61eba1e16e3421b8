"""Images with their channels in the last place are refused by all who ask a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minidl import attack, explain, nn
from minidl.inference import predict

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # of small nets


def net(channels: int) -> nn.Module:
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Conv2d(channels, 2, 1, rng=rng), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(2, 2, rng=rng))


@pytest.mark.parametrize(
    "ask", [predict, explain.saliency, explain.occlusion, explain.rise, attack.fgsm], ids=lambda f: f.__name__
)
def test_channels_come_first(ask: Any) -> None:
    x = np.zeros((2, 12, 10, 3), np.float32)
    more = {"eps": 0.1} if ask is attack.fgsm else {}
    with pytest.raises(ValueError, match=r"x: expected .*, got shape \(2, 12, 10, 3\), .* x.transpose\(0, 3, 1, 2\)"):
        ask(net(3), x, **more)


def test_a_model_that_takes_so_many_channels() -> None:
    assert predict(net(12), np.zeros((2, 12, 10, 3), np.float32)).shape == (2, 2)
    assert explain.saliency(net(12), np.zeros((2, 12, 10, 3), np.float32)).map.shape == (2, 10, 3)
