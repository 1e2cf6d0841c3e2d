"""Pictures and archives from people who mean harm: an answer or one clear line, in seconds, within 300 MB; and no decoder runs unasked."""

import io
import json
import random
import struct
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from cifar_tl.data import archive, containers, decode
from cifar_tl.data.archive import pictures_in_zip
from cifar_tl.data.containers import check_container
from cifar_tl.data.decode import decode_image, to_square, use_picture
from cifar_tl.errors import ImageUnreadable
from cifar_tl.paths import PROJECT_ROOT
from tests.hostile_pictures import encoded, tiff, worst_archives, worst_pictures

MOST_SECONDS = 5
MOST_BYTES = 300_000_000
FUZZED = 2_400
FUZZED_ARCHIVES = 300

# Two threads, as in the prediction process, which tells malloc to keep what is freed (`devices.keep_freed_memory`).
DECODE_ALL = """
import ctypes, json, sys, time
from concurrent.futures import ThreadPoolExecutor
import psutil
from cifar_tl.data.decode import use_picture
from cifar_tl.errors import ImageUnreadable
from tests.hostile_pictures import worst_pictures

def outcome(item):
    name, data = item
    began = time.perf_counter()
    try:
        said = use_picture(data, lambda picture: str(picture.size))
    except ImageUnreadable as error:
        said = str(error)
    return name, said, time.perf_counter() - began

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

c_library = ctypes.CDLL(None)
c_library.mallopt(-4, 0)
c_library.mallopt(-1, 2**31 - 1)
files = [open(path, "rb").read() for path in sys.argv[2:]]
names = sys.argv[2:]
before = psutil.Process().memory_info().rss
with ThreadPoolExecutor(2) as pool:
    found = list(pool.map(outcome, zip(names, files)))
print(json.dumps({"grown": peak() - before, "outcomes": found}))
"""


@pytest.fixture(scope="module")
def worst(tmp_path_factory):
    """What becomes of the worst pictures in a process of their own: {"grown": bytes, "outcomes": [(file, what was said, seconds)]}."""
    folder, names = tmp_path_factory.mktemp("worst"), {}
    for number, (name, data) in enumerate(worst_pictures()):
        path = folder / f"{number:03}"
        path.write_bytes(data)
        names[str(path)] = name
    done = subprocess.run(
        [sys.executable, "-c", DECODE_ALL, "", *names], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    found["outcomes"] = [(names[path], said, seconds) for path, said, seconds in found["outcomes"]]
    return found


def test_the_worst_pictures_answer_or_get_one_clear_line(worst):
    assert len(worst["outcomes"]) > 80
    assert not [said for _, said, _ in worst["outcomes"] if not said or "\n" in said or len(said) > 300]


def test_no_picture_takes_more_than_five_seconds(worst):
    assert not [(name, seconds) for name, _, seconds in worst["outcomes"] if seconds > MOST_SECONDS]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is read where Linux tells it")
def test_the_worst_pictures_two_at_a_time_take_less_than_300_mb(worst):
    assert 50_000_000 < worst["grown"] < MOST_BYTES


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("png of 24 million pixels with alpha, a bomb within the bounds", "(3000, 2000)"),
        ("png with a flood of chunks", "more than 10,000 chunks"),
        ("png as narrow as it gets", "(183, 32768)"),
        ("png of 24 million rows", "at most 65,535"),
        ("jpeg of 64 million pixels", "(4000, 4000)"),
        ("jpeg of 24 million pixels, three colours, progressive", "(3000, 2000)"),
        ("jpeg that goes over its pixels 20,000 times", "too many times"),
        ("jpeg with a flood of comments", "too much before its pixels"),
        ("jpeg of markers only", "too much before its pixels"),
        ("jpeg of an arithmetic kind", "unusual kind"),
        ("gif with a flood of comment blocks", "more than 10,000 blocks"),
        ("gif of 200 frames", "(64, 64)"),
        ("gif with a picture far outside", "at most 24 million"),
        ("bmp of 24 million pixels, run-length encoded", "up to 2 MiB"),
        ("tiff with a tile larger than its picture", "more than 80 MB"),
        ("tiff with a million strips", "more than 100,000 numbers"),
        ("tiff with four million numbers for a depth", "more than 100,000 numbers"),
        ("tiff whose Exif holds millions of numbers", "more than 100,000 numbers"),
        ("tiff of a rare compression", "unusual compression"),
        ("tiff of 200 pages", "(64, 64)"),
        ("webp that claims 268 million pixels", "at most 12.5 million"),
        ("webp of 200 frames", "(64, 64)"),
        ("webp with a flood of chunks", "more than 10,000 chunks"),
        ("png that is a zip too", "(32, 32)"),
        ("zip", "not a picture"),
    ],
)
def test_each_kind_of_attack_meets_its_own_answer(worst, name, said):
    assert said in next(outcome for of, outcome, _ in worst["outcomes"] if of == name)


def real_files():
    """Small pictures of every kind that is read, as programs write them."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    rgb, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    turned = Image.Exif()
    turned[0x112], turned[0x110] = 6, "a camera"
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    for format, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": turned}),
        ("PNG", {"exif": turned}),
        ("PNG", frames),
        ("GIF", {}),
        ("GIF", frames),
        ("BMP", {}),
        ("TIFF", {"exif": turned}),
        ("TIFF", {"compression": "tiff_lzw"} | frames),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "jpeg"}),
        ("WEBP", {"exif": turned}),
        ("WEBP", {"lossless": True}),
        ("WEBP", frames),
    ):
        yield encoded(rgb, format, **options)
    for format in ("PNG", "TIFF", "WEBP", "GIF"):
        yield encoded(alpha, format)
    yield encoded(rgb.convert("CMYK"), "JPEG")
    yield encoded(rgb.convert("L"), "BMP")
    yield encoded(rgb.convert("1"), "TIFF", compression="group4")
    yield encoded(Image.fromarray(noise[..., 0].astype(np.uint16) * 257), "PNG")
    yield encoded(Image.fromarray(noise[..., 0].astype(np.float32)), "TIFF")


def mutated(data, others, random):
    """One to four changes of the kinds that break parsers; most near the start, where the structure is."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        near = random.choice((64, 256, max(1, len(changed))))
        at = random.randrange(max(1, min(near, len(changed))))
        kind = random.randrange(7)
        if kind == 0:
            changed[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            changed[at : at + 4] = struct.pack(random.choice("<>") + "I", random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65_535, 20_000)))
        elif kind == 2:
            changed[at : at + 2] = random.choice((b"\0\0", b"\xff\xff", b"\xff\x7f", b"\xff\xda", b"\xff\xc2"))
        elif kind == 3:
            del changed[at : at + random.randint(1, 64)]
        elif kind == 4:
            length = random.randint(1, 200)
            changed[at:at] = changed[at : at + length] * random.randint(1, 20)
        elif kind == 5:
            other = random.choice(others)
            start = random.randrange(len(other))
            changed[at:at] = other[start : start + random.randint(1, 400)]
        else:
            del changed[random.randrange(max(1, len(changed))) :]
    return bytes(changed)


def test_thousands_of_mutated_pictures_answer_or_get_one_clear_line():
    files, source = list(real_files()), random.Random(0)
    assert all(decode_image(data).mode == "RGB" for data in files)
    read, refused, slowest, before = 0, set(), 0.0, psutil.Process().memory_info().rss
    for number in range(FUZZED):
        data = mutated(files[number % len(files)], files, source)
        began = time.perf_counter()
        try:
            assert decode_image(data).mode == "RGB"
            read += 1
        except ImageUnreadable as error:
            refused.add(str(error))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < MOST_SECONDS
    assert psutil.Process().memory_info().rss - before < MOST_BYTES
    assert FUZZED // 20 < read < FUZZED  # of both kinds, or it tests little
    assert len(refused) > 20
    assert not [line for line in refused if not line or "\n" in line]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_only_the_decoder_of_the_format_it_starts_with_may_see_a_file(format, monkeypatch):
    seen = []
    monkeypatch.setattr(decode.Image, "open", lambda file, formats: seen.append(formats) or Image.new("RGB", (8, 8)))
    decode_image(encoded(Image.new("RGB", (8, 8)), format))
    assert seen == [(format,)]


def test_no_decoder_sees_what_starts_like_none_of_the_formats(monkeypatch):
    monkeypatch.setattr(decode.Image, "open", lambda *_, **__: pytest.fail("a decoder was asked"))
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"8BPS\0\1", b"II\x2b\0\x08\0\0\0", b"P6 1 1 255\n", b"\0\0\1\0"):
        with pytest.raises(ImageUnreadable, match="not a picture"):
            decode_image(data + bytes(100))


def test_a_large_photo_comes_in_half_its_size_and_upright():
    turned = Image.Exif()
    turned[0x112] = 6
    photo = Image.new("L", (5000, 4000))
    photo.paste(255, (0, 0, 2500, 4000))
    found = decode_image(encoded(photo, "JPEG", exif=turned))
    assert found.size == (2000, 2500)
    assert [found.getpixel((1000, y))[0] > 128 for y in (100, 2400)] == [True, False]


@pytest.mark.parametrize("scale", [1, 65_535, -1])
def test_strips_of_a_large_picture_share_one_scale(scale, monkeypatch):
    values = np.linspace(0, scale, 64 * 64).astype(np.float32).reshape(64, 64)
    data = encoded(Image.fromarray(values), "TIFF")
    whole = np.asarray(decode_image(data))
    monkeypatch.setattr(decode, "_STRIP_PIXELS", 64 * 5)
    np.testing.assert_array_equal(np.asarray(decode_image(data)), whole)


def test_transparency_is_the_same_in_strips(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (37, 20, 4), np.uint8)
    for image in (Image.fromarray(noise), Image.fromarray(noise).convert("LA"), Image.fromarray(noise).convert("PA").convert("RGBA")):
        data = encoded(image, "PNG")
        monkeypatch.setattr(decode, "_STRIP_PIXELS", 2**20)
        whole = np.asarray(decode_image(data))
        monkeypatch.setattr(decode, "_STRIP_PIXELS", 60)
        np.testing.assert_array_equal(np.asarray(decode_image(data)), whole)


def test_large_pictures_are_used_one_at_a_time():
    small, large = (encoded(Image.new("L", (side, 1000)), "PNG") for side in (1000, 1001))
    inside, most_inside = [], []

    def use(picture):
        inside.append(threading.get_ident())
        most_inside.append(len(inside))
        size = to_square(picture, 512).shape
        inside.remove(threading.get_ident())
        return size, threading.get_ident()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda data: use_picture(data, use), [large] * 20))
    assert max(most_inside) == 1
    assert {size for size, _ in found} == {(512, 512, 3)}
    assert use_picture(small, use)[1] == threading.get_ident()


def test_what_goes_wrong_with_a_large_picture_is_said_to_who_asked():
    data = encoded(Image.new("L", (1500, 1400)), "PNG")
    with pytest.raises(ImageUnreadable, match="cut off or damaged"):
        use_picture(data[:300], lambda picture: picture.size)


def test_a_big_endian_tiff_is_walked_as_such():
    data = encoded(Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF", big_endian=True)
    assert check_container(data) == ("TIFF", 64)
    with pytest.raises(ImageUnreadable, match="more than 100,000 numbers"):
        check_container(tiff([(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 200_000, 200)]))


def test_the_number_of_chunks_of_a_large_real_png_is_allowed():
    assert containers._MOST_CHUNKS > 32 * 2**20 // 8192


@pytest.mark.parametrize(("data", "said"), [pytest.param(data, said, id=name) for name, data, said in worst_archives()])
def test_the_worst_archives_are_refused_member_by_member_or_whole(data, said):
    began = time.perf_counter()
    try:
        pictures, refusals = pictures_in_zip(data, "a.zip")
        assert pictures == []
        lines = [refusal.reason for refusal in refusals]
        assert all(refusal.name.startswith("a.zip/") for refusal in refusals)
    except ImageUnreadable as error:
        lines = [str(error)]
    assert time.perf_counter() - began < MOST_SECONDS
    assert any(part in line for line in lines for part in said.split("|")), lines
    assert not [line for line in lines if "\n" in line]


def packed(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def test_pictures_of_an_archive_come_in_order_with_their_names():
    members = [("b/second.png", b"1"), ("a.png", b"22"), ("b/", b"")]
    pictures, refusals = pictures_in_zip(packed(members), "photos.zip")
    assert pictures == [("photos.zip/b/second.png", b"1"), ("photos.zip/a.png", b"22")]
    assert refusals == []


def test_what_systems_put_into_archives_is_passed_over():
    members = [("__MACOSX/._a.png", b"x"), (".DS_Store", b"x"), ("a/.hidden/b.png", b"x"), ("a.png", b"1")]
    assert pictures_in_zip(packed(members), "z")[0] == [("z/a.png", b"1")]


def test_one_bad_member_does_not_stop_the_others():
    members = [("a.png", b"1"), ("../b.png", b"2"), ("c.png", b"3")]
    pictures, refusals = pictures_in_zip(packed(members), "z")
    assert [name for name, _ in pictures] == ["z/a.png", "z/c.png"]
    assert [refusal.name for refusal in refusals] == ["z/../b.png"]


def test_an_archive_with_a_comment_is_read():
    buffer = io.BytesIO(packed([("a.png", b"1")]))
    with zipfile.ZipFile(buffer, "a") as file:
        file.comment = b"holidays"
    assert pictures_in_zip(buffer.getvalue(), "z")[0] == [("z/a.png", b"1")]


def test_members_beyond_a_bound_are_refused_and_those_before_it_kept(monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    pictures, refusals = pictures_in_zip(packed([(f"{number}.png", b"1") for number in range(4)]), "z")
    assert (len(pictures), len(refusals)) == (2, 2)
    assert "2 pictures" in refusals[0].reason


def test_all_members_together_are_bounded(monkeypatch):
    monkeypatch.setattr(archive, "MAX_UNPACKED", 2 * 2**20)
    noise = np.random.default_rng(0).bytes(1_500_000)
    pictures, refusals = pictures_in_zip(packed([("a.png", noise), ("b.png", noise), ("c.png", b"1")]), "z")
    assert [name for name, _ in pictures] == ["z/a.png", "z/c.png"]
    assert "2 MiB together" in refusals[0].reason


def test_hundreds_of_mutated_archives_answer_or_get_one_clear_line():
    noise = np.random.default_rng(0).bytes(300)
    files = [packed([("a.png", noise), ("b/c.png", bytes(300))]), packed([("a.png", noise)], zipfile.ZIP_STORED)]
    source, opened, lines = random.Random(0), 0, []
    for number in range(FUZZED_ARCHIVES):
        data = mutated(files[number % 2], files, source)
        try:
            pictures, refusals = pictures_in_zip(data, "z")
            opened += 1
            assert pictures or refusals
            lines += [refusal.reason for refusal in refusals]
        except ImageUnreadable as error:
            lines.append(str(error))
    assert not [line for line in lines if not line or "\n" in line]
    assert 10 < opened < FUZZED_ARCHIVES
