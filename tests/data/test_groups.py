"""Names, groups and heads of a dataset, and its parts: no group on two sides, every class in proportion."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minidl.data import Dataset, Loader, check_disjoint, ham10000, image_folder
from tests.data.test_ham10000 import write

FRACTIONS = st.lists(st.integers(1, 5), min_size=2, max_size=4).map(lambda many: tuple(n / sum(many) for n in many))


def numbered(labels: Any, groups: Any = None, **more: Any) -> Dataset:
    """Image i is the number i."""
    N = len(next(iter(labels.values())) if isinstance(labels, dict) else labels)
    images = np.arange(N, dtype=np.float32).reshape(N, 1, 1, 1)
    names = [f"{i}.png" for i in range(N)]
    classes = more.pop("classes", None) or tuple(f"class {k}" for k in range(int(max(labels)) + 1))
    return Dataset(images, labels, classes, names=names, groups=groups, **more)


def which(d: Dataset) -> list[int]:
    return d.images.ravel().astype(int).tolist()


def of_groups(classes: list[int], sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """labels, groups: group g has sizes[g] images of classes[g]."""
    return np.repeat(classes, sizes).astype(np.int64), np.repeat(np.arange(len(sizes)), sizes)


# ---- what goes along


def test_names_and_groups_go_along() -> None:
    d = numbered(np.array([0, 1, 0, 1]), ["ann", "bob", "bob", "cy"])
    part = d.take([2, 0])
    assert part.names is not None and part.names.tolist() == ["2.png", "0.png"]
    assert part.groups is not None and part.groups.tolist() == ["bob", "ann"]
    assert repr(d) == "Dataset('dataset', images (4, 1, 1, 1) float32, 2 classes, masks [], 3 groups)"
    for piece in d.split((0.5, 0.5), stratify=False):
        assert piece.names is not None and piece.names.tolist() == [f"{i}.png" for i in which(piece)]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"groups": ["a"]}, ValueError, "groups: expected 2, one for each of the images, got 1"),
        ({"groups": ["a", ""]}, ValueError, "groups: expected one for each image, got '' for image 1"),
        (
            {"groups": ["a", None]},
            TypeError,
            "groups: expected a flat list of strings or integers, .* got 1-D object",
        ),
        ({"groups": ["a", 1]}, TypeError, "groups: expected .*, got a mixture"),
        ({"groups": [0.5, 1]}, TypeError, "groups: expected .*, got 1-D float64"),
        ({"groups": [True, False]}, TypeError, "groups: expected .*, got 1-D bool"),
        ({"groups": [["a"], ["b"]]}, TypeError, "groups: expected .*, got 2-D"),
        ({"groups": "ab"}, TypeError, "groups: expected .*, got 0-D <U2"),
        ({"names": [1, 2]}, TypeError, "names: expected a flat list of strings, one for each image, got 1-D int64"),
        ({"names": ["a"]}, ValueError, "names: expected 2, one for each of the images, got 1"),
    ],
)
def test_bad_names_and_groups(more: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Dataset(np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64), ("one",), **more)


# ---- parts


@given(
    groups=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), min_size=1, max_size=60),
    fractions=FRACTIONS,
    seed=st.integers(0, 1000),
)
def test_groups_stay_together_and_classes_in_proportion(groups: list[tuple[int, int]], fractions: Any, seed: int) -> None:
    """To within the images of one group; a class of few groups in every part comes first."""
    labels, whom = of_groups(*(list(column) for column in zip(*groups, strict=True)))
    d = numbered(labels, whom)
    many = {k: len(np.unique(whom[labels == k])) for k in np.unique(labels)}
    if min(many.values()) < len(fractions):
        with pytest.raises(ValueError, match=r"class 'class \d', of \d groups, would be missing|a part would be empty"):
            d.split(fractions, seed)
        return
    parts = d.split(fractions, seed)
    assert sorted(itertools.chain(*map(which, parts))) == list(range(len(d)))
    for a, b in itertools.combinations(parts, 2):
        assert not set(a.groups.tolist()) & set(b.groups.tolist())  # type: ignore[union-attr]
    check_disjoint(*parts)
    for k in many:
        of = labels == k
        largest = np.bincount(whom[of]).max()
        shares = np.array([(part.labels == k).sum() for part in parts])
        assert (shares > 0).all()
        if many[k] * min(fractions) >= 1:
            assert (abs(shares - np.array(fractions) * of.sum()) <= largest + 1e-9).all()
    again = d.split(fractions, seed)
    assert [which(part) for part in again] == [which(part) for part in parts]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=30, max_size=80), st.integers(0, 99))
def test_groups_of_several_classes(pairs: list[tuple[int, int]], seed: int) -> None:
    labels, whom = (np.array(column) for column in zip(*pairs, strict=True))
    d = numbered(labels.astype(np.int64), whom)
    if len(np.unique(whom)) < 2:
        return
    a, b = d.split((0.5, 0.5), seed, stratify=False)
    check_disjoint(a, b)
    assert len(a) + len(b) == len(d) and abs(len(a) - len(b)) <= 2 * np.bincount(whom).max()


def test_patients_of_several_classes_in_proportion() -> None:
    """300 patients with 1 to 4 images, of which each is malignant with 1 in 5."""
    rng = np.random.default_rng(0)
    whom = np.repeat(np.arange(300), rng.integers(1, 5, 300))
    labels = (rng.random(len(whom)) < 0.2).astype(np.int64)
    for seed in range(5):
        parts = numbered(labels, whom).split((0.7, 0.15, 0.15), seed)
        for part, fraction in zip(parts, (0.7, 0.15, 0.15), strict=True):
            for k in range(2):
                assert abs((part.labels == k).sum() - fraction * (labels == k).sum()) <= 4


def test_the_seed_decides() -> None:
    labels, whom = of_groups([0, 1] * 20, [1, 2, 3, 4] * 10)
    one, other = (which(numbered(labels, whom).split((0.5, 0.5), seed)[0]) for seed in (0, 1))
    assert one != other


def test_without_groups_the_bits_of_ever() -> None:
    labels = np.arange(50) % 2
    order = np.random.default_rng(7).permutation(50)
    a, b = numbered(labels).split((0.7, 0.3), 7)
    assert which(a) == order[:35].tolist() and which(b) == order[35:].tolist()


def test_stratified_without_groups() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    a, b = numbered(labels).split((0.8, 0.2), stratify=True)
    assert np.bincount(a.labels).tolist() == [72, 8] and np.bincount(b.labels).tolist() == [18, 2]


def test_a_class_that_a_part_lacks_is_named() -> None:
    labels, whom = of_groups([0, 0, 0, 1], [1, 1, 1, 5])
    d = numbered(labels, whom, name="moles")
    said = r"moles: class 'class 1', of 1 groups, would be missing from part \d where it is split into .*: stratify=False"
    with pytest.raises(ValueError, match=said):
        d.split((0.5, 0.5))
    assert sum(map(len, d.split((0.5, 0.5), stratify=False))) == 8
    with pytest.raises(ValueError, match=r"class 'class 1', of 1 images, would be missing .*: pass stratify=True to share"):
        numbered(np.array([0] * 9 + [1])).split((0.5, 0.5))
    with pytest.raises(ValueError, match=r"5 images of 1 groups cannot be split into \(0.5, 0.5\): a part would be empty"):
        numbered(np.zeros(5, np.int64), [3] * 5).split((0.5, 0.5))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_folds(k: int) -> None:
    labels, whom = of_groups([0, 1] * 20, [1, 2, 3, 4] * 10)
    d = numbered(labels, whom)
    tested = list[int]()
    for train, test in d.folds(k, seed=3):
        check_disjoint(train, test)
        assert sorted(which(train) + which(test)) == list(range(len(d)))
        assert (abs(np.bincount(test.labels) - np.bincount(labels) / k) <= 4).all()
        tested += which(test)
    assert sorted(tested) == list(range(len(d)))
    assert [which(test) for _, test in d.folds(k, seed=3)] == [which(test) for _, test in d.folds(k, seed=3)]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"k": 1}, ValueError, "k: expected an integer of at least 2, got 1"),
        ({"k": 2.0}, TypeError, "k: expected an integer"),
        ({"k": 2, "seed": -1}, ValueError, "seed: expected"),
        ({"k": 2, "stratify": "birads"}, ValueError, r"stratify: expected one of \(\), got 'birads'"),
        ({"k": 2, "stratify": 3}, TypeError, "stratify: expected True, False, None or the name of a head, got 3"),
        ({"k": 3}, ValueError, "class 'class 0', of 2 images, would be missing from part 2 where it is shared out to 3 folds"),
    ],
)
def test_folds_refuse_at_once(asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        numbered(np.array([0, 0, 1, 1, 1])).folds(**asked)


def test_a_group_on_both_sides_of_a_given_split() -> None:
    a, b = (
        numbered(np.zeros(3, np.int64), groups, name=name)
        for groups, name in ((["p", "q", "r"], "train"), (["q", "s", "s"], "test"))
    )
    with pytest.raises(ValueError, match=r"train and test: 1 group \(q\) are in both: keep all images of a group on one side"):
        check_disjoint(a, b)
    check_disjoint(a, numbered(np.zeros(1, np.int64)), b.take([1]))
    with pytest.raises(ValueError, match="train and dataset: expected groups of one type, got integers and strings"):
        check_disjoint(a, numbered(np.zeros(1, np.int64), [3]))
    with pytest.raises(TypeError, match=r"parts: expected a minidl\.data\.Dataset, got int"):
        check_disjoint(a, 3)  # type: ignore[arg-type]


# ---- where they come from


def test_groups_of_a_folder(tmp_path: pathlib.Path) -> None:
    for name in ("sick/12_left.png", "sick/12_right.png", "well/7_left.png", "well/b/8_left.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    d = image_folder(tmp_path, groups="([0-9]+)_")
    assert d.names is not None and d.names.tolist() == [
        "sick/12_left.png", "sick/12_right.png", "well/7_left.png", "well/b/8_left.png"]  # fmt: skip
    assert d.groups is not None and d.groups.tolist() == ["12", "12", "7", "8"]
    assert image_folder(tmp_path, groups="[0-9]+_").groups.tolist() == ["12_", "12_", "7_", "8_"]  # type: ignore[union-attr]
    assert image_folder(tmp_path).groups is None
    for wrong, message in (
        ("left", "groups: 'left' finds nothing in 'sick/12_right.png'; expected whom every image shows"),
        ("(x)?[0-9]", r"groups: '\(x\)\?\[0-9\]' finds nothing in 'sick/12_left.png'"),
        ("(", r"groups: expected a regular expression that finds the group in .*, got '\(': missing \)"),
    ):
        with pytest.raises(ValueError, match=message):
            image_folder(tmp_path, groups=wrong)
    with pytest.raises(TypeError, match=r"groups: expected a regular expression .* got 3"):
        image_folder(tmp_path, groups=3)  # type: ignore[arg-type]


def test_lesions_of_ham10000(tmp_path: pathlib.Path) -> None:
    rows = write(tmp_path)
    sides = [ham10000(tmp_path, train, (9, 12)) for train in (True, False)]
    check_disjoint(*sides)
    found = {str(name): str(group) for d in sides for name, group in zip(d.names, d.groups, strict=True)}  # type: ignore[arg-type]
    assert found == {image: lesion for lesion, image, _ in rows}
    train, validation = sides[0].split((0.8, 0.2))
    check_disjoint(train, validation)


# ---- several heads

HEADS = {"birads": np.array([0, 1, -1, 2, 0, 1]), "density": np.array([-1, 0, 0, 1, 1, -1])}
NAMES = {"birads": ("1", "2", "3"), "density": ("low", "high")}


def test_heads() -> None:
    d = numbered(HEADS, classes=NAMES)
    assert d.heads == ("birads", "density") and "2 heads" in repr(d)
    assert {head: values.tolist() for head, values in d.take([2, 0]).labels.items()} == {"birads": [-1, 0], "density": [0, -1]}
    density = d.head("density")
    assert (which(density), density.labels.tolist(), density.classes) == ([1, 2, 3, 4], [0, 0, 1, 1], ("low", "high"))
    x, labels = next(iter(Loader(d, 4, shuffle=False)))
    assert x.shape == (4, 1, 1, 1) and {head: values.tolist() for head, values in labels.items()} == {
        "birads": [0, 1, -1, 2],
        "density": [-1, 0, 0, 1],
    }
    a, b = d.split((0.5, 0.5), stratify="density")
    for part in (a, b):
        assert np.bincount(part.labels["density"][part.labels["density"] >= 0]).tolist() == [1, 1]
    assert sorted(which(a) + which(b)) == list(range(6))
    assert len(d.split((0.5, 0.5))) == 2
    with pytest.raises(ValueError, match=r"stratify: expected one of \('birads', 'density'\), got 'age'"):
        d.split((0.5, 0.5), stratify="age")
    with pytest.raises(ValueError, match=r"name: expected one of .*, got 'age'"):
        d.head("age")
    with pytest.raises(ValueError, match="dataset: no label of birads is known"):
        d.take([2]).head("birads")


@pytest.mark.parametrize("seed", range(3))
def test_every_class_of_every_head_in_proportion(seed: int) -> None:
    """Of lesions with several images, and of sites that are rare, or more often malignant, or not known."""
    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 600, 800))
    site = rng.choice(6, 600, p=(0.4, 0.3, 0.15, 0.1, 0.03, 0.02))[groups]
    malignant = (rng.random(600) < np.where(np.arange(600) % 2, 0.1, 0.3)).astype(np.int64)[groups]
    site[rng.random(600)[groups] < 0.05] = -1
    labels = {"malignant": malignant, "site": site}
    d = numbered(labels, groups, classes={"malignant": ("no", "yes"), "site": tuple("abcdef")})
    for parts, share in (
        (d.split((0.8, 0.2), seed, stratify=True), 0.2),
        (d.split((0.8, 0.2), seed), 0.2),
        *((fold, 0.25) for fold in d.folds(4, seed)),
    ):
        check_disjoint(*parts)
        for head, values in labels.items():
            for k in np.unique(values):
                assert abs((parts[1].labels[head] == k).sum() - share * (values == k).sum()) < 6, (head, k)


def test_heads_come_in_one_order() -> None:
    d = numbered(HEADS, classes=dict(reversed(NAMES.items())))
    assert list(d.classes) == list(d.labels) == ["birads", "density"]


@pytest.mark.parametrize(
    ("labels", "classes", "error", "message"),
    [
        (
            HEADS,
            ("a", "b"),
            ValueError,
            r"classes: expected those of each head, birads, density, by its name, got",
        ),
        (HEADS, {"birads": ("1", "2", "3")}, ValueError, "classes: expected those of each head"),
        (HEADS, NAMES | {"density": "lh"}, TypeError, r"classes\['density'\]: expected a tuple of strings, got 'lh'"),
        (
            HEADS,
            NAMES | {"density": ("low",)},
            ValueError,
            r"labels\['density'\]: expected 0 to 0, .*, -1 where it is not",
        ),
        ({**HEADS, "density": np.full(6, -2)}, NAMES, ValueError, r"labels\['density'\]: expected 0 to 1, .* got -2 to -2"),
        ({**HEADS, "density": np.zeros(5, int)}, NAMES, ValueError, r"labels\['density'\]: expected 6, one for each"),
        (np.zeros(6, int), NAMES, TypeError, "classes: expected a tuple of strings"),
        ({}, {}, TypeError, "labels: expected a NumPy array of int64, got dict"),
        ({0: HEADS["birads"]}, {0: NAMES["birads"]}, TypeError, "labels: expected a string as the name of each head, got"),
    ],
)
def test_bad_heads(labels: Any, classes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Dataset(np.zeros((6, 1, 1, 1), np.uint8), labels, classes)
