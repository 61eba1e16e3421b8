"""Files that hold no weights to be read here, by their first bytes: what each is, and what to do with it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

from minidl.io.notes import short, some

LEGACY = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the number that begins the legacy format of PyTorch
CONVERT = "read it with its own library and write the arrays with weights.save_arrays"
UNPACK = "unpack it and load the file of weights in it"
IMAGE = "an image, no weights"

BEGINNINGS = [  # (where, bytes, what it is)
    (0, b"\x93NUMPY", "an array of NumPy (.npy): np.load reads it, weights.save_arrays writes it under a name"),
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file (.h5 of Keras, .mat of MATLAB): {CONVERT}"),
    (512, b"\x89HDF\r\n\x1a\n", f"an HDF5 file (.mat of MATLAB): {CONVERT}"),
    (0, b"MATLAB 5.0 MAT-file", f"a .mat file of MATLAB: {CONVERT}"),
    (128, b"DICM", f"a DICOM file, that is {IMAGE}"),
    (0, b"GGUF", f"a gguf file of llama.cpp: {CONVERT}"),
    (4, b"TFL3", f"a model of TensorFlow Lite: {CONVERT}"),
    (0, b"\x89PNG", f"a PNG file, that is {IMAGE}"),
    (0, b"\xff\xd8\xff", f"a JPEG file, that is {IMAGE}"),
    (0, b"GIF8", f"a GIF file, that is {IMAGE}"),
    (0, b"II*\0", f"a TIFF file, that is {IMAGE}"),
    (0, b"MM\0*", f"a TIFF file, that is {IMAGE}"),
    (8, b"WEBP", f"a WebP file, that is {IMAGE}"),
    (0, b"%PDF", "a PDF file, no weights"),
    (0, b"\x1f\x8b", f"compressed with gzip (.gz, .tar.gz): {UNPACK}"),
    (0, b"BZh", f"compressed with bzip2 (.bz2): {UNPACK}"),
    (0, b"\xfd7zXZ", f"compressed with xz (.xz): {UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed with Zstandard (.zst): {UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"an archive of 7-Zip (.7z): {UNPACK}"),
    (0, b"Rar!", f"a RAR archive (.rar): {UNPACK}"),
    (
        0,
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the file: run git lfs pull, or download the file itself",
    ),
]
FIRST_TAR = ("sys_info", "pickle", "tensors", "storages")  # what PyTorch's first releases put into a tar file
TORCHSCRIPT = "a TorchScript program, no checkpoint: torch.save(torch.jit.load(path).state_dict(), path) writes its weights"
EXPORTED = "a program of torch.export, no checkpoint: torch.save(torch.export.load(path).state_dict, path) writes its weights"


def is_first_tar(raw: bytes) -> bool:
    """The format of PyTorch's first releases."""
    return raw[257:262] == b"ustar" and raw[:100].rstrip(b"\0") in {name.encode() for name in FIRST_TAR}


def is_safetensors(raw: bytes) -> bool:
    """8 bytes with the length of a header, and a header that begins as it must."""
    return raw[8:9] == b"{"


def is_legacy(raw: bytes) -> bool:
    """PyTorch's format before 1.6."""
    return raw[:1] == b"\x80" and LEGACY in raw[:24]  # behind the version of the pickle, and its length from version 4 on


def describe(raw: bytes) -> str:
    """What a file is that is not what was expected, and what to do."""
    known = next((what for at, first, what in BEGINNINGS if raw[at : at + len(first)] == first), "")
    start = raw[:400].removeprefix(b"\xef\xbb\xbf").lstrip()
    if is_safetensors(raw):
        return "a safetensors file: weights.load and weights.load_arrays read it"
    if known:
        return known
    if not raw:
        return "an empty file: get it again"
    if is_legacy(raw) or is_first_tar(raw):
        return "a checkpoint of PyTorch: weights.load reads it"
    if raw[257:262] == b"ustar":
        return f"a tar archive of files: {UNPACK}"
    if raw[:2] == b"PK":
        return _zip(raw)
    if raw[:1] == b"\x80" and raw[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return "a pickle of Python, which runs as a program: where you trust it, load it yourself and use weights.save_arrays"
    if raw[:3] == b"\x08\x01\x12" or (raw[:1] == b"\n" and (b"Placeholder" in raw[:400] or b"Const" in raw[:400])):
        return f"a model of TensorFlow (.pb): {CONVERT}"
    if raw[-8:] == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return f"the index of a checkpoint of TensorFlow: {CONVERT}"
    if len(raw) > 8 and raw[0] == 8 and 2 <= raw[1] < 32 and raw[2] in b"\x12\x1a\x22\x2a\x32\x3a\x42":
        return f"a model as ONNX: {CONVERT}"
    if start[:1] == b"<":
        return "a page of HTML or XML, as servers send in place of a file: open it in a browser, and get the file again"
    if start[:1] in (b"{", b"["):
        return "a text in JSON, such as a configuration, an index or a server's error: get the file with the weights"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in raw[:400]):
        return f"a text that begins {short(start.decode())}, as servers send in place of a file: get it again"
    return f"{len(raw):,} bytes that begin with {raw[:8]!r}, damaged or of a kind that is not known here"


def describe_zip(names: Sequence[str]) -> str:
    """What a zip archive with files of these names is, if it is no checkpoint of PyTorch."""
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends and "data.pkl" in ends:
        return TORCHSCRIPT
    if ends & {"archive_format", "archive_version"}:
        return EXPORTED
    if names and all(name.endswith(".npy") for name in names):
        return "arrays of NumPy (.npz): weights.save_arrays(path, dict(np.load(npz))) writes them as safetensors"
    if "model.weights.h5" in ends:
        return f"a model of Keras (.keras): {CONVERT}"
    if len(names) == 0:
        return "an empty zip archive: get it again"
    return f"a zip archive of files ({some([short(name) for name in names], 3)}), no checkpoint of PyTorch: {UNPACK}"


def _zip(raw: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OverflowError):
        return "a zip archive that is damaged or cut short: get it again"
    if sum(name.endswith("/data.pkl") for name in names) == 1 and describe_zip(names) != TORCHSCRIPT:
        return "a checkpoint of PyTorch: weights.load reads it"
    return describe_zip(names)
