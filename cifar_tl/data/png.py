"""quick_png: pixels as a PNG file in a fifth of the time that Pillow takes, for pictures that are looked at once.

Pillow tries five filters on each row and looks for repetitions; here each row is the difference to the one above, and its bytes are
Huffman coded. Of a 256 px photo: 1.6 ms instead of 9.8, and 3.5 for Pillow without its search; files within a fifth of Pillow's size.
Beside a network that answers 500 pictures a second on two cores, the difference is a third of all time. Level 1.
"""

import struct
import zlib

import numpy as np

_UP = 2  # PNG's filter type (PNG specification, third edition, 9.2): each byte minus the one above
_RGB_HEADER = (8, 2, 0, 0, 0)  # bits, colour type, and the one method there is of each of three kinds


def quick_png(pixels_HWC: np.ndarray) -> bytes:
    """A PNG file of uint8 RGB pixels."""
    height, width, _ = pixels_HWC.shape
    rows = np.ascontiguousarray(pixels_HWC).reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])  # modulo 256, as the filter wants it
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_HUFFMAN_ONLY)
    body = packer.compress(filtered.tobytes()) + packer.flush()
    header = struct.pack(">II5B", width, height, *_RGB_HEADER)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
