"""KernelSHAP and LIME, which take the model as a black box, against Shapley values by hand and planted linear models."""

from __future__ import annotations

import itertools
from math import comb, factorial

import numpy as np
import pytest

from minidl import Tensor, nn, ops
from minidl.array import Array
from minidl.evaluate import completeness
from minidl.explain import kernel_shap, lime
from minidl.explain.cells import cells_of, least_squares
from minidl.explain.kernel_shap import coalitions
from minidl.explain.lime import neighbours
from minidl.inference import predict

from .nets import Net, images, linear

pytestmark = pytest.mark.filterwarnings("ignore:.*the map is 0 everywhere")  # as it has to be


def shapley(model: nn.Module, x: Array, baseline: float, cells: Array, target: int) -> Array:
    """phi_c = sum over S without c of |S|! (M - |S| - 1)! / M! (v(S + c) - v(S)), (M,), of one image"""
    M = int(cells.max()) + 1
    subsets = np.array(list(itertools.product((False, True), repeat=M)))
    v = predict(model, np.where(subsets[:, cells][:, None], x, baseline))[:, target]
    worth = {tuple(z): value for z, value in zip(subsets.tolist(), v.tolist(), strict=True)}
    phi = np.zeros(M)
    for c in range(M):
        for z in map(list, worth):
            if not z[c]:
                with_c = (*z[:c], True, *z[c + 1 :])
                phi[c] += factorial(sum(z)) * factorial(M - sum(z) - 1) / factorial(M) * (worth[with_c] - worth[tuple(z)])
    return phi


@pytest.mark.parametrize("samples", [2**10 - 2, 5000])
def test_all_subsets_of_ten_cells_give_shapley_values(samples: int) -> None:
    model, x = Net().to(dtype="float64"), images(2, 3, 10, 8)
    e = kernel_shap(model, x, [0, 2], grid=(5, 2), baseline=0.25, samples=samples)
    for i, target in enumerate((0, 2)):
        cells = e.params["segments"][i]
        np.testing.assert_allclose(e.map[i], shapley(model, x[i], 0.25, cells, target)[cells], rtol=1e-9, atol=1e-12)


def test_segments_of_different_numbers_are_explained_together() -> None:
    """Any integers in any order; one segment that is the whole image; two, four and seven."""
    model, x = Net().to(dtype="float64"), images(4, 3, 8, 8)
    rng = np.random.default_rng(0)
    segments = np.stack([np.full((8, 8), -3), *(rng.integers(0, n, (8, 8)) * 1000 - 5 for n in (2, 4, 7))])
    e = kernel_shap(model, x, segments=segments, samples=126)
    for i in range(4):
        cells = np.unique(segments[i], return_inverse=True)[1].reshape(8, 8)
        np.testing.assert_allclose(e.map[i], shapley(model, x[i], 0.0, cells, e.target[i])[cells], rtol=1e-9, atol=1e-12)
        alone = kernel_shap(model, x[i : i + 1], segments=segments[i : i + 1], samples=126)
        np.testing.assert_allclose(alone.map[0], e.map[i], rtol=1e-9, atol=1e-12)
    assert e.params["grid"] is None and (e.params["segments"][3].max(), e.params["segments"].min()) == (6, 0)


@pytest.mark.parametrize("output", ["logit", "prob", "logprob", "margin"])
@pytest.mark.parametrize("samples", [1, 2, 3, 7, 50, 333])
def test_values_add_up_for_any_number_of_samples(samples: int, output: str) -> None:
    model, x, target = Net().to(dtype="float64"), images(2, 3, 8, 8), np.array([0, 1])
    e = kernel_shap(model, x, target, output, grid=3, baseline=0.1, samples=samples)
    np.testing.assert_allclose(completeness(model, x, e.raw, 0.1, target, output), 0, atol=1e-12)
    np.testing.assert_allclose(e.delta, 0, atol=1e-12)


def test_each_pixel_has_its_share_in_raw() -> None:
    e = kernel_shap(Net().to(dtype="float64"), images(1, 3, 7, 7), grid=2, samples=14)
    size = np.bincount(e.params["segments"].ravel())[e.params["segments"]]
    np.testing.assert_allclose(e.raw[:, 0] * size, e.map, rtol=1e-12)
    assert {*size.ravel().tolist()} == {9, 12, 16}


def test_shapley_values_of_a_linear_model_need_few_samples() -> None:
    model, w, _ = linear()
    x = images(2, 2, 6, 6)
    e = kernel_shap(model, x, 1, grid=6, baseline=0.3, samples=80)
    np.testing.assert_allclose(e.map, (w[1] * (x - 0.3)).sum(1), rtol=1e-9, atol=1e-12)


def test_drawn_subsets() -> None:
    """As many as asked, none twice where there is no need, and of each size as much weight as all its subsets have."""
    for cells, samples in itertools.product(range(1, 13), (1, 2, 5, 100, 2**11)):
        subsets, weights = coalitions(cells, samples, 0)
        size = subsets.sum(1)
        assert subsets.shape == (len(weights), cells) and len(subsets) == min(samples, 2**cells - 2)
        assert ((size > 0) & (size < cells)).all()
        assert weights.sum() == pytest.approx(sum((cells - 1) / (s * (cells - s)) for s in range(1, cells)))
        if samples >= 2**cells - 2:
            assert len(np.unique(subsets, axis=0)) == 2**cells - 2
            exact = [(cells - 1) / (comb(cells, s) * s * (cells - s)) for s in size.tolist()]
            np.testing.assert_allclose(weights, exact)
    subsets, weights = coalitions(30, 20000, 0)
    size = subsets.sum(1)
    for s in range(1, 30):
        assert weights[size == s].sum() == pytest.approx(29 / (s * (30 - s)), rel=0.2)
    drawn = subsets[2 * 30 + 2 * comb(30, 2) :]
    assert (drawn[::2] == ~drawn[1::2]).all()  # in pairs
    assert np.abs(drawn.mean(0) - 0.5).max() < 1e-12  # so that no cell is in sight more often than another


def test_more_samples_come_nearer() -> None:
    model, x = Net().to(dtype="float64"), images(1, 3, 8, 8)
    exact = kernel_shap(model, x, grid=(3, 3), samples=510).map
    errors = [
        np.mean([np.abs(kernel_shap(model, x, grid=(3, 3), samples=n, seed=s).map - exact).mean() for s in range(3)])
        for n in (20, 60, 200)
    ]
    assert errors[0] > 2 * errors[1] > 6 * errors[2] > 0, errors


# ---- LIME


@pytest.mark.parametrize("grid", [3, (2, 3), 6])
def test_lime_finds_a_planted_linear_model(grid: int | tuple[int, int]) -> None:
    model, w, _ = linear()
    x = images(2, 2, 6, 6)
    e = lime(model, x, 1, grid=grid, baseline=0.3, samples=100, ridge=0)
    gain, cells = (w[1] * (x - 0.3)).sum(1), e.params["segments"][0]
    planted = np.stack([np.bincount(cells.ravel(), g.ravel())[cells] for g in gain])
    np.testing.assert_allclose(e.map, planted, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(e.params["r2"], 1, rtol=1e-12)
    np.testing.assert_array_equal(e.raw[:, 0], e.map)


def test_lime_is_ridge_regression_of_weighed_neighbours() -> None:
    """The normal equations of (w, b), with b not drawn to 0."""
    model, x, target, M = Net().to(dtype="float64"), images(2, 3, 8, 6), [2, 0], 12
    e = lime(model, x, target, "logprob", grid=(4, 3), samples=40, kernel_width=0.4, ridge=0.7, seed=5)
    z = neighbours(M, 40, 5)
    assert z[0].all() and abs(z[1:].mean() - 0.5) < 0.1
    cosine = z.sum(1) / (np.sqrt(z.sum(1)) * np.sqrt(M))
    pi = np.exp(-((1 - cosine) ** 2) / 0.4**2)
    A = np.c_[z, np.ones(40)]
    for i in range(2):
        logits = predict(model, np.where(z[:, e.params["segments"][i]][:, None], x[i], 0.0))
        v = (logits - np.log(np.exp(logits).sum(1, keepdims=True)))[:, target[i]]
        wb = np.linalg.solve(A.T @ (pi[:, None] * A) + 0.7 * np.diag([1.0] * M + [0]), A.T @ (pi * v))
        np.testing.assert_allclose(e.map[i], wb[:M][e.params["segments"][i]], rtol=1e-9, atol=1e-13)
        mean = np.average(v, weights=pi)
        assert e.params["r2"][i] == pytest.approx(1 - (pi * (v - A @ wb) ** 2).sum() / (pi * (v - mean) ** 2).sum())


def test_a_small_r2_tells_that_the_score_is_not_linear() -> None:
    class Parity(nn.Module):
        """The score is 1 where the number of white quarters is odd."""

        def forward(self, x: Tensor) -> Tensor:
            quarters = np.rint(x.data[:, 0, ::4, ::4]).sum((1, 2))
            return Tensor(np.stack([quarters % 2, 0 * quarters], 1).astype(np.float32))

    x = np.ones((1, 1, 8, 8), np.float32)
    assert lime(Parity(), x, 0, grid=2, samples=400, kernel_width=5.0).params["r2"][0] < 0.1
    assert (
        lime(Parity(), x, 1, grid=2, samples=20).params["r2"][0] == 1 and not lime(Parity(), x, 1, grid=2, samples=20).map.any()
    )


def test_no_cell_is_hidden_where_the_baseline_is_the_image() -> None:
    model, x = Net().to(dtype="float64"), images(1, 3, 8, 8)
    for method in kernel_shap, lime:
        np.testing.assert_allclose(method(model, x, grid=3, baseline=x, samples=30).map, 0, atol=1e-12)


# ---- what they share


def test_a_grid_has_cells_as_equal_as_pixels_allow() -> None:
    cells = cells_of(np.zeros((2, 1, 7, 10)), (3, 5), None)
    assert cells.shape == (2, 7, 10) and (cells[0] == cells[1]).all()
    assert cells[0, :, 0].tolist() == [0, 0, 0, 5, 5, 10, 10] and cells[0, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert np.array_equal(cells_of(np.zeros((1, 1, 3, 4)), (3, 4), None)[0], np.arange(12).reshape(3, 4))


def test_least_squares() -> None:
    rng = np.random.default_rng(0)
    A, y, weights = rng.normal(size=(9, 4)), rng.normal(size=9), rng.uniform(0.1, 3, 9)
    for ridge in 0.0, 0.6:
        u = np.linalg.solve(A.T @ (weights[:, None] * A) + ridge * np.eye(4), A.T @ (weights * y))
        np.testing.assert_allclose(least_squares(A, y, weights, ridge), u, rtol=1e-9)
    short = least_squares(A[:2], y[:2], weights[:2])
    np.testing.assert_allclose(A[:2] @ short, y[:2])
    np.testing.assert_allclose(short, np.linalg.pinv(A[:2]) @ y[:2], rtol=1e-9)


@pytest.mark.parametrize("method", [kernel_shap, lime])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_no_more_images_at_a_time_than_batch_size(method: object, batch_size: int) -> None:
    seen = []

    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return ops.mean(x, (2, 3))

    method(Counts(), images(3, 2, 6, 6), grid=2, samples=11, batch_size=batch_size)  # type: ignore[operator]
    assert max(seen) == batch_size
