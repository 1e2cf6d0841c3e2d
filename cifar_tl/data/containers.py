"""check_container: what a picture file says of itself, read before any decoder is let near it.

Decoders are quick for a picture and slow for what only looks like one: a million empty chunks, a thousand passes over one image, a
list of rotations with four million entries, a tile larger than its picture. Here the skeleton of each of the six formats is walked, a
bounded number of steps over bytes that are in memory, and what no camera or program writes is refused. With what `data.decode` bounds
(bytes, pixels), the time and memory of a decoder are bounded by construction: no clock has to interrupt it, which in a thread could
not be done. Only `data.decode` calls this. Level 1: the standard library alone, so nothing here can be exploited by bytes.

Parts beyond the picture (animation frames, further pages) are neither read nor judged.
"""

import re
import struct
from collections.abc import Callable

from cifar_tl.errors import ImageUnreadable

MAX_JPEG_PIXELS = 64_000_000  # decoded at half its height and width (`decode.HALVED_PIXELS`); 24 million where it comes in several passes
MAX_PIXELS = 24_000_000  # of the others, whose decoders hold four bytes a pixel
MAX_SIDE = 65_535  # as JPEG and GIF have it; Pillow keeps twelve bytes a row, besides its pixels
MAX_WEBP_PIXELS = 12_500_000  # its decoder holds sixteen bytes a pixel; a phone's 12.2 million pass

# Real files: a 32 MiB PNG in chunks of 8 KiB has 4,096; a phone's JPEG with depth map about 100 segments before its pixels; a long
# animation 2,000 frames. Each is a step in Python or a small piece of memory for a decoder.
_MOST_CHUNKS = 10_000
_MOST_JPEG_SEGMENTS = 512
_MOST_JPEG_METADATA = 8 * 2**20
_MOST_EXIF_SEGMENTS = 4  # of 64 KiB; Pillow reads two of their values for any JPEG, however many numbers they hold
_MOST_JPEG_PASSES = 1_000_000_000  # pixels x scans: a progressive picture has about ten scans, each of which goes over all its blocks
_MOST_RLE = 2 * 2**20  # bytes, and pixels: Pillow unpacks this kind of BMP in Python, 0.2 s a million
_MOST_TIFF_ENTRIES = 1_000
_MOST_TIFF_NUMBERS = 100_000  # of all tags; strips and tiles have two each
_MOST_TIFF_BYTES = 80_000_000  # unpacked, of the picture and of a tile
# None, CCITT 2, 3, 4, LZW, JPEG, Deflate by its two numbers, PackBits
_TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
_TIFF_SUB_DIRECTORIES = {34665, 34853, 40965}  # Exif, GPS, interoperability: Pillow reads them all
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_BYTE_TYPES = {1, 2, 7}  # kept as they are; the others become Python numbers
_NOT_FILL = re.compile(rb"[^\xff]")

NO_PICTURE = "This is not a picture that can be read: it must be JPEG, PNG, WebP, BMP, GIF or TIFF."


def check_container(content: bytes) -> tuple[str, int]:
    """The format (a key of Pillow's) whose decoder may run on this file, and how many pixels it announces. Raises ImageUnreadable."""
    for format, (starts, check) in _CHECKS.items():
        if content.startswith(starts):
            try:
                return format, check(content)
            except (struct.error, IndexError):
                raise ImageUnreadable("The picture is cut off or damaged (its header ends too early).") from None
    raise ImageUnreadable(NO_PICTURE)


def most_pixels(format: str) -> int:
    """How many pixels a picture of this format may have."""
    return {"JPEG": MAX_JPEG_PIXELS, "WEBP": MAX_WEBP_PIXELS}.get(format, MAX_PIXELS)


def check_pixels(width: int, height: int, most: int) -> int:
    """How many pixels there are. Raises ImageUnreadable."""
    if width < 1 or height < 1:
        raise ImageUnreadable(f"The picture has no pixels ({width} x {height}).")
    if width * height > most:
        raise ImageUnreadable(
            f"The picture has {width} x {height} = {width * height / 1e6:.1f} million pixels; at most {most / 1e6:g} million are read."
        )
    if max(width, height) > MAX_SIDE:
        raise ImageUnreadable(f"The picture has {width} x {height} pixels; at most {MAX_SIDE:,} are read of a side.")
    return width * height


def _refuse(what: str) -> ImageUnreadable:
    return ImageUnreadable(f"The picture is not read: {what}. Save it anew with any image program.")


def _check_png(content: bytes) -> int:
    width, height = struct.unpack_from(">II", content, 16)
    pixels = check_pixels(width, height, MAX_PIXELS)
    at, chunks = 8, 0
    while at + 8 <= len(content):
        at += 12 + struct.unpack_from(">I", content, at)[0]
        chunks += 1
        if chunks > _MOST_CHUNKS:
            raise _refuse(f"it has more than {_MOST_CHUNKS:,} chunks")
    return pixels


def _check_jpeg(content: bytes) -> int:
    """Every segment up to the first scan, as Pillow and libjpeg walk them."""
    at, segments, metadata, exif_segments, frame = 2, 0, 0, 0, b""
    while True:
        at = _next_marker(content, at)
        marker = content[at]
        at += 1
        segments += 1
        if marker == 0xD9:
            raise ImageUnreadable("The picture is cut off or damaged (it ends before its pixels).")
        stands_alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
        length = 0 if stands_alone else struct.unpack_from(">H", content, at)[0]
        body = content[at + 2 : at + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker > 0xC2 or frame:
                raise _refuse("it is a JPEG of an unusual kind (arithmetic, lossless or hierarchical)")
            frame = bytes([marker]) + body
        elif marker == 0xDA:
            return _check_scans(content, frame, scan=body)
        elif marker >= 0xE0:
            metadata += length
            exif_segments += body.startswith(b"Exif\0")
        if segments > _MOST_JPEG_SEGMENTS or metadata > _MOST_JPEG_METADATA or exif_segments > _MOST_EXIF_SEGMENTS:
            raise _refuse("there is too much before its pixels")
        at += length if stands_alone else max(length, 2)


def _next_marker(content: bytes, at: int) -> int:
    """Where the next marker's second byte is, past fill bytes and junk. Raises IndexError."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0:
            raise IndexError
        after = _NOT_FILL.search(content, at)
        if after is None:
            raise IndexError
        at = after.start()
        if content[at]:
            return at


def _check_scans(content: bytes, frame: bytes, *, scan: bytes) -> int:
    """A picture that comes in several passes keeps all its coefficients in memory, and each pass costs time for each of its blocks."""
    if not frame:
        raise ImageUnreadable("The picture is cut off or damaged (it has no size).")
    height, width, components = struct.unpack_from(">HHB", frame, 2)
    pixels = check_pixels(width, height, MAX_JPEG_PIXELS)
    if frame[0] == 0xC2 or scan[0] < components:
        check_pixels(width, height, MAX_PIXELS * 3 // max(3, components))
        # Counted in all bytes, thumbnails and further pictures included: an upper bound, whatever a decoder makes of the bytes between.
        if content.count(b"\xff\xda") * pixels > _MOST_JPEG_PASSES:
            raise _refuse("it goes over its pixels too many times")
    return pixels


def _check_gif(content: bytes) -> int:
    """Everything before the first image, and the size of that: the others are not read."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    check_pixels(max(width, 1), max(height, 1), MAX_PIXELS)
    at, blocks = 13 + _palette_bytes(flags), 0
    while content[at] == 0x21:
        at += 2
        while size := content[at]:
            at += 1 + size
            blocks += 1
            if blocks > _MOST_CHUNKS:
                raise _refuse(f"it has more than {_MOST_CHUNKS:,} blocks before its pixels")
        at += 1
        blocks += 1
    if content[at] != 0x2C:
        raise ImageUnreadable("The picture is cut off or damaged (no picture where one should be).")
    left, top, width_of_image, height_of_image = struct.unpack_from("<HHHH", content, at + 1)
    return check_pixels(max(width, left + width_of_image), max(height, top + height_of_image), MAX_PIXELS)


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def _check_bmp(content: bytes) -> int:
    size_of_header = struct.unpack_from("<I", content, 14)[0]
    if size_of_header == 12:
        width, height = struct.unpack_from("<HH", content, 18)
        return check_pixels(width, height, MAX_PIXELS)
    width, height, _, _, compression = struct.unpack_from("<iiHHI", content, 18)
    pixels = check_pixels(width, abs(height), MAX_PIXELS)
    if compression in (1, 2) and max(len(content), pixels) > _MOST_RLE:
        raise _refuse(f"run-length encoded, a BMP is read up to {_MOST_RLE // 2**20} MiB and as many pixels")
    if compression not in (0, 1, 2, 3, 6):
        raise _refuse("it is a BMP of an unusual kind")
    return pixels


def _check_webp(content: bytes) -> int:
    """The canvas, which libwebp makes room for before it is asked for pixels; and the number of chunks."""
    if content[8:12] != b"WEBP":
        raise ImageUnreadable(NO_PICTURE)
    pixels = check_pixels(*_webp_size(content), MAX_WEBP_PIXELS)
    at, chunks = 12, 0
    while at + 8 <= len(content):
        size = struct.unpack_from("<I", content, at + 4)[0]
        at += 8 + size + size % 2
        chunks += 1
        if chunks > _MOST_CHUNKS:
            raise _refuse(f"it has more than {_MOST_CHUNKS:,} chunks")
    return pixels


def _webp_size(content: bytes) -> tuple[int, int]:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", content, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", content, 26))
    else:
        raise ImageUnreadable(NO_PICTURE)
    return width, height


def _check_tiff(content: bytes) -> int:
    """The first directory and what hangs on it; further pages stay unread."""
    order = "<" if content[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", content, 4)[0]
    tags, numbers = _tiff_directory(content, order, start)
    for tag in _TIFF_SUB_DIRECTORIES & tags.keys():
        inner, inner_numbers = _tiff_directory(content, order, tags[tag])
        numbers += inner_numbers
        for deeper in _TIFF_SUB_DIRECTORIES & inner.keys():
            numbers += _tiff_directory(content, order, inner[deeper])[1]
    if numbers > _MOST_TIFF_NUMBERS:
        raise _refuse(f"it lists more than {_MOST_TIFF_NUMBERS:,} numbers beside its pixels")
    width, height = tags.get(256, 0), tags.get(257, 0)
    pixels = check_pixels(width, height, MAX_PIXELS)
    if tags.get(259, 1) not in _TIFF_COMPRESSIONS:
        raise _refuse("it is a TIFF of an unusual compression")
    # At most 32 bits a sample; Pillow knows no pixel with more than six samples, or of six with more than 16 bits.
    pixel_bytes = max(1, min(tags.get(277, 1), 6)) * _tiff_sample_bytes(content, order, start)
    tile_pixels = tags.get(322, width) * tags.get(323, 1)
    if pixel_bytes * max(pixels, tile_pixels, tags.get(322, 0), tags.get(323, 0)) > _MOST_TIFF_BYTES:
        raise _refuse(f"unpacked, it has more than {_MOST_TIFF_BYTES // 1_000_000} MB")
    return pixels


def _tiff_directory(content: bytes, order: str, at: int) -> tuple[dict[int, int], int]:
    """(the first value of each tag, as far as it is a short or long in place; how many numbers all tags list)."""
    count = struct.unpack_from(order + "H", content, at)[0]
    if count > _MOST_TIFF_ENTRIES:
        raise _refuse(f"it has more than {_MOST_TIFF_ENTRIES:,} tags")
    tags: dict[int, int] = {}
    numbers = 0
    for entry in range(count):
        tag, kind, values, value = struct.unpack_from(order + "HHII", content, at + 2 + 12 * entry)
        if kind in _TIFF_TYPE_BYTES and kind not in _TIFF_BYTE_TYPES:
            numbers += values
        if kind == 3 and values == 1:
            value = struct.unpack_from(order + "H", content, at + 10 + 12 * entry)[0]
        tags.setdefault(tag, value)
    return tags, numbers


def _tiff_sample_bytes(content: bytes, order: str, at: int) -> int:
    """Bytes of the widest sample, at least 1."""
    count = struct.unpack_from(order + "H", content, at)[0]
    for entry in range(count):
        tag, kind, values, value = struct.unpack_from(order + "HHII", content, at + 2 + 12 * entry)
        if tag == 258 and kind == 3:
            place = at + 10 + 12 * entry if values <= 2 else value
            bits = struct.unpack_from(f"{order}{min(values, 6)}H", content, place)
            return max(1, -(-max(bits, default=8) // 8))
    return 1


_CHECKS: dict[str, tuple[tuple[bytes, ...], Callable[[bytes], int]]] = {
    "JPEG": ((b"\xff\xd8\xff",), _check_jpeg),
    "PNG": ((b"\x89PNG\r\n\x1a\n",), _check_png),
    "GIF": ((b"GIF87a", b"GIF89a"), _check_gif),
    "BMP": ((b"BM",), _check_bmp),
    "WEBP": ((b"RIFF",), _check_webp),
    "TIFF": ((b"II*\0", b"MM\0*"), _check_tiff),
}
