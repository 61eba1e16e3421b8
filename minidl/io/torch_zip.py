"""The records of a checkpoint that is a zip archive."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from minidl.io import file_kinds
from minidl.io.notes import cut, short

MOST_RECORDS = 100_000  # of an archive


def zip_records(raw: bytes) -> dict[str, memoryview]:
    """The records of a checkpoint by name, as slices of it; nothing is unpacked, and no name reaches a file system.

    Raises ValueError for an archive of something else, and unless every record lies whole, uncompressed and only once within
    the archive and has its checksum.
    """
    if raw.count(b"PK\x01\x02") > MOST_RECORDS:
        raise ValueError(f"a zip archive of more than {MOST_RECORDS:,} records")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OverflowError, struct.error) as error:
        raise ValueError(f"a zip archive that is damaged or cut short: {cut(str(error))}") from error
    names = [entry.filename for entry in entries]
    pickles = {name for name in names if name.endswith("/data.pkl")}
    if len(pickles) != 1 or file_kinds.describe_zip(names) in (file_kinds.TORCHSCRIPT, file_kinds.EXPORTED):
        raise ValueError(f"expected a PyTorch checkpoint, got {file_kinds.describe_zip(names)}")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ValueError("compressed or encrypted, which no checkpoint is: unpack it, and pack it with zip -0 -r")
    if sum(entry.file_size for entry in entries) > len(raw):
        raise ValueError(f"a zip archive of {len(raw):,} bytes whose records claim more: lying, or overlapping")
    records: dict[str, memoryview] = {}
    for entry in entries:
        name, at = entry.filename, entry.header_offset
        if entry.file_size != entry.compress_size:
            raise ValueError(f"{short(name)}: of two sizes")
        if name in records:
            raise ValueError(f"{short(name)}: twice in the archive")
        if raw[at : at + 4] != b"PK\x03\x04" or at + 30 > len(raw):
            raise ValueError(f"{short(name)}: no record at byte {at:,}")
        lengths = struct.unpack_from("<HH", raw, at + 26)  # of the name and of what is put before the content to align it
        content = memoryview(raw)[at + 30 + sum(lengths) :][: entry.file_size]
        if len(content) < entry.file_size:
            raise ValueError(f"{short(name)}: cut short")
        if entry.CRC not in (0, zlib.crc32(content)):  # 0 where PyTorch was told to save the time
            raise ValueError(f"{short(name)}: damaged, its checksum differs")
        records[name] = content
    return records
