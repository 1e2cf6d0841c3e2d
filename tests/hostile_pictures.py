"""The worst files that could be made by hand, for tests of whatever takes pictures from strangers: bombs, floods, lies, loops, polyglots.

    for name, data in worst_pictures(): ...      yields one at a time, as some have 20 MB

Each is either a picture within the bounds, and as costly to decode as such a one gets, or is to be refused in one line.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

MANY = 200_000
_PNG = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, interlace: int = 0, before: bytes = b"", pixels: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return _PNG + png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND")


def _png_of_zeros(width: int, height: int, bytes_per_pixel: int, **how: int) -> bytes:
    return png(width, height, pixels=bytes((1 + width * bytes_per_pixel) * height), **how)


def _pngs() -> Iterator[tuple[str, bytes]]:
    bomb = b"k\0\0" + zlib.compress(bytes(50_000_000))
    yield "png of 24 million pixels with alpha, a bomb within the bounds", _png_of_zeros(6000, 4000, 4, colour=6)
    yield "png of 24 million pixels with alpha of 16 bits", _png_of_zeros(6000, 4000, 8, colour=6, depth=16)
    yield "png of 24 million grey pixels with alpha", _png_of_zeros(6000, 4000, 2, colour=4)
    yield "png of 24 million grey pixels of 16 bits", _png_of_zeros(6000, 4000, 2, colour=0, depth=16)
    yield "png as narrow as it gets", _png_of_zeros(366, 65_535, 1, colour=0)
    yield "png of 24 million rows", _png_of_zeros(1, 24_000_000, 1, colour=0)
    yield "png that claims four billion pixels", png(65_500, 65_500)
    yield "png with a flood of chunks", png(8, 8, before=png_chunk(b"abCd") * MANY)
    yield "png with bombs for texts", png(8, 8, before=png_chunk(b"zTXt", bomb) * 200, pixels=bytes(25 * 8))
    yield "png with a bomb for a profile", png(8, 8, before=png_chunk(b"iCCP", bomb), pixels=bytes(25 * 8))
    rationals = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x112, 4, 6_000_000, 26) + bytes(4)
    yield (
        "png with a rotation of six million numbers",
        png(8, 8, before=png_chunk(b"eXIf", rationals + bytes(24_000_000)), pixels=bytes(25 * 8)),
    )
    yield (
        "png that says a chunk has two billion bytes",
        _PNG + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)) + (struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(100)),
    )


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _jpegs() -> Iterator[tuple[str, bytes]]:
    small = encoded(Image.new("RGB", (32, 32), "red"), "JPEG")
    yield "jpeg of 64 million pixels", encoded(Image.new("RGB", (8000, 8000), "red"), "JPEG", subsampling=0)
    yield (
        "jpeg of 24 million pixels, three colours, progressive",
        encoded(Image.new("RGB", (6000, 4000), (10, 20, 30)), "JPEG", progressive=True, subsampling=0),
    )
    yield (
        "jpeg of 18 million pixels, four colours, progressive",
        encoded(Image.new("CMYK", (4500, 4000), (10, 20, 30, 40)), "JPEG", progressive=True, subsampling=0),
    )
    yield "jpeg that goes over its pixels 20,000 times", _with_scans(4000, 20_000)
    yield "jpeg that goes over its pixels as often as it may", _with_scans(4000, 50)
    yield "jpeg with a flood of comments", small[:2] + _jpeg_segment(0xFE, b"") * MANY + small[2:]
    yield "jpeg with a flood of Exif", small[:2] + _jpeg_segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 400 + small[2:]
    numbers = struct.pack("<2sHIH", b"II", 42, 8, 2) + struct.pack("<HHII", 0x11A, 5, 8000, 38) + struct.pack("<HHII", 0x128, 3, 1, 2)
    yield "jpeg with a resolution of 8,000 numbers", small[:2] + _jpeg_segment(0xE1, b"Exif\0\0" + numbers + bytes(64_004)) + small[2:]
    loop = struct.pack("<2sHIH", b"II", 42, 8, 1) + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<I", 8)
    yield "jpeg whose Exif holds itself", small[:2] + _jpeg_segment(0xE1, b"Exif\0\0" + loop) + small[2:]
    yield "jpeg of an arithmetic kind", small.replace(b"\xff\xc0", b"\xff\xc9")
    size_at = small.index(b"\xff\xc0") + 5
    yield "jpeg that claims four billion pixels", small[:size_at] + b"\xff\xff\xff\xff" + small[size_at + 4 :]
    yield "jpeg that claims 62 million pixels and has none", small[:size_at] + struct.pack(">HH", 7900, 7900) + small[size_at + 4 :]
    yield "jpeg of markers only", b"\xff\xd8" + b"\xff\xd0" * 2_000_000
    yield "jpeg of fill bytes only", b"\xff\xd8" + b"\xff" * 20_000_000


def _with_scans(side: int, scans: int) -> bytes:
    """A progressive picture whose last pass comes that many times."""
    whole = encoded(Image.new("L", (side, side), 77), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def _gifs() -> Iterator[tuple[str, bytes]]:
    large = encoded(Image.new("P", (4800, 5000)), "GIF")
    small = encoded(Image.new("P", (8, 8)), "GIF")
    palette_end = 13 + (3 << ((small[10] & 7) + 1) if small[10] & 128 else 0)
    yield "gif of 24 million pixels", large
    yield "gif that claims four billion pixels", small[:6] + b"\xff\xff\xff\xff" + small[10:]
    yield "gif with a flood of comment blocks", small[:palette_end] + b"!\xfe" + b"\x01x" * 2_000_000 + b"\0" + small[palette_end:]
    yield "gif with a flood of extensions", small[:palette_end] + b"!\x01\0" * MANY + small[palette_end:]
    yield "gif of junk", small[:palette_end] + b"\0" * 20_000_000
    frames = [Image.new("P", (64, 64), colour) for colour in range(200)]
    yield "gif of 200 frames", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    at = small.index(b",", palette_end)
    yield "gif with a picture far outside", small[: at + 1] + struct.pack("<HHHH", 65_000, 65_000, 500, 500) + small[at + 9 :]


def _bmp(width: int, height: int, bits: int, compression: int, pixels: bytes) -> bytes:
    palette = bytes(4 << bits) if bits <= 8 else b""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + header + palette + pixels


def _bmps() -> Iterator[tuple[str, bytes]]:
    yield "bmp of 24 million pixels of one bit", _bmp(6016, 3984, 1, 0, bytes(6016 * 3984 // 8))
    yield "bmp of 24 million pixels, run-length encoded", _bmp(6000, 4000, 8, 1, b"\x01\x07" * 12_000_000)
    yield "bmp of empty lines, run-length encoded", _bmp(6000, 4000, 4, 2, b"\0\0" * 4000)
    yield "bmp of many runs of nothing", _bmp(1, 2_000_000, 8, 1, b"\xff\x07" * 1_000_000)
    yield "bmp of as many runs as may be", _bmp(1400, 1400, 4, 2, b"\x02\x07" * 980_000)
    yield "bmp that claims four billion pixels", _bmp(65_000, 65_000, 24, 0, b"")
    yield "bmp that claims 24 million pixels and has none", _bmp(6000, 4000, 24, 0, b"")


def tiff(entries: list[tuple[int, int, int, int]], rest: bytes = b"", *, next_directory: int = 0) -> bytes:
    """`rest` begins at byte 10 + 12 x entries + 4."""
    listed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + listed + struct.pack("<I", next_directory) + rest


def _grey_tiff(width: int, height: int, pixels: bytes, *more: tuple[int, int, int, int], compression: int = 1, **how: int) -> bytes:
    given = {entry[0] for entry in more}
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    strips = [(273, 4, 1, 0), (278, 4, 1, height), (279, 4, 1, len(pixels))] if 322 not in given else []
    entries = [entry for entry in entries + strips if entry[0] not in given] + list(more)
    at = 14 + 12 * len(entries)
    entries = [(273, 4, 1, at) if entry == (273, 4, 1, 0) else entry for entry in entries]
    return tiff(entries, pixels, **how)


def _tiffs() -> Iterator[tuple[str, bytes]]:
    deflated = zlib.compress(bytes(24_000_000))
    yield "tiff of 24 million pixels in one deflated strip", _grey_tiff(6000, 4000, deflated, compression=8)
    yield (
        "tiff of 24 million floats",
        encoded(Image.fromarray(np.zeros((4000, 6000), np.float32)), "TIFF", compression="tiff_adobe_deflate"),
    )
    yield "tiff of 20 million integers", encoded(Image.fromarray(np.ones((4000, 5000), np.int32)), "TIFF", compression="tiff_lzw")
    yield "tiff of 20 million pixels, four colours", encoded(Image.new("CMYK", (5000, 4000)), "TIFF", compression="packbits")
    yield "tiff of 20 million pixels with alpha", encoded(Image.new("RGBA", (5000, 4000)), "TIFF", compression="tiff_lzw")
    turned = Image.Exif()
    turned[0x112] = 6
    yield "tiff of 24 million pixels, turned", encoded(Image.new("RGB", (6000, 4000)), "TIFF", compression="tiff_lzw", exif=turned)
    tile = (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 200), (325, 4, 1, 30_000)
    yield "tiff with a tile larger than its picture", _grey_tiff(16, 16, zlib.compress(bytes(30_000_000)), *tile, compression=8)
    yield (
        "tiff with a million strips",
        _grey_tiff(1, 1_000_000, bytes(8_000_000), (273, 4, 1_000_000, 122), (278, 4, 1, 1), (279, 4, 1_000_000, 122)),
    )
    yield "tiff with 45,000 strips", _grey_tiff(100, 45_000, bytes(4_500_000), (273, 4, 45_000, 122), (278, 4, 1, 1), (279, 4, 45_000, 122))
    yield "tiff with four million numbers for a depth", _grey_tiff(16, 16, bytes(8_000_000), (258, 3, 4_000_000, 122))
    exif = struct.pack("<H", 1) + struct.pack("<HHII", 0x9201, 10, 3_000_000, 200) + bytes(4)
    yield "tiff whose Exif holds millions of numbers", _grey_tiff(16, 16, exif + bytes(24_000_300), (34665, 4, 1, 134))
    yield "tiff that is followed by itself", _grey_tiff(16, 16, bytes(256), next_directory=8)
    yield "tiff whose Exif is itself", _grey_tiff(16, 16, bytes(256), (34665, 4, 1, 8))
    yield "tiff that claims four billion pixels", _grey_tiff(65_000, 65_000, bytes(256))
    yield "tiff that claims 24 million pixels and has none", _grey_tiff(6000, 4000, b"", compression=5)
    yield "tiff of a rare compression", _grey_tiff(16, 16, bytes(256), compression=50000)
    yield "tiff of 65,535 samples", _grey_tiff(16, 16, bytes(256), (277, 3, 1, 65_535))
    pages = [Image.new("L", (64, 64), number) for number in range(200)]
    yield "tiff of 200 pages", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    yield "tiff of the kind for more than 4 GB", b"II\x2b\0\x08\0\0\0" + bytes(64)


def _webps() -> Iterator[tuple[str, bytes]]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 2, (3000, 4100, 4), np.uint8) * 255)
    yield "webp of 12 million pixels, lossless, with alpha", encoded(noise, "WEBP", lossless=True, quality=0, method=0)
    yield "webp of 12 million pixels, without loss or alpha", encoded(noise.convert("RGB"), "WEBP", lossless=True, quality=0, method=0)
    yield "webp of 12 million pixels", encoded(Image.new("RGB", (4100, 3000), "red"), "WEBP", method=0)
    small = encoded(Image.new("RGBA", (8, 8)), "WEBP", lossless=True, exact=True)
    frames = [Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(200)]
    yield "webp of 200 frames", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], method=0)
    claim = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + (16_382).to_bytes(3, "little") * 2
    yield (
        "webp that claims 268 million pixels",
        b"RIFF" + struct.pack("<I", 4 + len(claim) + len(small) - 12) + b"WEBP" + claim + small[12:],
    )
    flood = small[12:] + (b"abcd" + bytes(4)) * MANY
    yield "webp with a flood of chunks", b"RIFF" + struct.pack("<I", 4 + len(flood)) + b"WEBP" + flood


def _others() -> Iterator[tuple[str, bytes]]:
    """What no allowed decoder may see, or what is two things at once."""
    picture = encoded(Image.new("RGB", (32, 32), "red"), "PNG")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", picture)
    yield "png that is a zip too", picture + packed.getvalue()
    yield "gif that is a script too", b"GIF89a/*" + bytes(10) + b"*/=1;alert(1)"
    yield "zip", packed.getvalue()
    starts = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7\n",
        b"8BPS\0\1",
        b"icns\0\0\0\x08",
        b"SIMPLE  =",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    )
    for start in (
        *starts,
        b"\x00\x00\x01\x00\x01\x00",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"P6 9999 9999 255\n",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    ):
        yield f"file that starts with {start[:8]!r}", start + bytes(1000)
    for start in (b"", b"\0", b"\xff\xd8\xff", _PNG, b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*"):
        yield f"file that ends after {start!r}", start
        yield f"zeros after {start!r}", start + bytes(5_000_000)
        yield f"ones after {start!r}", start + b"\xff" * 5_000_000


def worst_pictures() -> Iterator[tuple[str, bytes]]:
    """(what it is, its bytes)."""
    for kind in (_pngs, _jpegs, _gifs, _bmps, _tiffs, _webps, _others):
        yield from kind()


def worst_archives() -> Iterator[tuple[str, bytes, str]]:
    """(what it is, its bytes, a part of what is to be said of it)."""
    picture = encoded(Image.new("RGB", (32, 32), "red"), "PNG")
    yield "a bomb", _zip([("zeros.bmp", bytes(30_000_000))]), "times its size"
    yield "a bomb that lies about its size", _lying(_zip([("zeros.bmp", bytes(30_000_000))]), 30_000_000), "damaged|times its size"
    yield "more than may be unpacked", _zip([("large.bin", bytes(33 * 2**20))], zipfile.ZIP_STORED), "at most 32 MiB"
    yield "a way out", _zip([("../../etc/passwd", picture)]), "out of the archive"
    yield "a way out for Windows", _zip([("..\\a.png", picture)]), "out of the archive"
    yield "an absolute path", _zip([("/etc/passwd", picture)]), "out of the archive"
    yield "a drive", _zip([("C:\\a.png", picture)]), "out of the archive"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    yield "a link", _zip([(link, b"/etc/passwd")]), "link"
    yield "an archive in an archive", _zip([("inner.zip", _zip([("a.png", picture)]))]), "archive in an archive"
    yield "an encrypted picture", _with_flags(_zip([("a.png", picture)]), 0x1), "encrypted"
    yield "another compression", _zip([("a.png", picture)], zipfile.ZIP_LZMA), "unusual way"
    yield "another compression still", _zip([("a.png", picture)], zipfile.ZIP_BZIP2), "unusual way"
    yield "a cut off archive", _zip([("a.png", picture)])[:-30], "damaged"
    yield "no directory", b"PK\x03\x04" + bytes(100), "damaged"
    yield "an empty archive", _zip([]), "empty"
    yield "a huge directory", _zip([(f"{number}.png", b"x") for number in range(20_000)]), "too many"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 65_535, 65_535, 2**32 - 1, 0, 0)
    yield "a directory of four billion bytes", b"PK\x03\x04" + bytes(100) + end, "too many"
    of_zip64 = b"PK\x06\x07" + bytes(16)
    yield "the kind for more than 4 GB", b"PK\x03\x04" + bytes(100) + of_zip64 + end, "more than 4 GB"


def _zip(members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _lying(archive: bytes, size: int) -> bytes:
    """Says that what unpacks to `size` bytes has a hundred."""
    return archive.replace(struct.pack("<I", size), struct.pack("<I", 100))


def _with_flags(archive: bytes, flags: int) -> bytes:
    changed = bytearray(archive)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.index(signature) + offset
        changed[at] |= flags
    return bytes(changed)
