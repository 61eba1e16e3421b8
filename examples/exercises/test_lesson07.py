"""Judge of exercise 7: the module of minidl with the same weights, and the outer product."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, ops

rng = np.random.default_rng(7)
x, row, column = (Tensor(rng.normal(size=shape)) for shape in ((2, 2, 6, 8), (3, 2, 1, 5), (2, 3, 5, 1)))


def conv(x: Tensor, w: Tensor, padding: tuple[int, int]) -> Tensor:
    return ops.conv2d(x, w, padding=padding)


def test_as_minidl_has_it(exercise: ModuleType) -> None:
    wide, high = (0, 2), (2, 0)
    wanted = ops.relu(conv(ops.relu(conv(x, row, wide)), column, high)).data
    slips = {
        "the relu between the two convolutions is missing": ops.relu(conv(conv(x, row, wide), column, high)).data,
        "the last relu is missing": conv(ops.relu(conv(x, row, wide)), column, high).data,
        "both relus are missing": conv(conv(x, row, wide), column, high).data,
        "a border on all four sides makes the image larger: a row wants (0, n // 2), a column (n // 2, 0)": ops.relu(
            conv(ops.relu(conv(x, row, (2, 2))), column, (2, 2))
        ).data,
        "without a border the image shrinks: a row wants padding=(0, n // 2), a column (n // 2, 0)": ops.relu(
            conv(ops.relu(conv(x, row, (0, 0))), column, (0, 0))
        ).data,
        "the borders are exchanged: a row wants padding=(0, n // 2)": ops.relu(
            conv(ops.relu(conv(x, row, high)), column, wide)
        ).data,
    }
    judge.equal(exercise.factorised(x, row, column), wanted, slips)


def test_where_no_relu_closes_it_is_one_kernel(exercise: ModuleType) -> None:
    """Of numbers that are not negative: then the block is a convolution with the outer product of both."""
    x, row, column = (Tensor(rng.uniform(size=shape)) for shape in ((1, 1, 6, 8), (1, 1, 1, 3), (1, 1, 3, 1)))
    judge.equal(exercise.factorised(x, row, column), conv(x, Tensor(column.data * row.data), (1, 1)).data, {})
