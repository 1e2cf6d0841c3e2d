"""Heat maps over photos: the right part of the photo, and colours that tell for from against."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar_tl.answers import Framing
from cifar_tl.data.decode import to_square
from cifar_tl.ui.predict.photo import heat_png, seen_part


def colours(heat_hw: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(heat_png(heat_hw))), np.int64)


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (60, 60)])
def test_middle_is_the_part_that_the_model_gets(width: int, height: int):
    left, top, part_width, part_height = seen_part(width, height, Framing.CENTER)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    x, y, side = round(left * width), round(top * height), round(part_width * width)
    assert side == round(part_height * height) == 60
    assert (to_square(Image.fromarray(pixels), side) == pixels[y : y + side, x : x + side]).all()


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90)])
def test_whole_is_a_square_around_the_photo_whose_middle_is_the_photo(width: int, height: int):
    left, top, part_width, part_height = seen_part(width, height, Framing.WHOLE)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    x, y = round(-left * width), round(-top * height)
    assert round(part_width * width) == round(part_height * height) == 90
    seen = to_square(Image.fromarray(pixels), 90, Framing.WHOLE)
    assert (seen[y : y + height, x : x + width] == pixels).all()


def test_what_speaks_for_is_yellow_what_speaks_against_blue_and_nothing_is_dark():
    for_it, nothing, against = (colours(np.full((2, 2), value, np.float32))[128, 128] for value in (1, 0, -1))
    assert for_it[0] > for_it[2] + 100
    assert against[2] > against[0] + 100
    assert nothing.max() < 40


def test_brightness_grows_with_evidence_either_way():
    for sign in (1, -1):
        brightness = [colours(np.full((2, 2), sign * share, np.float32)).sum() for share in np.linspace(0, 1, 9)]
        assert brightness == sorted(brightness)
        assert brightness[-1] > 5 * brightness[0]


def test_map_is_smoothly_enlarged_and_evidence_stays_in_its_corner():
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    brightness = colours(heat).sum(-1)
    assert brightness[:64, -64:].min() > brightness[128:, :128].max()
