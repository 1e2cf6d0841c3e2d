"""Image folders: layouts, sizes, files that are no pictures, links that loop, and what makes a folder no data set."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_tl.data import sources
from cifar_tl.data.decode import decode_image, to_square
from cifar_tl.data.folder import source as folder_source
from cifar_tl.data.folder.layout import read_layout
from cifar_tl.errors import SourceInvalid

RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pets"


def picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


def fill(folder, counts):
    """`counts` maps class names to numbers of pictures."""
    for name, count in counts.items():
        for number in range(count):
            picture(folder / name / f"{number:03}.png", size=(30 + number, 40))


def prepare(root, resolution=16, seed=0, progress=None):
    return sources.prepare(f"folder:{root}", store_resolution=resolution, seed=seed, progress=progress)


def expect_invalid(root, message):
    """Both ways to ask say the same."""
    status = sources.describe(f"folder:{root}")
    assert status.state == "invalid"
    assert message in status.message
    with pytest.raises(SourceInvalid) as error:
        prepare(root)
    assert message in str(error.value)


def test_class_folders_become_classes_in_the_order_of_their_names(root):
    fill(root, {"dog": 10, "cat": 20})
    store = prepare(root)
    assert store.info.class_names == ("cat", "dog")
    assert (store.info.title, store.info.source, store.info.resolution) == ("pets", f"folder:{root}", 16)
    assert store.info.superclass_names == ()


def test_without_splits_a_fifth_of_each_class_is_set_aside_as_test(root):
    fill(root, {"cat": 20, "dog": 10})
    store = prepare(root)
    assert np.bincount(store["train"].labels_N).tolist() == [16, 8]
    assert np.bincount(store["test"].labels_N).tolist() == [4, 2]
    assert "no test split: 20%" in store.info.notes[0]


def test_the_split_that_is_made_follows_the_seed(root):
    fill(root, {"cat": 20, "dog": 20})
    first, other = prepare(root, seed=0), prepare(root, seed=1)
    assert first.folder != other.folder
    assert first.info.fingerprint != other.info.fingerprint
    assert sources.find_store(f"folder:{root}", 16, 0) == first.folder


def test_the_seed_does_not_matter_where_the_folder_brings_test(root):
    fill(root / "train", {"cat": 3, "dog": 3})
    fill(root / "test", {"cat": 1, "dog": 1})
    assert prepare(root, seed=0).folder == prepare(root, seed=1).folder


def test_stored_pixels_are_those_an_upload_would_have(root):
    fill(root / "train", {"cat": 2, "dog": 2})
    fill(root / "test", {"cat": 1, "dog": 1})
    store = prepare(root)
    for row, name in enumerate(("cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png")):
        np.testing.assert_array_equal(store["train"].images_NHWC[row], to_square(decode_image(root / "train" / name), 16))
    assert store["train"].labels_N.tolist() == [0, 0, 1, 1]


def test_many_chunks_give_what_one_chunk_gives(root, monkeypatch):
    fill(root, {"cat": 20, "dog": 20})
    whole = prepare(root).info.fingerprint
    monkeypatch.setattr(folder_source, "_MAX_CHUNK", 3)
    monkeypatch.setenv("CIFAR_TL_CACHE", str(root.parent / "cache2"))
    told = []
    assert prepare(root, progress=told.append).info.fingerprint == whole
    assert [item.done for item in told if item.phase == "Decoding train images"] == [*range(3, 32, 3), 32]


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Val"])
def test_a_validation_folder_of_any_usual_name_becomes_dev(root, name):
    for split, count in (("train", 4), ("test", 2), (name, 1)):
        fill(root / split, {"cat": count, "dog": count})
    store = prepare(root)
    assert store.info.split_sizes == {"train": 8, "test": 4, "dev": 2}
    assert store.info.notes == ()


def test_with_dev_but_no_test_the_test_split_is_taken_from_train_and_noted(root):
    fill(root / "train", {"cat": 10, "dog": 10})
    fill(root / "val", {"cat": 3, "dog": 3})
    store = prepare(root)
    assert store.info.split_sizes == {"train": 16, "test": 4, "dev": 6}
    assert "20% of the training images of each class were set aside" in store.info.notes[0]


def test_a_class_named_train_is_a_class(root):
    fill(root, {"train": 5, "bus": 5})
    assert prepare(root).info.class_names == ("bus", "train")


def test_a_test_folder_without_class_folders_is_noted_and_test_taken_from_train(root):
    fill(root / "train", {"cat": 5, "dog": 5})
    picture(root / "test" / "unlabelled.png")
    store = prepare(root)
    assert store.info.split_sizes == {"train": 8, "test": 2}
    assert "Not used, because they are no split with class folders: test." in store.info.notes


def test_folders_below_a_class_folder_belong_to_the_class(root):
    fill(root, {"cat": 3, "dog": 5})
    picture(root / "cat" / "indoor" / "sofa" / "1.png")
    picture(root / "cat" / "outdoor" / "1.png")
    store = prepare(root)
    assert sum(np.bincount(store[split].labels_N, minlength=2)[0] for split in ("train", "test")) == 5


def test_what_cannot_be_read_is_listed_with_name_and_reason_and_the_rest_is_kept(root):
    fill(root, {"cat": 10, "dog": 10})
    (root / "cat" / "notes.txt").write_text("not a picture")
    (root / "cat" / "empty.jpg").write_bytes(b"")
    (root / "dog" / "cut.png").write_bytes((root / "dog" / "000.png").read_bytes()[:200])
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "labels.csv").write_text("a,b")
    store = prepare(root)
    reasons = {item.path: item.reason for item in store.info.unreadable}
    assert list(reasons) == sorted(reasons)
    assert set(reasons) == {"cat/empty.jpg", "cat/notes.txt", "dog/cut.png", "dog/gone.png", "dog/pipe.png", "labels.csv"}
    assert "empty" in reasons["cat/empty.jpg"]
    assert "not a picture" in reasons["cat/notes.txt"]
    assert "cut off or damaged" in reasons["dog/cut.png"]
    assert "No such file" in reasons["dog/gone.png"]
    assert "not a regular file" in reasons["dog/pipe.png"]
    assert "outside the class folders" in reasons["labels.csv"]
    assert sum(store.info.split_sizes.values()) == 20
    assert "6 files could not be read" in sources.describe(f"folder:{root}", store_resolution=16).message


def test_hidden_files_and_what_file_managers_leave_are_no_news(root):
    fill(root, {"cat": 5, "dog": 5, ".git": 1, "__MACOSX": 1})
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "cat" / name).write_bytes(b"x")
        (root / name).write_bytes(b"x")
    store = prepare(root)
    assert store.info.unreadable == ()
    assert store.info.class_names == ("cat", "dog")


def test_links_that_loop_end_and_are_listed(root):
    fill(root, {"cat": 5, "dog": 5})
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat")
    (root / "dog" / "itself").symlink_to(root / "dog" / "itself")
    store = prepare(root)
    assert sum(store.info.split_sizes.values()) == 10
    assert {item.path for item in store.info.unreadable} == {"cat/up", "cat/self", "dog/itself"}


def test_links_to_folders_elsewhere_are_followed(root, tmp_path):
    fill(tmp_path / "elsewhere", {"cat": 5})
    fill(root, {"dog": 5})
    (root / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    assert prepare(root).info.class_names == ("cat", "dog")


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "rewritten", "touched"])
def test_a_changed_folder_is_prepared_anew(root, change):
    fill(root, {"cat": 6, "dog": 6})
    before = prepare(root).folder
    file = root / "cat" / "003.png"
    if change == "added":
        picture(root / "cat" / "new.png")
    elif change == "removed":
        file.unlink()
    elif change == "renamed":
        file.rename(root / "cat" / "zzz.png")
    elif change == "rewritten":
        picture(file)
    else:
        os.utime(file, ns=(1, 1))
    assert sources.describe(f"folder:{root}", store_resolution=16).state == "on_disk"
    assert prepare(root).folder != before


def test_an_unchanged_folder_is_opened_not_decoded_again(root, monkeypatch):
    fill(root, {"cat": 6, "dog": 6})
    before = prepare(root).folder
    monkeypatch.setattr(folder_source, "decode_image", lambda path: pytest.fail("decoded"))
    assert prepare(root).folder == before
    assert sources.describe(f"folder:{root}", store_resolution=16).state == "prepared"


def test_another_resolution_is_another_store(root):
    fill(root, {"cat": 6, "dog": 6})
    assert prepare(root, 24)["train"].images_NHWC.shape[1:] == (24, 24, 3)
    assert prepare(root, 16).folder != prepare(root, 24).folder


def test_describe_counts_files_and_reads_none(root, monkeypatch):
    fill(root, {"cat": 6, "dog": 6})
    monkeypatch.setattr(folder_source, "decode_image", lambda path: pytest.fail("decoded"))
    status = sources.describe(f"folder:{root}")
    assert (status.state, status.title) == ("on_disk", "pets")
    assert "12 files in 2 classes" in status.message


def test_names_in_any_script_and_of_no_encoding_work(root):
    fill(root, {"Vögel": 5, "猫": 5})
    os.rename(os.fsencode(root / "猫" / "000.png"), os.fsencode(root / "猫") + b"/\xff\xfe.png")  # noqa: PTH104  bytes
    (root / "猫" / os.fsdecode(b"\xff.txt")).write_text("no picture")
    store = prepare(root)
    assert store.info.class_names == ("Vögel", "猫")
    assert [item.path for item in store.info.unreadable] == ["猫/\ufffd.txt"]


def test_a_folder_of_no_pictures_is_invalid(root):
    root.mkdir()
    expect_invalid(root, "has no class folders")
    picture(root / "1.png")
    expect_invalid(root, "has no class folders")


def test_one_class_is_too_few(root):
    fill(root, {"cat": 5})
    expect_invalid(root, "has only one class folder (cat)")


def test_a_class_without_files_is_named(root):
    fill(root, {"cat": 5, "dog": 5})
    (root / "emu").mkdir()
    expect_invalid(root, "no files for the class 'emu'")


def test_a_class_without_readable_pictures_is_named_with_the_first_reason(root, tmp_path):
    fill(root, {"cat": 5, "dog": 5})
    (root / "emu").mkdir()
    for number in range(3):
        (root / "emu" / f"{number}.jpg").write_text("no picture")
    with pytest.raises(
        SourceInvalid, match=r"class 'emu' of pets has no readable training picture.*First: emu/\d.jpg: This is not a picture"
    ):
        prepare(root)
    assert not [path for path in (tmp_path / "cache" / "stores").iterdir() if not path.name.endswith(".lock")]


def test_classes_of_test_that_train_has_not_are_named(root):
    fill(root / "train", {"cat": 2, "dog": 2})
    fill(root / "test", {"cat": 2, "emu": 2, "fox": 1})
    expect_invalid(root, "test/ has classes that train/ has not: emu, fox")


def test_classes_that_only_test_lacks_are_noted(root):
    fill(root / "train", {"cat": 2, "dog": 2})
    fill(root / "test", {"cat": 2})
    assert prepare(root).info.notes == ("Classes without test images: dog.",)


def test_test_without_train_is_invalid(root):
    fill(root / "test", {"cat": 2, "dog": 2})
    expect_invalid(root, "has test/, but no train/")


def test_two_folders_for_one_split_are_invalid(root):
    for split in ("train", "val", "dev"):
        fill(root / split, {"cat": 2, "dog": 2})
    expect_invalid(root, "which mean the same")


def test_a_test_folder_of_unreadable_files_is_invalid(root):
    fill(root / "train", {"cat": 2, "dog": 2})
    (root / "test" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "1.png").write_text("x")
    with pytest.raises(SourceInvalid, match=r"Not one test picture of pets can be read\. First: test/cat/1.png"):
        prepare(root)


def test_one_picture_per_class_leaves_none_to_test_with(root):
    fill(root, {"cat": 1, "dog": 1})
    with pytest.raises(SourceInvalid, match="one picture per class"):
        prepare(root)


def test_a_path_may_be_relative_or_start_at_home(root, monkeypatch):
    fill(root, {"cat": 5, "dog": 5})
    absolute = prepare(root)
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    assert sources.prepare("folder:pets", store_resolution=16).folder == absolute.folder
    assert sources.prepare("folder:~/pets", store_resolution=16).folder == absolute.folder


def test_the_signature_does_not_depend_on_the_order_of_the_directory(root, monkeypatch):
    fill(root, {"cat": 5, "dog": 5})
    before = read_layout(root).signature
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: reversed(list(real(path))))
    assert read_layout(root).signature == before


def test_memory_stays_flat_however_many_pictures_there_are(root):
    # 400 pictures of 192 px take 44 MB as squares; chunks are made to hold 16 of them.
    big = root / "cat" / "000.png"
    picture(big, size=(192, 192))
    for name in ("cat", "dog"):
        (root / name).mkdir(exist_ok=True)
        for number in range(200):
            path = root / name / f"{number:03}.png"
            if not path.exists():
                os.link(big, path)
    program = (
        "import resource, sys\n"
        "from cifar_tl.data import sources\n"
        "from cifar_tl.data.folder import source\n"
        "source._MAX_CHUNK = 16\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "seen = []\n"
        "sources.prepare(sys.argv[1], store_resolution=192, progress=lambda p: seen.append(peak()))\n"
        "print((seen[-1] - seen[1]) // 1024)\n"
    )
    repository = Path(__file__).resolve().parents[2]
    said = subprocess.run(
        [sys.executable, "-c", program, f"folder:{root}"], cwd=repository, capture_output=True, text=True, check=True, env=os.environ.copy()
    )
    assert int(said.stdout) < 15  # MiB
