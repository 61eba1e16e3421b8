"""Published networks under weights that anyone can rebuild from their names, and what they compute.

The figures are those of torchvision in float64, with the weights of `recipe`, for the input
`np.random.default_rng(0).standard_normal(x_shape)` and the labels (3, 7), dropout 0, auxiliary heads on. There is a file
NAME.npz for each network in tests/models/figures, with

    x_shape, n_params, state_keys, state_shapes     n_params includes the auxiliary heads
    eval_logits                                     (2,1000), in evaluation
    eval_input_grad_of_logit_0_3                    d logit[0, 3] / d x[0], (3,H,W) float32, in evaluation; every 8th pixel
    eval_input_grad_l1                              the sum of the sizes of all
    train_loss, train_input_grad_l1                 of a step of training; the loss includes the auxiliary heads
    train_grad_names, train_grad_norms              L2 norm of the gradient of every parameter
    running_names, running_norms_after              L2 norm of every running statistic after the step

The folder in MINIDL_TEST_REFERENCE, where it is set, has the same files with all pixels, which then count.
`python -m tests.models.reference` makes ours from those.
"""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from minidl import Parameter, Tensor, gradients, nn, ops, tape
from minidl.check import gradient_check
from minidl.ops.activation import ReLU
from minidl.ops.pool import MaxPool2d

FIGURES = Path(__file__).parent / "figures"
FOLDER = Path(os.environ.get("MINIDL_TEST_REFERENCE", FIGURES))
GRADIENT = "eval_input_grad_of_logit_0_3"
LABELS = np.array([3, 7])
KERNELS = ["compiled", pytest.param("reference", marks=pytest.mark.slow)]
PIXELS = slice(None, None, 8)  # those that the files in `FIGURES` keep, of rows and of columns


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


def images(shape, dtype=np.float64):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype), requires_grad=True)


def saliency(model, x):
    """Logits, and the gradient of logit [0, 3] in x, in evaluation mode."""
    with model.eval().frozen():
        logits = model(x)
        (gx,) = gradients(logits[0, 3], [x])
    return logits.data, gx


def training_loss(model, x, aux_weight):
    """The loss in training, auxiliary heads included."""
    outputs = model.train()(x)
    logits, *aux = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = ops.cross_entropy(logits, LABELS)
    for head in aux:
        loss = loss + aux_weight * ops.cross_entropy(head, LABELS)
    return loss


def gradient_norms(model):
    """The L2 norm of the gradient of every parameter."""
    return {name: norm(p.grad) for name, p in model.named_parameters()}


def running_norms(model):
    """The L2 norm of every running statistic."""
    return {name: norm(a) for name, a in model.named_buffers() if "running" in name}


def norm(a):
    return np.linalg.norm(a.astype(np.float64, copy=False))


def size(a):
    """The L1 norm."""
    return np.abs(a).sum(dtype=np.float64)


def names_and_shapes(model):
    return [(name, a.shape) for name, a in model.state_dict().items()]


def count(model):
    return sum(p.size for p in model.parameters())


def error(found, expected):
    """The largest difference, in units of the largest expected value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


# ---- against the published figures


def published(name):
    """The arrays of NAME.npz, and the norms by name instead of their names and values."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    for names, values in (("train_grad_names", "train_grad_norms"), ("running_names", "running_norms_after")):
        arrays[values] = dict(zip(arrays.pop(names).tolist(), arrays[values].tolist(), strict=True))
    return arrays


def published_pixels(gx):
    """What the files hold of a gradient (3,H,W)."""
    return gx[:, PIXELS, PIXELS] if FOLDER == FIGURES else gx


def errors_by_name(found, expected):
    assert list(found) == list(expected)
    return {name: error(found[name], value) for name, value in expected.items()}


def check_names(model, name):
    """Parameters, and names and shapes of the state, in the published order."""
    expected = published(name)
    shapes = [tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for shape in expected["state_shapes"]]
    assert names_and_shapes(model) == list(zip(expected["state_keys"].tolist(), shapes, strict=True))
    assert count(model) == expected["n_params"]


def check_figures(model, name, aux_weight=0.0):
    """In float64, all figures agree to 1e-8."""
    expected, model = published(name), rebuilt(model)
    x = images(expected["x_shape"])
    logits, gx = saliency(model, x)
    assert not gx[1].any()  # the logits of one image depend on no other
    loss = training_loss(model, x, aux_weight)
    loss.backward()
    errors = {
        "logits": error(logits, expected["eval_logits"]),
        "input gradient": error(published_pixels(gx[0]), expected[GRADIENT]),
        "L1 of the input gradient": error(size(gx[0]), expected["eval_input_grad_l1"]),
        "loss": error(loss.data, expected["train_loss"]),
        "L1 of the input gradient of the loss": error(size(x.grad), expected["train_input_grad_l1"]),
        **errors_by_name(gradient_norms(model), expected["train_grad_norms"]),
        **errors_by_name(running_norms(model), expected["running_norms_after"]),
    }
    limits = {"input gradient": 1e-7}  # which the file holds in float32
    wrong = {k: e for k, e in errors.items() if not e <= limits.get(k, 1e-8)}
    assert not wrong, f"{name}: {wrong}"


def check_float32(make, name, aux_weight=0.0):
    """In float32, the figures agree to 1e-3, those of single pixels and parameters with the decisions of float64.

    One relu in millions has an input so near 0 that rounding opens or closes it, and the gradients of a few pixels or of a
    channel then change by a percent. With the relus that are open, and the pixels that win a max pooling, in float64, they
    agree too. Prints how many decisions differed, and the largest errors that they made.
    """
    expected, model, exact = published(name), rebuilt(make(), np.float32), rebuilt(make())
    x, exact_x = images(expected["x_shape"], np.float32), images(expected["x_shape"])
    logits, gx = saliency(model, x)
    pixels = error(published_pixels(gx[0]), expected[GRADIENT])
    errors = {
        "logits": error(logits, expected["eval_logits"]),
        "L1 of the input gradient": error(size(gx[0]), expected["eval_input_grad_l1"]),
    }
    with ops.unfused(), model.eval().frozen(), exact.eval().frozen():  # unfused: every relu is an op
        y = model(x)[0, 3]
        flips = take_decisions(y, exact(exact_x)[0, 3])
        (gx,) = gradients(y, [x])
    errors["input gradient"] = error(published_pixels(gx[0]), expected[GRADIENT])

    loss = training_loss(model, x, aux_weight)
    loss.backward()
    norms = gradient_norms(model)
    parameters = max(errors_by_name(norms, expected["train_grad_norms"]).values())
    errors |= {
        "loss": error(loss.data, expected["train_loss"]),
        "L1 of the input gradient of the loss": error(size(x.grad), expected["train_input_grad_l1"]),
        "norm of all gradients": error(*(norm(np.array([*n.values()])) for n in (norms, expected["train_grad_norms"]))),
        **errors_by_name(running_norms(model), expected["running_norms_after"]),
    }
    for p in model.parameters():
        p.grad = None
    with ops.unfused():
        loss = training_loss(model, x, aux_weight)
        flips_in_training = take_decisions(loss, training_loss(exact, exact_x, aux_weight))
        loss.backward()
    errors |= errors_by_name(gradient_norms(model), expected["train_grad_norms"])
    print(f"{name}: {flips} decisions in evaluation and {flips_in_training} in training differ between float32 and float64; "
          f"with its own, float32 is wrong by {pixels:.1e} in the worst pixel and by {parameters:.1e} in the norm of the worst "
          "parameter's gradient")  # fmt: skip
    wrong = {k: e for k, e in errors.items() if not e <= 1e-3}
    assert not wrong, f"{name}: {wrong}"


def take_decisions(y, exact):
    """Lets the relus and max poolings behind y decide as those behind `exact`, of the same net; how many change."""
    flips = 0
    for op, like in zip(tape(y), tape(exact), strict=True):
        assert type(op) is type(like)
        if isinstance(op, ReLU):
            flips += np.count_nonzero(op.gate() != like.gate())
            op.y = like.gate().astype(op.y.dtype)
        elif isinstance(op, MaxPool2d):
            flips += np.count_nonzero(op.argmax != like.argmax)
            op.argmax = like.argmax
    return flips


# ---- small modules


def check_gradients(module, x):
    """A gradient check in x and in every parameter of the module, in training mode."""
    owners = [(m, k) for m in module.to(dtype=np.float64).modules() for k, v in vars(m).items() if isinstance(v, Parameter)]

    def f(x, *ws):
        for (m, k), w in zip(owners, ws, strict=True):
            vars(m)[k] = w  # a tensor in the place of a parameter, which setattr would refuse
        return module(x)

    return gradient_check(f, [x, *(getattr(m, k).data for m, k in owners)])


def layers(model):
    """How many layers with weights lie on the longest way: its convolutions and linear layers, no shortcuts."""
    found = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return sum("downsample" not in name for name in found)


if __name__ == "__main__":
    for path in FOLDER.glob("*.npz"):
        with np.load(path) as file:
            arrays = dict(file)
        arrays[GRADIENT] = arrays[GRADIENT][:, PIXELS, PIXELS]
        np.savez_compressed(FIGURES / path.name, **arrays)
