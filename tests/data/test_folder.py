from __future__ import annotations

import pathlib

import numpy as np
import pytest
from PIL import Image

from minidl.data import image_folder, read_image


def save(file: pathlib.Path, pixels: np.ndarray, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def test_classes_and_files_by_name(tmp_path: pathlib.Path) -> None:
    for name in ("zebra/2.png", "zebra/1.PNG", "ant/x.bmp", "Ä/é.tif"):
        save(tmp_path / name, noise(4, 6, 3) + np.uint8(len(name)))
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    (tmp_path / "ant" / ".hidden.png").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    d = image_folder(str(tmp_path))
    assert d.classes == ("ant", "zebra", "Ä")
    assert d.labels.tolist() == [0, 1, 1, 2]
    assert d.images.shape == (4, 3, 4, 6)
    assert d.images.dtype == np.uint8
    assert d.name == tmp_path.name
    for image, name in zip(d.images, ("ant/x.bmp", "zebra/1.PNG", "zebra/2.png", "Ä/é.tif"), strict=True):
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / name)).transpose(2, 0, 1))


def test_one_image(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "x.png", noise(4, 6, 3))
    save(tmp_path / "a" / "y.png", noise(5, 4), "L")
    d = image_folder(tmp_path, size=(3, 3), channels=1)
    for name, image in zip("xy", d.images, strict=True):
        assert np.array_equal(read_image(tmp_path / "a" / f"{name}.png", (3, 3), 1), image)
    assert np.array_equal(read_image(str(tmp_path / "a" / "x.png")), noise(4, 6, 3).transpose(2, 0, 1))
    with pytest.raises(FileNotFoundError, match=r"z\.png"):
        read_image(tmp_path / "z.png")


@pytest.mark.parametrize(
    ("pixels", "mode", "channels"),
    [
        (noise(5, 5), None, 1),
        (noise(5, 5) > 99, None, 1),
        (noise(5, 5, 3), None, 3),
        (noise(5, 5, 3), "P", 3),
        (noise(5, 5, 4), None, 4),
        (noise(5, 5, 4), "LA", 4),
    ],
)
def test_channels_by_mode(tmp_path: pathlib.Path, pixels: np.ndarray, mode: str | None, channels: int) -> None:
    save(tmp_path / "c" / "a.png", pixels, mode)
    assert image_folder(tmp_path).images.shape == (1, channels, 5, 5)


def test_jpeg(tmp_path: pathlib.Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[:, None, None], (32, 16, 3))
    save(tmp_path / "c" / "a.JPeG", np.ascontiguousarray(ramp))
    image = image_folder(tmp_path).images[0]
    assert np.abs(image.astype(int) - ramp.transpose(2, 0, 1)).max() < 8


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


def test_16_bit_greyscale_is_not_turned_into_colour(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.png", noise(3, 3, dtype=np.uint16))
    with pytest.raises(ValueError, match=r"a.png is 16-bit greyscale, which has 1 channel, but channels=3"):
        image_folder(tmp_path, channels=3)


def test_32_bit_greyscale_out_of_range(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.tif", np.full((3, 3), 70_000, np.int32))
    with pytest.raises(ValueError, match=r"grey values from 70000 to 70000, expected 0\.\.65535"):
        image_folder(tmp_path)


def test_floating_point_pixels(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "c" / "a.tif", np.full((3, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match=r"a.tif holds floating-point pixels"):
        image_folder(tmp_path)


def test_sizes_must_agree_or_be_given(tmp_path: pathlib.Path) -> None:
    save(tmp_path / "a" / "1.png", noise(8, 8, 3))
    save(tmp_path / "b" / "2.png", noise(8, 10, 3))
    with pytest.raises(ValueError, match=r"2.png is 8x10 \(HxW\), .*1.png is 8x8; pass size="):
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
    with pytest.raises(ValueError, match=r"2.png has 3 channels, .*1.png has 1; pass channels="):
        image_folder(tmp_path)
    for channels in (1, 3, 4):
        assert image_folder(tmp_path, channels=channels).images.shape == (2, channels, 4, 4)


@pytest.mark.parametrize("kept", [0, 10, 60, 400])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif", "webp"])
def test_broken_image_is_named(tmp_path: pathlib.Path, suffix: str, kept: int) -> None:
    save(tmp_path / "c" / "good.png", noise(64, 64, 3))
    file = tmp_path / "c" / f"poor.{suffix}"
    save(file, noise(64, 64, 3))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"poor.{suffix} is no image that can be read"):
        image_folder(tmp_path)


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
    ],
)
def test_bad_arguments(tmp_path: pathlib.Path, arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        image_folder(tmp_path, **arguments)
