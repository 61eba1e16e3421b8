"""Judge of exercise 13: minidl's own gradient, then large scores and the sum over all classes."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, gradients, ops

S, c = np.array([0.3, -1.2, 2.0, 0.9]), 3
p = np.exp(S) / np.exp(S).sum()
own = np.eye(4)[c]


def test_the_gradient_that_minidl_has(exercise: ModuleType) -> None:
    leaf = Tensor(S[None], requires_grad=True)
    wanted = gradients(ops.softmax(leaf)[0, c], [leaf])[0][0]
    slips = {
        "the own score is missing: for k = c there is + p_c": -p[c] * p,
        "the sign is turned around: more of its own score makes p_c larger": p[c] * (p - own),
        "p_c is missing before the bracket: this is the gradient of log p_c": own - p,
        "only the own score: the others count as well, by - p_c p_k": p[c] * (1 - p[c]) * own,
        "p_k (1 - p_k) for all: that is each class's own slope, and c is the class asked about": p * (1 - p),
    }
    judge.equal(exercise.gradient_of_probability(S.copy(), c), wanted, slips)


def test_large_scores(exercise: ModuleType) -> None:
    """exp(1000) is infinite; p is not."""
    judge.equal(exercise.gradient_of_probability(np.array([1000.0, 999.0]), 0), 0.19661193324148185 * np.array([1, -1]), {})


def test_probabilities_stay_a_whole(exercise: ModuleType) -> None:
    judge.equal(sum(exercise.gradient_of_probability(S.copy(), k) for k in range(4)), np.zeros(4), {})
