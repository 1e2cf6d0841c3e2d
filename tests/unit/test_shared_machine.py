"""Several people at one machine: their locks are open to all who share a folder, and what one does or has closed is in nobody's way."""

import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from cifar_tl.config import make_config
from cifar_tl.errors import RunActive
from cifar_tl.paths import RunFolder, device_locks_root
from cifar_tl.runs import hold, launcher
from cifar_tl.runs.events import Phase
from cifar_tl.runs.log import EventWriter
from cifar_tl.runs.queue import devices_for
from cifar_tl.runs.store import find_run, is_alive, run_ids
from cifar_tl.runs.summary import summarize
from tests.made_runs import hold_lock, make_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def group_umask() -> Iterator[None]:
    """As people who share a folder through their group set it."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def group_may_write(path: Path) -> bool:
    return bool(path.stat().st_mode & stat.S_IWGRP)


@pytest.mark.usefixtures("group_umask")
def test_locks_of_devices_and_places_in_the_queue_are_open_to_the_group(root):
    seen: list[bool] = []

    def look(_ahead: int) -> None:
        seen.extend(group_may_write(path) for path in (device_locks_root() / "waiting").iterdir())

    first, second = (make_run(root, run_id=run_id, status="empty") for run_id in "ab")
    with devices_for(first, ("cpu",), tell=look, should_stop=lambda: False) as devices:
        assert devices == ("cpu",)
        with devices_for(second, ("cpu",), tell=look, should_stop=lambda: bool(seen)) as none:
            assert none == ()
    assert seen == [True]
    assert group_may_write(device_locks_root())
    assert group_may_write(device_locks_root() / "cpu.lock")


@pytest.mark.usefixtures("group_umask")
def test_a_run_can_be_stopped_and_resumed_by_others_of_the_group(root, monkeypatch):
    monkeypatch.setattr(launcher, "_spawn", lambda folder, lock: None)
    folder = find_run(launcher.start_run(make_config(source="shapes")))
    launcher.resume_run(folder.run_id)
    for path in (folder.path, folder.config, folder.events, folder.lock):
        assert group_may_write(path)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Paths that the system closes: whoever is root may open everything, so it cannot be closed by its mode."""
    paths: set[Path] = set()
    is_file, opened = Path.is_file, Path.open

    def refuse(path: Path) -> None:
        if path in paths:
            raise PermissionError(13, "Permission denied", str(path))

    def looked_at(path: Path) -> bool:
        refuse(path)
        return is_file(path)

    def asked_for(path: Path, *arguments, **named):
        refuse(path)
        return opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "is_file", looked_at)
    monkeypatch.setattr(Path, "open", asked_for)
    return paths


def test_a_run_folder_that_another_user_has_closed_is_not_listed_and_not_in_the_way(root, closed):
    for run_id in ("mine", "theirs"):
        make_run(root, run_id=run_id)
    closed.add(RunFolder(root / "theirs").config)
    assert run_ids() == ["mine"]


def test_a_lock_that_may_not_be_read_is_taken_for_none(root, closed):
    folder = make_run(root, run_id="r", status="running")
    with hold_lock(folder):
        assert is_alive(folder)
        closed.add(folder.lock)
        assert not is_alive(folder)


def test_a_file_that_vanishes_while_a_row_is_made_counts_for_nothing(root, monkeypatch):
    folder = make_run(root, run_id="r")
    whole = summarize("r").size_bytes
    (folder.path / ".last.pt.writing").write_bytes(bytes(1000))
    scan = os.scandir

    def scan_and_finish(path):
        with scan(path) as entries:
            listed = list(entries)
        (folder.path / ".last.pt.writing").unlink(missing_ok=True)
        return nullcontext(listed)

    monkeypatch.setattr(os, "scandir", scan_and_finish)
    assert summarize("r").size_bytes == whole


def test_of_two_who_resume_a_run_at_once_the_second_neither_waits_nor_stops_the_first(root, monkeypatch):
    folder = make_run(root, run_id="r", status="stopped")
    folder.last_checkpoint.touch()

    def the_first_goes_on(_seconds: float) -> None:
        assert not resumed, "the second still waits"
        resumed.append(True)
        with EventWriter(folder.events) as log:
            log.write(Phase(name="resuming", text="Going on from the last checkpoint"))

    resumed: list[bool] = []
    monkeypatch.setattr(hold.time, "sleep", the_first_goes_on)
    with hold_lock(folder), pytest.raises(RunActive, match="still running"):
        launcher.resume_run("r")
    assert resumed
    assert not folder.stop_request.exists()
