"""prepare, describe, find_store: names, the cache of prepared stores, two at once, damage, full disks. And shapes as a source."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.data import shapes, sources
from cifar_tl.data import store as store_module
from cifar_tl.data.progress import Progress
from cifar_tl.data.store import ImageStore
from cifar_tl.errors import DataError, SourceInvalid
from cifar_tl.paths import stores_root

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shapes, "SPLIT_SIZES", {"train": 260, "test": 20})  # few, for speed


def test_shapes_become_a_store_with_superclasses():
    store = sources.prepare("shapes")
    assert (store.info.source, store.info.title, store.info.resolution) == ("shapes", "Shapes", 32)
    assert store.info.split_sizes == {"train": 260, "test": 20}
    assert (store.info.num_classes, len(store.info.superclass_names)) == (20, 5)
    np.testing.assert_array_equal(store["test"].images_NHWC, next(shapes.draw("test"))[0])


def test_the_seed_of_a_run_does_not_change_the_shapes():
    assert sources.prepare("shapes", seed=1).folder == sources.prepare("shapes", seed=2).folder


def test_a_prepared_store_is_opened_not_made_again(monkeypatch):
    first = sources.prepare("shapes")
    monkeypatch.setattr(shapes.ShapesSource, "write", lambda *_: pytest.fail("made again"))
    told = []
    assert sources.prepare("shapes", progress=told.append).info == first.info
    assert told == []


def test_progress_counts_every_image_of_both_splits():
    told: list[Progress] = []
    sources.prepare("shapes", progress=told.append)
    assert [(p.phase, p.done, p.total, p.unit) for p in told] == [
        ("Drawing train images", 250, 260, "images"),
        ("Drawing train images", 260, 260, "images"),
        ("Drawing test images", 20, 20, "images"),
    ]


def test_describe_tells_what_is_prepared():
    assert sources.describe("shapes").state == "on_disk"
    store = sources.prepare("shapes")
    status = sources.describe("shapes")
    assert (status.state, status.store_folder, status.info) == ("prepared", store.folder, store.info)
    assert "260 train, 20 test" in status.message


def test_find_store_knows_prepared_stores_only():
    assert sources.find_store("shapes", 160, 0) is None
    assert sources.find_store("nonsense", 160, 0) is None
    store = sources.prepare("shapes")
    assert sources.find_store("shapes", 160, 0) == store.folder


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar1000", "There is no data set 'cifar1000'. Choose cifar100, cifar10, shapes or folder:PATH"),
        ("", "There is no data set ''"),
        ("folder:", "needs the path"),
        ("folder:/there/is/none", "There is no folder /there/is/none"),
        (f"folder:{__file__}", "is not a folder"),
        ("folder:/a\0b", "There is no folder"),
        ("folder:/" + "x" * 5000, "cannot be read"),
        ("folder:~nobody-of-this-name/x", "cannot be read"),
    ],
)
def test_a_wrong_source_is_described_and_refused_alike(source, message):
    status = sources.describe(source)
    assert (status.state, status.store_folder) == ("invalid", None)
    assert message in status.message
    with pytest.raises(SourceInvalid) as error:
        sources.prepare(source)
    assert message in str(error.value)


def test_every_known_source_can_be_described():
    for known in sources.KNOWN_SOURCES:
        status = sources.describe(known.source)
        assert (status.title, status.state) == (known.title, "on_disk" if known.source == "shapes" else "download")


@pytest.mark.parametrize("damaged", ["train.images.npy", "store.json"])
def test_a_damaged_store_is_made_again(damaged):
    store = sources.prepare("shapes")
    fingerprint = store.info.fingerprint
    (store.folder / damaged).write_bytes(b"{")
    if damaged == "store.json":
        assert sources.describe("shapes").state == "on_disk"
    assert sources.prepare("shapes").info.fingerprint == fingerprint
    assert len(ImageStore(store.folder)["train"].images_NHWC) == 260


def test_what_a_killed_process_left_is_removed_and_in_nobodys_way():
    left = stores_root() / ".shapes-v1.0123456789abcdef.part"
    left.mkdir(parents=True)
    (left / "train.images.npy").write_bytes(b"half")
    sources.prepare("shapes")
    assert not left.exists()


def test_of_two_threads_one_prepares_and_the_other_waits(monkeypatch):
    started, go_on, made = threading.Event(), threading.Event(), []
    write = shapes.ShapesSource.write

    def slow_write(self, writer, tell):
        made.append(1)
        started.set()
        assert go_on.wait(30)
        return write(self, writer, tell)

    monkeypatch.setattr(shapes.ShapesSource, "write", slow_write)
    stores, told = {}, []

    def wait_and_tell(progress):
        told.append(progress.phase)
        go_on.set()  # told that it waits: now the first may end

    first = threading.Thread(target=lambda: stores.update(first=sources.prepare("shapes")))
    first.start()
    assert started.wait(30)
    second = threading.Thread(target=lambda: stores.update(second=sources.prepare("shapes", progress=wait_and_tell)))
    second.start()
    first.join(30)
    second.join(30)
    assert stores["first"].folder == stores["second"].folder
    assert made == [1]
    assert told == ["Waiting for another process that prepares the same data"]


def test_two_processes_preparing_at_once_both_end_well(tmp_path):
    program = "from cifar_tl.data import sources; print(sources.prepare('shapes').info.fingerprint)"
    both = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, env=os.environ.copy()) for _ in range(2)]
    said = [process.communicate(timeout=120)[0].decode().strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert len(said[0]) == 32
    assert said[0] == said[1]


def test_the_lock_is_free_after_a_failure(monkeypatch):
    monkeypatch.setattr(shapes.ShapesSource, "write", lambda *_: (_ for _ in ()).throw(SourceInvalid("no")))
    with pytest.raises(SourceInvalid):
        sources.prepare("shapes")
    with (stores_root() / ".shapes-v1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_full_disk_says_what_to_do_and_leaves_nothing(monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store_module, "_to_disk", full)
    with pytest.raises(DataError, match=r"Shapes cannot be prepared in .*No space left on device.*Free some space.*CIFAR_TL_CACHE"):
        sources.prepare("shapes")
    assert [path.name for path in stores_root().iterdir()] == [".shapes-v1.lock"]


def test_a_cache_that_cannot_be_made_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"Not a directory.*who may write there"):
        sources.prepare("shapes")


def test_the_info_file_is_readable_json_with_every_field():
    store = sources.prepare("shapes")
    raw = json.loads((store.folder / "store.json").read_text("utf-8"))
    assert raw["class_names"] == list(shapes.CLASS_NAMES)
    assert raw["split_sizes"] == {"train": 260, "test": 20}


def test_importing_sources_loads_neither_torch_nor_pyarrow_nor_streamlit():
    program = "import sys, cifar_tl.data.sources; print([m for m in ('torch', 'torchvision', 'pyarrow', 'streamlit') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
