"""pictures_in_zip: the files in a .zip archive that somebody handed over, as bytes in memory. Nothing is ever written to disk.

Nothing of an archive is trusted: what it says of itself is checked before it is opened (its directory is a list in memory), members are
read only as far as the bounds go whatever their size is said to be, and names serve to be shown. Only stored and deflated members are
unpacked: decoders of other kinds never run. An archive in an archive stays closed. Level 1: the standard library alone.
"""

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

from cifar_tl.data.decode import MAX_BYTES
from cifar_tl.errors import ImageUnreadable

MAX_ARCHIVE_BYTES = 64 * 2**20
MAX_MEMBERS = 1_000
MAX_UNPACKED = 96 * 2**20  # of all members together, which are copied once more on their way to another process
# A bomb wants all that Deflate can, 1,032 to 1. JPEG, PNG and WebP are packed already and a photo as BMP packs 3 to 1; a BMP or TIFF of one
# colour would be refused.
MAX_RATIO = 200
_RATIO_MATTERS_FROM = 2**20  # unpacked bytes: less does no harm, whatever it was packed from

_END = b"PK\x05\x06"
_END_BYTES = 22
_LONGEST_COMMENT = 65535
_END_OF_ZIP64 = b"PK\x06\x07"
_MOST_DIRECTORY_BYTES = 2**20  # about 10,000 members; zipfile makes an object of each before anything can be asked
_MIB = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 0x1
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Refusal:
    """A member that was not taken, and why in one line."""

    name: str
    reason: str


def is_zip(data: bytes) -> bool:
    """True if the file begins as an archive does (or as an empty one)."""
    return data.startswith((b"PK\x03\x04", _END))


def pictures_in_zip(data: bytes, name: str) -> tuple[list[tuple[str, bytes]], list[Refusal]]:
    """(name and bytes of each member that may be a picture, what was refused) of the archive called `name`.

    Members are called "archive.zip/folder/picture.jpg". Folders, and what operating systems put into archives unasked, are passed over.
    Whether a member is a picture is for `decode_image` to say. Raises ImageUnreadable if nothing of it can be taken.
    """
    _check_before_opening(data)
    pictures: list[tuple[str, bytes]] = []
    refusals: list[Refusal] = []
    unpacked = 0
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in _members(archive):
                shown = f"{name}/{member.filename}"
                try:
                    content = _unpacked(archive, member, len(pictures), MAX_UNPACKED - unpacked)
                except ImageUnreadable as error:
                    refusals.append(Refusal(shown, str(error)))
                else:
                    pictures.append((shown, content))
                    unpacked += len(content)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise ImageUnreadable("The archive is cut off or damaged.") from error
    if not pictures and not refusals:
        raise ImageUnreadable("The archive is empty.")
    return pictures, refusals


def _check_before_opening(data: bytes) -> None:
    """What zipfile would believe: where the directory is and how long. Raises ImageUnreadable."""
    if len(data) > MAX_ARCHIVE_BYTES:
        raise ImageUnreadable(f"The archive has {len(data) / _MIB:.0f} MiB; at most {MAX_ARCHIVE_BYTES // _MIB} MiB are read.")
    end = data.rfind(_END, max(0, len(data) - _END_BYTES - _LONGEST_COMMENT))
    if end < 0 or end + _END_BYTES > len(data):
        raise ImageUnreadable("The archive is cut off or damaged.")
    members, directory_bytes, _, comment_bytes = struct.unpack_from("<HIIH", data, end + 10)
    if end + _END_BYTES + comment_bytes != len(data):  # else zipfile might take another place for the end
        raise ImageUnreadable("The archive is cut off or damaged.")
    if data[max(0, end - 20) : end].startswith(_END_OF_ZIP64):
        raise ImageUnreadable("The archive is of the kind for more than 4 GB or 65,535 files, which is not read. Pack fewer files.")
    if directory_bytes > _MOST_DIRECTORY_BYTES or members > 10 * MAX_MEMBERS:
        raise ImageUnreadable(f"The archive lists too many files ({members:,}); at most {MAX_MEMBERS:,} are read. Pack fewer.")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Files somebody wanted in there, in order."""
    return [
        member
        for member in archive.infolist()
        if not member.is_dir() and not any((part.startswith(".") and part.strip(".")) or part == "__MACOSX" for part in _parts(member))
    ]


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return member.filename.replace("\\", "/").split("/")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, taken: int, room: int) -> bytes:
    """Raises ImageUnreadable."""
    if taken >= MAX_MEMBERS:
        raise ImageUnreadable(f"Not asked: of an archive {MAX_MEMBERS:,} pictures are read.")
    if problem := _problem(member, room):
        raise ImageUnreadable(problem)
    try:
        with archive.open(member) as file:
            content = _read(file, min(MAX_BYTES, room), member.compress_size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError, struct.error, zlib.error) as error:
        raise ImageUnreadable("It is damaged in the archive.") from error
    if is_zip(content):
        raise ImageUnreadable("It is an archive in an archive, which is not opened.")
    return content


def _read(file: IO[bytes], most: int, packed_bytes: int) -> bytes:
    """All of it, piece by piece: what a member says of its size is not believed."""
    content = bytearray()
    while piece := file.read(_PIECE):
        content += piece
        if len(content) > most:
            raise ImageUnreadable(f"Unpacked, it exceeds {most / _MIB:.0f} MiB.")
        _check_ratio(len(content), packed_bytes)
    return bytes(content)


def _problem(member: zipfile.ZipInfo, room: int) -> str:
    """Why this member is not opened, or nothing."""
    parts = _parts(member)
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in member.filename:
        return "Its name leads out of the archive."
    if stat.S_ISLNK(member.external_attr >> 16):
        return "It is a link, which is not followed."
    if member.flag_bits & _IS_ENCRYPTED:
        return "It is encrypted. Pack it without a password."
    if member.compress_type not in _METHODS:
        return "It is compressed in an unusual way. Pack it with Deflate, as most programs do."
    if member.file_size > MAX_BYTES:
        return f"Unpacked, it has {member.file_size / _MIB:.0f} MiB; at most {MAX_BYTES // _MIB} MiB are read."
    if member.file_size > room:
        return f"Not asked: the pictures of an archive may take {MAX_UNPACKED // _MIB} MiB together."
    return _ratio_problem(member.file_size, member.compress_size)


def _check_ratio(unpacked: int, packed: int) -> None:
    if problem := _ratio_problem(unpacked, packed):
        raise ImageUnreadable(problem)


def _ratio_problem(unpacked: int, packed: int) -> str:
    if unpacked > _RATIO_MATTERS_FROM and unpacked > MAX_RATIO * max(packed, 1):
        return f"It unpacks to more than {MAX_RATIO} times its size, as no picture does."
    return ""
