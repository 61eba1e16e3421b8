"""Windows over an image: each answered as the crop that it is, wherever it lies, whatever the batches."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.inference import predict, sliding_window, starts, tiles


class Net(nn.Module):
    """Logits of images of any size"""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.conv, self.norm = nn.Conv2d(2, 5, 3, padding=1, rng=rng), nn.BatchNorm2d(5)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(5, 3, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(ops.global_avg_pool2d(nn.conv_relu(x, self.conv, self.norm))))


def images(n: int, *size: int) -> Array:
    return np.random.default_rng(1).normal(size=(n, 2, *size)).astype(np.float32)


@settings(max_examples=25)
@given(st.data())
def test_each_score_is_the_logit_of_its_crop(data: st.DataObject) -> None:
    H, W, h, w = (data.draw(st.integers(1, 9)) for _ in range(4))
    h, w, stride = min(h, H), min(w, W), (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    model, x = Net(), images(data.draw(st.integers(1, 3)), H, W)
    rows, columns = starts(H, h, stride[0]), starts(W, w, stride[1])
    scores = sliding_window(model, x, (h, w), stride, batch_size=1)
    many = sliding_window(model, x, (h, w), stride, batch_size=data.draw(st.integers(2, 40)))
    assert scores.shape == many.shape == (len(x), 3, len(rows), len(columns)) and scores.dtype == np.float32
    np.testing.assert_allclose(many, scores, rtol=0, atol=1e-5)
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            crop = x[:, :, top : top + h, left : left + w]
            np.testing.assert_array_equal(scores[:, :, i, j], predict(model, crop, batch_size=1))  # to the bit


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_windows_reach_the_border(size: int, window: int, stride: int) -> None:
    if window > size:
        with pytest.raises(ValueError, match=f"window: expected at most the {size} pixels of the image, got {window}"):
            starts(size, window, stride)
        return
    found = starts(size, window, stride)
    assert found[0] == 0 and found[-1] == size - window and found == sorted(set(found))
    assert set(np.diff(found[:-1])) <= {stride} and max(np.diff(found), default=0) <= stride


def test_by_hand() -> None:
    assert starts(10, 4, 4) == [0, 4, 6] and starts(8, 4, 2) == [0, 2, 4] and starts(4, 4, 3) == [0]
    assert sliding_window(Net(), images(2, 10, 8), 4).shape == (2, 3, 4, 3)  # half a window


def test_a_spot_is_where_it_is() -> None:
    class Brightest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return ops.concat([ops.top_k_pool2d(x, 1), -ops.top_k_pool2d(x, 1)], axis=1)

    x = np.zeros((1, 1, 12, 15), np.float32)
    x[0, 0, 11, 7] = 3
    scores = sliding_window(Brightest(), x, (3, 4), (3, 4))
    rows, columns = starts(12, 3, 3), starts(15, 4, 4)
    assert [(rows[i], columns[j]) for _, i, j in zip(*np.nonzero(scores[:, 0]), strict=True)] == [(9, 4)]
    np.testing.assert_array_equal(scores[:, 1], -scores[:, 0])


@pytest.mark.parametrize(("size", "stride"), [(4, None), ((3, 5), 2), ((11, 9), (1, 1)), (1, 7)])
def test_tiles_are_the_windows(size: Any, stride: Any) -> None:
    image = images(1, 11, 9)[0]
    found = tiles(image, size, stride)
    (h, w), (down, right) = (v if isinstance(v, tuple) else (v, v) for v in (size, size if stride is None else stride))
    want = [image[:, t : t + h, u : u + w] for t in starts(11, h, down) for u in starts(9, w, right)]
    np.testing.assert_array_equal(found, np.stack(want))
    assert not np.may_share_memory(found, image)
    scores = sliding_window(Net(), image[None], size, size if stride is None else stride, batch_size=1)
    np.testing.assert_array_equal(predict(Net(), found, batch_size=1).T.reshape(scores[0].shape), scores[0])


def test_progress_is_told_in_windows() -> None:
    told = list[tuple[int, int]]()
    sliding_window(Net(), images(2, 6, 6), 4, 2, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 8), (6, 8), (8, 8)]


def test_memory_is_that_of_a_batch(tell: Any) -> None:
    """225 windows of 64x64 would be 7 MiB; a batch of 4 is 128 KiB"""
    model, x = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.GlobalAvgPool2d()), images(1, 176, 176)
    sliding_window(model, x[:, :, :64, :64], 64, batch_size=1)  # compiles
    peaks = []
    for batch_size in (4, 225):
        tracemalloc.start()
        assert sliding_window(model, x, 64, 8, batch_size).shape == (1, 2, 15, 15)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
    tell(f"sliding window: {peaks[0]:.2f} MiB in batches of 4, {peaks[1]:.1f} in one")
    assert peaks[0] < 1 and peaks[1] > 7


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sliding_window(Net(), x, 9), ValueError, "window: 9x9 is larger than the image, which is 8x7"),
        (lambda x: sliding_window(Net(), x, (8, 8)), ValueError, "window: 8x8 is larger than the image, which is 8x7"),
        (lambda x: sliding_window(Net(), x, 0), ValueError, "window: expected an integer of at least 1"),
        (lambda x: sliding_window(Net(), x, 4, 0), ValueError, "stride: expected an integer of at least 1"),
        (lambda x: sliding_window(Net(), x, 4, 2.0), TypeError, "stride: expected an integer of at least 1"),
        (lambda x: sliding_window(Net(), x[0], 4), ValueError, r"x: expected images \(N,C,H,W\)"),
        (lambda x: sliding_window(Net(), x, 4, batch_size=0), ValueError, "batch_size: expected an integer of at least 1"),
        (lambda x: sliding_window(nn.Conv2d(2, 3, 1), x, 4), ValueError, "model: expected one row of logits an image"),
        (lambda x: tiles(x, 4), ValueError, r"image: expected \(C,H,W\), none of these 0, got shape \(2, 2, 8, 7\)"),
        (lambda x: tiles(x[0].tolist(), 4), TypeError, r"image: expected an array \(C,H,W\), got list"),
        (lambda x: tiles(x[0], 9), ValueError, "size: 9x9 is larger than the image, which is 8x7"),
    ],
)
def test_what_cannot_be(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(images(2, 8, 7))
