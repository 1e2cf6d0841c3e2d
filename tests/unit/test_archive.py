"""Archives that people drop, honest ones and hostile ones: pictures come out, one line says why others do not."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cifar_tl.data import archive
from cifar_tl.data.archive import Member, is_zip, pictures_in_zip


def zipped(*files: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, data in files:
            made.writestr(name, data)
    return buffer.getvalue()


def noise(size: int) -> bytes:
    return np.random.default_rng(0).bytes(size)


def test_files_come_out_with_the_name_of_the_archive():
    data = zipped(("a.png", b"one"), ("folder/b.jpg", b"two"))
    assert is_zip(data)
    assert pictures_in_zip("p.zip", data) == [Member("p.zip/a.png", b"one"), Member("p.zip/folder/b.jpg", b"two")]


def test_what_systems_add_is_left_out():
    data = zipped(("__MACOSX/a.png", b"x"), ("folder/.DS_Store", b"x"), ("folder/", b""), ("a.png", b"one"))
    assert [member.name for member in pictures_in_zip("p.zip", data)] == ["p.zip/a.png"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\etc\\passwd"])
def test_paths_are_names_and_lead_nowhere(name: str):
    (member,) = pictures_in_zip("p.zip", zipped((name, b"x")))
    assert member.name == "p.zip/etc/passwd"


def test_a_bomb_is_not_unpacked():
    data = zipped(("white.bmp", bytes(8 * 2**20)))
    assert len(data) < 20_000
    (member,) = pictures_in_zip("p.zip", data)
    assert not member.data
    assert "unpacks to far more" in member.error


def test_a_size_that_is_a_lie_does_not_help(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    data = zipped(("a.png", noise(3000)), compression=zipfile.ZIP_STORED)
    lying = data.replace((3000).to_bytes(4, "little"), (500).to_bytes(4, "little"))
    assert lying != data
    (member,) = pictures_in_zip("p.zip", lying)
    assert len(member.data) <= 1000


def test_one_file_is_bounded_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    members = pictures_in_zip("p.zip", zipped(("large.png", noise(2000)), ("small.png", noise(10))))
    assert [bool(member.error) for member in members] == [True, False]


def test_all_files_together_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1500)
    members = pictures_in_zip("p.zip", zipped(("a", noise(1000)), ("b", noise(1000)), ("c", noise(400))))
    assert [len(member.data) for member in members] == [1000, 0, 400]
    assert "Together" in members[1].error


def test_no_more_files_than_there_is_room_for():
    members = pictures_in_zip("p.zip", zipped(*((f"{i}.png", b"x") for i in range(5))), room=3)
    assert [bool(member.data) for member in members] == [True, True, True, False]
    assert "holds 5 files; the first 3 were taken" in members[3].error


def test_an_encrypted_file_is_refused_in_words():
    data = bytearray(zipped(("a.png", b"secret")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (member,) = pictures_in_zip("p.zip", bytes(data))
    assert "encrypted" in member.error


def test_an_archive_without_files_says_so():
    (member,) = pictures_in_zip("p.zip", zipped())
    assert "no file" in member.error


def test_archives_in_archives_are_not_opened():
    inner = zipped(("a.png", b"x"))
    (member,) = pictures_in_zip("p.zip", zipped(("inner.zip", inner)))
    assert member.data == inner


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_archives_answer_in_single_lines(data: st.DataObject):
    whole = bytearray(zipped(("a.png", noise(300)), ("b/c.png", noise(50))))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(whole)))
    for member in pictures_in_zip("p.zip", bytes(whole[:cut])):
        assert "\n" not in member.error
        assert len(member.data) <= archive.MAX_BYTES
