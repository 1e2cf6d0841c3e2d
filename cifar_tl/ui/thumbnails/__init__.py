"""thumbnails: a grid of small images that can be clicked or reached with the keyboard, sent to the browser as one sprite.

Owns the browser component (`thumbnails.js`, `thumbnails.css`) and the making of the sprite. Knows nothing of runs or data
sets: `ui.gallery` decides what is shown. 200 images take about a second to show; 200 `st.image` take 200 requests.
"""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image

# CIFAR's 32 px times three: a whole factor, so every stored pixel is equally large on the screen.
TILE_PIXELS = 96
_SPRITE_COLUMNS = 20


def thumbnails(images_NHWC: np.ndarray, captions: list[str], *, revision: str, key: str) -> int | None:
    """Show images in order and return the index of the one clicked, or None.

    `images_NHWC` is uint8 RGB, square. A caption's lines are shown below its image. A click counts as long as `revision`
    stays, so a new set of images starts with none selected.
    """
    assert len(images_NHWC) == len(captions)
    data = {
        "png": base64.b64encode(sprite_png(images_NHWC)).decode(),
        "columns": _SPRITE_COLUMNS,
        "rows": -(-len(captions) // _SPRITE_COLUMNS),
        "tile": TILE_PIXELS,
        "is_pixelated": images_NHWC.shape[1] < TILE_PIXELS,
        "captions": captions,
        "revision": revision,
    }
    selected = _component()(key=key, data=data, default={"selected": None}, on_selected_change=lambda: None).selected
    if not selected or selected["revision"] != revision:
        return None
    return int(selected["index"])


def sprite_png(images_NHWC: np.ndarray) -> bytes:
    """The images side by side, 20 a row, as one PNG; images larger than a tile are scaled down to it."""
    tiles = [_tile(image) for image in images_NHWC]
    side = tiles[0].shape[0] if tiles else 1
    rows = max(1, -(-len(tiles) // _SPRITE_COLUMNS))
    sheet = np.zeros((rows * side, _SPRITE_COLUMNS * side, 3), np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // _SPRITE_COLUMNS * side, i % _SPRITE_COLUMNS * side
        sheet[top : top + side, left : left + side] = tile
    buffer = io.BytesIO()
    # Level 1: photographs hardly compress, and the network is mostly this machine's own.
    Image.fromarray(sheet).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _tile(image_HWC: np.ndarray) -> np.ndarray:
    if image_HWC.shape[0] <= TILE_PIXELS:
        return image_HWC
    return np.asarray(Image.fromarray(image_HWC).resize((TILE_PIXELS, TILE_PIXELS), Image.Resampling.LANCZOS))


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    return st.components.v2.component(
        "cifar_tl_thumbnails",
        html='<div class="grid"></div>',
        css=(folder / "thumbnails.css").read_text("utf-8"),
        js=(folder / "thumbnails.js").read_text("utf-8"),
    )
