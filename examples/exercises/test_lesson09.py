"""Judge of exercise 9: the values of known slips, and that what goes in comes out again."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, ops

rng = np.random.default_rng(9)
x = Tensor(rng.normal(size=(2, 2, 5, 5)))
weights = [Tensor(rng.normal(size=(2, c, 3, 3))) for c in (2, 4, 6)]


def block(
    x: Tensor, relu: bool = True, hands_on: bool = False, turned: bool = False, only_new: bool = False, behind: bool = False
) -> np.ndarray:
    """The dense block, and what becomes of it by a slip."""
    new: list[Tensor] = []
    for w in weights:
        y = ops.conv2d(ops.relu(x) if relu and not behind else x, w, padding=1)
        new.append(ops.relu(y) if behind else y)
        old = ops.relu(x) if hands_on else x
        x = ops.concat([new[-1], old] if turned else [old, new[-1]])
    return ops.concat(new).data if only_new else x.data


def test_as_minidl_has_it(exercise: ModuleType) -> None:
    slips = {
        "the relu before each convolution is missing": block(x, relu=False),
        "the relu stands behind the convolution: it should be before it": block(x, behind=True),
        "relu(x) is handed on: the relu is only for what the convolution reads": block(x, hands_on=True),
        "new channels stand before the old ones: they come last": block(x, turned=True),
        "only the new channels come out: x comes first": block(x, only_new=True),
    }
    judge.equal(exercise.dense_block(x, weights), block(x), slips)


def test_without_layers_x_comes_out(exercise: ModuleType) -> None:
    judge.equal(exercise.dense_block(x, []).data, x.data, {})
