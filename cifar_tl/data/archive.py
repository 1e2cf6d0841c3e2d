"""pictures_in_zip: the pictures of a .zip that somebody dropped, within bounds that hold whatever the archive says of itself.

Nothing is written to disk, so no path in it can lead anywhere; names are only shown. Each member is read in pieces and at most up to
the bound, since the sizes in an archive are what its maker wrote there. Archives within archives are no pictures and are told so.
"""

import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cifar_tl.data.decode import MAX_BYTES

MAX_MEMBERS = 1_000
MAX_UNPACKED_BYTES = 256 * 2**20
# Pictures are compressed already. Ten thousand bytes out of one is a bomb, or a white page.
MAX_RATIO = 200
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_PIECE = 1 << 16
_MIB = 2**20
_NOT_PICTURES = ("__MACOSX/", ".")  # what systems put into archives beside the pictures


@dataclass(frozen=True)
class Member:
    """One file of an archive: its bytes, or why they were not read."""

    name: str
    data: bytes = b""
    error: str = ""


def is_zip(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def pictures_in_zip(name: str, data: bytes, *, room: int = MAX_MEMBERS) -> list[Member]:
    """Every file in it, as "archive.zip/folder/picture.png", at most `room` of them; one line for each that is refused."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return list(_members(name, archive, min(room, MAX_MEMBERS)))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        return [Member(name, error=f"The archive is cut off or damaged ({_one_line(error)}).")]


def _members(archive_name: str, archive: zipfile.ZipFile, room: int) -> Iterator[Member]:
    files = [info for info in archive.infolist() if not info.is_dir() and not _is_litter(info.filename)]
    left = MAX_UNPACKED_BYTES
    for info in files[:room]:
        shown = f"{archive_name}/{_shown(info.filename)}"
        try:
            content = _read(archive, info, left)
        except _Refused as refused:
            yield Member(shown, error=str(refused))
            continue
        left -= len(content)
        yield Member(shown, content)
    if len(files) > room:
        yield Member(archive_name, error=f"It holds {len(files):,} files; the first {room:,} were taken. Drop the others by themselves.")
    if not files:
        yield Member(archive_name, error="There is no file in this archive.")


class _Refused(Exception):
    """Why one member is not read."""


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, left: int) -> bytes:
    """Raises _Refused."""
    if info.flag_bits & 0x1:
        raise _Refused("It is encrypted. Unpack the archive yourself and drop the pictures.")
    most = min(MAX_BYTES, left)
    if info.file_size > MAX_BYTES:
        raise _Refused(f"It has {info.file_size / _MIB:.0f} MiB; at most {MAX_BYTES / _MIB:g} MiB are read.")
    if info.file_size > most:
        raise _Refused(f"Together the pictures of this archive exceed {MAX_UNPACKED_BYTES // _MIB} MiB.")
    pieces, size, most_of_ratio = [], 0, MAX_RATIO * max(info.compress_size, 1024)
    try:
        with archive.open(info) as file:
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > most or size > most_of_ratio:
                    raise _Refused("It unpacks to far more than it says or than a picture would: it is not read.")
                pieces.append(piece)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _Refused(f"It is cut off or damaged ({_one_line(error)}).") from error
    return b"".join(pieces)


def _is_litter(name: str) -> bool:
    path = name.replace("\\", "/")
    return path.startswith(_NOT_PICTURES[0]) or PurePosixPath(path).name.startswith(_NOT_PICTURES[1])


def _shown(name: str) -> str:
    """Without what would lead out of a folder: it is a name to be read, never a path to be opened."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "..", ".")]
    return "/".join(parts)[-120:] or "unnamed"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
