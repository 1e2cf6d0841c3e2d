"""decode_image and to_square: any picture file becomes RGB pixels, in one way for stored data sets and for uploads.

Owns what is accepted and what "the pixels" are (rotation, transparency, depth). Nothing here trusts a file: names and
extensions are ignored, only the six decoders below may run, sizes are checked before pixels are decoded. Colour
profiles are not applied. Called by `data.folder`, `data.cifar` and `inference`.

Shapes: H x W x 3 uint8 RGB.
"""

import io
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from cifar_tl.errors import ImageUnreadable

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 64_000_000
MAX_BYTES = 32 * 2**20

_MIB = 2**20
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


def to_square(image: Image.Image, resolution: int) -> np.ndarray:
    """uint8 `resolution` x `resolution` x 3 of an RGB image: short side resized (bicubic, antialiased), centre kept.

    An image of exactly that size comes back pixel for pixel.
    """
    width, height = image.size
    side = min(width, height)
    # Whole pixels: half a pixel of offset would blur an image that needs no resize.
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    # 3.0 lets Pillow shrink by whole factors first; its documentation calls the result close to indistinguishable.
    square = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
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
    return ((values_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _eight_bits_of_integers(values_HW: np.ndarray) -> np.ndarray:
    """Pillow's 32-bit mode: 16-bit pictures land here too; anything beyond that range is stretched to it."""
    low, high = int(values_HW.min()), int(values_HW.max())
    if low >= 0 and high <= 65535:
        return _eight_bits_of_16(values_HW)
    return _stretched(values_HW.astype(np.float64))


def _eight_bits_of_floats(values_HW: np.ndarray) -> np.ndarray:
    """Floats are taken as 0..1 or 0..255 where they fit and stretched where they do not; NaN and infinities are black."""
    values_HW = np.where(np.isfinite(values_HW), values_HW, 0).astype(np.float64)
    low, high = float(values_HW.min()), float(values_HW.max())
    if low >= 0 and high <= 255:
        return np.rint(values_HW * (255 if high <= 1 else 1)).astype(np.uint8)
    return _stretched(values_HW)


def _stretched(values_HW: np.ndarray) -> np.ndarray:
    """float64 values -> 0..255 from their lowest to their highest."""
    low, high = values_HW.min(), values_HW.max()
    return np.rint((values_HW - low) * 255 / max(high - low, np.finfo(np.float64).tiny)).astype(np.uint8)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
