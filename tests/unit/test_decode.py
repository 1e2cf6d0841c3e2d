"""decode_image and to_square: every accepted format and mode, and one clear line for everything else."""

import io
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar_tl.answers import Framing
from cifar_tl.data.decode import decode_image, to_square
from cifar_tl.errors import ImageUnreadable

# 6 wide, 4 high; smooth, so that JPEG keeps it
GRADIENT = np.stack([np.tile(np.arange(6) * 40, (4, 1)), np.tile(np.arange(4)[:, None] * 60, (1, 6)), np.full((4, 6), 90)], -1).astype(
    np.uint8
)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def pixels(data, **limits):
    image = decode_image(data, **limits)
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(data):
    """Why it is refused; None if it is read. Any other exception is the test's failure."""
    try:
        assert pixels(data, max_pixels=1_000_000).ndim == 3
    except ImageUnreadable as error:
        return str(error)
    return None


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF"])
def test_lossless_formats_come_back_exactly(format):
    image = Image.fromarray(GRADIENT)
    np.testing.assert_array_equal(pixels(encoded(image, format)), GRADIENT)


@pytest.mark.parametrize(("format", "options"), [("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True})])
def test_photo_formats_come_back_nearly(format, options):
    np.testing.assert_allclose(pixels(encoded(Image.fromarray(GRADIENT), format, **options)).astype(int), GRADIENT, atol=6)


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "photo.txt"
    path.write_bytes(encoded(Image.fromarray(GRADIENT), "PNG"))
    np.testing.assert_array_equal(pixels(path), GRADIENT)


@pytest.mark.parametrize("format", ["ICO", "TGA", "PPM", "PCX", "SGI"])
def test_formats_that_are_not_on_the_list_are_refused(format):
    with pytest.raises(ImageUnreadable, match="must be JPEG, PNG, WebP, BMP, GIF or TIFF"):
        decode_image(encoded(Image.new("RGB", (16, 16), "red"), format))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_come_upright_however_the_camera_was_held(orientation, format):
    # Quadrants of four colours, stored as a camera held that way would store them.
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[:16, 24:], upright[16:, :24], upright[16:, 24:] = (200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    decoded = pixels(encoded(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif, **options))
    assert decoded.shape == upright.shape
    np.testing.assert_allclose(decoded[4::8, 4::8].astype(int), upright[4::8, 4::8], atol=12)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_becomes_white(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 0, 255))
    decoded = pixels(encoded(image.convert(mode), "PNG"))
    assert decoded[0, 0].tolist() == [255, 255, 255]
    assert decoded[1, 1].tolist() == [0, 0, 0]


def test_half_transparent_pixels_are_mixed_with_white():
    decoded = pixels(encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 128)), "PNG"))
    np.testing.assert_allclose(decoded[0, 0].astype(int), np.array([0, 100, 200]) * 128 / 255 + 255 * 127 / 255, atol=1)


def test_a_transparent_palette_colour_becomes_white():
    image = Image.fromarray(GRADIENT).convert("P", palette=Image.Palette.ADAPTIVE)
    index = image.getpixel((0, 0))
    for data in (encoded(image, "PNG", transparency=index), encoded(image, "GIF", transparency=index)):
        decoded = pixels(data)
        assert decoded[0, 0].tolist() == [255, 255, 255]
        np.testing.assert_allclose(decoded[3, 5].astype(int), GRADIENT[3, 5], atol=2)


def test_palette_transparency_given_as_bytes_decodes_without_a_warning():
    image = Image.fromarray(GRADIENT).convert("P", palette=Image.Palette.ADAPTIVE)
    assert pixels(encoded(image, "PNG", transparency=bytes(256)))[2, 2].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("mode", "colour"), [("L", 77), ("RGB", (10, 20, 30))])
def test_a_transparent_colour_of_a_png_without_alpha_becomes_white(mode, colour):
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0))
    decoded = pixels(encoded(image, "PNG", transparency=colour))
    assert decoded[0].tolist() == [[255, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(format):
    decoded = pixels(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format))
    assert decoded[4, 4, 0] > 200
    assert decoded[4, 4, 1:].max() < 60


def test_greyscale_and_one_bit_pictures_become_grey_rgb():
    assert pixels(encoded(Image.new("L", (2, 2), 77), "PNG"))[0, 0].tolist() == [77, 77, 77]
    one_bit = Image.new("1", (2, 1))
    one_bit.putpixel((1, 0), 1)
    for format in ("PNG", "TIFF", "BMP"):
        assert pixels(encoded(one_bit, format))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut_off(format):
    values = np.array([[0, 128, 257, 32896, 65535]], np.uint16)
    assert pixels(encoded(Image.fromarray(values), format))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_big_endian_sixteen_bits_are_read_as_such():
    tiff = encoded(Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)), "TIFF", big_endian=True)
    assert pixels(tiff)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 32896, 65535], [0, 128, 255]),  # 16-bit values in a 32-bit picture
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([-(2**31), 2**31 - 1, 2**31 - 1], [0, 255, 255]),
    ],
)
def test_thirty_two_bit_integers_are_scaled_by_their_range(values, expected):
    assert pixels(encoded(Image.fromarray(np.array([values], np.int32)), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
        ([3000.0, 3000.0, 3000.0], [0, 0, 0]),
    ],
)
def test_float_pictures_are_scaled_by_their_range(values, expected):
    assert pixels(encoded(Image.fromarray(np.array([values], np.float32)), "TIFF"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_several_is_taken(format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    assert pixels(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options))[0, 0].tolist() == [255, 0, 0]


def test_metadata_does_not_travel_on():
    exif = Image.Exif()
    exif[0x010F] = "camera of a person"
    decoded = decode_image(encoded(Image.fromarray(GRADIENT), "JPEG", exif=exif, comment=b"here"))
    assert decoded.info == {}
    assert b"camera" not in encoded(decoded, "PNG")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_cut_off_picture_is_refused_in_one_line_or_read(format):
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    whole = encoded(Image.fromarray(noise), format)
    lengths = range(1, len(whole) - 1, 7)
    messages = [refusal(whole[:length]) for length in lengths]
    assert sum(message is not None for message in messages) > 0.9 * len(lengths)
    assert not any("\n" in message for message in messages if message)


@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_garbled_pictures_raise_nothing_but_imageunreadable(format, position, garbage):
    data = bytearray(encoded(Image.fromarray(GRADIENT), format))
    position %= len(data)
    data[position : position + len(garbage)] = garbage
    assert refusal(bytes(data)) != ""


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_but_imageunreadable(data):
    with pytest.raises(ImageUnreadable):
        decode_image(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not a picture"),
        (b"%PDF-1.7\n", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_what_is_no_picture_is_said_in_one_line(data, message):
    with pytest.raises(ImageUnreadable, match=message):
        decode_image(data)


def png_claiming(width, height):
    """A PNG of a few bytes that says it has that many pixels."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(10_000, 9_000), (12_000, 12_000), (60_000, 60_000), (1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_they_are_decoded(width, height):
    with pytest.raises(ImageUnreadable, match="at most 24 million"):
        decode_image(png_claiming(width, height))


def test_the_limit_of_pixels_is_inclusive():
    data = encoded(Image.new("L", (10, 10)), "PNG")
    assert pixels(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageUnreadable, match="10 x 10"):
        decode_image(data, max_pixels=99)


@pytest.mark.parametrize(
    ("size", "enough", "expected"),
    [
        ((1000, 800), None, (1000, 800)),
        ((1000, 800), 801, (1000, 800)),
        ((1000, 800), 256, (500, 400)),
        ((1000, 800), 400, (500, 400)),
        ((8000, 400), 256, (8000, 400)),
        ((8000, 1600), 256, (2000, 400)),
        ((800, 1000), 1, (100, 125)),
        ((5000, 3000), 2000, (2500, 1500)),
    ],
)
def test_a_jpeg_comes_smaller_where_that_is_enough_and_never_with_less(size, enough, expected):
    assert decode_image(encoded(Image.new("RGB", size, "teal"), "JPEG"), enough=enough).size == expected


def test_other_formats_come_as_they_are_however_little_is_enough():
    assert decode_image(encoded(Image.new("RGB", (300, 200)), "PNG"), enough=10).size == (300, 200)


def test_a_picture_that_came_smaller_looks_the_same_small():
    waves = np.sin(np.linspace(0, 20, 1024))[:, None, None] * np.sin(np.linspace(0, 14, 1024))[None, :, None]
    photo = encoded(Image.fromarray(np.uint8(127 + 120 * np.repeat(waves, 3, 2))), "JPEG")
    whole, quick = (to_square(decode_image(photo, enough=enough), 32).astype(int) for enough in (None, 256))
    assert np.abs(whole - quick).max() <= 3


def test_too_many_bytes_are_refused_unread(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    for data in (path, path.read_bytes()):
        with pytest.raises(ImageUnreadable, match=r"33\.0 MiB; at most 32 MiB"):
            decode_image(data)


def test_files_that_cannot_be_opened_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "gone.png", "No such file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
    ):
        with pytest.raises(ImageUnreadable, match=message):
            decode_image(path)


def test_warnings_of_threads_neither_escape_nor_stay_off():
    data = encoded(Image.fromarray(GRADIENT).convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=bytes(256))
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode_image, [data] * 200))) == 200
    assert list(warnings.filters) == filters


def test_an_image_of_the_right_size_is_not_touched():
    square = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    np.testing.assert_array_equal(to_square(Image.fromarray(square), 32), square)


@pytest.mark.parametrize(("width", "height"), [(33, 32), (32, 37), (90, 32)])
def test_the_centre_is_kept_pixel_for_pixel_when_only_cropping(width, height):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    top, left = (height - 32) // 2, (width - 32) // 2
    np.testing.assert_array_equal(to_square(Image.fromarray(image), 32), image[top : top + 32, left : left + 32])


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (1, 500), (500, 1), (1, 1), (7, 3)])
def test_any_size_becomes_a_square(size):
    square = to_square(Image.new("RGB", size, (10, 200, 30)), 16)
    assert square.shape == (16, 16, 3)
    assert square.dtype == np.uint8
    np.testing.assert_array_equal(square[8, 8], [10, 200, 30])


def test_shrinking_averages_instead_of_picking_pixels():
    checkers = np.indices((256, 256)).sum(0) % 2 * 255
    square = to_square(Image.fromarray(np.repeat(checkers[..., None], 3, -1).astype(np.uint8)), 16)
    np.testing.assert_allclose(square.astype(int), 128, atol=2)


def test_the_border_beyond_the_crop_does_not_bleed_in():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, :100] = image[:, 200:] = 255
    assert to_square(Image.fromarray(image), 10)[:, 1:-1].max() == 0


def test_the_result_may_be_written_to():
    square = to_square(Image.new("RGB", (20, 20)), 20)
    square[0, 0] = 1
    assert square[0, 0].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("width", "height"), [(60, 20), (20, 60)])
def test_the_whole_of_a_picture_stands_in_the_middle_of_its_borders_mean_colour(width, height):
    image = np.zeros((height, width, 3), np.uint8)
    ends = (slice(0, 1), slice(-1, None))
    for end, colour in zip(ends, (100, 200), strict=True):
        image[(end, slice(None)) if width > height else (slice(None), end)] = colour
    square = to_square(Image.fromarray(image), 60, Framing.WHOLE)
    lying = square if width > height else square.transpose(1, 0, 2)
    assert (lying[:20] == 150).all()
    assert (lying[40:] == 150).all()
    assert (lying[20] == 100).all()
    assert (lying[39] == 200).all()
    assert not lying[21:39].any()


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (1, 500), (500, 1), (7, 3), (33, 32)])
def test_any_whole_picture_becomes_a_square(size):
    square = to_square(Image.new("RGB", size, (10, 200, 30)), 16, Framing.WHOLE)
    assert square.shape == (16, 16, 3)
    assert (square == (10, 200, 30)).all()


@pytest.mark.parametrize("side", [32, 40])
def test_both_framings_of_a_square_are_the_same(side):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
    np.testing.assert_array_equal(to_square(image, 32, Framing.WHOLE), to_square(image, 32))
