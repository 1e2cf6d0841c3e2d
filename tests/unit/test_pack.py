"""A run as a .zip file and back; and what is no such file is refused before anything of it is kept."""

import io
import zipfile
from pathlib import Path

import pytest

from cifar_tl.errors import RunActive, RunInvalid, RunNotFound
from cifar_tl.runs import pack, store, trash
from cifar_tl.runs.summary import summarize
from tests.made_runs import hold_lock, make_run

CONFIG = b'{"version": 1}'


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def packed(run_id: str) -> io.BytesIO:
    file = io.BytesIO()
    pack.pack_run(run_id, file)
    return file


def archive(files: dict[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, data in files.items():
            target.writestr(name, data)
    return file


def test_a_run_goes_into_a_file_and_comes_out_as_it_was(root):
    folder = make_run(root, run_id="r", name="Mine")
    folder.best_weights.write_bytes(b"weights")
    (folder.path / "private notes.txt").write_text("not part of a run")
    before, events = summarize("r"), folder.events.read_bytes()
    file = packed("r")
    trash.delete_run("r")
    assert pack.unpack_run(file) == "r"
    after = summarize("r")
    assert (after.name, after.test_accuracy, after.dev_curve) == (before.name, before.test_accuracy, before.dev_curve)
    assert folder.events.read_bytes() == events
    assert folder.best_weights.read_bytes() == b"weights"
    assert folder.evaluation_of("test").is_file()
    assert not (folder.path / "private notes.txt").exists()


def test_a_run_that_is_there_already_keeps_its_name(root):
    make_run(root, run_id="r")
    assert pack.unpack_run(packed("r")) == "r-2"
    assert sorted(store.run_ids()) == ["r", "r-2"]
    manifest = store.read_manifest(store.find_run("r-2"))
    assert manifest
    assert manifest.run_id == "r-2"


def test_only_runs_that_have_ended_are_packed(root):
    folder = make_run(root, run_id="r", status="running")
    with hold_lock(folder), pytest.raises(RunActive):
        packed("r")
    with pytest.raises(RunNotFound):
        packed("../r")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "one folder"),
        ({"config.json": CONFIG}, "none of a run's files"),
        ({"r/config.json": CONFIG, "other/config.json": CONFIG}, "one folder"),
        ({"../r/config.json": CONFIG}, "one folder"),
        ({"/r/config.json": CONFIG}, "one folder"),
        ({"r/config.json": CONFIG, "r/../../x": b""}, "none of a run's files"),
        ({"r/config.json": CONFIG, "r/evaluation/../../../x.npz": b""}, "none of a run's files"),
        ({"r/config.json": CONFIG, "r/code.pkl": b""}, "none of a run's files"),
        ({"r/config.json": CONFIG, "r/worker.lock": b""}, "none of a run's files"),
        ({"r/events.jsonl": b""}, "lacks the run's settings"),
        ({"r/config.json": b"{"}, "cannot be read"),
        ({"r/config.json": CONFIG, "r/run.json": b'{"version": 99}'}, "newer version"),
        ({".hidden/config.json": CONFIG}, "one folder"),
        ({"x" * 200 + "/config.json": CONFIG}, "one folder"),
    ],
)
def test_what_is_not_a_run_is_refused_and_leaves_nothing(root, files, words):
    with pytest.raises(RunInvalid, match=words):
        pack.unpack_run(archive(files))
    assert list(root.iterdir()) == []
    assert [path.name for path in root.parent.iterdir()] == ["runs"]


def test_a_file_that_is_no_zip_is_refused(root):
    with pytest.raises(RunInvalid, match=r"no \.zip file"):
        pack.unpack_run(io.BytesIO(b"PK\x03\x04 not really"))


def test_a_link_is_refused(root):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        target.writestr("r/config.json", CONFIG)
        link = zipfile.ZipInfo("r/events.jsonl")
        link.external_attr = 0o120777 << 16
        target.writestr(link, "/etc/passwd")
    with pytest.raises(RunInvalid, match="link"):
        pack.unpack_run(file)


def test_an_archive_that_would_fill_the_disk_is_refused(root, monkeypatch):
    make_run(root, run_id="r")
    monkeypatch.setattr(pack, "MOST_BYTES", 1000)
    with pytest.raises(RunInvalid, match="unpacked"):
        pack.unpack_run(packed("r"))


def test_a_file_twice_is_refused(root):
    file = archive({"r/config.json": CONFIG})
    with zipfile.ZipFile(file, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr("r/config.json", CONFIG)
    with pytest.raises(RunInvalid, match="twice"):
        pack.unpack_run(file)


def test_a_damaged_member_is_refused_and_leaves_nothing(root):
    make_run(root, run_id="r")
    data = bytearray(packed("r").getvalue())
    trash.delete_run("r")
    trash.empty_trash()
    data[len(data) // 2] ^= 255
    with pytest.raises(RunInvalid):
        pack.unpack_run(io.BytesIO(bytes(data)))
    assert store.run_ids() == []
    assert list(root.iterdir()) == []
