"""Judge of exercise 20: the rank of the right class, counted by comparison."""

from types import ModuleType

import judge
import numpy as np

rng = np.random.default_rng(20)
scores, labels = rng.normal(size=(50, 12)), rng.integers(0, 12, 50)
above = (scores > scores[np.arange(50), labels][:, None]).sum(1)  # how many classes are ahead of the right one


def test_top_5_and_others(exercise: ModuleType) -> None:
    for k in 5, 1, 3:
        wanted = (above >= k).mean()
        slips = {
            "that is the share of right answers: the error is 1 minus it": 1 - wanted,
            "the k lowest scores were taken: argsort goes upwards": 1 - (11 - above < k).mean(),
            "a count: divide by the number of images": 50 * wanted,
        }
        if k > 1:
            slips["that is the top-1 error: k is not used"] = (above >= 1).mean()
        judge.equal(exercise.top_k_error(scores.copy(), labels.copy(), k), wanted, slips)
    judge.equal(exercise.top_k_error(scores, labels), (above >= 5).mean(), {"without k it should be 5": (above >= 1).mean()})
