"""photo: a photo at full size with a heat map over it, as faint or strong as the reader wants: the browser blends, nothing is asked again.

Owns the browser component (`photo.js`, `photo.css`), the colours of heat maps, and which part of a photo a model saw.
"""

import base64
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from PIL import Image
from streamlit import runtime

from cifar_tl.answers import Framing

_HEAT_PIXELS = 256  # a side; smooth enough to be stretched over any photo
# From what speaks against over nothing to what speaks for: blue, nearly black, red, yellow. Dark in the middle, so that on any photo
# evidence is what is bright.
_STOPS = (-1.0, -0.6, -0.25, 0.0, 0.25, 0.6, 1.0)
_COLOURS = ((96, 196, 255), (26, 92, 214), (14, 20, 56), (12, 12, 28), (44, 14, 36), (214, 48, 60), (255, 214, 64))

Box = tuple[float, float, float, float]


def photo_with_heat(photo_jpeg: bytes, heat_hw: np.ndarray, framing: Framing, *, description: str, key: str) -> None:
    """`heat_hw`: float32 in [-1, 1] over the square that the model saw. `description` is for those who cannot see it."""
    with Image.open(io.BytesIO(photo_jpeg), formats=["JPEG"]) as opened:
        size = opened.size
    data = {
        "photo": _address(photo_jpeg, key),
        "size": size,
        "heat": base64.b64encode(heat_png(heat_hw)).decode(),
        "box": seen_part(*size, framing),
        "description": description,
    }
    _component()(key=key, data=data)


def seen_part(width: int, height: int, framing: Framing) -> Box:
    """Left, top, width and height of the square that the model sees, as fractions of the photo; it exceeds the photo where all of it is seen."""
    side = max(width, height) if framing is Framing.WHOLE else min(width, height)
    return ((width - side) / 2 / width, (height - side) / 2 / height, side / width, side / height)


def heat_png(heat_hw: np.ndarray) -> bytes:
    """The map in colours, smoothly enlarged."""
    smooth = Image.fromarray(heat_hw.astype(np.float32)).resize((_HEAT_PIXELS, _HEAT_PIXELS), Image.Resampling.BICUBIC)
    values_HW = np.clip(np.asarray(smooth), -1, 1)
    pixels_HWC = np.stack([np.interp(values_HW, _STOPS, channel) for channel in zip(*_COLOURS, strict=True)], -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _address(jpeg: bytes, name: str) -> str:
    """Where the browser finds the photo for as long as the page shows it; '' outside of a running dashboard."""
    if not runtime.exists():
        return ""
    url: str = runtime.get_instance().media_file_mgr.add(jpeg, "image/jpeg", name)
    return f".{url}" if url.startswith("/") else url


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    return st.components.v2.component(
        "cifar_tl_photo",
        html='<figure class="photo"><div class="frame"><img class="picture" alt=""><div class="part"><img alt=""></div></div>'
        '<figcaption><label>Heat map <input type="range" min="0" max="100" value="55" aria-label="Opacity of the heat map"></label>'
        '<button type="button">Full screen</button></figcaption></figure>',
        css=(folder / "photo.css").read_text("utf-8"),
        js=(folder / "photo.js").read_text("utf-8"),
    )
