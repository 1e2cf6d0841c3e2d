"""closest_square: small images come back from their enlargements, and no other square describes a photo better."""

import numpy as np
import pytest
from PIL import Image

from cifar_tl.answers import Framing
from cifar_tl.data.bottleneck import closest_square
from cifar_tl.data.decode import to_square

SIZE = 16


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def enlarged(image: np.ndarray, times: int, how: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    return Image.fromarray(image).resize((SIZE * times, SIZE * times), how)


def away(square: np.ndarray, image: np.ndarray) -> float:
    return float(np.abs(square.astype(float) - image).mean())


def test_an_image_of_the_right_size_is_not_touched(image):
    assert np.array_equal(closest_square(Image.fromarray(image), SIZE), image)


@pytest.mark.parametrize("times", [2, 8, 13])
def test_an_enlarged_image_comes_back(times, image):
    smooth = np.clip(image, 40, 215)  # so that enlarging does not cut off what overshoots
    assert away(closest_square(enlarged(smooth, times), SIZE), smooth) < 2
    assert away(to_square(enlarged(smooth, times), SIZE), smooth) > 8


def test_no_nearby_square_is_closer_to_the_photo_when_enlarged(image):
    photo = np.clip(image, 60, 195)
    photo = np.asarray(Image.fromarray(photo).resize((SIZE * 2, SIZE * 2), Image.Resampling.LANCZOS))
    found = closest_square(Image.fromarray(photo), SIZE)

    def error(square: np.ndarray) -> float:
        return float(((np.asarray(enlarged(square, 2)).astype(float) - photo) ** 2).mean())

    random = np.random.default_rng(1)
    others = [np.clip(found + random.integers(-6, 7, found.shape), 0, 255).astype(np.uint8) for _ in range(50)]
    assert error(found) < min(map(error, [*others, to_square(Image.fromarray(photo), SIZE)]))


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [(200, 100), (100, 200), (1, 500), (500, 1), (1, 1), (7, 3), (17, 16), (300, 20)])
def test_any_picture_becomes_a_square_of_its_colour(size, framing):
    square = closest_square(Image.new("RGB", size, (10, 200, 30)), SIZE, framing)
    assert square.shape == (SIZE, SIZE, 3)
    assert square.dtype == np.uint8
    assert (square == (10, 200, 30)).all()


@pytest.mark.parametrize("framing", list(Framing))
def test_the_same_part_of_a_picture_is_taken_as_by_the_usual_filter(framing):
    ramp = np.zeros((60, 200, 3), np.uint8)
    ramp[..., 0] = np.arange(200)
    ramp[..., 1] = np.arange(60)[:, None]
    found, usual = (make(Image.fromarray(ramp), SIZE, framing) for make in (closest_square, to_square))
    assert away(found, usual) < 2


def test_a_smaller_picture_is_enlarged_as_usual(image):
    small = Image.fromarray(image[:5, :9])
    assert np.array_equal(closest_square(small, SIZE), to_square(small, SIZE))
