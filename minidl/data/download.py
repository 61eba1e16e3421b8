"""Archives from the web: fetched with a checksum, unpacked only inside the folder that was asked for."""

from __future__ import annotations

import gzip
import os
import pathlib
import shutil
import tarfile
import tempfile
import zlib


def fetch(url: str, known_hash: str, root: pathlib.Path, folder: str) -> None:
    """Download the tar archive at `url` into `root` and unpack it, so that `root/folder` exists.

    An archive that lies in `root` already and has the right hash is not downloaded again.

    Args:
        known_hash: as pooch writes it, such as "md5:c32a1d4a...".

    Raises:
        OSError: the archive could not be downloaded or written.
        ValueError: what came has another hash, or `extract` refuses it.
    """
    import pooch  # heavy, and few need it

    root.mkdir(parents=True, exist_ok=True)
    name = url.rsplit("/", 1)[-1]
    try:
        archive = pooch.retrieve(url, known_hash, fname=name, path=root, progressbar=True)
    except OSError as error:
        raise OSError(
            f"could not download {url} into {root}: {error}. Without a connection, get {name} ({known_hash}) by other "
            "means and put it there"
        ) from error
    extract(pathlib.Path(archive), root, folder)


def extract(archive: pathlib.Path, root: pathlib.Path, folder: str) -> None:
    """Unpack the `folder` that a tar archive holds to `root/folder`, whole or not at all.

    Every member is looked at before anything is written. Files go to a temporary folder beside the target, which is
    then renamed.

    Raises:
        ValueError: a member is neither a plain file nor a folder or would land outside `root`; the archive is
            damaged; it does not hold `folder`.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder}-", dir=root) as temporary:
        try:
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                for member in members:
                    _check_member(archive, member)
                for member in members:
                    _write_member(tar, member, pathlib.Path(temporary))
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{archive} is not a whole tar archive ({error}); delete it and download again") from error
        unpacked = pathlib.Path(temporary, folder)
        if not unpacked.is_dir():
            raise ValueError(f"{archive} does not hold the folder {folder}")
        os.replace(unpacked, root / folder)


def _check_member(archive: pathlib.Path, member: tarfile.TarInfo) -> None:
    for path in (pathlib.PurePosixPath(member.name), pathlib.PureWindowsPath(member.name)):
        if path.anchor or ".." in path.parts:
            raise ValueError(f"{archive} holds {member.name!r}, which leaves the folder; nothing was unpacked")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"{archive} holds {member.name!r}, a link or device; nothing was unpacked")


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, into: pathlib.Path) -> None:
    target = into / member.name
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = tar.extractfile(member)
    assert source is not None  # a plain file
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file)
