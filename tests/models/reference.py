"""Published networks under weights that anyone can rebuild from their names, and what they compute.

The figures are those of torchvision in float64, with the weights of `recipe`, for the input
`np.random.default_rng(0).standard_normal(x_shape)` and the labels (3, 7), dropout 0, auxiliary heads on. The tests keep a
few of them (`Figures`); the folder in MINIDL_TEST_REFERENCE has all, a file `NAME.npz` for each network (`check_file`).
"""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from minidl import Parameter, Tensor, gradients, nn, ops
from minidl.check import gradient_check

FOLDER = os.environ.get("MINIDL_TEST_REFERENCE")
LABELS = np.array([3, 7])

needs_reference = pytest.mark.skipif(FOLDER is None, reason="MINIDL_TEST_REFERENCE is not set")


def recipe(name, shape):
    """The entry of a state dict, from nothing but its name and shape."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape)
    a = rng.standard_normal(shape)
    a *= 0.1 if name.endswith(("running_mean", "bias")) else np.sqrt(2 / np.prod(shape[1:]))
    return a


def rebuilt(model, dtype=np.float64):
    """`model` with the weights of the recipe."""
    for name, p in model.named_parameters():
        p.data = recipe(name, p.shape).astype(dtype, copy=False)
    model.to(dtype=dtype)
    model.load_state_dict({name: recipe(name, a.shape) for name, a in model.named_buffers()}, strict=False)
    return model


def pictures(shape, dtype=np.float64):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype), requires_grad=True)


def saliency(model, x):
    """Logits, and the gradient of logit [0, 3] in x, in evaluation mode."""
    with model.eval().frozen():
        logits = model(x)
        (gx,) = gradients(logits[0, 3], [x])
    return logits.data, gx


def training_step(model, x, aux_weight):
    """The loss of a training step, auxiliary heads included, after its backward pass."""
    outputs = model.train()(x)
    logits, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = ops.cross_entropy(logits, LABELS)
    for head in aux:
        loss = loss + aux_weight * ops.cross_entropy(head, LABELS)
    loss.backward()
    return loss.item()


def norms_after_step(model):
    """L2 norms of the gradient of every parameter and of every running statistic."""
    arrays = {name: p.grad for name, p in model.named_parameters()}
    arrays |= {name: a for name, a in model.named_buffers() if "running" in name}
    return {name: np.linalg.norm(a.astype(np.float64, copy=False)) for name, a in arrays.items()}


def names_and_shapes(model):
    return [(name, a.shape) for name, a in model.state_dict().items()]


def count(model):
    return sum(p.size for p in model.parameters())


def error(found, expected):
    """The largest difference, in units of the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


# ---- a few figures, kept by the tests


class Figures(NamedTuple):
    x_shape: tuple[int, int, int, int]
    logits: tuple[float, float, float]  # [0, 0], [0, 3], [1, 999]
    gx_l1: float  # of d logit[0, 3] / d x
    loss: float  # in training
    step_gx_l1: float  # of d loss / d x
    norms: dict[str, float]  # of gradients and running statistics after the step


def check_figures(model, figures, aux_weight=0.0, step=True):
    """Compares in float64. With `step=False` no step of training is made."""
    x = pictures(figures.x_shape)
    logits, gx = saliency(rebuilt(model), x)
    assert logits[[0, 0, 1], [0, 3, 999]] == pytest.approx(figures.logits, rel=1e-9)
    assert np.abs(gx).sum() == pytest.approx(figures.gx_l1, rel=1e-9)
    assert not gx[1].any()  # the logits of one picture depend on no other
    if step:
        assert training_step(model, x, aux_weight) == pytest.approx(figures.loss, rel=1e-9)
        assert np.abs(x.grad).sum() == pytest.approx(figures.step_gx_l1, rel=1e-9)
        norms = norms_after_step(model)
        assert {name: norms[name] for name in figures.norms} == pytest.approx(figures.norms, rel=1e-9)


# ---- all figures, from the folder


def check_file(model, name, aux_weight=0.0, dtype=np.float64):
    """Compares everything in `NAME.npz`; names and shapes of the state must be the same and in the same order."""
    with np.load(Path(FOLDER, f"{name}.npz")) as file:
        expected = dict(file)
    shapes = [tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for shape in expected["state_shapes"]]
    assert names_and_shapes(model) == list(zip(expected["state_keys"].tolist(), shapes, strict=True))
    assert count(model) == expected["n_params"]

    x = pictures(expected["x_shape"], dtype)
    logits, gx = saliency(rebuilt(model, dtype), x)
    loss = training_step(model, x, aux_weight)
    norms = norms_after_step(model)
    names = [*expected["train_grad_names"].tolist(), *expected["running_names"].tolist()]
    values = [*expected["train_grad_norms"].tolist(), *expected["running_norms_after"].tolist()]
    assert list(norms) == names
    errors = {
        "logits": error(logits, expected["eval_logits"]),
        "input gradient": error(gx[0], expected["eval_input_grad_of_logit_0_3"]),
        "L1 of the input gradient": error(np.abs(gx[0]).sum(dtype=np.float64), expected["eval_input_grad_l1"]),
        "loss": error(loss, expected["train_loss"]),
        "L1 of the input gradient of the loss": error(np.abs(x.grad).sum(dtype=np.float64), expected["train_input_grad_l1"]),
    } | {name: error(norms[name], value) for name, value in zip(names, values, strict=True)}
    limits = dict.fromkeys(errors, 1e-8) | {"input gradient": 1e-7}  # which the file holds in float32
    if dtype == np.float32:
        # One relu in millions that rounding opens or closes changes the gradients of a pixel or a channel by percents.
        limits = {k: 1e-3 if k in ("logits", "loss") or "running" in k else 0.05 for k in errors}
    wrong = {k: e for k, e in errors.items() if not e <= limits[k]}
    assert not wrong, f"{name}: {wrong}"


# ---- small modules


def check_gradients(module, x):
    """A gradient check in x and in every parameter of the module, in training mode."""
    owners = [(m, k) for m in module.to(dtype=np.float64).modules() for k, v in vars(m).items() if isinstance(v, Parameter)]

    def f(x, *ws):
        for (m, k), w in zip(owners, ws, strict=True):
            setattr(m, k, w)
        return module(x)

    return gradient_check(f, [x, *(getattr(m, k).data for m, k in owners)])


def layers(model):
    """How many layers with weights lie on the longest way: its convolutions and linear layers, no shortcuts."""
    found = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum("downsample" not in name for name in found)
