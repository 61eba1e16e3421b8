"""DICOM, decoded by pydicom: stored values, rescaled, with the window that the file names or another one.

PS3.3, "Information Object Definitions": C.11.1 rescaling (modality LUT), C.11.2 windows (VOI LUT), C.7.6.3 photometric
interpretation, C.7.6.16 what may differ from frame to frame.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

from minidl.array import Array
from minidl.data.decoding import UnreadableError, check_finite, check_page, decoding, exactly
from minidl.data.windows import Window, grey16, windowed

COLOURS = 3
PACKAGES = "pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg"


def decode_dicom(file: str | os.PathLike[str], raw: bytes, page: int | None, window: Window | None) -> Array:
    """The frame (H,W) or (H,W,3) of the file: uint16 of a window, else as `read_image` says.

    Raises UnreadableError for what cannot be read, ValueError where `page` has to be told, and for a window of colours.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array
    except ImportError as error:
        raise UnreadableError(f'{file} is DICOM, which needs pydicom: pip install "minidl[dicom]"') from error
    with decoding(file):
        d = pydicom.dcmread(io.BytesIO(raw))
        if not any(name in d for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            what = d.SOPClassUID.name if "SOPClassUID" in d else "of no kind that it names"
            raise UnreadableError(f"{file} is DICOM without pixels, {what}")
        frames = int(d.get("NumberOfFrames") or 1)
    page = check_page(file, page, frames)
    with decoding(file):
        _check_compression(file, d)
        try:
            stored = pixel_array(d, index=page)  # YBR has become RGB
        except RuntimeError as error:  # of the packages that decode
            raise UnreadableError(
                f"{file} is DICOM in {d.file_meta.TransferSyntaxUID.name}, and no package that is here reads it "
                f"({' '.join(str(error).split())}): it is damaged, or {PACKAGES}"
            ) from error
        if d.PhotometricInterpretation == "PALETTE COLOR":
            stored = apply_color_lut(stored, d)
    if stored.ndim == COLOURS:
        if window is not None:
            raise ValueError(f"window: {file} holds colours, and a window is of grey values")
        return _whole(file, stored)
    with decoding(file):
        rescale = _macro(d, page, "PixelValueTransformationSequence")
        values = stored if _is_identity(rescale) else apply_modality_lut(stored, rescale)
        if d.get("DoseGridScaling"):  # C.8.8.3: of a dose, which has no other rescaling
            values = values * float(d.DoseGridScaling)
        inverted = d.PhotometricInterpretation == "MONOCHROME1"
        if window is not None:
            shown = windowed(values, *window)
        else:
            y = _own_window(values, _macro(d, page, "FrameVOILUTSequence"))
            shown = _whole(file, values) if y is None else grey16(y)
            if y is None and inverted:
                return _whole(file, _inverted(values, apply_modality_lut(_ends(d), rescale)))
    return np.iinfo(np.uint16).max - shown if inverted else shown


def _macro(d: Any, page: int, name: str) -> Any:
    """What holds for this frame: of its own, of all frames, or else the whole file."""
    for groups, i in ("PerFrameFunctionalGroupsSequence", page), ("SharedFunctionalGroupsSequence", 0):
        found = d.get(groups)
        if found and len(found) > i and found[i].get(name):
            return found[i].get(name)[0]
    return d


def _is_identity(d: Any) -> bool:
    slope, intercept = d.get("RescaleSlope"), d.get("RescaleIntercept")
    return not d.get("ModalityLUTSequence") and slope in (None, 1) and intercept in (None, 0)


def _own_window(values: Array, d: Any) -> Array | None:
    """The values in [0, 1] by the first window that the file names, or its table; None where it has none."""
    from pydicom.pixels import apply_voi

    if d.get("VOILUTSequence"):
        bits = d.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi(values, d).astype(np.float64) / (2**bits - 1)
    if d.get("WindowCenter") is None or d.get("WindowWidth") is None:
        return None
    c, w = (float(np.atleast_1d(d[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    x, function = values.astype(np.float64), d.get("VOILUTFunction") or "LINEAR"
    if w < 1 if function == "LINEAR" else w <= 0:
        raise ValueError(f"WindowWidth is {w}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (x - c) / w))
    if function == "LINEAR_EXACT":
        return (x - (c - w / 2)) / w
    if function != "LINEAR":
        raise ValueError(f"VOILUTFunction is {function!r}, which the standard does not have")
    below = x - (c - 0.5) + (w - 1) / 2
    return below / (w - 1) if w > 1 else (below > 0).astype(np.float64)


def _inverted(values: Array, ends: Array) -> Array:
    """What is dark, bright: in the range of all values that could be stored."""
    y = float(ends.min()) + float(ends.max()) - values.astype(np.float64)
    return y.astype(values.dtype)


def _ends(d: Any) -> Array:
    """The least and the largest value that the file can store."""
    bits = int(d.BitsStored)
    least = -(2 ** (bits - 1)) if d.PixelRepresentation else 0
    return np.array([least, least + 2**bits - 1])


def _whole(file: str | os.PathLike[str], values: Array) -> Array:
    """Unsigned integers of up to 16 bits as they are, others as float32."""
    if values.dtype in (np.uint8, np.uint16):
        return values
    if values.dtype.kind in "iu":
        return exactly(file, values.astype(np.int64))
    whole = values.astype(np.float32)
    check_finite(file, whole)
    return whole


def _check_compression(file: str | os.PathLike[str], d: Any) -> None:
    """Raises UnreadableError where a package is missing that decodes what the file is compressed with."""
    from pydicom.pixels import get_decoder

    syntax = d.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise UnreadableError(f"{file} is DICOM in {syntax.name}, which pydicom does not read") from error
    if not decoder.is_available:
        raise UnreadableError(f"{file} is DICOM in {syntax.name}, which pydicom does not read alone: {PACKAGES}")
