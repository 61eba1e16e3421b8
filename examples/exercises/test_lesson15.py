"""Judge of exercise 15: `explain.saliency` of one head of a small net with two."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, explain, gradients, nn, ops


class Net(nn.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(15)
        self.body = nn.Sequential(nn.Conv2d(2, 5, 3, rng=rng), nn.ReLU(), nn.GlobalAvgPool2d())
        self.first, self.second = nn.Linear(5, 3, rng=rng), nn.Linear(5, 2, rng=rng)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x)
        return {"first": self.first(h), "second": self.second(h)}


model = Net().eval()
x = np.random.default_rng(16).normal(size=(4, 2, 6, 6)).astype(np.float32)


def raw(name: str, which: str = "largest") -> np.ndarray:
    leaf = Tensor(x, requires_grad=True)
    scores = model(leaf)[name]
    classes = scores.data.argmax(1) if which == "largest" else scores.data.argmin(1)
    picked = ops.sum(scores) if which == "all" else ops.sum(scores[np.arange(4), classes])
    return gradients(picked, [leaf])[0]


def test_each_head(exercise: ModuleType) -> None:
    for name, other in ("first", "second"), ("second", "first"):
        wanted = explain.saliency(explain.Head(model, name), x).map
        slips = {
            "that is the other head's map": np.abs(raw(other)).max(1),
            "these are all classes' scores together: the largest one is asked about": np.abs(raw(name, "all")).max(1),
            "the smallest score was taken, and the largest one is asked about": np.abs(raw(name, "smallest")).max(1),
            "the size is missing: |dS/dx| before the largest is taken": raw(name).max(1),
            "the sum over the channels: the largest one is asked for": np.abs(raw(name)).sum(1),
            "all channels are still there: take the largest, .max(1)": np.abs(raw(name)),
        }
        judge.equal(exercise.head_map(model, x.copy(), name), wanted, slips)
