"""Checkpoints: the newest whole one is read, a damaged one is told, and what cannot be written leaves what was there."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cifar_tl.errors import RunInvalid
from cifar_tl.paths import RunFolder
from cifar_tl.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from tests.small_disk import mounted_disk


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def state(step: int) -> dict[str, object]:
    return {"progress": {"step": step}, "weights": {"w": torch.full((1000,), float(step))}}


def step_of(folder: RunFolder) -> int:
    loaded, _ = load_checkpoint(folder)
    assert loaded
    return loaded["progress"]["step"]


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # among the numbers of the tensor
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_without_a_checkpoint_there_is_none_and_nothing_to_tell(folder):
    assert load_checkpoint(folder) == (None, "")


def test_the_newest_is_read_and_the_one_before_is_kept(folder):
    for step in (1, 2, 3):
        save_checkpoint(folder, state(step))
    assert step_of(folder) == 3
    folder.last_checkpoint.unlink()
    assert step_of(folder) == 2
    assert sorted(path.name for path in folder.path.iterdir()) == ["previous.pt"]


@pytest.mark.parametrize("damage", [flip_a_byte, cut, empty])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(folder, damage):
    for step in (1, 2):
        save_checkpoint(folder, state(step))
    damage(folder.last_checkpoint)
    loaded, problem = load_checkpoint(folder)
    assert loaded
    assert loaded["progress"]["step"] == 1
    assert problem.startswith("The checkpoint last.pt is damaged")


def test_two_damaged_checkpoints_are_refused_by_name(folder):
    for step in (1, 2):
        save_checkpoint(folder, state(step))
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        flip_a_byte(path)
    with pytest.raises(RunInvalid, match=r"last\.pt is damaged.*previous\.pt is damaged"):
        load_checkpoint(folder)


def test_a_checkpoint_with_code_in_it_is_not_loaded(folder):
    torch.save({"progress": subprocess.Popen}, folder.last_checkpoint)
    with pytest.raises(RunInvalid, match=r"last\.pt is damaged"):
        load_checkpoint(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "small", "1m") as path:
        yield path


def test_a_full_disk_is_an_error_of_the_disk_and_leaves_the_checkpoint_before(small_disk):
    folder = RunFolder(small_disk)
    save_checkpoint(folder, state(1))
    large = {"progress": {"step": 2}, "weights": {"w": torch.zeros(2**20)}}
    with pytest.raises(OSError, match="No space left on device") as raised:
        save_checkpoint(folder, large)
    assert raised.value.errno == errno.ENOSPC
    assert step_of(folder) == 1
    assert sorted(path.name for path in small_disk.iterdir()) == ["last.pt"]


def test_a_full_disk_leaves_the_best_weights_before(small_disk):
    path = small_disk / "best.safetensors"
    save_weights(path, torch.nn.Linear(10, 10))
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left on device"):
        save_weights(path, torch.nn.Linear(1000, 1000))
    assert path.read_bytes() == before
