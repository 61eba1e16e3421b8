"""What each kind of file is read as: bit for bit, or one error that says what to do."""

from __future__ import annotations

import io
import pathlib
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minidl.data import load_image, read_image
from minidl.data.decoding import UnreadableError


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


# ---- files written by hand


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def filtered(rows: np.ndarray, step: int) -> bytes:
    """The bytes (H,width) of a PNG's rows, each by another of the five filters (PNG, section 9); `step` bytes a pixel."""
    out, above = b"", np.zeros(rows.shape[1], int)
    for i, row in enumerate(rows.astype(int)):
        left, corner = (np.concatenate([np.zeros(step, int), a])[: len(row)] for a in (row, above))
        p = left + above - corner
        a, b, c = abs(p - left), abs(p - above), abs(p - corner)
        paeth = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        guess = [0 * row, left, above, (left + above) // 2, paeth][i % 5]
        out += bytes([i % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    return out


def png(pixels: np.ndarray, kind: int, bits: int, interlaced: bool = False, *more: bytes) -> bytes:
    """pixels (H,W,C) of 8 or 16 bits; `kind` is the colour type, `more` are chunks before the pixels."""
    H, W, C = pixels.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]  # Adam7
    data = b""
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        part = np.ascontiguousarray(pixels[top::down, left::right])
        if part.size:
            rows = part.astype(f">u{bits // 8}").reshape(len(part), -1).view(np.uint8)
            data += filtered(rows, C * bits // 8)
    header = struct.pack(">IIBBBBB", W, H, bits, kind, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    )


def tiff(pixels: np.ndarray, tags: dict[int, int] | None = None, order: str = "<", compressed: bool = False) -> bytes:
    """One strip, (H,W,C), or (C,H,W) where the tag 284 says 2; tags of one 16-bit number each."""
    planar = (tags or {}).get(284) == 2
    C, H, W = pixels.shape if planar else (pixels.shape[2], *pixels.shape[:2])
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    strips = [data[i * len(data) // C : (i + 1) * len(data) // C] for i in range(C)] if planar else [data]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries: dict[int, Any] = {256: W, 257: H, 258: [8 * pixels.itemsize] * C, 259: 8 if compressed else 1}
    entries |= {262: 2 if C > 2 else 1, 273: offsets, 277: C, 278: H, 279: [len(s) for s in strips], 339: [kind] * C}
    entries |= tags or {}
    start = 8 + sum(map(len, strips))
    later, table = start + 2 + 12 * len(entries) + 4, b""
    beyond = b""
    for tag, value in sorted(entries.items()):
        many = value if isinstance(value, list) else [value]
        letter, number = ("I", 4) if tag in (273, 279) else ("H", 3)
        packed = struct.pack(f"{order}{len(many)}{letter}", *many)
        table += struct.pack(f"{order}HHI", tag, number, len(many))
        if len(packed) > 4:
            table += struct.pack(f"{order}I", later + len(beyond))
            beyond += packed
        else:
            table += packed.ljust(4, b"\0")
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HI", 42, start)
    return head + b"".join(strips) + struct.pack(f"{order}H", len(entries)) + table + b"\0\0\0\0" + beyond


def read(tmp_path: pathlib.Path, raw: bytes, name: str = "x.png", **asked: Any) -> np.ndarray:
    (tmp_path / name).write_bytes(raw)
    return read_image(tmp_path / name, **asked)


def saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def exactly(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert np.array_equal(found, expected)


# ---- depth


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits(tmp_path: pathlib.Path, kind: int, channels: int, interlaced: bool) -> None:
    pixels = noise(23, 17, channels, dtype=np.uint16)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    colours = pixels[..., : channels - 1 + channels % 2]
    exactly(read(tmp_path, png(pixels, kind, 16, interlaced)), colours)
    pixels[..., -1] = noise(23, 17, dtype=np.uint16)
    if channels == 4:
        exactly(read(tmp_path, png(pixels, kind, 16, interlaced), channels=4), pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_of_16_bits(tmp_path: pathlib.Path, order: str, compressed: bool, channels: int) -> None:
    pixels = noise(9, 7, channels, dtype=np.uint16)
    more = {338: 2} if channels == 4 else {}
    found = read(tmp_path, tiff(pixels, more, order, compressed), "x.tif", channels=4 if channels == 4 else None)
    exactly(found, pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.uint32])
def test_tiff_as_it_is(tmp_path: pathlib.Path, dtype: type, order: str, compressed: bool) -> None:
    """Floats, numbers with a sign, and 32 bits: no range is assumed."""
    values = np.array([[0, 1, 30_000], [-1000, 7, 300]], np.float32) if dtype != np.uint32 else np.float32([[0, 70_000, 2**24]])
    values += np.float32(0.25) if dtype == np.float32 else 0
    raw = tiff(values.astype(dtype)[..., None], None, order, compressed)
    if dtype == np.uint32 and order == ">":
        with pytest.raises(UnreadableError, match="TIFF of a kind that Pillow does not read"):
            read(tmp_path, raw, "x.tif")
        return
    exactly(read(tmp_path, raw, "x.tif"), values[..., None])
    exactly(read(tmp_path, raw, "x.tif", channels=3), np.repeat(values[..., None], 3, 2))


def test_signed_bytes(tmp_path: pathlib.Path) -> None:
    exactly(read(tmp_path, tiff(np.int8([[[-128], [5]]])), "x.tif"), np.float32([[[-128], [5]]]))


def test_white_is_zero(tmp_path: pathlib.Path) -> None:
    """In a TIFF that says so, as scans do."""
    for pixels in noise(4, 5, 1), noise(4, 5, 1, dtype=np.uint16):
        exactly(read(tmp_path, tiff(pixels, {262: 0}), "x.tif"), np.iinfo(pixels.dtype).max - pixels)


def test_big_endian_grey(tmp_path: pathlib.Path) -> None:
    pixels = noise(4, 5, 1, dtype=np.uint16)
    found = read(tmp_path, tiff(pixels, None, ">"), "x.tif")
    exactly(found, pixels)
    assert found.dtype.isnative


@pytest.mark.parametrize("largest", [2**24 + 1, 2**31, 2**32 - 1])
def test_integers_that_float32_cannot_hold(tmp_path: pathlib.Path, largest: int) -> None:
    with pytest.raises(UnreadableError, match=rf"x.tif holds integers from 0 to {largest}, expected at most 2\*\*24"):
        read(tmp_path, tiff(np.uint32([[[0], [largest]]])), "x.tif")


@pytest.mark.parametrize("largest", [255, 1023, 65535])
def test_ppm(tmp_path: pathlib.Path, largest: int) -> None:
    pixels = np.minimum(noise(5, 6, 3, dtype=np.uint16), largest)
    dtype = np.uint8 if largest < 256 else np.uint16
    raw = b"P6 6 5 %d\n" % largest + pixels.astype(">u2" if largest > 255 else np.uint8).tobytes()
    exactly(read(tmp_path, raw, "x.ppm"), np.rint(pixels * (np.iinfo(dtype).max / largest)).astype(dtype))
    with pytest.raises(UnreadableError, match="cut off"):
        read(tmp_path, raw[:-1], "x.ppm")


def test_floats_that_are_none(tmp_path: pathlib.Path) -> None:
    for value in np.nan, np.inf:
        with pytest.raises(UnreadableError, match=r"x.tif holds NaN or infinity"):
            read(tmp_path, tiff(np.full((2, 2, 1), value, np.float32)), "x.tif")


# ---- channels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_conversions(tmp_path: pathlib.Path, dtype: type) -> None:
    """Those of Pillow, where it has them; 16 bits alike."""
    colour, bits = noise(8, 9, 3, dtype=dtype), 8 * np.dtype(dtype).itemsize
    raw = png(colour, 2, bits)
    grey = read(tmp_path, raw, channels=1)
    assert np.abs(grey[..., 0] - colour @ [0.299, 0.587, 0.114]).max() < (0.51 if bits == 8 else 1)
    if bits == 8:
        exactly(grey[..., 0], np.asarray(Image.fromarray(colour).convert("L")))
    opaque = np.full((8, 9, 1), np.iinfo(dtype).max, dtype)
    exactly(read(tmp_path, raw, channels=4), np.dstack([colour, opaque]))
    raw = png(grey, 0, bits)
    exactly(read(tmp_path, raw, channels=3), np.repeat(grey, 3, 2))
    exactly(read(tmp_path, raw, channels=4), np.dstack([grey, grey, grey, opaque]))


def test_floats_in_colour(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "x.npy", np.float32([[[-10, 0, 500]]]))
    np.testing.assert_allclose(read_image(tmp_path / "x.npy", 1), [[[-2.99 + 57]]], rtol=1e-6)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA", "P", "RGB", "L", "1"])
def test_transparency(tmp_path: pathlib.Path, mode: str) -> None:
    """Opaque alpha is dropped; any other has to be asked for, in every form that it takes."""
    colour = np.zeros((2, 2, 3), np.uint8) + np.uint8([[[0], [255]], [[255], [255]]])
    image, how = Image.fromarray(colour), {}
    kind, name = ("TIFF", "x.tif") if mode == "PA" else ("PNG", "x.png")
    if mode in ("LA", "RGBA", "PA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.uint8([[9, 255], [255, 255]])))
    else:
        image = image.convert(mode)
        how = {"transparency": image.getpixel((0, 0))}
    raw = saved(image, kind, **how)
    with pytest.raises(ValueError, match=r"has transparent pixels: pass channels=4 \(--channels 4\)"):
        read(tmp_path, raw, name)
    with pytest.raises(ValueError, match="has transparent pixels"):
        read(tmp_path, raw, name, channels=3)
    kept = read(tmp_path, raw, name, channels=4)
    assert np.array_equal(kept[..., 3], [[9 if mode in ("LA", "RGBA", "PA") else 0, 255], [255, 255]])
    assert np.array_equal(kept[0, 1:, :3], [[255, 255, 255]])

    if mode in ("LA", "RGBA"):
        image.putalpha(255)
        assert np.array_equal(read(tmp_path, saved(image, kind), name), np.asarray(image)[..., :-1])
    elif mode in ("RGB", "L"):  # a transparent colour that does not come
        assert read(tmp_path, saved(image, kind, transparency=(1, 2, 3) if mode == "RGB" else 9), name).shape[2] == len(mode)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_colour_of_a_png(tmp_path: pathlib.Path, bits: int) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    grey = (np.arange(6).reshape(2, 3, 1) * (np.iinfo(dtype).max // 5)).astype(dtype)
    for pixels, kind in (grey, 0), (np.repeat(grey, 3, 2), 2):
        for value, opaque in (grey[0, 1, 0], False), (3, True):
            raw = png(pixels, kind, bits, False, chunk(b"tRNS", struct.pack(">H", value) * pixels.shape[2]))
            if opaque:
                exactly(read(tmp_path, raw), pixels)
                continue
            alpha = read(tmp_path, raw, channels=4)[..., 3]
            exactly(alpha, np.where(grey[..., 0] == value, 0, np.iinfo(dtype).max).astype(dtype))


def test_a_transparent_grey_of_four_bits(tmp_path: pathlib.Path) -> None:
    rows = b"\0\x01\0\x23"  # 0 1, 2 3
    header = struct.pack(">IIBBBBB", 2, 2, 4, 0, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"tRNS", b"\0\2"), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )
    exactly(read(tmp_path, raw, channels=4)[..., 0], np.uint8([[0, 17], [34, 51]]))
    exactly(read(tmp_path, raw, channels=4)[..., 3], np.uint8([[255, 255], [0, 255]]))


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("P", 3), ("RGB", 3), ("LA", 1), ("RGBA", 3)])
def test_channels_by_mode(tmp_path: pathlib.Path, mode: str, channels: int) -> None:
    image = Image.fromarray(noise(5, 5, 3)).convert(mode)
    for kind in "PNG", "TIFF":
        found = read(tmp_path, saved(image, kind), "x")
        exactly(found, np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(5, 5, channels))


def test_ink(tmp_path: pathlib.Path) -> None:
    image = Image.frombytes("CMYK", (16, 16), noise(16, 16, 4).tobytes())
    for kind in "JPEG", "TIFF":
        raw = saved(image, kind)
        for asked in {}, {"channels": 4}:
            with pytest.raises(ValueError, match=r"x is CMYK, colours of ink: pass channels=3 \(--channels 3\)"):
                read(tmp_path, raw, "x", **asked)
        with Image.open(io.BytesIO(raw)) as again:
            exactly(read(tmp_path, raw, "x", channels=3), np.asarray(again.convert("RGB")))


@pytest.mark.parametrize(("channels", "extra"), [(2, 0), (4, 0)])
def test_channels_without_a_name(tmp_path: pathlib.Path, channels: int, extra: int) -> None:
    with pytest.raises(UnreadableError, match=r"holds 1 more channel than its colours|unknown pixel mode"):
        read(tmp_path, tiff(noise(3, 3, channels), {338: extra}), "x.tif")


@pytest.mark.parametrize("compressed", [False, True])
def test_planes(tmp_path: pathlib.Path, compressed: bool) -> None:
    planes = noise(3, 4, 5)
    exactly(read(tmp_path, tiff(planes, {284: 2}, "<", compressed), "x.tif"), planes.transpose(1, 2, 0))
    with pytest.raises(UnreadableError, match="holds 16 bits a colour in planes"):
        read(tmp_path, tiff(noise(3, 4, 5, dtype=np.uint16), {284: 2}, "<", compressed), "x.tif")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (tiff(noise(3, 3, 2, dtype=np.uint16), {338: 2}), "unknown pixel mode"),
        (tiff(np.zeros((3, 3, 3), np.float32)), "unknown pixel mode"),
        (tiff(np.zeros((3, 3, 1), np.float64)), "unknown pixel mode"),
    ],
)
def test_a_tiff_that_pillow_does_not_read(tmp_path: pathlib.Path, raw: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=rf"x.tif is a TIFF of a kind that Pillow does not read \({why}\): convert it"):
        read(tmp_path, raw, "x.tif")


# ---- windows


def test_the_same_x_ray_through_three_windows(tmp_path: pathlib.Path) -> None:
    """Whatever kind of file holds it: y = (x - low) / (high - low), cut off at 0 and 1."""
    x = noise(9, 8, dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(png(x[..., None], 0, 16))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    seen = set()
    for low, high in (0, 65535), (1000, 20_000), (-500, 40_000.5):
        found = [read_image(tmp_path / name, window=(low, high)) for name in ("x.png", "x.npy")]
        exactly(found[0][..., 0], np.rint(((x - np.float64(low)) / (high - low)).clip(0, 1) * 65535).astype(np.uint16))
        exactly(found[1], found[0])
        seen.add(found[0].tobytes())
        held = load_image(tmp_path / "x.png", window=(low, high))
        np.testing.assert_allclose(held, found[0].transpose(2, 0, 1) / 65535, rtol=1e-6)
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("window", "error", "message"),
    [
        ((5, 5), ValueError, r"window: expected \(low, high\), low < high, got \(5, 5\)"),
        ((9, 5), ValueError, r"window: expected \(low, high\), low < high"),
        (5, TypeError, "window: expected 2 finite numbers, got 5"),
        ((1, 2, 3), ValueError, "window: expected 2 finite numbers"),
        ((0, float("nan")), ValueError, r"window\[1\]: expected a finite number"),
        ((0, 9), ValueError, r"window: .*x.png has 3 channels, and a window is of grey values"),
    ],
)
def test_windows_that_cannot_be(tmp_path: pathlib.Path, window: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, png(noise(3, 3, 3), 2, 8), window=window)


# ---- orientation and pages


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: pathlib.Path, orientation: int) -> None:
    """Of Exif, version 2.3, section 4.6.4: where the first row and the first column are."""
    upright = noise(4, 6, 3)
    turn = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
            5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, 1),
            7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}  # fmt: skip
    stored = np.ascontiguousarray(turn[orientation](upright))  # so that turning it as the tag says makes it upright
    exif = Image.Exif()
    exif[274] = orientation
    exactly(read(tmp_path, saved(Image.fromarray(stored), "PNG", exif=exif)), upright)
    exactly(read(tmp_path, saved(Image.fromarray(stored), "WEBP", exif=exif, lossless=True)), upright)
    exactly(read(tmp_path, tiff(stored, {274: orientation}), "x.tif"), upright)
    deep = stored.astype(np.uint16) * 257
    exactly(read(tmp_path, tiff(deep, {274: orientation}), "x.tif"), upright.astype(np.uint16) * 257)
    tag = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    exactly(read(tmp_path, png(deep, 2, 16, False, tag)), upright.astype(np.uint16) * 257)
    smooth = Image.fromarray(np.kron(stored, np.ones((8, 8, 1), np.uint8)))
    found = read(tmp_path, saved(smooth, "JPEG", exif=exif, quality=95, subsampling=0))
    assert np.abs(found[4::8, 4::8].astype(int) - upright).max() < 30


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_pages(tmp_path: pathlib.Path, kind: str) -> None:
    pages = [Image.new("RGB", (5, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    how = {"lossless": True} if kind == "WEBP" else {}
    raw = saved(pages[0], kind, save_all=True, append_images=pages[1:], **how)
    with pytest.raises(ValueError, match=r"x holds 3 pages: pass page=0 \(--page 0\) for the first, up to 2"):
        read(tmp_path, raw, "x")
    for page, image in enumerate(pages):
        exactly(read(tmp_path, raw, "x", page=page), np.asarray(image))
    with pytest.raises(ValueError, match=r"page: .*x holds 3 pages, expected 0 to 2, got 3"):
        read(tmp_path, raw, "x", page=3)


def test_one_page(tmp_path: pathlib.Path) -> None:
    raw = saved(Image.fromarray(noise(4, 4)), "PNG")
    exactly(read(tmp_path, raw, page=0), read(tmp_path, raw))
    with pytest.raises(ValueError, match=r"page: .*x.png holds 1 page, expected 0 to 0, got 1"):
        read(tmp_path, raw, page=1)


def test_a_photograph_with_its_previews(tmp_path: pathlib.Path) -> None:
    photograph, preview = (Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
    raw = saved(photograph, "MPO", save_all=True, append_images=[preview])
    assert read(tmp_path, raw, "x.jpg")[0, 0, 0] > 200 and read(tmp_path, raw, "x.jpg", page=1)[0, 0, 2] > 200


# ---- .npy


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float16, np.float32, np.float64, ">f4", bool])
def test_npy(tmp_path: pathlib.Path, dtype: Any) -> None:
    values = (np.arange(24).reshape(2, 4, 3) % 2).astype(dtype)
    kept = np.dtype(dtype).newbyteorder("=") if np.dtype(dtype).kind == "u" else np.uint8 if dtype is bool else np.float32
    expected = values.astype(kept) * np.dtype(kept).type(255 if dtype is bool else 1)
    for stored in values, np.asfortranarray(values):
        np.save(tmp_path / "x.npy", stored)
        exactly(read_image(tmp_path / "x.npy"), expected)
    np.save(tmp_path / "x.npy", values[..., 0])
    exactly(read_image(tmp_path / "x.npy"), expected[..., :1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 28, 28), np.uint8), r"shape \(3, 28, 28\), expected \(H,W\) or \(H,W,C\) .*a.transpose\(1, 2, 0\)"),
        (np.zeros((28, 28, 17), np.uint8), r"shape \(28, 28, 17\), expected \(H,W\) or \(H,W,C\) with 1 or 3 to 16 channels$"),
        (np.zeros((2, 28, 28, 3), np.uint8), r"shape \(2, 28, 28, 3\)"),
        (np.zeros((0, 4), np.uint8), r"shape \(0, 4\)"),
        (np.zeros((4, 4), np.int64), r"holds int64, expected uint8, uint16 or floats: a.astype\(np.float32\)"),
        (np.zeros((4, 4), complex), "holds complex128"),
        (np.array([[1e300]]), "holds NaN or infinity, or what float32 cannot hold"),
        (np.array([["a"]]), "holds <U1"),
        (np.array([[{}]]), "cut off or damaged: Object arrays cannot be loaded"),
    ],
)
def test_arrays_that_are_no_image(tmp_path: pathlib.Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UnreadableError, match=message):
        read_image(tmp_path / "x.npy")


# ---- what is no image


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "gif", "tif", "webp", "npy", "ppm"])
@pytest.mark.parametrize("kept", [0, 10, 60, 400])
def test_cut_off(tmp_path: pathlib.Path, kind: str, kept: int) -> None:
    file = tmp_path / f"x.{kind}"
    np.save(file, noise(64, 64, 3)) if kind == "npy" else Image.fromarray(noise(64, 64, 3)).save(file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        UnreadableError, match=rf"x.{kind} is empty" if kept == 0 else rf"x.{kind} is no image that can be read"
    ):
        read_image(file)


def test_cut_off_16_bits(tmp_path: pathlib.Path) -> None:
    raw = png(noise(64, 64, 3, dtype=np.uint16), 2, 16)
    with pytest.raises(UnreadableError, match="cut off or damaged"):
        read(tmp_path, raw[: len(raw) // 2])


@pytest.mark.parametrize("bits", [8, 16])
def test_more_pixels_than_memory(tmp_path: pathlib.Path, bits: int) -> None:
    header = struct.pack(">IIBBBBB", 10**6, 10**6, bits, 2, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(UnreadableError, match=r"exceeds limit of .* pixels, could be decompression bomb"):
        read(tmp_path, raw)


def test_dicom_without_pydicom(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableError, match=r'scan is DICOM, which needs pydicom: pip install "minidl\[dicom\]"'):
        read(tmp_path, bytes(128) + b"DICM" + bytes(200), "scan")


@pytest.mark.parametrize("kind", ["JPEG2000", "TGA", "ICO", "EPS"])
def test_other_formats(tmp_path: pathlib.Path, kind: str) -> None:
    if kind == "JPEG2000" and "JPEG2000" not in Image.SAVE:
        pytest.skip("this Pillow does not write it")
    raw = saved(Image.fromarray(noise(32, 32, 3)), kind)
    with pytest.raises(UnreadableError, match=rf"x is {kind}, which is not read: convert it to PNG or TIFF"):
        read(tmp_path, raw, "x")


def test_files_that_are_not_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"z\.png"):
        read_image(tmp_path / "z.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"channels": 2}, ValueError, "channels: expected 1, 3, 4 or None, got 2"),
        ({"channels": 3.0}, TypeError, "channels: expected an integer of at least 1, got 3.0"),
        ({"page": -1}, ValueError, "page: expected an integer of at least 0, got -1"),
        ({"page": "1"}, TypeError, "page: expected an integer of at least 0, got '1'"),
    ],
)
def test_bad_arguments(tmp_path: pathlib.Path, asked: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(tmp_path, saved(Image.fromarray(noise(4, 4)), "PNG"), **asked)


# ---- as a folder holds it


def test_loaded(tmp_path: pathlib.Path) -> None:
    deep = noise(6, 7, 3, dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png(deep, 2, 16))
    exactly(load_image(tmp_path / "deep.png"), (deep / np.float32(65535)).transpose(2, 0, 1))
    Image.fromarray(noise(6, 7, 3)).save(tmp_path / "x.png")
    exactly(load_image(tmp_path / "x.png"), noise(6, 7, 3).transpose(2, 0, 1))
    half = np.asarray(Image.fromarray(noise(6, 7, 3)).resize((4, 3), Image.Resampling.BILINEAR))
    exactly(load_image(tmp_path / "x.png", (3, 4)), half.transpose(2, 0, 1))
    small = load_image(tmp_path / "deep.png", (3, 4))
    assert small.shape == (3, 3, 4) and len(np.unique(small)) == 36  # not squeezed to 8 bits
    np.save(tmp_path / "x.npy", np.float32([[-1000, 3000]]))
    exactly(load_image(tmp_path / "x.npy"), np.float32([[[-1000, 3000]]]))
    assert load_image(tmp_path / "x.npy", (1, 1))[0, 0, 0] == pytest.approx(1000)


def test_what_is_hidden_does_not_colour_its_neighbours(tmp_path: pathlib.Path) -> None:
    pixels = np.zeros((4, 4, 4), np.float32)
    pixels[:, :2] = 0.5, 0.25, 0.125, 1
    pixels[:, 2:, :3] = 9
    np.save(tmp_path / "x.npy", pixels)
    small = load_image(tmp_path / "x.npy", (1, 1), channels=4)[:, 0, 0]
    np.testing.assert_allclose(small, [0.5, 0.25, 0.125, 0.5], rtol=1e-6)
