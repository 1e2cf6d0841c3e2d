"""The Python half of live_plot and of thumbnails; the browser's half is in tests/browser."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_tl.ui.live_plot import ensure_plotly_js, mix, typed
from cifar_tl.ui.thumbnails import TILE_PIXELS, sprite_png


def test_typed_array_carries_its_values_and_a_matrix_its_shape():
    packed = typed([[1, 2, 3], [4, 5, 6]])
    assert (packed["dtype"], packed["shape"]) == ("f4", "2,3")
    assert np.frombuffer(base64.b64decode(packed["bdata"]), "<f4").tolist() == [1, 2, 3, 4, 5, 6]
    assert "shape" not in typed([1, 2])


def test_mixed_colours_name_their_share():
    assert mix("red", "var(--st-text-color)", 0.25) == "color-mix(in srgb, red 25%, var(--st-text-color))"


def test_plotly_js_is_put_into_the_static_folder(tmp_path: Path):
    target = ensure_plotly_js(tmp_path / "static")
    assert target.stat().st_size > 1_000_000
    assert [path.name for path in target.parent.iterdir()] == ["plotly.min.js"]


def test_plotly_js_that_is_there_is_left_alone(tmp_path: Path):
    before = ensure_plotly_js(tmp_path).stat().st_mtime_ns
    assert ensure_plotly_js(tmp_path).stat().st_mtime_ns == before


def test_plotly_js_of_another_version_is_replaced(tmp_path: Path):
    (tmp_path / "plotly.min.js").write_text("old", "utf-8")
    assert ensure_plotly_js(tmp_path).stat().st_size > 1_000_000


def test_sprite_holds_the_images_in_order_twenty_a_row():
    images = np.stack([np.full((4, 4, 3), i, np.uint8) for i in range(25)])
    sheet = np.asarray(Image.open(io.BytesIO(sprite_png(images))))
    assert sheet.shape == (8, 80, 3)
    assert [int(sheet[0, 4 * i, 0]) for i in range(20)] == list(range(20))
    assert [int(sheet[4, 4 * i, 0]) for i in range(5)] == list(range(20, 25))


def test_large_images_are_scaled_down_to_a_tile():
    sheet = Image.open(io.BytesIO(sprite_png(np.zeros((1, 200, 200, 3), np.uint8))))
    assert sheet.height == TILE_PIXELS
