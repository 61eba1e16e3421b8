"""Exercise 2: three operations, as minidl has them. `python -m pytest examples/exercises -k lesson02` judges it."""

import numpy as np

from minidl import Op


class Multiply(Op):
    """y = a b, element by element, of two arrays of one shape"""

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.a, self.b = a, b  # what backward needs
        return a * b

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of a and of b, from gy, that of y: all three have the shape of y."""
        raise NotImplementedError("write Multiply.backward in examples/exercises/lesson02.py: the gradients of a and of b")


class HyperbolicTangent(Op):
    """y = tanh(x)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.y = np.tanh(x)
        return self.y

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray]:
        """The gradient of x, from gy, that of y; a tuple of one: `(gx,)`."""
        raise NotImplementedError("write HyperbolicTangent.backward in examples/exercises/lesson02.py: (gx,) from self.y")


class AddBias(Op):
    """y = x + b: x (N,C), and to each of its N rows the same b (C,)"""

    def forward(self, x: np.ndarray, b: np.ndarray) -> np.ndarray:
        return x + b

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The gradients of x (N,C) and of b (C,), from gy (N,C)."""
        raise NotImplementedError("write AddBias.backward in examples/exercises/lesson02.py: b is used in every row")


# Hint 1: hold b fixed. How much does y change when a changes by a little? That, times gy, is the gradient of a.
#
# Hint 2: the derivative of tanh is 1 - tanh(x)^2. Tanh of x is known already: it is self.y.
#
# Hint 3: backward returns a tuple, one gradient for each input, and multiplies by gy, never by itself alone.
#
# Hint 4: b goes N ways, into each row once. Each way brings back its row of gy, and what comes back adds up.
