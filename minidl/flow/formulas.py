"""What each op does on the way back, as a formula. The forward formula is the first line of the op's docstring."""

from __future__ import annotations

from minidl.core import Op

BACKWARD = {
    "Add": "ga = gy and gb = gy: both get all of it",
    "AvgPool2d": "gx[k] = Σ gy[m] / count[m], over the windows m that hold cell k",
    "BatchNormFrozen": "gx = scale · gy, with scale = gamma / √(var + eps), one number a channel",
    "BroadcastTo": "gx = Σ gy over the repetitions",
    "Clip": "gx = gy where low < x < high, else 0",
    "Concat": "each input takes back its own part of gy",
    "Conv2d": "gx[c,i,j] = Σ_f,u,v w[f,c,u,v] · gy[f, (i+p−u·d)/s, (j+p−v·d)/s]",
    "Div": "ga = gy / b and gb = −gy · a / b²",
    "Dropout": "gx = gy · mask / (1 − p)",
    "Flip": "gx = gy, flipped back",
    "GetItem": "gx = gy at the places that were taken, 0 elsewhere",
    "GlobalAvgPool2d": "gx[c,i,j] = gy[c] / (H · W)",
    "LeakyReLU": "gx = gy where x > 0, else slope · gy",
    "Linear": "gx[i] = Σ_o w[o,i] · gy[o]",
    "MaxPool2d": "gx[k] = Σ gy[m], over the windows m that cell k has won",
    "Maximum": "ga = gy where a is larger, gb = gy where b is",
    "Mean": "gx = gy / count, the same for all",
    "Mul": "ga = gy · b and gb = gy · a",
    "Neg": "gx = −gy",
    "Pad": "gx = gy without the border",
    "Pow": "gx = n · xⁿ⁻¹ · gy",
    "ReLU": "gx = gate · gy, with gate = 1 where x > 0, else 0",
    "Reshape": "gx = gy in the shape of x",
    "RowsAndColumns": "gx = Aᵀ gy B",
    "Sigmoid": "gx = y · (1 − y) · gy",
    "Softmax": "gx[k] = p[k] · (gy[k] − Σ_j gy[j] · p[j])",
    "Sub": "ga = gy and gb = −gy",
    "Sum": "gx = gy, the same for all",
    "Tanh": "gx = (1 − y²) · gy",
    "Transpose": "gx = gy with its axes put back",
}


def backward(op: Op) -> str:
    """The formula of the way back; for an op without its own, that of every op."""
    return BACKWARD.get(type(op).__name__, "gx[k] = Σ_m ∂y[m]/∂x[k] · gy[m]")


def forward(op: Op) -> str:
    """The formula of the way there."""
    return (type(op).__doc__ or "").strip().partition("\n")[0].rstrip(".")
