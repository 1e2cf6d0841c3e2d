"""Audits and runs on corrected data, in this process, on a small part of shapes: what is kept, what is shared, what a run trains on."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.corrections import Decision, decide, read_corrections, undo
from cifar_tl.data.progress import Progress, tell_nobody
from cifar_tl.data.sources import prepare
from cifar_tl.errors import RunActive, RunInvalid
from cifar_tl.evaluation import audit as audit_module
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.audit import audit_data
from cifar_tl.evaluation.evaluate import evaluate_run
from cifar_tl.evaluation.suspicion.result import audit_key
from cifar_tl.evaluation.suspicion.state import AuditStatus, audit_state
from cifar_tl.paths import AuditFolder, RunFolder, audit_folder
from cifar_tl.runs.events import Completed, Event, Warned
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.store import read_config, read_manifest, write_json
from cifar_tl.training.loop import train


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """One cache for all of these tests: shapes are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        prepare("shapes")
        yield


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_TL_CORRECTIONS", str(tmp_path / "corrections"))


def settings(**changes: object) -> RunConfig:
    names = prepare("shapes").info.class_names
    values = {
        "source": "shapes",
        "classes": (names[0], names[1], names[2], names[3]),
        "image_size": 32,
        "epochs": 1,
        "batch_size": 64,
        "device": "cpu",
        "precision": "float32",
    }
    return make_config(**values | changes)


def run(tmp_path: Path, name: str = "run", **changes: object) -> tuple[RunFolder, list[Event], Event]:
    folder = RunFolder(tmp_path / name)
    folder.path.mkdir()
    write_json(folder.config, settings(**changes).model_dump(mode="json"))
    events: list[Event] = []
    ending = train(read_config(folder), folder, emit=events.append, should_stop=lambda: False)
    return folder, events, ending


def files_of(folder: RunFolder) -> AuditFolder:
    manifest = read_manifest(folder)
    assert manifest is not None
    return audit_folder(audit_key(read_config(folder), manifest.data_fingerprint))


def fingerprint() -> str:
    return prepare("shapes").info.fingerprint


def test_an_audit_is_made_once_and_shared_by_runs_on_the_same_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, _, _ = run(tmp_path)
    told: list[Progress] = []
    found = audit_data(folder, tell=told.append)
    store = prepare("shapes")
    names = store.info.class_names
    of_classes = [int(np.isin(store[split].labels_N, range(4)).sum()) for split in ("train", "test")]
    assert found.facts.images == (of_classes[0], 0, of_classes[1])
    assert found.facts.num_classes == len(set(names[:4]))
    assert found.facts.train_accuracy > 0.5
    assert audit_state(files_of(folder)).status is AuditStatus.DONE
    assert told
    other, _, _ = run(tmp_path, "other", learning_rate=0.05, flip=False)
    monkeypatch.setattr(audit_module, "examine", None)  # whoever looks again fails
    assert audit_data(other, tell=tell_nobody).facts == found.facts


def test_a_head_only_run_leaves_the_audit_nothing_to_compute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The auto settings of an audit are this run's: its features are in the cache, so the network need not run."""
    folder, _, _ = run(tmp_path, device="auto", precision="auto", image_size=64)
    monkeypatch.setattr("cifar_tl.training.prepare.FrozenPrefix.__call__", None)
    assert audit_data(folder, tell=tell_nobody).facts.images[0] > 0


def test_features_that_cannot_be_cached_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, _, _ = run(tmp_path, cache_limit=0.0, image_size=48)
    uncached = audit_data(folder, tell=tell_nobody)
    write_json(folder.config, settings(image_size=48).model_dump(mode="json"))
    files_of(folder).result.unlink()
    cached = audit_data(folder, tell=tell_nobody)
    assert uncached.facts.images == cached.facts.images
    assert uncached.facts.train_accuracy == pytest.approx(cached.facts.train_accuracy, abs=0.03)


def test_one_process_at_a_time_looks_at_the_same_data(tmp_path: Path):
    folder, _, _ = run(tmp_path, image_size=40)
    files = files_of(folder)
    files.path.mkdir(parents=True)
    with files.lock.open("ab") as lock:
        assert try_lock(lock.fileno())
        with pytest.raises(RunActive, match="Another process"):
            audit_data(folder, tell=tell_nobody)
    assert audit_data(folder, tell=tell_nobody).facts.image_size == 40


def test_a_lock_that_is_handed_over_is_let_go_when_the_audit_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "nice", lambda _: 0)
    folder, _, _ = run(tmp_path)
    files = files_of(folder)
    files.path.mkdir(parents=True, exist_ok=True)
    lock = os.open(files.lock, os.O_RDWR | os.O_CREAT)
    assert try_lock(lock)
    audit_data(folder, tell=tell_nobody, lock_file=lock)
    assert audit_state(files).status is AuditStatus.DONE
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lock)


def test_why_an_audit_failed_is_kept_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, _, _ = run(tmp_path, image_size=36)

    def fail(*arguments: object, **named: object) -> None:
        raise RuntimeError("out of luck\nwith details")

    monkeypatch.setattr(audit_module, "search", fail)
    with pytest.raises(RuntimeError):
        audit_data(folder, tell=tell_nobody)
    state = audit_state(files_of(folder))
    assert state.status is AuditStatus.FAILED
    assert "RuntimeError: out of luck" in state.reason
    assert "details" not in state.reason.split("Details")[0]


def test_data_that_have_changed_are_not_looked_at_as_this_runs(tmp_path: Path):
    folder, _, _ = run(tmp_path)
    raw = json.loads(folder.manifest.read_text())
    write_json(folder.manifest, raw | {"data_fingerprint": "of other data"})
    with pytest.raises(RunInvalid, match="have changed"):
        audit_data(folder, tell=tell_nobody)
    assert "have changed" in audit_state(files_of(folder)).reason


def test_a_run_that_has_not_come_to_its_data_has_nothing_to_look_at(tmp_path: Path):
    folder, _, _ = run(tmp_path)
    folder.manifest.unlink()
    with pytest.raises(RunInvalid, match="has not prepared its data"):
        audit_data(folder, tell=tell_nobody)


def test_a_damaged_result_is_made_again(tmp_path: Path):
    folder, _, _ = run(tmp_path)
    audit_data(folder, tell=tell_nobody)
    files_of(folder).result.write_bytes(b"damaged")
    assert audit_data(folder, tell=tell_nobody).facts.images[0] > 0


# Runs on corrected data


def corrected_rows(tmp_path: Path) -> tuple[int, int, int]:
    """Decide on two training images and a dev image of a run; returns (relabelled, dropped, relabelled in dev)."""
    from cifar_tl.data.splits import run_splits

    splits = run_splits(prepare("shapes"), classes=settings().classes, images_per_class=None, seed=0)
    rows = int(splits.train.rows[0]), int(splits.train.rows[1]), int(splits.dev.rows[0])
    name = splits.class_names[(int(splits.train.labels[0]) + 1) % 4]
    decide(fingerprint(), Decision(rows[0], "label", "relabel", name), title="Shapes")
    decide(fingerprint(), Decision(rows[1], "label", "drop"), title="Shapes")
    decide(fingerprint(), Decision(rows[2], "label", "relabel", name), title="Shapes")
    return rows


def test_a_run_on_corrected_data_names_their_version_and_keeps_them(tmp_path: Path):
    plain, _, _ = run(tmp_path, "plain")
    corrected_rows(tmp_path)
    folder, events, ending = run(tmp_path, corrected=True)
    assert isinstance(ending, Completed)
    version = read_corrections(fingerprint()).version
    manifests = [read_manifest(each) for each in (plain, folder)]
    assert [manifest and manifest.corrections for manifest in manifests] == ["", version]
    assert folder.corrections.exists()
    assert not plain.corrections.exists()
    sizes = [load_evaluation(each.evaluation_of("test")).labels_N for each in (plain, folder)]
    np.testing.assert_array_equal(*sizes)
    assert not [event for event in events if isinstance(event, Warned) and "corrected" in event.message]


def test_a_run_on_corrected_data_trains_on_the_new_labels(tmp_path: Path):
    _, _, in_dev = corrected_rows(tmp_path)
    before, _, _ = run(tmp_path, "before")
    after, _, _ = run(tmp_path, "after", corrected=True)
    labels = []
    for folder in (before, after):
        dev = load_evaluation(folder.evaluation_of("dev"))
        labels.append(int(dev.labels_N[dev.rows_N == in_dev][0]))
    assert labels[0] != labels[1]


def test_corrected_data_without_corrections_are_the_data_and_the_run_says_so(tmp_path: Path):
    folder, events, ending = run(tmp_path, corrected=True)
    assert isinstance(ending, Completed)
    assert any("Nothing of Shapes has been corrected" in event.message for event in events if isinstance(event, Warned))
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.corrections == ""


def test_dev_is_evaluated_again_with_the_corrections_the_run_had(tmp_path: Path):
    corrected_rows(tmp_path)
    folder, _, _ = run(tmp_path, corrected=True)
    before = load_evaluation(folder.evaluation_of("dev")).labels_N
    undo(fingerprint(), title="Shapes")
    evaluate_run(folder, "dev", progress=tell_nobody)
    np.testing.assert_array_equal(load_evaluation(folder.evaluation_of("dev")).labels_N, before)
