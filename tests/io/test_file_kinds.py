"""Files that hold no weights to be read here are named, in one sentence that says what to do; so are paths without a file."""

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from minidl import nn, weights
from minidl.io import file_kinds, torch_checkpoint
from tests.io.checkpoints.by_hand import entries, legacy, tensor, zipped


def written(write):
    write(file := io.BytesIO())
    return file.getvalue()


def image(kind):
    return written(lambda file: Image.new("RGB", (4, 4)).save(file, kind))


def archive(*names, compression=zipfile.ZIP_STORED):
    def write(file):
        with zipfile.ZipFile(file, "w", compression) as members:
            for name in names:
                members.writestr(name, b"content " * 30)

    return written(write)


def tar(name, mode="w"):
    def write(file):
        with tarfile.open(fileobj=file, mode=mode) as members:
            member = tarfile.TarInfo(name)
            member.size = 3
            members.addfile(member, io.BytesIO(b"abc"))

    return written(write)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x9c\x01\n\x20"
SAVED_MODEL = b"\x08\x01\x12\xf1\x02\n\x1a\x12\x04serve"
KINDS = [
    (b"", "an empty file: get it again"),
    (
        written(lambda f: np.savez(f, a=np.ones(3))),
        r"arrays of NumPy \(\.npz\): weights\.save_arrays\(path, dict\(",
    ),
    (written(lambda f: np.savez_compressed(f, a=np.ones(3))), r"arrays of NumPy \(\.npz\)"),
    (written(lambda f: np.save(f, np.ones(3))), r"an array of NumPy \(\.npy\): np\.load reads it"),
    (b"\x89HDF\r\n\x1a\n" + bytes(90), r"an HDF5 file \(\.h5 of Keras, \.mat of MATLAB\): read it with its own library"),
    (b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(200), r"a \.mat file of MATLAB"),
    (archive("metadata.json", "config.json", "model.weights.h5"), r"a model of Keras \(\.keras\)"),
    (bytes(128) + b"DICM" + bytes(50), "a DICOM file, that is an image, no weights"),
    (archive("net/data.pkl", "net/constants.pkl", "net/code/x.py"), r"a TorchScript program, no checkpoint: torch\.save"),
    (archive("m/data/weights/weight_0", "m/archive_format", "m/models/model.json"), r"a program of torch\.export"),
    (ONNX, "a model as ONNX: read it with its own library"),
    (SAVED_MODEL, r"a model of TensorFlow \(\.pb\)"),
    (b"\n\x2e\n\x05input\x12\x0bPlaceholder*\x0b", r"a model of TensorFlow \(\.pb\)"),
    (bytes(60) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "the index of a checkpoint of TensorFlow"),
    (b"\x1c\0\0\0TFL3" + bytes(30), "a model of TensorFlow Lite"),
    (b"GGUF\3\0\0\0" + bytes(30), r"a gguf file of llama\.cpp"),
    (gzip.compress(b"weights"), r"compressed with gzip \(\.gz, \.tar\.gz\): unpack it and load the file of weights in it"),
    (tar("model.pth", "w:gz"), "compressed with gzip"),
    (tar("model.pth", "w:bz2"), "compressed with bzip2"),
    (tar("model.pth", "w:xz"), "compressed with xz"),
    (tar("model.pth"), "a tar archive of files: unpack it and load the file of weights in it"),
    (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed with Zstandard"),
    (b"7z\xbc\xaf\x27\x1c" + bytes(9), "an archive of 7-Zip"),
    (b"Rar!\x1a\x07" + bytes(9), "a RAR archive"),
    (
        archive("a/m.pth", "README", "b", "c", "d"),
        r"a zip archive of files \('a/m\.pth', 'README', 'b', and 2 more\)",
    ),
    (archive("a/model.pth", compression=zipfile.ZIP_DEFLATED), r"a zip archive of files \('a/model\.pth'\)"),
    (archive(), "an empty zip archive"),
    (image("PNG"), "a PNG file, that is an image, no weights"),
    (image("JPEG"), "a JPEG file"),
    (image("GIF"), "a GIF file"),
    (image("TIFF"), "a TIFF file"),
    (image("WEBP"), "a WebP file"),
    (b"%PDF-1.7\n", "a PDF file"),
    (b"\n <!DOCTYPE html><html><body>404</body>", "a page of HTML or XML, as servers send in place of a file"),
    (b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", "a page of HTML or XML"),
    (LFS, "a pointer of Git LFS in place of the file: run git lfs pull"),
    (json.dumps({"error": "Repository not found"}).encode(), "a text in JSON"),
    (b"Entry not found", "a text that begins 'Entry not found', as servers send in place of a file"),
    (pickle.dumps({"w": [1.0]}, 4), "a pickle of Python, which runs as a program"),
    (bytes(range(200, 256)), "56 bytes that begin with .*, damaged or of a kind that is not known here"),
]


@pytest.mark.parametrize(("raw", "message"), KINDS, ids=[message[:30] for _, message in KINDS])
def test_other_kinds_of_files(tmp_path, raw, message):
    path = tmp_path / "w.pth"
    path.write_bytes(raw)
    expected = f"expected a (safetensors file|PyTorch checkpoint), got {message}"
    for read in (lambda: weights.load(nn.Linear(2, 3), path), lambda: weights.load_arrays(path)):
        with pytest.raises(ValueError, match=expected) as error:
            read()
        assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < len(str(path)) + 400
        assert "damaged" not in str(error.value) or "not known here" in str(error.value)
    with pytest.raises(ValueError, match=expected):
        torch_checkpoint.Checkpoint(raw)


def test_what_another_function_reads_is_told(tmp_path):
    good = entries(a=tensor())
    for raw in (zipped(good), legacy(good)):
        (tmp_path / "w").write_bytes(raw)
        with pytest.raises(ValueError, match=r"got a checkpoint of PyTorch: weights\.load reads it"):
            weights.load_arrays(tmp_path / "w")
    weights.save_arrays(tmp_path / "w", {"a": np.ones(2)})
    with pytest.raises(ValueError, match=r"expected a PyTorch checkpoint, got a safetensors file: weights\.load and"):
        torch_checkpoint.Checkpoint((tmp_path / "w").read_bytes())


def test_every_beginning_is_described():
    """Nothing that is cut short, or short itself, breaks the description."""
    for raw, _ in KINDS:
        for size in range(min(len(raw), 300)):
            assert 10 < len(file_kinds.describe(raw[:size])) < 400


def readers(path):
    return [
        lambda: weights.load(nn.Linear(2, 3), path),
        lambda: weights.load_arrays(path),
        lambda: weights.load_arrays(str(path)),
    ]


def test_a_path_without_a_file(tmp_path):
    for read in readers(tmp_path / "nowhere.pth"):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
            read()
    for read in readers(tmp_path / "nowhere" / "w.pth"):
        with pytest.raises(FileNotFoundError, match=r"w\.pth"):
            read()
    weights.save_arrays(tmp_path / "file", {})
    for read in readers(tmp_path / "file" / "w.pth"):
        with pytest.raises(NotADirectoryError, match=r"w\.pth"):
            read()


def test_a_folder(tmp_path):
    for read in readers(tmp_path):
        with pytest.raises(IsADirectoryError, match=f"a folder, expected a file of weights; .* none .*{tmp_path.name}"):
            read()
    for name in ("b.pth", "a.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    for read in readers(tmp_path):
        with pytest.raises(IsADirectoryError, match=r"those in it are a\.safetensors, b\.pth: '.*'"):
            read()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="a superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    weights.save_arrays(tmp_path / "w.pth", {})
    (tmp_path / "w.pth").chmod(0)
    for read in readers(tmp_path / "w.pth"):
        with pytest.raises(PermissionError, match=r"w\.pth"):
            read()


def test_a_number_is_no_path():
    """open(0) would read what comes from the keyboard."""
    for path in (0, None, 1.5):
        with pytest.raises(TypeError):
            weights.load_arrays(path)
