"""decode_image and to_square: any picture file becomes RGB pixels, in one way for stored data sets and for uploads.

Owns what is accepted and what "the pixels" are (rotation, transparency, depth). Nothing here trusts a file: names and
extensions are ignored, only the six decoders below may run, bytes, pixels and passes are bounded before pixels are decoded, so
the time of the worst file is bounded too. Colour profiles are not applied. Called by `data.folder`, `data.cifar` and `inference`.

Shapes: H x W x 3 uint8 RGB.
"""

import io
import re
import stat
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cifar_tl.errors import ImageUnreadable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 64_000_000
MAX_BYTES = 32 * 2**20

MAX_PASSES = 50  # cameras and web sites write ten or so; the time to read a JPEG grows with passes times pixels

_MIB = 2**20
_LARGE = 16_000_000  # pixels. The largest take a gigabyte while they are decoded, so they take turns
_one_large_at_a_time = threading.Lock()
_ROWS_AT_ONCE = 256
# In the coded data of a JPEG 0xFF is followed by 0x00, or by the number of a restart; anything else begins the next segment.
_NEXT_SEGMENT = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_UPRIGHT = {  # EXIF 2.32, tag 0x0112: what undoes each orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode_image(data: bytes | Path, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """The picture as upright RGB on white, first frame only, without metadata. Raises ImageUnreadable with one line.

    `max_pixels` beyond Pillow's own limit of about 179 million has no effect.
    """
    content = _content(data, max_bytes)
    with _no_warnings:
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check_size(image, max_pixels)
                if image.format == "JPEG":
                    _check_passes(content)
                with _one_large_at_a_time if image.width * image.height > _LARGE else nullcontext():
                    image.load()
                    rgb = _to_rgb(_upright(image))
        except ImageUnreadable:
            raise
        except UnidentifiedImageError:
            raise ImageUnreadable("This is not a picture that can be read: it must be JPEG, PNG, WebP, BMP, GIF or TIFF.") from None
        except Image.DecompressionBombError:
            raise ImageUnreadable(f"The picture has too many pixels; at most {max_pixels / 1e6:g} million are read.") from None
        except MemoryError:
            raise ImageUnreadable("The picture is too large for this machine's memory.") from None
        except Exception as error:  # decoders raise nearly anything on damaged bytes: struct.error, SyntaxError, KeyError ...
            raise ImageUnreadable(f"The picture is cut off or damaged ({_one_line(error)}).") from error
    rgb.info = {}  # else a preview saved from it carries the photographer's place and camera
    return rgb


def on_white_square(image: Image.Image) -> Image.Image:
    """The whole of an RGB image in the middle of a white square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def to_square(image: Image.Image, resolution: int) -> np.ndarray:
    """uint8 `resolution` x `resolution` x 3 of an RGB image: short side resized (bicubic, antialiased), centre kept.

    An image of exactly that size comes back pixel for pixel.
    """
    width, height = image.size
    side = min(width, height)
    # Whole pixels: half a pixel of offset would blur an image that needs no resize.
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    # 1.0 lets Pillow average whole blocks of pixels first, as often as they fit; bicubic does the rest, if there is one. Of images that are
    # made small for classifiers box-averaged ones are recognised best (Chrabaszcz et al. 2017, arXiv 1707.08819), and a CIFAR image that
    # was enlarged by a whole factor comes back as it was (bench.bottleneck).
    square = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box, reducing_gap=1.0)
    return np.array(square, np.uint8)


class _QuietPillow:
    """Hides warnings while any thread decodes. `warnings.catch_warnings` alone is not safe in a thread pool:

    1. A enters and saves the filters.  2. B enters and saves A's "ignore".  3. A leaves.  4. B leaves and restores "ignore" for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._catcher = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._catcher = warnings.catch_warnings()
                self._catcher.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._catcher.__exit__(None, None, None)


_no_warnings = _QuietPillow()


def _content(data: bytes | Path, max_bytes: int) -> bytes:
    if isinstance(data, Path):
        data = _read(data, max_bytes)
    if len(data) > max_bytes:
        raise ImageUnreadable(_too_many_bytes(len(data), max_bytes))
    if not data:
        raise ImageUnreadable("The file is empty.")
    return data


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageUnreadable("This is not a regular file.")
        if status.st_size > max_bytes:
            raise ImageUnreadable(_too_many_bytes(status.st_size, max_bytes))
        with path.open("rb") as file:
            return file.read(max_bytes + 1)
    except OSError as error:
        raise ImageUnreadable(f"The file cannot be opened ({error.strerror or error}).") from error


def _too_many_bytes(size: int, max_bytes: int) -> str:
    return f"The file has {size / _MIB:.1f} MiB; at most {max_bytes / _MIB:g} MiB are read."


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageUnreadable(f"The picture has no pixels ({width} x {height}).")
    if width * height > max_pixels:
        raise ImageUnreadable(
            f"The picture has {width} x {height} = {width * height / 1e6:.1f} million pixels; at most {max_pixels / 1e6:g} million are read."
        )


def _check_passes(content: bytes) -> None:
    """A progressive JPEG is drawn pass by pass over all its pixels, and thousands of empty passes fit into a small file."""
    passes, position = 0, 2
    while found := _NEXT_SEGMENT.search(content, position):
        marker, position = content[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:  # what comes after, as in a motion photo, is not read
            return
        passes += marker == _START_OF_SCAN
        if passes > MAX_PASSES:
            raise ImageUnreadable(f"This JPEG is stored in more than {MAX_PASSES} passes. Save it again, not progressive.")
        position += int.from_bytes(content[position : position + 2], "big")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF rotation; damaged EXIF data is no reason to refuse the picture."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # the EXIF block is a small TIFF file and breaks in as many ways
        return image
    operation = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if operation is None else image.transpose(operation)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits_of_16(np.asarray(image))).convert("RGB")
    if image.mode == "I":
        return Image.fromarray(_eight_bits_of_integers(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(_eight_bits_of_floats(np.asarray(image))).convert("RGB")
    if image.has_transparency_data and image.mode != "CMYK":
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bits_of_16(values_HW: np.ndarray) -> np.ndarray:
    """0..65535 -> 0..255, rounded: 65535 = 255 x 257."""
    return _by_rows(values_HW, lambda rows: (rows.astype(np.uint32) + 128) // 257)


def _eight_bits_of_integers(values_HW: np.ndarray) -> np.ndarray:
    """Pillow's 32-bit mode: 16-bit pictures land here too; anything beyond that range is stretched to it."""
    low, high = int(values_HW.min()), int(values_HW.max())
    if low >= 0 and high <= 65535:
        return _eight_bits_of_16(values_HW)
    return _stretched(values_HW, low, high)


def _eight_bits_of_floats(values_HW: np.ndarray) -> np.ndarray:
    """Floats are taken as 0..1 or 0..255 where they fit and stretched where they do not; NaN and infinities are black."""
    finite_HW = np.nan_to_num(values_HW, copy=True, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite_HW.min()), float(finite_HW.max())
    if low >= 0 and high <= 255:
        factor = 255 if high <= 1 else 1
        return _by_rows(finite_HW, lambda rows: np.rint(rows.astype(np.float64) * factor))
    return _stretched(finite_HW, low, high)


def _stretched(values_HW: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high -> 0..255."""
    span = max(float(high) - float(low), float(np.finfo(np.float64).tiny))
    return _by_rows(values_HW, lambda rows: np.rint((rows.astype(np.float64) - low) * 255 / span))


def _by_rows(values_HW: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """uint8. A large picture in wide numbers would take gigabytes."""
    converted_HW = np.empty(values_HW.shape, np.uint8)
    for start in range(0, len(values_HW), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        converted_HW[rows] = convert(values_HW[rows])
    return converted_HW


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
