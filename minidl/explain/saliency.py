"""Gradients of a logit in the picture."""

from __future__ import annotations

from minidl import ops
from minidl.array import Array, array_module
from minidl.core import Tensor, gradients
from minidl.nn import Module


def logit_gradients(model: Module, x: Array) -> tuple[Array, Array]:
    """Logits (N,K) of pictures x (N,C,H,W), normalised as in training, and the gradient (N,C,H,W) of each one's largest logit.

    gx[n] = d logit[n, argmax_k logit[n, k]] / d x[n], with frozen parameters and in evaluation mode. No picture's logit
    depends on another picture, so that one walk from their sum serves all. x, and so the results, are where the model is.
    Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks", section 3.
    """
    was_training = model.training
    model.eval()
    try:
        with model.frozen():
            picture = Tensor(x, requires_grad=True)
            logits = model(picture)
            largest = logits[array_module(x).arange(len(x)), logits.data.argmax(1)]  # (N,)
            (gx,) = gradients(ops.sum(largest), [picture])
    finally:
        model.train(was_training)
    return logits.data, gx
