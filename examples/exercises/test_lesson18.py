"""Judge of exercise 18: `attack.fgsm` on a small net, with images that touch both bounds."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, attack, gradients, nn, ops

rng = np.random.default_rng(18)
model = nn.Sequential(nn.Conv2d(1, 4, 3, rng=rng), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Linear(4, 3, rng=rng)).eval()
x, labels, EPS = rng.uniform(0, 1, (4, 1, 6, 6)).astype(np.float32), np.array([0, 1, 2, 1]), 0.1


def gradient(of_score: bool = False) -> np.ndarray:
    leaf = Tensor(x, requires_grad=True)
    scores = model(leaf)
    loss = ops.sum(scores[np.arange(4), labels]) if of_score else ops.cross_entropy(scores, labels)
    return gradients(loss, [leaf])[0]


def test_as_minidl_has_it(exercise: ModuleType) -> None:
    given, g = x.copy(), gradient()
    found = exercise.fgsm(model, given, labels, EPS)
    slips = {
        "down the loss: plus makes the net more wrong, minus more right": np.clip(x - EPS * np.sign(g), 0, 1),
        "the images leave [0, 1]: clip them": x + EPS * np.sign(g),
        "the sign is missing: every value moves by a full eps": np.clip(x + EPS * g, 0, 1),
        "eps is missing": np.clip(x + np.sign(g), 0, 1),
        "these are the changes alone: add them to x": EPS * np.sign(g),
        "up the score of the right class: that is the way to be right": np.clip(x + EPS * np.sign(gradient(True)), 0, 1),
    }
    judge.equal(found, attack.fgsm(model, x, labels, EPS).x, slips, tolerance=1e-5)
    judge.equal(given, x, {"x was changed in place: it should stay as it is": found}, tolerance=1e-7)
