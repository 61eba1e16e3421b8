"""Exercise 7: the factorised block. `python -m pytest examples/exercises -k lesson07` judges it."""

from minidl import Tensor


def factorised(x: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """y = relu(conv(relu(conv(x, row)), column)), with as many pixels as x has.

    x: (N,C,H,W); row: (F,C,1,n), column: (G,F,n,1), n odd. Returns (N,G,H,W), by `ops.conv2d` and `ops.relu`.
    """
    raise NotImplementedError("write factorised in examples/exercises/lesson07.py: two convolutions, a relu behind each")


# Hint 1: ops.conv2d(x, weight, padding=(rows, columns)) puts a border of zeros around the image.
#
# Hint 2: a kernel of n places needs n // 2 zeros on either side, along its own axis. A row has one along the columns only.
#
# Hint 3: n is row.shape[3].
