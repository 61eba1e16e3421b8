from __future__ import annotations

import functools
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from minidl.data import cifar
from minidl.data.download import extract, fetch


def tar(members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def plain(name: str, data: bytes = b"data") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def small_cifar() -> bytes:
    rng = np.random.default_rng(0)
    files = [plain("cifar-10-batches-bin/batches.meta.txt", "\n".join("abcdefghij").encode())]
    for name in (*cifar.CIFAR10.train, *cifar.CIFAR10.test):
        records = np.c_[rng.integers(0, 10, 2), rng.integers(0, 256, (2, 3072))].astype(np.uint8)
        files.append(plain(f"cifar-10-batches-bin/{name}", records.tobytes()))
    return tar([special("cifar-10-batches-bin", tarfile.DIRTYPE), *files])


@pytest.fixture
def server(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, pathlib.Path, list[str]]]:
    """A web server on this machine: its address, the folder it serves and the paths it was asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            asked.append(self.path)

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder, asked
        httpd.shutdown()
        thread.join()


def listing(folder: pathlib.Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_download_unpack_read_and_not_again(
    tmp_path: pathlib.Path, server: tuple[str, pathlib.Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, served, asked = server
    data = small_cifar()
    (served / "small.tar.gz").write_bytes(data)
    layout = replace(cifar.CIFAR10, url=f"{url}/small.tar.gz", known_hash=f"md5:{hashlib.md5(data).hexdigest()}")
    monkeypatch.setattr(cifar, "CIFAR10", layout)
    root = tmp_path / "deep" / "root"
    train = cifar.cifar10(root, download=True)
    assert len(train) == 10
    assert train.classes == tuple("abcdefghij")
    assert {p.name for p in root.iterdir()} == {"small.tar.gz", "cifar-10-batches-bin"}
    assert asked == ["/small.tar.gz"]
    assert np.array_equal(cifar.cifar10(root, download=True).images, train.images)
    assert len(cifar.cifar10(root, train=False)) == 2
    assert asked == ["/small.tar.gz"]


def test_an_archive_that_lies_there_is_used(tmp_path: pathlib.Path) -> None:
    data = small_cifar()
    (tmp_path / "small.tar.gz").write_bytes(data)
    known = f"md5:{hashlib.md5(data).hexdigest()}"
    fetch("http://127.0.0.1:1/small.tar.gz", known, tmp_path, "cifar-10-batches-bin")
    assert (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").stat().st_size == 2 * 3073


def test_wrong_checksum_unpacks_nothing(tmp_path: pathlib.Path, server: tuple[str, pathlib.Path, list[str]]) -> None:
    url, served, _ = server
    (served / "small.tar.gz").write_bytes(small_cifar())
    root = tmp_path / "root"
    with pytest.raises(ValueError, match="does not match the known hash"):
        fetch(f"{url}/small.tar.gz", "md5:" + "0" * 32, root, "cifar-10-batches-bin")
    assert listing(root) == set()


def test_no_connection_says_what_to_do(tmp_path: pathlib.Path, server: tuple[str, pathlib.Path, list[str]]) -> None:
    url, _, _ = server
    with pytest.raises(OSError, match=r"could not download .*404.*get absent.tar.gz \(md5:00\) by other means"):
        fetch(f"{url}/absent.tar.gz", "md5:00", tmp_path / "root", "cifar-10-batches-bin")
    assert listing(tmp_path / "root") == set()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2"])
def test_extract(tmp_path: pathlib.Path, mode: str) -> None:
    (tmp_path / "a.tar").write_bytes(tar([plain("set/x/y.bin", b"12"), plain("set/z.bin", b"3"), plain("other")], mode))
    extract(tmp_path / "a.tar", tmp_path, "set")
    assert listing(tmp_path) == {"a.tar", "set", "set/x", "set/x/y.bin", "set/z.bin"}
    assert (tmp_path / "set/x/y.bin").read_bytes() == b"12"


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (plain("../evil"), "leaves the folder"),
        (plain("set/../../evil"), "leaves the folder"),
        (plain("/tmp/evil"), "leaves the folder"),
        (plain("..\\evil"), "leaves the folder"),
        (plain("C:\\evil"), "leaves the folder"),
        (plain("C:evil"), "leaves the folder"),
        (special("set/link", tarfile.SYMTYPE, "/etc"), "a link or device"),
        (special("set/link", tarfile.LNKTYPE, "set/good"), "a link or device"),
        (special("set/pipe", tarfile.FIFOTYPE), "a link or device"),
        (special("set/device", tarfile.CHRTYPE), "a link or device"),
        (special("set/device", tarfile.BLKTYPE), "a link or device"),
        (special("../evil", tarfile.DIRTYPE), "leaves the folder"),
    ],
    ids=lambda value: value[0].name if isinstance(value, tuple) else "",
)
def test_extract_refuses_members_that_leave_the_folder(
    tmp_path: pathlib.Path, member: tuple[tarfile.TarInfo, bytes], message: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.tar.gz").write_bytes(tar([plain("set/good"), member]))
    with pytest.raises(ValueError, match=message) as caught:
        extract(root / "a.tar.gz", root, "set")
    assert repr(member[0].name) in str(caught.value)
    assert "nothing was unpacked" in str(caught.value)
    assert listing(tmp_path) == {"root", "root/a.tar.gz"}


WHOLE = tar([plain("set/good", np.random.default_rng(0).bytes(50_000))])
OTHERS = {
    "half": WHOLE[: len(WHOLE) // 2],
    "altered": WHOLE[:20] + bytes(30) + WHOLE[50:],
    "empty": b"",
    "page": b"<html>not found</html>",
    "another": tar([plain("other")]),
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_damaged_archive_leaves_nothing_behind(tmp_path: pathlib.Path, data: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"a.tar.gz (is not a whole tar archive|does not hold the folder set)"):
        extract(tmp_path / "a.tar.gz", tmp_path, "set")
    assert listing(tmp_path) == {"a.tar.gz"}


def test_failure_halfway_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([plain("set/a"), plain("set/a/b")], "w"))  # a file, then a folder of its name
    with pytest.raises(OSError, match="set/a"):
        extract(tmp_path / "a.tar", tmp_path, "set")
    assert listing(tmp_path) == {"a.tar"}


def test_extract_keeps_what_is_there(tmp_path: pathlib.Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    (tmp_path / "a.tar.gz").write_bytes(tar([plain("set/good")]))
    with pytest.raises(OSError, match=r"not empty|exists"):
        extract(tmp_path / "a.tar.gz", tmp_path, "set")
    assert listing(tmp_path) == {"a.tar.gz", "set", "set/mine"}
