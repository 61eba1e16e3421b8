"""Judge of exercise 17: one step of `attack.fool` on a small net, from an image that touches both bounds."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, attack, gradients, nn

rng = np.random.default_rng(17)
model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 3, rng=rng)).eval()
x, STEP = rng.choice([0.0, 0.02, 0.5, 0.98, 1.0], (1, 1, 6, 6)).astype(np.float32), 0.5
wrong = int(model(Tensor(x)).data.argmin())


def gradient(k: int) -> np.ndarray:
    leaf = Tensor(x, requires_grad=True)
    return gradients(model(leaf)[0, k], [leaf])[0]


def test_one_step(exercise: ModuleType) -> None:
    given, g = x.copy(), gradient(wrong)
    length = np.sqrt((g**2).sum())
    found = exercise.ascent_step(model, given, wrong, STEP)
    slips = {
        "down the gradient: plus makes the wrong class's score larger": np.clip(x - STEP * g / length, 0, 1),
        "the image leaves [0, 1]: clip it": x + STEP * g / length,
        "the step has the length of the gradient: divide by |g|": np.clip(x + STEP * g, 0, 1),
        "that is the sign of the gradient, the step of lesson 18": np.clip(x + STEP * np.sign(g), 0, 1),
        "|g| is the root: here the sum of squares divides": np.clip(x + STEP * g / length**2, 0, 1),
        "the largest value divides: |g| is the length over all values": np.clip(x + STEP * g / np.abs(g).max(), 0, 1),
        "this is the change alone: add it to x": STEP * g / length,
    }
    judge.equal(found, attack.fool(model, x, wrong, step_size=STEP, steps=1).x, slips, tolerance=1e-5)
    judge.equal(given, x, {"x was changed in place: it should stay as it is": found}, tolerance=1e-7)
