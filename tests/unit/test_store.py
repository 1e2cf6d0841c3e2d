"""ImageStore and StoreWriter: what was written is read, a store that exists is whole, equal data have equal fingerprints."""

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.data import store as store_module
from cifar_tl.data.store import (
    ImageStore,
    StoredRows,
    StoreInfo,
    UnreadableFile,
    is_store,
    read_store_info,
    remove_leftovers,
    writing_store,
)
from cifar_tl.errors import SourceInvalid

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (10, 8, 8, 3), np.uint8)
LABELS = np.arange(10) % 3
INFO = StoreInfo(
    "made", "Made", 8, ("a", "b", "ç"), ("x",), (0, 0, 0), unreadable=(UnreadableFile("a/1.txt", "no picture"),), notes=("noted",)
)


def write(folder, images=IMAGES, labels=LABELS, chunk=4, info=INFO):
    with writing_store(folder) as writer:
        for split in ("train", "test"):
            writer.write_split(split, labels, (images[i : i + chunk] for i in range(0, len(images), chunk)), 8)
        return writer.finish(info)


def test_a_store_gives_back_pixels_labels_and_everything_known(tmp_path):
    write(tmp_path / "s")
    store = ImageStore(tmp_path / "s")
    np.testing.assert_array_equal(store["train"].images_NHWC, IMAGES)
    np.testing.assert_array_equal(store["test"].labels_N, LABELS)
    assert (store.info.class_names, store.info.superclass_of_class) == (INFO.class_names, INFO.superclass_of_class)
    assert (store.info.unreadable, store.info.notes) == (INFO.unreadable, INFO.notes)
    assert store.info.split_sizes == {"train": 10, "test": 10}
    assert store.split_names == ("train", "test")
    assert "dev" not in store


def test_images_are_memory_mapped_not_loaded(tmp_path):
    write(tmp_path / "s")
    assert isinstance(ImageStore(tmp_path / "s")["train"].images_NHWC, np.memmap)


def test_images_may_come_without_their_number_being_known_before(tmp_path):
    write(tmp_path / "known")
    with writing_store(tmp_path / "streamed") as writer:
        for split in ("train", "test"):
            chunks = [(IMAGES[:3], LABELS[:3]), (IMAGES[3:3], LABELS[3:3]), (IMAGES[3:], LABELS[3:])]
            assert writer.write_labelled(split, iter(chunks), 8) == 10
        writer.finish(INFO)
    np.testing.assert_array_equal(ImageStore(tmp_path / "streamed")["train"].images_NHWC, IMAGES)
    assert read_store_info(tmp_path / "streamed").fingerprint == read_store_info(tmp_path / "known").fingerprint


def test_the_header_is_right_when_the_number_of_images_grows_by_digits(tmp_path):
    with writing_store(tmp_path / "s") as writer:
        writer.write_labelled("train", ((np.zeros((1000, 2, 2, 3), np.uint8), np.zeros(1000, np.int64)) for _ in range(11)), 2)
        writer.finish(INFO)
    assert ImageStore(tmp_path / "s")["train"].images_NHWC.shape == (11_000, 2, 2, 3)


def test_the_fingerprint_does_not_depend_on_the_chunks(tmp_path):
    assert write(tmp_path / "a", chunk=4).fingerprint == write(tmp_path / "b", chunk=1).fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "class_name"])
def test_the_fingerprint_changes_with(tmp_path, change):
    images, labels, info = IMAGES.copy(), LABELS.copy(), INFO
    if change == "pixel":
        images[9, 7, 7, 2] ^= 1
    elif change == "label":
        labels[9] = 1
    else:
        info = StoreInfo("made", "Made", 8, ("a", "b", "d"))
    assert write(tmp_path / "a").fingerprint != write(tmp_path / "b", images, labels, info=info).fingerprint


def test_a_failed_block_leaves_nothing_behind(tmp_path):
    def interrupted():
        yield IMAGES[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writing_store(tmp_path / "s") as writer:
        writer.write_split("train", LABELS, interrupted(), 8)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_for_the_labels_are_a_defect_of_the_caller(tmp_path):
    with pytest.raises(AssertionError, match="9 images for 10 labels"), writing_store(tmp_path / "s") as writer:
        writer.write_split("train", LABELS, [IMAGES[:9]], 8)


def test_the_store_of_a_process_that_was_faster_stays(tmp_path):
    with writing_store(tmp_path / "s") as slow:
        for split in ("train", "test"):
            slow.write_split(split, LABELS, [IMAGES], 8)
        fast = write(tmp_path / "s", images=IMAGES // 2)
        slow.finish(INFO)
    assert read_store_info(tmp_path / "s").fingerprint == fast.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_others_may_read_a_store_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write(tmp_path / "s")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "s" / "train.images.npy").stat().st_mode) == 0o644


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_to_disk", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_of_this_store_alone_are_removed(tmp_path):
    for name in (".s.0123.part", ".s2.0123.part", ".s.lock", "s"):
        (tmp_path / name).mkdir()
    remove_leftovers(tmp_path / "s")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.lock", ".s2.0123.part", "s"]


@pytest.mark.parametrize("damage", ["images cut off", "labels cut off", "images gone", "labels of other length", "info garbled", "newer"])
def test_a_damaged_store_is_refused_with_its_path(tmp_path, damage):
    write(tmp_path / "s")
    images, labels, info = (tmp_path / "s" / name for name in ("train.images.npy", "train.labels.npy", "store.json"))
    if damage == "images cut off":
        images.write_bytes(images.read_bytes()[:-5])
    elif damage == "labels cut off":
        labels.write_bytes(labels.read_bytes()[:-5])
    elif damage == "images gone":
        images.unlink()
    elif damage == "labels of other length":
        np.save(labels, LABELS[:-1])
    elif damage == "info garbled":
        info.write_text("[1, 2]")
    else:
        info.write_text(info.read_text().replace('"version": 1', '"version": 99'))
    with pytest.raises(SourceInvalid, match=str(tmp_path / "s")):
        ImageStore(tmp_path / "s")


def test_a_folder_without_its_info_is_no_store(tmp_path):
    (tmp_path / "s").mkdir()
    assert not is_store(tmp_path / "s")
    with pytest.raises(SourceInvalid):
        read_store_info(tmp_path / "s")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much of a file is mapped")
def test_reading_a_large_array_at_random_keeps_memory_flat(tmp_path):
    rows, size = 40_000, 16 * 1024  # 640 MB on disk
    with (tmp_path / "large.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (rows, size)})
        for number in range(0, rows, 1000):
            file.write(np.full((1000, size), number // 1000, np.uint8).tobytes())
    stored = StoredRows(np.load(tmp_path / "large.npy", mmap_mode="r"))
    generator, before, highest = np.random.default_rng(0), mapped_megabytes(), 0
    for _ in range(150):
        wanted = generator.integers(0, rows, 128)
        assert np.array_equal(stored[wanted][:, -1], wanted // 1000)
        highest = max(highest, mapped_megabytes() - before)
    assert highest < 50


def mapped_megabytes() -> float:
    """Of files, in this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("keep_bytes", [0, 10**6])
def test_stored_rows_come_back_in_the_order_asked_for(tmp_path, keep_bytes):
    array = np.arange(7 * 3 * 2, dtype=np.uint16).reshape(7, 3, 2)
    np.save(tmp_path / "array.npy", array)
    wanted = np.array([6, 0, 0, 3])
    for source in (array, np.load(tmp_path / "array.npy", mmap_mode="r")):
        found = StoredRows(source, keep_bytes=keep_bytes)[wanted]
        assert np.array_equal(found, array[wanted])
        found[:] = 0  # a copy: the stored array stays
    assert np.array_equal(np.load(tmp_path / "array.npy"), array)
    assert StoredRows(array)[np.array([], np.int64)].shape == (0, 3, 2)


def test_a_file_that_was_cut_short_is_an_error_and_no_garbage(tmp_path):
    np.save(tmp_path / "array.npy", np.ones((100, 1000)))
    stored = StoredRows(np.load(tmp_path / "array.npy", mmap_mode="r"))
    os.truncate(tmp_path / "array.npy", 8000 * 50)
    assert stored[np.array([3])].sum() == 1000
    with pytest.raises(OSError, match="ends too early"):
        stored[np.array([99])]
