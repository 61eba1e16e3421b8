from __future__ import annotations

import os
import pathlib
import sys
import threading
import time
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidl.data import files, image_folder, load_image


def save(file: pathlib.Path, pixels: np.ndarray, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def test_classes_and_files_by_name(tmp_path: pathlib.Path) -> None:
    for name in ("zebra/2.png", "zebra/1.PNG", "ant/x.bmp", "Ä/é.tif"):
        save(tmp_path / name, noise(4, 6, 3) + np.uint8(len(name)))
    d = image_folder(str(tmp_path))
    assert d.classes == ("ant", "zebra", "Ä")
    assert d.labels.tolist() == [0, 1, 1, 2]
    assert d.images.shape == (4, 3, 4, 6)
    assert d.images.dtype == np.uint8
    assert d.name == tmp_path.name
    for image, name in zip(d.images, ("ant/x.bmp", "zebra/1.PNG", "zebra/2.png", "Ä/é.tif"), strict=True):
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1))


def test_each_is_what_load_image_gives(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "x.png", noise(4, 6, 3))
    save(tmp_path / "a" / "y.png", noise(5, 4), "L")
    d = image_folder(tmp_path, size=(3, 3), channels=1)
    for name, image in zip("xy", d.images, strict=True):
        assert np.array_equal(load_image(tmp_path / "a" / f"{name}.png", (3, 3), 1), image)


def test_images_in_folders_of_a_class(tmp_path: pathlib.Path) -> None:
    for value, name in enumerate(("a/1.png", "a/p/2.png", "a/p/q/3.png", "b/r/4.png")):
        save(tmp_path / name, np.full((3, 3), value, np.uint8))
    d = image_folder(tmp_path)
    assert d.classes == ("a", "b") and d.labels.tolist() == [0, 0, 0, 1] and d.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("names", [["train", "val"], ["Training", "Test"], ["all"]])
def test_folders_of_classes_are_no_classes(tmp_path: pathlib.Path, names: list[str]) -> None:
    for name in names:
        save(tmp_path / name / "cat" / "1.png", noise(4, 4))
        save(tmp_path / name / "dog" / "1.png", noise(4, 4))
    with pytest.raises(ValueError, match=rf"root: .* holds {', '.join(sorted(names))}, and the images are in folders in there"):
        image_folder(tmp_path)
    assert image_folder(tmp_path / names[0]).classes == ("cat", "dog")


def test_what_is_passed_over_is_counted_and_named(tmp_path: pathlib.Path) -> None:
    for name in "ab":
        save(tmp_path / name / "1.png", noise(4, 4))
    for name in ("notes.txt", "a/notes.txt", "a/Thumbs.db", "a/.DS_Store", "__MACOSX/a/._1.png", ".git/config", "a/.old/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"something")
    save(tmp_path / "loose.png", noise(4, 4))
    for k in range(5):
        (tmp_path / "b" / f"cut{k}.png").write_bytes((tmp_path / "b" / "1.png").read_bytes()[:40])
    (tmp_path / "b" / "none.jpg").touch()
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.warns(UserWarning, match="image_folder: passed over in") as caught:
        d = image_folder(tmp_path)
    assert d.classes == ("a", "b") and len(d) == 2
    assert caught[0].filename == __file__
    said = str(caught[0].message)
    for part in (
        "5 (.git, __MACOSX, a/.DS_Store, ...), hidden, or left by the system",
        "2 (loose.png, notes.txt), beside the folders of the classes",
        "1 (a/notes.txt), not named as an image is",
        "5 (b/cut0.png, b/cut1.png, b/cut2.png, ...), is no image that can be read, it may be cut off or damaged",
        "1 (b/none.jpg), is empty, 0 bytes",
        "1 (b/gone.png), cannot be opened: [Errno 2] No such file or directory",
    ):
        assert part in said, said


def test_nothing_passed_over_is_no_warning(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "1.png", noise(4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(image_folder(tmp_path)) == 1


def test_a_class_of_which_nothing_is_left(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "1.png", noise(4, 4))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.png").write_bytes(b"\x89PNG")
    with (
        pytest.warns(UserWarning, match="passed over"),
        pytest.raises(FileNotFoundError, match=r"b holds no image that can be read; passed over: 1 \(b/1.png\), is no image"),
    ):
        image_folder(tmp_path)


@pytest.mark.parametrize("name", ["1.dcm", "1", "IM0001.bin", "1.png"])
def test_dicom_without_pydicom(tmp_path: pathlib.Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(bytes(128) + b"DICM" + bytes(100))
    with (
        pytest.warns(UserWarning),
        pytest.raises(FileNotFoundError, match=rf"\(a/{name}\), is DICOM, which needs"),
    ):
        image_folder(tmp_path)


def test_links(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "store" / "x" / "1.png", noise(4, 4))
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "a").symlink_to(tmp_path / "store")
    (root / "b" / "2.png").symlink_to(tmp_path / "store" / "x" / "1.png")
    (tmp_path / "store" / "x" / "back").symlink_to(tmp_path / "store")
    with pytest.warns(UserWarning, match=r"1 \(a/x/back\), a link to a folder that it is in"):
        d = image_folder(root)
    assert d.classes == ("a", "b") and len(d) == 2


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "$\\frac{1$", "∀x∈ℝ", "a b\n", "{}%s"])
def test_names(tmp_path: pathlib.Path, name: str) -> None:
    save(tmp_path / "first" / name / "1.png", noise(4, 4))
    save(tmp_path / name / f"{name}.png", noise(4, 4))
    (tmp_path / name / f"{name}.txt").touch()
    with pytest.warns(UserWarning, match="passed over"):
        d = image_folder(tmp_path)
    assert set(d.classes) == {"first", name} and len(d) == 2


# ---- threads


def test_the_order_is_that_of_the_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(24):
        save(tmp_path / "c" / f"{k:02}.png", np.full((2, 2), k, np.uint8))
    threads, read = set[int](), files.read_image

    def slow(file: pathlib.Path, *asked: Any) -> np.ndarray:
        threads.add(threading.get_ident())
        time.sleep(0.01 * (int(file.stem) % 3))
        return read(file, *asked)

    monkeypatch.setattr(files, "read_image", slow)
    monkeypatch.setattr(files.os, "cpu_count", lambda: 4)
    assert image_folder(tmp_path).images[:, 0, 0, 0].tolist() == list(range(24))
    assert len(threads) > 1 and threading.get_ident() not in threads


def test_the_first_error_is_raised(tmp_path: pathlib.Path) -> None:
    """Of those that arguments would mend, whichever thread comes first."""
    save(tmp_path / "c" / "00.png", noise(2, 2))
    for k in range(1, 9):
        save(tmp_path / "c" / f"{k:02}.png", noise(2, 2, 4))
    for _ in range(5):
        with pytest.raises(ValueError, match=r"01.png has transparent pixels"):
            image_folder(tmp_path)


def test_ctrl_c_stops_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(200):
        save(tmp_path / "c" / f"{k:03}.png", noise(2, 2))
    begun, read, before = list[str](), files.read_image, threading.active_count()

    def interrupted(file: pathlib.Path, *asked: Any) -> np.ndarray:
        begun.append(file.stem)
        if file.stem == "020":
            raise KeyboardInterrupt
        return read(file, *asked)

    monkeypatch.setattr(files, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        image_folder(tmp_path)
    assert len(begun) < 60 and threading.active_count() == before


# ---- depth


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_greyscale_keeps_its_depth(tmp_path: pathlib.Path, suffix: str) -> None:
    pixels = noise(6, 7, dtype=np.uint16)
    save(tmp_path / "c" / f"a.{suffix}", pixels)
    d = image_folder(tmp_path)
    assert d.images.dtype == np.float32
    np.testing.assert_allclose(d.images[0, 0], pixels / 65535, rtol=1e-6)
    half = image_folder(tmp_path, size=(3, 4)).images
    assert half.shape == (1, 1, 3, 4)
    assert 0 <= half.min() <= half.max() <= 1
    assert len(np.unique(half)) == 12  # not squeezed to 8 bits


def test_16_and_8_bit_greyscale_mix(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.png", np.full((3, 3), 51, np.uint8))
    save(tmp_path / "c" / "b.png", np.full((3, 3), 13107, np.uint16))
    np.testing.assert_allclose(image_folder(tmp_path).images, 0.2, rtol=1e-6)


def test_16_bit_greyscale_in_colour(tmp_path: pathlib.Path) -> None:
    pixels = noise(3, 3, dtype=np.uint16)
    save(tmp_path / "c" / "a.png", pixels)
    save(tmp_path / "c" / "b.png", noise(3, 3, 3))
    d = image_folder(tmp_path, channels=3)
    np.testing.assert_array_equal(d.images[0], np.stack([pixels / np.float32(65535)] * 3))
    np.testing.assert_array_equal(d.images[1], noise(3, 3, 3).transpose(2, 0, 1) / np.float32(255))


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_floating_point_pixels_stay_as_they_are(tmp_path: pathlib.Path, channels: int | None) -> None:
    pixels = np.float32([[-1000.5, 0], [0.25, 3000]])
    save(tmp_path / "c" / "a.tif", pixels)
    d = image_folder(tmp_path, channels=channels)
    assert d.images.dtype == np.float32
    np.testing.assert_array_equal(d.images, np.broadcast_to(pixels, (1, channels or 1, 2, 2)))


def test_floats_and_bytes_do_not_mix(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.png", noise(2, 2))
    save(tmp_path / "c" / "b.tif", np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match=r"b.tif holds floats or signed integers of any range, .*a.png holds uint8: convert"):
        image_folder(tmp_path)


def test_sizes_must_agree_or_be_given(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "1.png", noise(8, 8, 3))
    save(tmp_path / "b" / "2.png", noise(8, 10, 3))
    with pytest.raises(ValueError, match=r"2.png is 8x10 \(HxW\), .*1.png is 8x8; pass size=\(8, 8\) \(--size 8\)"):
        image_folder(tmp_path)
    assert image_folder(tmp_path, size=(4, 6)).images.shape == (2, 3, 4, 6)


def test_resizing_is_antialiased(tmp_path: pathlib.Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)  # every other pixel white
    save(tmp_path / "c" / "a.png", board)
    small = image_folder(tmp_path, size=(8, 8)).images
    assert np.abs(small.astype(int) - 127).max() <= 3


def test_channels_must_agree_or_be_given(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "1.png", noise(4, 4))
    save(tmp_path / "b" / "2.png", noise(4, 4, 3))
    with pytest.raises(ValueError, match=r"2.png has 3 channels, .*1.png has 1; pass channels=3 \(--channels 3\), or 1"):
        image_folder(tmp_path)
    for channels in (1, 3, 4):
        assert image_folder(tmp_path, channels=channels).images.shape == (2, channels, 4, 4)


def test_pages(tmp_path: pathlib.Path) -> None:
    (tmp_path / "c").mkdir()
    pages = [Image.fromarray(noise(4, 4) + np.uint8(k)) for k in range(3)]
    pages[0].save(tmp_path / "c" / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a.tif holds 3 pages: pass page=0 \(--page 0\) for the first, up to 2"):
        image_folder(tmp_path)
    assert np.array_equal(image_folder(tmp_path, page=2).images[0, 0], np.asarray(pages[2]))


def test_alpha(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.png", noise(4, 4, 3))
    save(tmp_path / "c" / "b.png", np.dstack([noise(4, 4, 3), np.full((4, 4), 255, np.uint8)]))
    assert image_folder(tmp_path).images.shape == (2, 3, 4, 4)
    save(tmp_path / "c" / "c.png", noise(4, 4, 4))
    with pytest.raises(ValueError, match=r"c.png has transparent pixels: pass channels=4 \(--channels 4\)"):
        image_folder(tmp_path)
    assert (image_folder(tmp_path, channels=4).images[:2, 3] == 255).all()


def test_missing_and_empty_folders(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no class folder"):
        image_folder(tmp_path)
    save(tmp_path / "a" / "1.png", noise(4, 4))
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match=r"b holds no image; expected files that end in \.png"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"size": 32}, TypeError, "size: expected 2 integers of at least 1, got 32"),
        ({"size": (4, 4, 4)}, ValueError, r"size: expected 2 integers of at least 1, got \(4, 4, 4\)"),
        ({"size": (0, 4)}, ValueError, r"size\[0\]: expected an integer of at least 1, got 0"),
        ({"size": (4, 4.5)}, TypeError, r"size\[1\]: expected an integer of at least 1, got 4.5"),
        ({"channels": 2}, ValueError, "channels: expected 1, 3, 4 or None, got 2"),
        ({"page": -1}, ValueError, "page: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path: pathlib.Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        image_folder(tmp_path, **arguments)
