from __future__ import annotations

import numpy as np
import pytest

from minidl.data import Dataset, lesions

SIZES = [32, 33, 47, 64, 128]
CHANNELS = [1, 3, 4]


@pytest.fixture(scope="module")
def train() -> Dataset:
    return lesions(1500, seed=0)


@pytest.fixture(scope="module")
def test() -> Dataset:
    return lesions(500, seed=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_shapes_and_masks(size: int, channels: int) -> None:
    n = 60 if size < 64 else 12
    d, pair = lesions(n, size, channels, seed=5), lesions(n, size, channels, seed=5, flip=True)
    assert d.images.shape == (n, channels, size, size)
    assert d.images.dtype == np.uint8
    assert d.classes == ("benign", "malignant")
    assert np.array_equal(d.labels, np.arange(n) % 2)
    assert np.array_equal(pair.labels, 1 - d.labels)
    assert list(d.masks) == ["lesion", "distractor", "evidence"]

    differs = (d.images != pair.images).any(1)
    assert np.array_equal(d.masks["evidence"], differs)
    assert np.array_equal(pair.masks["evidence"], differs)
    assert differs.any((1, 2)).all()
    assert np.array_equal(d.masks["distractor"], pair.masks["distractor"])
    for one in (d, pair):
        for name in ("lesion", "distractor"):
            mask = one.masks[name]
            assert mask.any((1, 2)).all()
            assert not (mask[:, [0, -1]].any() or mask[:, :, [0, -1]].any())  # whole, inside the image
        assert not (one.masks["lesion"] & one.masks["distractor"]).any()
    assert not (differs & d.masks["distractor"]).any()


@pytest.mark.parametrize("size", [128, 256])
def test_area_of_larger_images(size: int) -> None:
    area = lesions(20, size, 1).masks["lesion"].mean((1, 2))
    assert 0.0045 < area.min() < area.max() < 0.0215


def test_lesion_and_distractor_reach_every_part(train: Dataset) -> None:
    for name, low in (("lesion", 25), ("distractor", 4)):
        count = train.masks[name].sum(0)
        assert (count[4:28, 4:28] > 0).mean() > 0.95
        halves = [count[:16].sum(), count[16:].sum(), count[:, :16].sum(), count[:, 16:].sum()]
        assert min(halves) > 0.4 * count.sum()
        assert train.masks[name].sum((1, 2)).min() >= low


def test_an_image_depends_on_seed_and_number_alone() -> None:
    many = lesions(300, seed=7)
    for n in (1, 2, 10, 129, 257):
        few = lesions(n, seed=7)
        assert np.array_equal(few.images, many.images[:n])
        for name, mask in few.masks.items():
            assert np.array_equal(mask, many.masks[name][:n])
    flat = many.images.reshape(300, -1)
    assert len(np.unique(flat, axis=0)) == 300
    assert not (lesions(300, seed=8).images == many.images).all((1, 2, 3)).any()


def test_geometry_is_that_of_other_channels() -> None:
    grey, colour = lesions(20, channels=1, mark=(1, 1)), lesions(20, channels=4, mark=(1, 1))
    for name in ("lesion", "distractor", "mark"):
        assert np.array_equal(grey.masks[name], colour.masks[name])
    assert np.array_equal(lesions(20).masks["lesion"], colour.masks["lesion"])


def test_lesion_and_distractor_are_darker_than_skin(train: Dataset) -> None:
    green = train.images[:, 1].astype(np.float64)
    skin = ~(train.masks["lesion"] | train.masks["distractor"] | train.masks["evidence"])
    mean = (green * skin).sum((1, 2)) / skin.sum((1, 2))
    for name in ("lesion", "distractor"):
        mask = train.masks[name]
        inside = (green * mask).sum((1, 2)) / mask.sum((1, 2))
        assert (inside < mean).mean() > 0.99


def test_skin_has_a_one_over_f_texture() -> None:
    d = lesions(40, 64, 1, seed=3)
    x = np.where(d.masks["lesion"] | d.masks["distractor"] | d.masks["evidence"], np.nan, d.images[:, 0])

    def difference(step: int) -> float:
        return float(np.sqrt(np.nanmean((x[:, :, step:] - x[:, :, :-step]) ** 2)))

    assert difference(1) < 0.85 * difference(4) < 0.85**2 * difference(16)  # white noise: all equal


def off_centre(d: Dataset) -> np.ndarray:
    """Distance from the lesion's centre to that of its darkest sixth, in lesion radii (N,)."""
    far = []
    for image, mask in zip(d.images, d.masks["lesion"], strict=True):
        places = np.argwhere(mask)
        darkest = places[np.argsort(image.sum(0)[mask])[: len(places) // 6]]
        far.append(np.hypot(*(darkest.mean(0) - places.mean(0))) / np.sqrt(len(places) / np.pi))
    return np.array(far)


def roughness(d: Dataset) -> np.ndarray:
    """Length of the lesion's border, in pixel sides, over the square root of its area (N,)."""
    mask = d.masks["lesion"]
    border = (mask[:, 1:] != mask[:, :-1]).sum((1, 2)) + (mask[:, :, 1:] != mask[:, :, :-1]).sum((1, 2))
    return border / np.sqrt(mask.sum((1, 2)))


@pytest.mark.parametrize("size", [32, 128])
def test_what_makes_a_lesion_malignant(size: int) -> None:
    n = 200 if size == 32 else 40
    d, pair = lesions(n, size, seed=2), lesions(n, size, seed=2, flip=True)
    sign = np.where(d.labels == 1, 1, -1)
    assert (sign * (off_centre(d) - off_centre(pair)) > 0).mean() > 0.8
    assert (sign * (roughness(d) - roughness(pair)) > 0).mean() > 0.8
    areas = [one.masks["lesion"].sum((1, 2)) for one in (d, pair)]
    assert abs(np.mean(sign * (areas[0] - areas[1]))) < 0.02 * np.mean(areas)


def least_squares(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, ridge: float) -> float:
    """Test accuracy of the linear classifier that fits labels of -1 and 1 best."""
    mean, std = x.mean(0), x.std(0) + 1e-9
    a, b = (np.c_[(z - mean) / std, np.ones(len(z))] for z in (x, x_test))
    w = np.linalg.solve(a.T @ a + ridge * len(a) * np.eye(a.shape[1]), a.T @ (2 * y - 1))
    return float(((b @ w > 0) == y_test).mean())


def statistics(d: Dataset) -> np.ndarray:
    """Colour, contrast, extremes, dark quantiles and areas, and their squares (N,17)."""
    x = d.images.astype(np.float64)
    dark = np.quantile(x, [0.02, 0.1], axis=(1, 2, 3)).T
    areas = np.stack([mask.mean((1, 2)) for name, mask in d.masks.items() if name != "evidence"], 1)
    f = np.concatenate([x.mean((2, 3)), x.std((2, 3)), x.min((1, 2, 3))[:, None], dark, areas], 1)
    return np.concatenate([f, f**2], 1)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_no_trivial_statistic_gives_the_class_away(train: Dataset, test: Dataset, ridge: float) -> None:
    assert least_squares(statistics(train), train.labels, statistics(test), test.labels, ridge) < 0.75


def test_pixels_do_not_tell_a_linear_classifier(train: Dataset, test: Dataset) -> None:
    x, x_test = (d.images[:, :, ::2, ::2].reshape(len(d), -1).astype(np.float64) for d in (train, test))
    for ridge in (0.1, 10.0):
        assert least_squares(x, train.labels, x_test, test.labels, ridge) < 0.75


def test_the_class_can_be_told(train: Dataset, test: Dataset) -> None:
    """The two signs of malignancy, measured with the lesion's place known: the task is not hopeless."""
    x, x_test = (np.stack([off_centre(d), roughness(d)], 1) for d in (train, test))
    assert least_squares(x, train.labels, x_test, test.labels, 1e-3) > 0.82


# ---- the confounder, evidence in one channel, and images without a part


def same(a: Dataset, b: Dataset, where: np.ndarray) -> bool:
    """Whether all channels agree in the pixels `where` (N,H,W)."""
    return bool(((a.images == b.images).all(1) | ~where).all())


@pytest.mark.parametrize(("size", "n"), [(32, 1200), (64, 60), (150, 12)])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_mark_is_apart_from_all_else(size: int, n: int, channels: int) -> None:
    plain, marked = lesions(n, size, channels, seed=3), lesions(n, size, channels, seed=3, mark=(1, 1))
    ink = marked.masks["mark"]
    assert ink.any((1, 2)).all()
    for name, mask in plain.masks.items():
        assert np.array_equal(mask, marked.masks[name]) and not (mask & ink).any()
    assert same(plain, marked, ~ink)
    green = min(1, channels - 1)
    darker = (plain.images[:, green].astype(int) - marked.images[:, green]).sum((1, 2), where=ink) / ink.sum((1, 2))
    assert darker.min() > 5
    assert 0.05 < (ink.sum((1, 2)) / marked.masks["lesion"].sum((1, 2))).mean() < 0.35


def test_a_mark_follows_its_probabilities() -> None:
    never, half, telling = (lesions(2000, mark=p, seed=4) for p in ((0, 0), (0.5, 0.5), (0.05, 0.95)))
    assert np.array_equal(never.images, lesions(2000, seed=4).images) and not never.masks["mark"].any()
    for d, expected in (half, (0.5, 0.5)), (telling, (0.05, 0.95)):
        has = d.masks["mark"].any((1, 2))
        assert [has[d.labels == k].mean() for k in (0, 1)] == pytest.approx(expected, abs=0.05)  # 3 standard errors
    both = half.masks["mark"].any((1, 2)) & telling.masks["mark"].any((1, 2))
    assert both.sum() > 500 and np.array_equal(half.images[both], telling.images[both])  # a mark is the same in either
    pair = lesions(2000, mark=(0.5, 0.5), seed=4, flip=True)
    assert np.array_equal(pair.masks["mark"], half.masks["mark"])
    assert np.array_equal((half.images != pair.images).any(1), half.masks["evidence"])
    few = lesions(130, mark=(0.5, 0.5), seed=4)
    assert np.array_equal(few.images, half.images[:130])


@pytest.mark.parametrize("part", ["lesion", "distractor", "mark"])
@pytest.mark.parametrize("size", [32, 96])
def test_without_a_part(part: str, size: int) -> None:
    n, mark = (40, (1, 1)) if size == 32 else (8, (0.5, 0.5))
    whole, less = lesions(n, size, seed=6, mark=mark), lesions(n, size, seed=6, mark=mark, without=[part])
    grown = whole.masks[part].copy()
    for _ in range(3):  # the soft edge reaches up to 0.15 radii, and a disc's neighbours are at most one pixel on
        for axis in (1, 2):
            grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
    assert same(whole, less, ~grown) and not less.masks[part].any()
    changed = (whole.images != less.images).any((1, 2, 3))
    assert np.array_equal(changed, whole.masks[part].any((1, 2)))
    gone = {part, "evidence"} if part == "lesion" else {part}
    assert all(np.array_equal(mask, whole.masks[name]) for name, mask in less.masks.items() if name not in gone)
    assert less.masks["evidence"].any() == (part != "lesion")


@pytest.mark.parametrize(("channels", "k"), [(1, 0), (3, 0), (3, 2), (4, 3)])
def test_evidence_in_one_channel(channels: int, k: int) -> None:
    d, pair = (lesions(60, 48, channels, seed=2, evidence_channel=k, flip=flip) for flip in (False, True))
    differs = d.images != pair.images
    assert differs[:, k].any((1, 2)).all() and not np.delete(differs, k, 1).any()
    assert np.array_equal(d.masks["evidence"], differs[:, k])
    full = lesions(60, 48, channels, seed=2)
    assert np.array_equal(d.images[:, k], full.images[:, k])
    assert np.array_equal(d.images[::2], full.images[::2])  # benign
    assert all((d.masks["lesion"] >= full.masks["lesion"]).ravel())


@pytest.mark.parametrize("size", [32, 64])
def test_a_freckle_that_is_a_question_of_its_own(size: int) -> None:
    """It comes in half of the images whatever their class, and nothing else changes where it is not."""
    n = 400 if size == 32 else 60
    d, all_have, none_has = (lesions(n, size, seed=4, mark=(0.5, 0.5), freckle=p) for p in (0.5, 1, 0))
    plain, without = (lesions(n, size, seed=4, mark=(0.5, 0.5), without=out) for out in ((), ("distractor",)))
    assert d.heads == ("malignancy", "freckle") and d.classes["freckle"] == ("absent", "present")
    assert np.array_equal(d.labels["malignancy"], plain.labels)
    there = d.labels["freckle"] == 1
    assert np.array_equal(d.images[there], plain.images[there]) and np.array_equal(d.images[~there], without.images[~there])
    assert np.array_equal(all_have.images, plain.images) and np.array_equal(none_has.images, without.images)
    assert all_have.labels["freckle"].all() and not none_has.labels["freckle"].any() and not none_has.masks["freckle"].any()
    for labels in d.labels["freckle"][::2], d.labels["freckle"][1::2]:  # benign and malignant
        assert abs(labels.mean() - 0.5) < 2 / np.sqrt(len(labels))
    differs = (plain.images != without.images).any(1)
    assert not (differs & ~all_have.masks["freckle"]).any()  # no pixel outside of the mask tells
    assert differs.sum() > 0.9 * all_have.masks["freckle"].sum()
    assert np.array_equal(d.masks["freckle"].any((1, 2)), there) and not (d.masks["freckle"] & d.masks["lesion"]).any()
    assert not (d.masks["freckle"] & d.masks["evidence"]).any()  # the places of the two heads are apart
    few = lesions(10, size, seed=4, mark=(0.5, 0.5), freckle=0.5)
    assert np.array_equal(few.images, d.images[:10]) and np.array_equal(few.labels["freckle"], d.labels["freckle"][:10])


def test_a_large_image() -> None:
    d = lesions(1, 1024, 4, mark=(1, 1))
    share = {name: mask.mean() for name, mask in d.masks.items()}
    assert 0.0045 < share["lesion"] < 0.0215 and share["distractor"] < share["lesion"] / 3
    assert 0.0003 < share["mark"] < share["lesion"] / 3 and 0 < share["evidence"] < 2 * share["lesion"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n: expected an integer of at least 1, got 0"),
        ({"n": 2.5}, TypeError, "n: expected an integer of at least 1, got 2.5"),
        ({"size": 31}, ValueError, "size: expected an integer of at least 32, got 31"),
        ({"channels": 2}, ValueError, "channels: expected 1, 3 or 4, got 2"),
        ({"channels": [3]}, TypeError, r"channels: expected an integer of at least 1, got \[3\]"),
        ({"seed": -1}, ValueError, "seed: expected an integer of at least 0, got -1"),
        ({"mark": 0.5}, TypeError, r"mark: expected 2 numbers in \[0, 1\], got 0.5"),
        ({"mark": (0.5, 1.5)}, ValueError, r"mark\[1\]: expected a number in \[0, 1\], got 1.5"),
        ({"mark": (0.5, np.nan)}, ValueError, r"mark\[1\]: expected a number in \[0, 1\], got nan"),
        ({"mark": ("a", "b")}, TypeError, r"mark\[0\]: expected a number in \[0, 1\], got 'a'"),
        ({"freckle": 1.5}, ValueError, r"freckle: expected a number in \[0, 1\], got 1.5"),
        ({"freckle": "no"}, TypeError, r"freckle: expected a number in \[0, 1\], got 'no'"),
        ({"evidence_channel": 3}, ValueError, "evidence_channel: expected less than channels, 3, got 3"),
        ({"evidence_channel": -1}, ValueError, "evidence_channel: expected an integer of at least 0, got -1"),
        ({"evidence_channel": 0.0}, TypeError, "evidence_channel: expected an integer of at least 0, got 0.0"),
        ({"without": "lesion"}, ValueError, "without: expected a collection of names .* got 'lesion'"),
        ({"without": ["nevus"]}, ValueError, "without: expected a collection of names out of .*, got .*nevus"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lesions(**{"n": 4, **arguments})
