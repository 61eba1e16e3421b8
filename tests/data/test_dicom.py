"""DICOM, beside pydicom's own functions: on the files that come with it, and on small ones written here."""

from __future__ import annotations

import itertools
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minidl.data import UnreadableError, csv, image_folder, load_image, read_image

pytestmark = pytest.mark.oracle
pydicom: Any = pytest.importorskip("pydicom")

FILES = (
    "CT_small.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_expb.dcm MR_small_implicit.dcm "
    "MR_small_padded.dcm ExplVR_BigEnd.dcm SC_rgb_rle.dcm SC_rgb_rle_16bit.dcm SC_rgb_rle_2frame.dcm SC_rgb_small_odd.dcm "
    "SC_rgb_dcmtk_+eb+cr.dcm SC_ybr_full_422_uncompressed.dcm SC_rgb_jpeg_dcmtk.dcm examples_overlay.dcm "
    "examples_palette.dcm examples_rgb_color.dcm examples_ybr_color.dcm image_dfl.dcm liver_1frame.dcm rtdose_1frame.dcm "
    "rtdose_rle.dcm JPEG2000.dcm 693_J2KI.dcm"
).split()


@pytest.fixture(autouse=True)
def _pydicom_may_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write(file: pathlib.Path, stored: np.ndarray, **tags: Any) -> pathlib.Path:
    """Stored values (H,W), or (frames,H,W), or (H,W,3), with these tags."""
    d = pydicom.Dataset()
    d.file_meta = pydicom.dataset.FileMetaDataset()
    d.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, pydicom.uid.generate_uid()
    colour = stored.ndim == 3 and stored.shape[2] == 3
    if stored.ndim == 3 and not colour:
        d.NumberOfFrames = len(stored)
    d.Rows, d.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    d.SamplesPerPixel, d.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        d.PlanarConfiguration = 0
    d.BitsAllocated = d.BitsStored = 8 * stored.itemsize
    d.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(d, name, value)
    d.HighBit = d.BitsStored - 1
    d.PixelData = stored.tobytes()
    d.save_as(file, enforce_file_format=True)
    return file


def sequence(**tags: Any) -> Any:
    d = pydicom.Dataset()
    for name, value in tags.items():
        setattr(d, name, value)
    return pydicom.Sequence([d])


STORED = np.arange(-1000, 1000, 5, dtype=np.int16).reshape(20, 20)


def unit(x: np.ndarray) -> np.ndarray:
    """uint16 back to [0, 1]"""
    assert x.dtype == np.uint16 and x.shape[2] == 1
    return x[..., 0] / 65535


# ---- beside pydicom


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_pydicom(name: str) -> None:
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

    file = pydicom.data.get_testdata_file(name, download=False)
    d = pydicom.dcmread(file)
    frames = int(d.get("NumberOfFrames") or 1)
    page = frames - 1
    x, stored = read_image(file, page=page if frames > 1 else None), pixel_array(d, index=page)
    if d.SamplesPerPixel == 3 or "PALETTE" in d.PhotometricInterpretation:
        expected = apply_color_lut(stored, d) if "PALETTE" in d.PhotometricInterpretation else stored
        assert x.dtype == expected.dtype and np.array_equal(x, expected)
        return
    values = apply_modality_lut(stored, d)
    if "DoseGridScaling" in d:
        np.testing.assert_allclose(x[..., 0], stored * float(d.DoseGridScaling), rtol=1e-6)
        assert x.max() < 100  # gray
        return
    if "WindowCenter" not in d:
        assert np.array_equal(x[..., 0], values) and x.dtype == (
            stored.dtype if stored.dtype.kind == "u" and stored.itemsize < 4 else np.float32
        )
        return
    shown = apply_voi_lut(values, d, prefer_lut=False).astype(float)
    least, most = (apply_voi_lut(np.array([end]), d, prefer_lut=False)[0] for end in (-1e7, 1e7))
    np.testing.assert_allclose(unit(x), (shown - least) / (most - least), atol=1e-4)


@pytest.mark.parametrize("name", ["rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "reportsi.dcm"])
def test_without_pixels(name: str) -> None:
    with pytest.raises(UnreadableError, match=rf"{name} is DICOM without pixels, .*[SW]"):
        read_image(pydicom.data.get_testdata_file(name, download=False))


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("JPEGLSNearLossless_16.dcm", "JPEG-LS Lossy"),
        ("JPEG-lossy.dcm", "JPEG Extended"),
        ("SC_rgb_jpeg_gdcm.dcm", "JPEG Lossless"),
    ],
)
def test_a_compression_that_needs_a_package(name: str, syntax: str) -> None:
    with pytest.raises(UnreadableError, match=rf"{name} is DICOM in {syntax}.* pip install pylibjpeg") as caught:
        read_image(pydicom.data.get_testdata_file(name, download=False))
    assert "\n" not in str(caught.value)


def test_cut_off() -> None:
    with pytest.raises(UnreadableError, match="cut off or damaged: The number of bytes of pixel data is less than expected"):
        read_image(pydicom.data.get_testdata_file("MR_truncated.dcm", download=False))


# ---- windows


def test_an_x_ray_through_three_windows(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "x.dcm", (STORED + 1000).astype(np.uint16), RescaleSlope=2, RescaleIntercept=-1024)
    units = (STORED + 1000.0) * 2 - 1024
    assert np.array_equal(read_image(file)[..., 0], units) and read_image(file).dtype == np.float32
    seen = []
    for low, high in ((-1000, 400), (-160, 240), (300, 1500)):
        x = read_image(file, window=(low, high))
        np.testing.assert_allclose(unit(x), ((units - low) / (high - low)).clip(0, 1), atol=0.51 / 65535)
        held = load_image(file, (10, 10), window=(low, high))
        assert held.dtype == np.float32 and held.shape == (1, 10, 10) and 0 <= held.min() < held.max() <= 1
        seen.append(x)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
def test_the_window_of_the_file(tmp_path: pathlib.Path, function: str | None) -> None:
    """As C.11.2.1.2 and C.11.2.1.3 of PS3.3 say; the first of two windows."""
    more = {} if function is None else {"VOILUTFunction": function}
    file = write(
        tmp_path / "x.dcm", STORED, WindowCenter=[40, 500], WindowWidth=[400, 2000], RescaleSlope=1, RescaleIntercept=0, **more
    )
    x = STORED.astype(float)
    expected = {
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - 40) / 400)),
        "LINEAR_EXACT": (x - 40) / 400 + 0.5,
    }.get(function or "", (x - 39.5) / 399 + 0.5)
    np.testing.assert_allclose(unit(read_image(file)), expected.clip(0, 1), atol=0.51 / 65535)
    assert not np.array_equal(read_image(file), read_image(file, window=(-1000, 1000)))


def test_a_table_of_the_file(tmp_path: pathlib.Path) -> None:
    lut = np.arange(256, dtype=np.uint16)[::-1] // 2
    voi = sequence(LUTDescriptor=[256, 0, 8], LUTData=lut.tobytes())
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    x = read_image(write(tmp_path / "x.dcm", stored, VOILUTSequence=voi))
    np.testing.assert_allclose(unit(x), lut.reshape(16, 16) / 255, atol=0.51 / 65535)


def test_a_window_of_width_1(tmp_path: pathlib.Path) -> None:
    x = read_image(write(tmp_path / "x.dcm", STORED, WindowCenter=100, WindowWidth=1))
    assert np.array_equal(x[..., 0] == 65535, STORED > 99.5) and set(np.unique(x)) == {0, 65535}
    with pytest.raises(UnreadableError, match=r"WindowWidth is 0\.0"):
        read_image(write(tmp_path / "y.dcm", STORED, WindowCenter=100, WindowWidth=0))
    with pytest.raises(UnreadableError, match="VOILUTFunction is 'CUBIC', which the standard does not have"):
        read_image(write(tmp_path / "z.dcm", STORED, WindowCenter=1, WindowWidth=9, VOILUTFunction="CUBIC"))


def test_monochrome1_is_inverted_after_the_window(tmp_path: pathlib.Path) -> None:
    inverted = {"PhotometricInterpretation": "MONOCHROME1"}
    own = {"WindowCenter": 40, "WindowWidth": 400}
    for tags, window in (own, None), ({}, (-100, 300)):
        a = read_image(write(tmp_path / "a.dcm", STORED, **tags), window=window)
        b = read_image(write(tmp_path / "b.dcm", STORED, **tags, **inverted), window=window)
        assert np.array_equal(b, 65535 - a) and a.dtype == b.dtype == np.uint16
    stored = np.arange(400, dtype=np.uint16).reshape(20, 20)
    x = read_image(write(tmp_path / "c.dcm", stored, BitsStored=12, **inverted))
    assert x.dtype == np.uint16 and np.array_equal(x[..., 0], 4095 - stored)
    x = read_image(write(tmp_path / "d.dcm", stored, BitsStored=12, RescaleSlope=2, RescaleIntercept=-10, **inverted))
    assert x.dtype == np.float32 and np.array_equal(x[..., 0], (4095 * 2 - 10) - 10 - (2.0 * stored - 10))


# ---- depth, frames, colours


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, np.int16])
def test_depth(tmp_path: pathlib.Path, dtype: type) -> None:
    info = np.iinfo(dtype)
    stored = np.linspace(info.min, info.max, 100).astype(dtype).reshape(10, 10)
    for rescale in {}, {"RescaleSlope": 1, "RescaleIntercept": 0}:
        x = read_image(write(tmp_path / "x.dcm", stored, **rescale))
        assert np.array_equal(x[..., 0], stored) and x.dtype == (dtype if info.min == 0 else np.float32)
    zeros = read_image(write(tmp_path / "y.dcm", np.zeros((2, 2), dtype), RescaleSlope=3, RescaleIntercept=0))
    assert zeros.dtype == np.float32  # whatever the pixels are


def test_frames_are_pages(tmp_path: pathlib.Path) -> None:
    frames = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)
    file = write(tmp_path / "x.dcm", frames)
    for page in range(3):
        assert np.array_equal(read_image(file, page=page)[..., 0], frames[page])
    with pytest.raises(ValueError, match=r"x.dcm holds 3 pages: pass page=0 \(--page 0\) for the first, up to 2"):
        read_image(file)
    with pytest.raises(ValueError, match="holds 3 pages, expected 0 to 2, got 3"):
        read_image(file, page=3)


def test_what_differs_from_frame_to_frame(tmp_path: pathlib.Path) -> None:
    """As in enhanced CT and MR: C.7.6.16 of PS3.3."""
    frames = np.arange(24, dtype=np.uint16).reshape(3, 2, 4)
    each = [
        sequence(PixelValueTransformationSequence=sequence(RescaleSlope=slope, RescaleIntercept=-5, RescaleType="US"))[0]
        for slope in (2, 3, 4)
    ]
    shared = sequence(FrameVOILUTSequence=sequence(WindowCenter=20, WindowWidth=41))
    d = {"PerFrameFunctionalGroupsSequence": pydicom.Sequence(each)}
    file = write(tmp_path / "x.dcm", frames, **d)
    for page in range(3):
        assert np.array_equal(read_image(file, page=page)[..., 0], frames[page] * (page + 2.0) - 5)
    file = write(tmp_path / "y.dcm", frames, SharedFunctionalGroupsSequence=shared, **d)
    np.testing.assert_allclose(unit(read_image(file, page=1)), ((frames[1] * 3.0 - 5 + 0.5) / 40).clip(0, 1), atol=0.51 / 65535)


def test_colours(tmp_path: pathlib.Path) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    file = write(tmp_path / "x.dcm", stored)
    assert np.array_equal(read_image(file), stored)
    assert read_image(file, 1).shape == (5, 4, 1)
    with pytest.raises(ValueError, match=r"window: .*x.dcm holds colours, and a window is of grey values"):
        read_image(file, window=(0, 100))


# ---- sets


def test_folders_and_tables(tmp_path: pathlib.Path) -> None:
    for i, name in enumerate(("a/1.dcm", "a/IM0002", "b/3.dcm")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, STORED + np.int16(i))
    d = image_folder(tmp_path, window=(-500, 500))
    assert d.names is not None and d.names.tolist() == ["a/1.dcm", "a/IM0002", "b/3.dcm"]
    for i, image in enumerate(d.images):
        np.testing.assert_allclose(image[0], ((STORED + i + 500) / 1000).clip(0, 1), atol=1e-5)
    (tmp_path / "set.csv").write_text("file,label\na/1.dcm,a\nb/3.dcm,b\n")
    assert np.array_equal(csv(tmp_path / "set.csv", window=(-500, 500), lazy=True).images[:], d.images[[0, 2]])
