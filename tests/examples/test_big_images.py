"""examples/big_images.py: the net, its maps and patches, and that a study which was stopped goes on."""

from __future__ import annotations

import pathlib
from typing import Any

import big_images as example  # examples/big_images.py
import numpy as np
import pytest
from PIL import Image

from minidl import Tensor, data, ops
from minidl.array import Array

PLAN = example.QUICK


def net_that_weighs(recomputed: bool = False) -> example.Net:
    """A net whose linear layer has begun to learn"""
    net = example.Net(recomputed)
    rng = np.random.default_rng(1)
    net.linear.load_state_dict({"weight": rng.normal(size=(1, 32)).astype(np.float32), "bias": np.float32([0.5])})
    return net


def test_the_net_weighs_the_highest_places_of_each_feature() -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 1, 32, 48)).astype(np.float32))
    net = net_that_weighs()
    features, w = net.features(x).data, net.linear.weight.data[0]
    assert features.shape == (2, 32, 4, 6)
    z = np.sort(features.reshape(2, 32, -1))[:, :, -example.TOP :].mean(2) @ w + 0.5
    np.testing.assert_allclose(net(x).data, np.stack([-z / 2, z / 2], 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.map(x).data[:, 0], np.einsum("nchw,c->nhw", features, w) + 0.5, rtol=1e-4, atol=1e-5)


def test_a_net_that_has_learnt_nothing_says_nothing_and_begins_with_its_linear_layer() -> None:
    net, x = example.Net(), np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype(np.float32)
    y = net(Tensor(x))
    ops.cross_entropy(y, np.array([0, 0])).backward()
    assert not y.data.any() and net.linear.weight.grad.any()
    assert not any(p.grad.any() for p in net.blocks.parameters())


def test_a_place_sees_33_pixels() -> None:
    net = example.Net()
    for p in net.parameters():
        p.data = np.abs(p.data)
    x = np.zeros((129, 1, 128, 64), np.float32)  # of the first 128 images each has a pixel, in another row
    x[range(128), 0, range(128), 32] = 1
    place = net.features(Tensor(x)).data[:, :, 8, 4]
    np.testing.assert_array_equal(np.flatnonzero((place != place[128]).any(1)), range(51, 84))


def test_the_map_is_the_mean_over_mirror_images_and_places_beside() -> None:
    x, net = np.random.default_rng(0).normal(size=(1, 1, 32, 48)).astype(np.float32), net_that_weighs()
    score, found = example.score_and_map(net, x)
    (no, yes), maps = net(Tensor(x)).data[0], np.zeros((4, 6))
    assert score == pytest.approx(float(yes - no)) and found.shape == maps.shape
    for down in (1, -1):
        for right in (1, -1):
            mirrored = np.ascontiguousarray(x[:, :, ::down, ::right])
            maps += net.map(Tensor(mirrored)).data[0, 0, ::down, ::right] / 4
    np.testing.assert_allclose(
        found[1:3, 1:5], [[maps[i : i + 3, j : j + 3].mean() for j in range(4)] for i in range(2)], rtol=1e-4
    )
    np.testing.assert_allclose(example.score_and_map(net, x[..., ::-1].copy())[1], found[:, ::-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [24, 23])
def test_batches_have_as_many_of_either_class(n: int) -> None:
    labels = (np.arange(n) % 3 == 0).astype(np.int64)  # 8 of the one, 15 or 16 of the other
    images = np.arange(n, dtype=np.float32).reshape(n, 1, 1, 1)
    loader = example.Pairs(data.Dataset(images, labels, example.CLASSES), 4, shuffle=False, seed=3, drop_last=True)
    epochs = [[(x.ravel().astype(int), y) for x, y in loader] for _ in range(2)]
    for x, y in epochs[0] + epochs[1]:
        np.testing.assert_array_equal(y, labels[x])
        assert y.sum() == 2
    seen = [np.concatenate([x for x, _ in epoch]) for epoch in epochs]
    assert (seen[0] != seen[1]).any() and set(np.flatnonzero(labels)) <= set(seen[0])
    loader.set_epoch(0)
    np.testing.assert_array_equal(np.concatenate([x.ravel() for x, _ in loader]), seen[0])


def test_recomputed_gradients_have_the_same_bits() -> None:
    x, labels = np.random.default_rng(0).normal(size=(2, 1, 32, 32)).astype(np.float32), np.array([0, 1])
    found = list[list[Array]]()
    for recomputed in (False, True):
        net = net_that_weighs(recomputed)
        ops.cross_entropy(net(Tensor(x)), labels).backward()
        found.append([p.grad for p in net.parameters()])
    for kept, again in zip(*found, strict=True):
        assert kept.any()
        np.testing.assert_array_equal(kept, again)


def test_the_mean_of_the_windows_that_a_cell_lies_in() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(2, 3)
    want = [[0, 0.5, 1.5, 2], [1.5, 2, 3, 3.5], [3, 3.5, 4.5, 5]]
    np.testing.assert_array_equal(example.mean_of_windows(scores, 2), np.float32(want))
    np.testing.assert_array_equal(example.mean_of_windows(scores, 1), scores)


def test_patches_hold_a_whole_lesion_or_nothing_of_one(tmp_path: pathlib.Path) -> None:
    example.draw_images(PLAN, tmp_path, "train")
    found = example.patches_of(PLAN, tmp_path)
    assert found.images.shape[1:] == (1, PLAN.window, PLAN.window)
    assert (found.labels == 0).sum() == PLAN.train * example.NEGATIVES
    whole = data.spots(PLAN.train, PLAN.size, PLAN.diameter, seed=0)
    places = whole.masks["lesion"]
    for patch in found.images[found.labels == 1][:, 0]:
        windows = np.lib.stride_tricks.sliding_window_view(whole.images[:, 0], patch.shape, (1, 2))[
            :, :: example.CELL, :: example.CELL
        ]
        n, i, j = np.argwhere((windows == patch).all((3, 4)))[0]
        top, left = example.CELL * i, example.CELL * j
        assert places[n, top : top + PLAN.window, left : left + PLAN.window].sum() == places[n].sum() > 0


def test_images_are_those_of_spots_and_stay_on_disk(tmp_path: pathlib.Path) -> None:
    example.draw_images(PLAN, tmp_path, "test")
    found, drawn = example.images_of(PLAN, tmp_path, "test"), data.spots(PLAN.test, PLAN.size, PLAN.diameter, seed=1)
    assert isinstance(found.images, data.LazyImages) and found.classes == drawn.classes and found.names is not None
    order = [int(pathlib.Path(name).stem) for name in found.names]
    np.testing.assert_array_equal(found.images[:], drawn.images[order])
    np.testing.assert_array_equal(found.labels, drawn.labels[order])
    for name, i in zip(found.names, order, strict=True):
        np.testing.assert_array_equal(example.mask_of(PLAN, tmp_path, "test", name), drawn.masks["lesion"][i])


def test_a_map_of_the_lesion_hits_it(tmp_path: pathlib.Path) -> None:
    example.draw_images(PLAN, tmp_path, "test")
    test_set = example.images_of(PLAN, tmp_path, "test")
    cells = iter([example.mask_of(PLAN, tmp_path, "test", name) for name in np.asarray(test_set.names)])

    def ask(x: Array) -> tuple[float, Array]:
        mask = next(cells).astype(np.float32)
        return float(mask.max()), mask.reshape(32, 8, 32, 8).mean((1, 3))

    found = example.tested(PLAN, tmp_path, test_set, 1.0, ask)
    assert found.auc.mean == 1 and found.hits.mean() > 0.7 and 0 < found.chance.mean() < 0.01
    assert found.shown.shape == (PLAN.size, PLAN.size)


def test_a_study_that_was_stopped_goes_on(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[str]()

    def stops(f: Any, *arguments: Any) -> Any:
        calls.append(f.__name__)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return f(*arguments)

    monkeypatch.setattr(example, "alone", stops)
    assert example.main(["--quick", "--out", str(tmp_path)]) == 130
    assert "goes on after the last finished way" in capsys.readouterr().out
    assert example.main(["--quick", "--out", str(tmp_path)]) == 0
    assert calls == ["resized", "tiles", "tiles", "sliding_window", "top_k", "steps", "steps"]
    said, table = capsys.readouterr().out, (tmp_path / "table.md").read_text()
    assert "| top-k " in table and "recomputed" in table and table.strip() in said
    with Image.open(tmp_path / "big_images.png") as image:
        assert min(image.size) > 300


@pytest.mark.ci
def test_the_lesion_is_lost_in_small_images_and_found_by_patches(tmp_path: pathlib.Path) -> None:
    """On images of half the size, in processes of their own"""
    plan = example.plan_of(example.parser().parse_args("--size 256 --train 60 --test 40 --epochs 4".split()))
    for part in ("train", "test"):
        example.draw_images(plan, tmp_path, part)
    resized, tiles, window = (example.at_hand(way, plan, tmp_path) for way in (example.RESIZED, example.TILES, example.WINDOW))
    assert abs(resized.auc.mean - 0.5) < 0.2 and resized.hits.mean() < 0.3
    assert tiles.auc.mean > 0.95 and tiles.hits.mean() > 0.5  # a step from tile to tile is as long as the lesion
    assert window.auc.mean > 0.95 and window.hits.mean() > 0.6
    assert 20 < window.train_peak <= window.peak < 2048


@pytest.mark.ci
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_labels_of_whole_images_are_enough_whatever_the_start(seed: int, tmp_path: pathlib.Path) -> None:
    plan = example.Plan(size=256, train=60, test=40, epochs=12, seed=seed)
    for part in ("train", "test"):
        example.draw_images(plan, tmp_path, part)
    found = example.top_k(plan, tmp_path)
    assert found.auc.mean > 0.95 and found.hits.mean() > 0.8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--size 192", "--size: expected an integer of at least 256, got 192"),
        ("--size 300", "--size: expected a multiple of 64, got 300"),
        ("--train 3", "--train: expected an integer of at least 4, got 3"),
        ("--seed -1", "--seed: expected an integer of at least 0, got -1"),
        ("--epochs 0", "--epochs: expected an integer of at least 1, got 0"),
    ],
)
def test_what_cannot_be(options: str, message: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example.main([*options.split(), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
