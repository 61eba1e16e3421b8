"""Solution 2: multiplication and tanh."""

import numpy as np

from minidl import Op


class Multiply(Op):
    """y = a b, element by element, of two arrays of one shape"""

    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        self.a, self.b = a, b
        return a * b

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ga = b gy, gb = a gy"""
        return self.b * gy, self.a * gy


class HyperbolicTangent(Op):
    """y = tanh(x)"""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.y = np.tanh(x)
        return self.y

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray]:
        """gx = (1 - y^2) gy"""
        return ((1 - self.y**2) * gy,)
