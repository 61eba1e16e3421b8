"""Receptive fields against the truth: the pixels at which the gradient of one output is not zero."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models
from minidl import Tensor, gradients, nn, ops
from minidl.analysis import cost, receptive
from minidl.analysis.receptive import Sight

SIZE = 48, 45


class Function(nn.Module):
    def __init__(self, f):
        self.f = f

    def forward(self, x):
        return self.f(x)


def ones(*shape):
    return Tensor(np.ones(shape, np.float32))


def conv(kernel, stride=1, padding=0, dilation=1):
    """With weights of one no gradient cancels: its support is what can be seen."""
    kh, kw = kernel

    def f(x):
        C = x.shape[1]
        return ops.conv2d(x, ones(2, C, kh, kw), None, stride, padding, dilation)

    return f


def check(f, size=SIZE):
    """The rows and columns that a position of f(x) far from the border sees are those of the table."""
    model = Function(f)
    x = Tensor(np.random.default_rng(0).uniform(1, 2, (1, 2, *size)).astype(np.float32), requires_grad=True)
    row = cost(model, (2, *size)).rows[-1]
    y = f(x)
    at = [slice(None)] * 4
    for length, sight in zip(size, row.field, strict=True):
        positions = range(y.shape[sight.axis])
        inside = [i for i in positions if sight.first + i * sight.jump >= 0 and sight.last + i * sight.jump < length]
        if not inside:
            return False
        at[sight.axis] = inside[len(inside) // 2]
    (gx,) = gradients(ops.sum(y[tuple(at)]), [x])  # all channels
    for axis, sight in zip((2, 3), row.field, strict=True):
        seen = np.nonzero(gx.any(axis=tuple({0, 1, 2, 3} - {axis})))[0]
        i = at[sight.axis]
        assert (seen[0], seen[-1]) == (sight.first + i * sight.jump, sight.last + i * sight.jump)
    assert row.receptive_field == tuple(s.size for s in row.field)
    return True


def sizes(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def windows(draw):
    kernel, stride = draw(sizes(1, 4)), draw(sizes(1, 3))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    if draw(st.booleans()):
        return conv(kernel, stride, padding, draw(sizes(1, 2)))
    return lambda x: ops.avg_pool2d(x, kernel, stride, padding)


@st.composite
def branches(draw):
    """Two ways side by side, of kernels that do not lie symmetrically, joined"""
    ways = []
    for _ in range(2):
        kernel = draw(sizes(1, 4))
        before = tuple(draw(st.integers(0, k - 1)) for k in kernel)
        borders = [(0, 0), (0, 0), *((b, k - 1 - b) for b, k in zip(before, kernel, strict=True))]
        ways.append((borders, conv(kernel)))
    stride = draw(sizes(1, 2))
    join = draw(st.sampled_from(["add", "concat", "multiply"]))

    def f(x):
        a, b = (way(ops.pad(x, borders)) for borders, way in ways)
        a, b = (y[:, :, :: stride[0], :: stride[1]] for y in (a, b))
        return a + b if join == "add" else ops.concat([a, b]) if join == "concat" else a * b

    return f


MOVES = {
    "transpose": lambda x: ops.transpose(x, (0, 1, 3, 2)),
    "flip": lambda x: ops.flip(x, (2, 3)),
    "crop": lambda x: x[:, ..., 1:, 2:-1],
    "every third from the end": lambda x: x[:, :, ::-3],
    "flat and back": lambda x: ops.reshape(ops.relu(ops.reshape(x, (1, -1))), x.shape),
    "pixels in a row": lambda x: ops.reshape(ops.reshape(x, (x.shape[1], x.shape[2] * x.shape[3])), x.shape),
    "an axis more": lambda x: x[:, None, :, :][:, 0],
    "channels": lambda x: ops.concat([x[:, 1:], x[:, :1], ops.softmax(x, axis=1)]),
    "border": lambda x: ops.pad(x, [(0, 0), (1, 1), (2, 0), (0, 3)]),
    "blur": lambda x: ops.gaussian_blur(x, 1.0, 1) if min(x.shape[2:]) > 1 else x,
    "mean of channels": lambda x: x * ops.mean(x, axis=1, keepdims=True),
    "norm": lambda x: nn.BatchNorm2d(x.shape[1]).eval()(x),
}


@given(st.lists(windows() | branches() | st.sampled_from(sorted(MOVES)).map(MOVES.get), min_size=1, max_size=5))
def test_the_support_of_a_gradient_is_the_receptive_field(steps):
    def f(x):
        for step in steps:
            if min(x.shape[2:]) >= 10:
                x = step(x)
        return x

    check(f)


@pytest.mark.parametrize("name", MOVES)
def test_ops_that_move_pixels(name):
    assert check(lambda x: conv((3, 2), (2, 1))(MOVES[name](conv((2, 3), padding=(1, 0))(x))))


def field(f, shape=(2, 24, 20)):
    return cost(Function(f), shape).rows[-1].field


def pixels(f, shape=(2, 24, 20)):
    return cost(Function(f), shape).rows[-1].receptive_field


def test_max_pooling_sees_what_means_see():
    for window in ((3, 2), (2, 1), (1, 0)), ((2, 2), None, 0), ((3, 3), (2, 2), (1, 1)):
        assert field(lambda x, w=window: ops.max_pool2d(x, *w)) == field(lambda x, w=window: ops.avg_pool2d(x, *w))


ALL = math.inf, math.inf


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (ops.global_avg_pool2d, ALL),
        (lambda x: ops.mean(x, axis=(2, 3)), ALL),
        (lambda x: ops.max(conv((3, 3))(x), axis=3), (3, math.inf)),
        (lambda x: ops.adaptive_avg_pool2d(x, 1), ALL),
        (lambda x: ops.adaptive_avg_pool2d(x, (24, 20)), (1, 1)),  # does nothing
        (lambda x: ops.adaptive_avg_pool2d(x, (12, 5)), (2, 4)),  # cells of two rows and four columns
        (lambda x: ops.linear(ops.flatten(x), ones(3, 2 * 24 * 20)), ALL),
        (lambda x: ops.reshape(x, (1, 2, -1)) @ ones(480, 3), ALL),
        (lambda x: ops.transpose(ops.reshape(x, (1, 2, -1)), (0, 2, 1)) @ ones(2, 3), (1, 1)),  # pixel by pixel
        (lambda x: x @ ones(20, 7), (1, math.inf)),  # mixes columns
        (lambda x: x * ops.mean(x, axis=(2, 3), keepdims=True), ALL),  # squeeze and excite
        (lambda x: ops.softmax(x, axis=-1), (1, math.inf)),
        (lambda x: ops.concat([x, x], axis=2), (math.inf, 1)),
        (lambda x: x[:, :, 3], (1, 1)),
        (lambda x: conv((3, 3))(ops.reshape(x, (1, 2, 20, 24))), ALL),  # rows of another length: nothing is known
        (lambda x: x[:, :, np.array([3, 1])], ALL),
        (lambda x: ops.cross_entropy(ops.global_avg_pool2d(x), np.array([1])), ALL),
        (lambda x: conv((3, 3))(ops.resize(conv((3, 3), padding=1)(x), (48, 40), mode="nearest")), (4, 4)),
        (lambda x: ops.resize(x, (48, 40)), (2, 2)),
        (lambda x: ops.gaussian_blur(x, 1.0, 2), (5, 5)),
    ],
)
def test_by_hand(f, expected):
    assert pixels(f) == expected


def test_what_does_not_come_from_the_image_sees_nothing_of_it():
    weight = nn.Conv2d(2, 2, 3).weight
    rows = cost(Function(lambda x: ops.conv2d(x, weight * 2)), (2, 9, 9)).rows
    assert (rows[0].op, rows[0].field, rows[0].inputs) == ("Mul", (), ())
    assert rows[1].receptive_field == (3, 3) and rows[1].inputs == (-1, 0)


def test_a_local_response_norm_looks_at_channels_only():
    """It folds the image into one axis and pools along the channels"""
    rows = cost(models.googlenet(num_classes=2, paper=True), (3, 64, 64)).collapsed(1).rows
    before, norm = next((a, b) for a, b in pairwise(rows) if b.name == "lrn1")
    assert norm.field == before.field and norm.op == "LocalResponseNorm"


def test_resized_images_see_what_their_gradients_see_within_a_pixel():
    def f(x):
        return conv((3, 3))(ops.resize(conv((3, 3), padding=1)(x), (37, 71)))

    x = Tensor(np.ones((1, 2, 24, 40), np.float32), requires_grad=True)
    y, sizes = f(x), cost(Function(f), (2, 24, 40)).rows[-1].receptive_field
    widest = [0, 0]
    for i in range(8, 20):
        (gx,) = gradients(y[0, 0, i, 2 * i], [x])
        seen = [np.nonzero(gx.any(axis=tuple({0, 1, 2, 3} - {axis})))[0] for axis in (2, 3)]
        widest = [max(w, int(np.ptp(s)) + 1) for w, s in zip(widest, seen, strict=True)]
    assert all(abs(w - s) <= 1 for w, s in zip(widest, sizes, strict=True))


# ---- a wrong formula turns the check red


def no_padding(x, k, s, p, d, length):
    return Sight(x.axis, length, 1, x.first, x.last + d * (k - 1) * x.jump, s * x.jump)


def no_dilation(x, k, s, p, d, length):
    return Sight(x.axis, length, 1, x.first - p * x.jump, x.last + (k - 1 - p) * x.jump, s * x.jump)


def no_jump(x, k, s, p, d, length):
    return Sight(x.axis, length, 1, x.first - p, x.last + d * (k - 1) - p, s * x.jump)


def no_stride(x, k, s, p, d, length):
    return Sight(x.axis, length, 1, x.first - p * x.jump, x.last + (d * (k - 1) - p) * x.jump, x.jump)


@pytest.mark.parametrize("wrong", [no_padding, no_dilation, no_jump, no_stride])
def test_a_wrong_window_is_noticed(wrong, monkeypatch):
    monkeypatch.setattr(receptive, "_window", wrong)
    with pytest.raises(AssertionError):
        test_the_support_of_a_gradient_is_the_receptive_field()


def test_a_wrong_join_is_noticed(monkeypatch):
    monkeypatch.setattr(receptive, "_union", lambda sights: sights[0])
    with pytest.raises(AssertionError):
        test_the_support_of_a_gradient_is_the_receptive_field()
