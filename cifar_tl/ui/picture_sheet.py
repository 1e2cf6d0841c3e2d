"""PictureSheet: thousands of small pictures on one JPEG, which the browser fetches as one file when it is first needed.

12,000 pictures of 32 px are 3.6 MB and made in a fifth of a second; in a message to the page they would be sent again with every
change of it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from streamlit import runtime

_MOST_PIXELS = 16_000_000  # of a sheet: 48 MB in the browser
_LARGEST_TILE, _SMALLEST_TILE = 96, 16
_BLOCK = 16  # JPEG's, with halved colours: tiles of whole blocks do not bleed into each other
_QUALITY = 75
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class PictureSheet:
    """Picture i is in row i // columns and column i % columns; all are squares of `tile` pixels."""

    jpeg: bytes
    columns: int
    rows: int
    tile: int


def make_sheet(pictures: Sequence[tuple[np.ndarray, np.ndarray]]) -> PictureSheet:
    """Of each (images_NHWC uint8 and square, rows) these rows, in order. Images are scaled down as their number demands, never up."""
    count = sum(len(rows) for _, rows in pictures)
    resolution = max((images_NHWC.shape[1] for images_NHWC, _ in pictures), default=_SMALLEST_TILE)
    tile = _tile_pixels(count, resolution)
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows_of_tiles = max(1, -(-count // columns))
    sheet = np.zeros((rows_of_tiles, tile, columns, tile, 3), np.uint8)
    place = 0
    for images_NHWC, rows in pictures:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = _scaled(np.asarray(images_NHWC[rows[start : start + _ROWS_AT_ONCE]]), tile)
            places = np.arange(place, place + len(chunk))
            sheet[places // columns, :, places % columns] = chunk
            place += len(chunk)
    buffer = io.BytesIO()
    Image.fromarray(sheet.reshape(rows_of_tiles * tile, columns * tile, 3)).save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return PictureSheet(buffer.getvalue(), columns, rows_of_tiles, tile)


def _tile_pixels(count: int, resolution: int) -> int:
    fitting = int(np.sqrt(_MOST_PIXELS / max(1, count)))
    return max(_SMALLEST_TILE, min(fitting, resolution, _LARGEST_TILE) // _BLOCK * _BLOCK)


def _scaled(images_NHWC: np.ndarray, tile: int) -> np.ndarray:
    if images_NHWC.shape[1] == tile:
        return images_NHWC
    return np.stack([np.asarray(Image.fromarray(image).resize((tile, tile), Image.Resampling.BOX)) for image in images_NHWC])


def address(sheet: PictureSheet, name: str) -> str:
    """Where the browser finds it for as long as the page shows something of that name; '' outside of a running dashboard."""
    if not runtime.exists():
        return ""
    url: str = runtime.get_instance().media_file_mgr.add(sheet.jpeg, "image/jpeg", name)
    return f".{url}" if url.startswith("/") else url  # relative to the page, as the chart's own script is
