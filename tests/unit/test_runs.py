"""Run folders: status from log and lock, names, deletion, and a worker process that is really started."""

import json
import os

import pytest

from cifar_tl.config import make_config
from cifar_tl.errors import RunActive, RunInvalid, RunNotFound, SettingsError
from cifar_tl.runs import launcher, store, trash
from cifar_tl.runs.annotations import Annotations, annotate
from cifar_tl.runs.store import RunStatus
from cifar_tl.runs.summary import summarize
from tests.made_runs import hold_lock, make_run


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("status", ["completed", "stopped", "failed", "lost"])
def test_status_is_what_the_log_ends_with(root, status):
    folder = make_run(root, run_id="r", status=status)
    assert summarize("r").status == RunStatus(status)
    assert store.RunFollower(folder).update() == RunStatus(status)


def test_a_run_whose_lock_is_held_is_running_and_is_lost_when_it_is_let_go(root):
    folder = make_run(root, run_id="r", status="running")
    follower = store.RunFollower(folder)
    with hold_lock(folder):
        assert follower.update() is RunStatus.RUNNING
        assert store.is_alive(folder)
    assert follower.update() is RunStatus.LOST


def test_two_probes_at_once_do_not_take_each_other_for_a_worker(root):
    folder = make_run(root, run_id="r", status="completed")
    folder.lock.touch()
    import fcntl

    with folder.lock.open("rb") as other_probe:
        fcntl.flock(other_probe, fcntl.LOCK_SH)
        assert not store.is_alive(folder)


@pytest.mark.parametrize("run_id", ["", "..", "../x", "a/b", ".hidden", "x" * 300, "nothing-here"])
def test_ids_that_are_no_run_are_refused(root, run_id):
    with pytest.raises(RunNotFound):
        store.find_run(run_id)


def test_runs_are_listed_newest_first(root):
    for age, run_id in enumerate(["a", "b", "c"]):
        folder = make_run(root, run_id=run_id)
        os.utime(folder.config, (1000 - age, 1000 - age))
    (root / "no-run").mkdir()
    assert store.run_ids() == ["a", "b", "c"]


def test_a_copied_run_keeps_its_place_in_the_list(root):
    for run_id in ("20250101-120000-x", "20260101-120000-x"):
        make_run(root, run_id=run_id)
    os.utime(store.find_run("20250101-120000-x").config)
    assert store.run_ids() == ["20260101-120000-x", "20250101-120000-x"]


def test_a_name_is_kept_tidied_and_bounded(root):
    make_run(root, run_id="r")
    annotate("r", name="  Mein \n Lauf 猫 ")
    assert summarize("r").label == "Mein Lauf 猫"
    with pytest.raises(SettingsError, match="at most 100"):
        annotate("r", name="x" * 101)


def test_a_running_run_is_not_deleted_and_an_ended_one_is(root):
    folder = make_run(root, run_id="r", status="running")
    with hold_lock(folder), pytest.raises(RunActive):
        trash.delete_run("r")
    assert folder.path.exists()
    trash.delete_run("r")
    assert store.run_ids() == []


def test_a_deleted_run_comes_back_as_it_was(root):
    folder = make_run(root, run_id="r", name="Mine")
    before = folder.events.read_bytes()
    trash.delete_run("r")
    assert (store.run_ids(), trash.deleted_runs()) == ([], ["r"])
    with pytest.raises(RunNotFound):
        store.find_run("r")
    trash.restore_run("r")
    assert (store.run_ids(), trash.deleted_runs()) == (["r"], [])
    assert folder.events.read_bytes() == before


def test_a_run_is_not_restored_over_another_and_only_out_of_the_trash(root):
    make_run(root, run_id="r")
    trash.delete_run("r")
    make_run(root, run_id="r")
    with pytest.raises(RunInvalid, match="already"):
        trash.restore_run("r")
    for run_id in ("x", "../r", ""):
        with pytest.raises(RunNotFound):
            trash.restore_run(run_id)
    assert trash.empty_trash() == 1
    assert trash.deleted_runs() == []
    assert store.run_ids() == ["r"]


def test_annotations_are_kept_tidied_and_bounded(root):
    make_run(root, run_id="r")
    annotate("r", name="A")
    kept = annotate("r", tags=(" a  b ", "a b", "", "c"), note=" why \n", is_starred=True)
    assert kept == Annotations("A", ("a b", "c"), "why", is_starred=True)
    assert summarize("r").annotations == kept
    for changes, words in (
        ({"tags": ["x" * 31]}, "at most 30"),
        ({"tags": list("abcdefghijklmnopqrstuvw")}, "at most 20"),
        ({"note": "x" * 5001}, "at most 5,000"),
    ):
        with pytest.raises(SettingsError, match=words):
            annotate("r", **changes)
    assert summarize("r").annotations == kept


@pytest.mark.parametrize("text", ["", "[]", '{"tags": 3}', "null"])
def test_annotations_that_cannot_be_read_are_empty(root, text):
    folder = make_run(root, run_id="r")
    folder.annotations.write_text(text)
    assert summarize("r").annotations == Annotations()


@pytest.mark.parametrize("status", ["completed", "stopped", "failed", "lost", "queued"])
def test_a_row_made_of_few_events_is_that_made_of_all(root, status):
    folder = make_run(root, run_id="r", status=status)
    whole = store.RunFollower(folder)
    assert summarize("r") == summarize("r", whole)
    assert whole.history.steps or status in ("failed", "queued")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1, "epochs": -3}'])
def test_a_run_with_unreadable_settings_is_a_row_with_its_problem(root, text):
    folder = make_run(root, run_id="r")
    folder.config.write_text(text)
    with pytest.raises(RunInvalid):
        store.read_config(folder)
    assert "cannot be read" in summarize("r").problem


def test_a_manifest_survives_the_round_trip(root):
    folder = make_run(root, run_id="r")
    manifest = store.read_manifest(folder)
    assert manifest is not None
    store.write_manifest(folder, manifest)
    assert store.read_manifest(folder) == manifest


def test_a_manifest_of_a_newer_version_is_refused_in_words(root):
    folder = make_run(root, run_id="r")
    folder.manifest.write_text(json.dumps({"version": 99}))
    with pytest.raises(RunInvalid, match="newer version"):
        store.read_manifest(folder)


def test_two_runs_made_in_one_second_get_two_folders(root):
    folders = {launcher.create_run(make_config()).path for _ in range(3)}
    assert len(folders) == 3


def test_a_folder_source_makes_a_plain_run_id(root):
    folder = launcher.create_run(make_config(source="folder:/some/where/My Cats & Dogs/"))
    assert store.find_run(folder.run_id).path.parent == root
    assert "My-Cats-Dogs" in folder.run_id


def test_a_root_that_cannot_be_written_is_a_clear_error(tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.touch()
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(blocker / "inside"))
    with pytest.raises(launcher.RunError, match="cannot be made"):
        launcher.create_run(make_config())


def test_a_started_worker_holds_the_lock_from_the_first_moment_until_its_end(root):
    folder = launcher.create_run(make_config(source="folder:/nowhere/at/all", device="cpu"))
    worker = launcher.start_worker(folder)
    assert store.is_alive(folder)
    with pytest.raises(RunActive):
        launcher.start_worker(folder)
    assert worker.wait(timeout=120) == 1
    assert not store.is_alive(folder)
    summary = summarize(folder.run_id)
    assert summary.status is RunStatus.FAILED
    assert "/nowhere/at/all" in summary.message


def test_a_worker_killed_before_its_first_word_leaves_a_failed_run(root):
    folder = launcher.create_run(make_config(source="shapes", device="cpu"))
    worker = launcher.start_worker(folder)
    worker.kill()
    worker.wait(timeout=60)
    assert summarize(folder.run_id).status is RunStatus.FAILED


def test_stop_of_a_run_that_is_not_running_says_so(root):
    make_run(root, run_id="r")
    assert launcher.request_stop("r") is False


@pytest.fixture
def no_worker(monkeypatch):
    """Nothing is started: what the launcher writes before is looked at."""
    started = []
    monkeypatch.setattr(launcher, "_spawn", lambda folder, _lock: started.append(folder.run_id))
    return started


def with_checkpoint(root, **values):
    folder = make_run(root, run_id="r", **values)
    folder.last_checkpoint.write_bytes(b"anything")
    return folder


@pytest.mark.parametrize("status", ["stopped", "failed", "lost"])
def test_a_run_that_has_ended_goes_on_and_counts_as_running_until_it_ends_again(root, no_worker, status):
    folder = with_checkpoint(root, status=status)
    launcher.resume_run("r")
    assert no_worker == ["r"]
    follower = store.RunFollower(folder)
    with hold_lock(folder):
        assert follower.update() is RunStatus.RUNNING
    assert follower.history.terminal is None


def test_a_completed_run_goes_on_only_for_more_epochs(root, no_worker):
    folder = with_checkpoint(root, status="completed", epochs=3)
    for epochs in (None, 2, 3):
        with pytest.raises(RunInvalid, match="completed after 3 epochs"):
            launcher.resume_run("r", epochs=epochs)
    launcher.resume_run("r", epochs=7)
    assert store.read_config(folder).epochs == 7
    assert no_worker == ["r"]


def test_a_run_is_not_resumed_with_settings_that_do_not_fit(root, no_worker):
    folder = with_checkpoint(root, status="stopped", epochs=9)
    with pytest.raises(SettingsError, match="finished 8 epochs already"):
        launcher.resume_run("r", epochs=1)
    with pytest.raises(SettingsError, match="Learning rate"):
        launcher.resume_run("r", learning_rate=-1)
    assert no_worker == []
    assert store.RunFollower(folder).update() is RunStatus.STOPPED


def test_a_run_without_its_checkpoints_is_not_resumed(root, no_worker):
    make_run(root, run_id="r", status="completed")
    with pytest.raises(RunInvalid, match="checkpoints are not in its folder"):
        launcher.resume_run("r", epochs=9)
    assert no_worker == []


def test_a_running_run_is_not_resumed(root, no_worker):
    folder = with_checkpoint(root, status="running")
    before = folder.events.read_bytes()
    with hold_lock(folder), pytest.raises(RunActive):
        launcher.resume_run("r")
    assert folder.events.read_bytes() == before
    assert no_worker == []


def test_a_worker_that_ended_before_its_first_word_has_failed(root):
    folder = make_run(root, run_id="r", status="empty")
    folder.worker_log.write_text("ImportError: no torch here\n")
    assert summarize("r").status is RunStatus.FAILED
    assert "before it could say anything" in summarize("r").message


def test_two_dashboards_that_resume_one_run_start_one_worker(root, monkeypatch):
    folder = with_checkpoint(root, status="stopped")
    held = []
    # What a worker does with the lock it is handed.
    monkeypatch.setattr(launcher, "_spawn", lambda _folder, lock: held.append(os.dup(lock)))
    launcher.resume_run("r")
    events = folder.events.read_bytes()
    with pytest.raises(RunActive):
        launcher.resume_run("r")
    assert folder.events.read_bytes() == events
    assert len(held) == 1
    os.close(held[0])
