"""What a run's .zip file may hold at most: every file has a bound, unpacked, and arrays that are packed once more have it too."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.errors import RunInvalid
from cifar_tl.paths import RunFolder
from cifar_tl.runs import pack, store
from tests.made_runs import make_run

CONFIG = b'{"version": 1}'


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    return tmp_path


def archive(files: dict[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in ({"r/config.json": CONFIG} | files).items():
            target.writestr(name, data)
    return file


@pytest.mark.parametrize("name", ["config.json", "run.json", "annotations.json"])
def test_a_file_that_every_look_at_the_list_reads_whole_is_small(root, name):
    with pytest.raises(RunInvalid, match="larger than any run's"):
        pack.unpack_run(archive({f"r/{name}": bytes(pack._MOST_BYTES_OF_SETTINGS + 1)}))
    assert list(root.iterdir()) == []


def test_a_log_is_bounded(root, monkeypatch):
    monkeypatch.setattr(pack, "_MOST_BYTES_OF_ONE", 1000)
    with pytest.raises(RunInvalid, match=r"events\.jsonl.*larger than any run's"):
        pack.unpack_run(archive({"r/events.jsonl": bytes(1001)}))


def test_arrays_that_are_packed_once_more_are_bounded_as_they_unpack(root, monkeypatch):
    monkeypatch.setattr(pack, "_MOST_BYTES_OF_ONE", 100_000)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, labels_N=np.zeros(1_000_000, np.int8))
    assert len(arrays.getvalue()) < 10_000
    with pytest.raises(RunInvalid, match=r"test\.npz.*larger than any run's"):
        pack.unpack_run(archive({"r/evaluation/test.npz": arrays.getvalue()}))
    assert list(root.iterdir()) == []


def test_a_damaged_evaluation_does_not_keep_the_rest_of_a_run_out(root):
    assert pack.unpack_run(archive({"r/evaluation/test.npz": b"damaged"})) == "r"
    assert store.find_run("r").evaluation_of("test").read_bytes() == b"damaged"


def test_a_packed_run_brings_all_that_explore_shows(root):
    folder = make_run(root, run_id="r")
    shown = [folder.dev_answers_of(1), folder.dev_answers_of(1000), folder.embeddings, folder.embedding_map, folder.evaluation_of("train")]
    for path in shown:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, any=np.arange(3))
    file = io.BytesIO()
    pack.pack_run("r", file)
    copy = RunFolder(root / pack.unpack_run(file))
    assert copy.run_id == "r-2"
    for path in shown:
        assert (copy.path / path.relative_to(folder.path)).read_bytes() == path.read_bytes()
