import math

import numpy as np
import pytest

from minidl.nn import init

CONV, LINEAR = (64, 32, 3, 5), (200, 300)


def draw(function, shape, seed=0, **options):
    return function(shape, np.random.default_rng(seed), **options)


def fans(shape):
    area = math.prod(shape[2:])
    return shape[1] * area, shape[0] * area


@pytest.mark.parametrize("shape", [CONV, LINEAR])
@pytest.mark.parametrize("fan", ["in", "out"])
def test_he_has_variance_two_by_fan(shape, fan):
    variance = 2 / fans(shape)[fan == "out"]
    normal, uniform = draw(init.he_normal, shape, fan=fan), draw(init.he_uniform, shape, fan=fan)
    for w in (normal, uniform):
        assert w.shape == shape and w.dtype == np.float32
        assert abs(w.var() / variance - 1) < 0.05 and abs(w.mean()) < 0.05 * math.sqrt(variance)
    assert np.abs(uniform).max() <= math.sqrt(3 * variance) < np.abs(normal).max()
    assert np.abs(uniform).max() > 0.99 * math.sqrt(3 * variance)


@pytest.mark.parametrize("shape", [CONV, LINEAR])
def test_glorot_has_variance_two_by_the_sum_of_both_fans(shape):
    variance = 2 / sum(fans(shape))
    normal, uniform = draw(init.glorot_normal, shape), draw(init.glorot_uniform, shape)
    for w in (normal, uniform):
        assert w.dtype == np.float32 and abs(w.var() / variance - 1) < 0.05
    assert np.abs(uniform).max() <= math.sqrt(3 * variance) < np.abs(normal).max()


def test_fan_in_uniform_stays_within_one_by_root_fan_in():
    w, a = draw(init.fan_in_uniform, CONV), 1 / math.sqrt(fans(CONV)[0])
    assert 0.99 * a < np.abs(w).max() <= a and abs(w.var() / (a * a / 3) - 1) < 0.05


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5), (8, 3, 2, 2), (16, 1, 3, 3), (1, 1)])
def test_orthogonal_has_orthonormal_rows_or_columns(shape):
    w = draw(init.orthogonal, shape, gain=2.0)
    assert w.shape == shape and w.dtype == np.float32
    a = w.reshape(shape[0], -1).astype(np.float64) / 2
    gram = a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a
    assert np.allclose(gram, np.eye(len(gram)), atol=1e-6)


def test_orthogonal_has_no_preferred_signs():
    corner = [draw(init.orthogonal, (3, 3), seed=s)[0, 0] for s in range(200)]
    assert 70 < sum(c > 0 for c in corner) < 130


@pytest.mark.parametrize(
    "function",
    [init.he_normal, init.he_uniform, init.glorot_normal, init.glorot_uniform, init.fan_in_uniform, init.orthogonal],
)
def test_a_seed_gives_the_same_bits_and_bad_shapes_are_refused(function):
    assert np.array_equal(draw(function, (6, 5)), draw(function, (6, 5)))
    assert not np.array_equal(draw(function, (6, 5)), draw(function, (6, 5), seed=1))
    for shape in ((5,), (3, 0), ()):
        with pytest.raises(ValueError, match=r"shape.*: expected (.* two sizes|an integer of at least 1), got"):
            draw(function, shape)


def test_fan_is_in_or_out():
    with pytest.raises(ValueError, match=r"fan: expected one of \('in', 'out'\), got 'fan_in'"):
        draw(init.he_normal, (2, 2), fan="fan_in")
