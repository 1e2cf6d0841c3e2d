"""What comes after a run: answers for train, embeddings and their map; and that nothing of it changes how the run ended."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.sources import prepare
from cifar_tl.errors import RunActive, RunInvalid
from cifar_tl.evaluation import describe
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.describe import describe_run, describe_trained, described_images
from cifar_tl.evaluation.embedding_map import first_map
from cifar_tl.evaluation.embeddings import PCA, TSNE, load_embeddings, load_map, save_map
from cifar_tl.inference import Predictor
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher, pack, trash
from cifar_tl.runs.events import Completed, Phase
from cifar_tl.runs.hold import has_ended, held, is_being_described
from cifar_tl.runs.log import EventReader, EventWriter
from cifar_tl.runs.store import RunFollower, RunStatus, find_run, is_alive, write_json
from cifar_tl.training.loop import StopRequested, TrainedRun, train

CONFIG = {
    "source": "shapes",
    "classes": ("circle", "square", "star_4", "cross"),
    "images_per_class": 30,
    "image_size": 32,
    "epochs": 1,
    "batch_size": 32,
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(scope="module", autouse=True)
def roots(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("data", "cache", "checkpoints"):
            patch.setenv(f"CIFAR_TL_{name.upper()}", str(tmp_path_factory.mktemp(name)))
        prepare("shapes")
        yield


def new_folder(config: RunConfig) -> RunFolder:
    return launcher.create_run(config)


def trained(**changes: object) -> tuple[RunFolder, TrainedRun]:
    """A completed run in this process, its last word in the log, and what it had in hand."""
    config = make_config(**CONFIG | changes)
    folder, tested = new_folder(config), []
    with EventWriter(folder.events) as log:
        ending = train(config, folder, emit=log.write, should_stop=lambda: False, hand_over=tested.append)
        log.write_last(ending)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert isinstance(ending, Completed)
    return folder, tested[0]


@pytest.fixture(scope="module")
def done() -> tuple[RunFolder, TrainedRun]:
    folder, tested = trained()
    describe_trained(tested, folder, should_stop=lambda: False)
    return folder, tested


def work(folder: RunFolder) -> subprocess.Popen[bytes]:
    """A worker that holds the run's lock from the first moment, as the launcher starts it."""
    return launcher.start_worker(folder)


def wait_for_the_end(folder: RunFolder) -> None:
    """Whoever gets the lock knows that the worker has ended: no polling."""
    with folder.lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_train_answers_and_embeddings_are_of_the_images_of_each_split(done):
    folder, tested = done
    splits = tested.prepared.splits
    answers = load_evaluation(folder.evaluation_of("train"))
    assert answers.rows_N.tolist() == splits.train.rows.tolist()
    assert answers.labels_N.tolist() == splits.train.labels.tolist()
    assert answers.store_split == "train"
    embeddings = load_embeddings(folder.embeddings)
    for name in ("train", "dev", "test"):
        rows = getattr(splits, name)
        assert embeddings.splits[name].rows_N.tolist() == rows.rows.tolist()
        assert embeddings.splits[name].labels_N.tolist() == rows.labels.tolist()
        assert embeddings.splits[name].store_split == rows.store_split
    assert 0.5 < embeddings.variance_kept <= 1
    drawn = load_map(folder.embedding_map)
    assert drawn.method == PCA
    assert len(drawn.splits["test"]) == len(splits.test)


def test_embeddings_made_later_from_the_folder_are_those_of_the_run(done):
    folder, _ = done
    before, answers = load_embeddings(folder.embeddings), load_evaluation(folder.evaluation_of("train"))
    told = []
    describe_run(folder, progress=told.append)
    after = load_embeddings(folder.embeddings)
    for name, split in before.splits.items():
        assert after.splits[name].vectors_ND.astype(np.float32) == pytest.approx(split.vectors_ND.astype(np.float32), abs=0.02)
    again = load_evaluation(folder.evaluation_of("train")).probabilities_NC.astype(np.float32)
    assert again == pytest.approx(answers.probabilities_NC.astype(np.float32), abs=2e-3)
    assert {progress.phase for progress in told} >= {"Answers for training images", "Embeddings of test images"}


def test_a_stored_image_given_as_a_new_picture_is_placed_where_it_is_already(done):
    folder, _ = done
    embeddings = load_embeddings(folder.embeddings)
    test = embeddings.splits["test"].taken(np.arange(20))
    placed = Predictor.from_run(folder.path).embedded(np.array(prepare("shapes")["test"].images_NHWC[test.rows_N]))
    assert placed == pytest.approx(test.vectors_ND.astype(np.float32), abs=0.05)


def test_what_new_pictures_are_compared_with_is_of_dev(done):
    folder, tested = done
    found = load_embeddings(folder.embeddings).dev_unlikeness_N
    assert len(found) == len(tested.prepared.splits.dev)
    assert 0 < found.min() < found.max() < 1


def test_nearest_training_images_are_mostly_of_the_same_class(done):
    folder, _ = done
    embeddings = load_embeddings(folder.embeddings)
    positions, _ = embeddings.neighbours("test", np.arange(len(embeddings.splits["test"])), 1)
    same = embeddings.splits["train"].labels_N[positions[:, 0]] == embeddings.splits["test"].labels_N
    assert same.mean() > 0.4  # chance is 0.25


def test_only_some_training_images_of_a_large_set_are_described(monkeypatch):
    labels = np.repeat([0, 1], [300, 100])
    assert described_images(labels, 2, 0).tolist() == list(range(400))
    monkeypatch.setattr(describe, "MOST_TRAIN_IMAGES", 200)
    sample = described_images(labels, 2, 0)
    assert np.bincount(labels[sample]).tolist() == [150, 50]
    assert (np.diff(sample) > 0).all()
    monkeypatch.setattr(describe, "MOST_TRAIN_PROBABILITIES", 80)
    assert len(described_images(labels, 2, 0)) == 40


def test_a_stop_between_two_batches_ends_it_and_leaves_no_half(done):
    _, tested = done
    other = new_folder(make_config(**CONFIG))
    with pytest.raises(StopRequested):
        describe_trained(tested, other, should_stop=lambda: True)
    assert not other.evaluation.exists()


def test_training_longer_forgets_what_described_the_earlier_weights():
    folder, tested = trained(seed=1)
    describe_trained(tested, folder, should_stop=lambda: False)
    config = make_config(**CONFIG | {"seed": 1, "epochs": 2})
    ending = train(config, folder, emit=lambda _: None, should_stop=lambda: False, is_resumed=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    assert isinstance(ending, Completed)
    assert folder.evaluation_of("test").is_file()
    assert not any(path.exists() for path in (folder.evaluation_of("train"), folder.embeddings, folder.embedding_map))


@pytest.fixture(scope="module")
def worked() -> RunFolder:
    """A run through its worker, to the end of all that comes after."""
    folder = new_folder(make_config(**CONFIG | {"seed": 2}))
    assert work(folder).wait() == 0
    return folder


def test_a_worker_goes_on_after_its_last_word_until_there_is_a_map_by_t_sne(worked):
    records = EventReader(worked.events).read_new()
    assert isinstance(records[-1].event, Completed)
    assert sum(isinstance(record.event, Completed) for record in records) == 1
    assert load_map(worked.embedding_map).method == TSNE
    assert worked.evaluation_of("train").stat().st_mtime > records[-1].time
    assert worked.worker_log.read_text() == ""
    assert not is_alive(worked)


def test_a_run_that_is_not_to_be_described_is_not():
    folder = new_folder(make_config(**CONFIG | {"describe": False}))
    assert work(folder).wait() == 0
    assert sorted(path.name for path in folder.evaluation.iterdir() if path.is_file()) == ["dev.npz", "test.npz"]


# A worker in which the pass over the images is another one; `%s` is its body.
_CHANGED_WORKER = """
import sys, time
from pathlib import Path
from cifar_tl.evaluation import describe
from cifar_tl.paths import RunFolder
from cifar_tl.training.worker import run_worker

def changed(*arguments, progress, **named):
    %s

describe.collect = changed
sys.exit(run_worker(RunFolder(Path(sys.argv[1]))))
"""


def changed_worker(folder: RunFolder, body: str, errors: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _CHANGED_WORKER % body, str(folder.path)]
    return subprocess.Popen(command, cwd=PROJECT_ROOT, stderr=errors, text=True)


def test_what_goes_wrong_afterwards_leaves_the_run_completed_and_is_told_on_standard_error():
    folder = new_folder(make_config(**CONFIG | {"seed": 4}))
    worker = changed_worker(folder, "raise MemoryError('no room for this')", subprocess.PIPE)
    _, errors = worker.communicate()
    assert worker.returncode == 0
    assert RunFollower(folder).update() is RunStatus.COMPLETED
    assert "Traceback" in errors
    assert "no room for this" in errors


def slow_worker(seed: int) -> tuple[RunFolder, subprocess.Popen[str]]:
    """A worker whose run is complete, and which would go on describing it for an hour."""
    folder = new_folder(make_config(**CONFIG | {"seed": seed}))
    worker = changed_worker(folder, "for _ in range(36_000): progress(0), time.sleep(0.1)")
    deadline = time.monotonic() + 120
    while not has_ended(folder) and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(0.05)
    assert is_being_described(folder)
    assert RunFollower(folder).update() is RunStatus.COMPLETED
    return folder, worker


def test_deleting_a_run_that_is_being_described_ends_that_and_deletes_it():
    folder, worker = slow_worker(5)
    pack.pack_run(folder.run_id, folder.path.parent / "packed.zip")  # which needs nobody to leave
    trash.delete_run(folder.run_id)
    assert worker.wait() == 0
    assert folder.run_id in trash.deleted_runs()
    trash.restore_run(folder.run_id)
    assert not folder.stop_request.exists()
    assert RunFollower(folder).update() is RunStatus.COMPLETED


def test_resuming_a_run_that_is_being_described_ends_that_and_trains(monkeypatch):
    started = []
    monkeypatch.setattr(launcher, "_spawn", lambda folder, _lock: started.append(folder.run_id))
    folder, worker = slow_worker(6)
    with pytest.raises(RunInvalid):
        launcher.resume_run(folder.run_id, epochs=1)
    assert is_alive(folder)  # what is refused disturbs nobody
    launcher.resume_run(folder.run_id, epochs=2)
    assert worker.wait() == 0
    assert started == [folder.run_id]
    assert isinstance(EventReader(folder.events).read_new()[-1].event, Phase)


def test_stop_of_a_run_that_is_being_described_says_that_it_does_not_run_and_ends_that():
    folder, worker = slow_worker(7)
    assert launcher.request_stop(folder.run_id) is False
    assert worker.wait() == 0
    assert RunFollower(folder).update() is RunStatus.COMPLETED
    assert not folder.embedding_map.exists()


def test_a_terminated_worker_leaves_off_describing():
    _, worker = slow_worker(8)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_stop_does_not_wait_for_t_sne(done, tmp_path):
    """The process that draws ends at once, and the map by PCA stays."""
    folder, _ = done
    other = RunFolder(tmp_path / "run")
    other.evaluation.mkdir(parents=True)
    for path in ("config.json", "evaluation/embeddings.npz", "evaluation/map.npz"):
        (other.path / path).write_bytes((folder.path / path).read_bytes())
    program = (
        "import os, sys, time; from pathlib import Path; from cifar_tl.evaluation import embedding_map as e\n"
        "from cifar_tl.paths import RunFolder\n"
        "def draw(*_, **__): print('drawing', flush=True); time.sleep(3600)\n"
        "e.tsne = draw\n"
        "sys.exit(e.run_map_drawer(RunFolder(Path(sys.argv[1])), os.open(os.devnull, os.O_RDONLY)))\n"
    )
    drawer = subprocess.Popen([sys.executable, "-c", program, str(other.path)], cwd=PROJECT_ROOT, stdout=subprocess.PIPE)
    assert drawer.stdout
    assert drawer.stdout.readline() == b"drawing\n"
    other.stop_request.touch()
    assert drawer.wait(30) == 0
    assert load_map(other.embedding_map).method == PCA
    drawer.stdout.close()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cifar_tl", *arguments], cwd=PROJECT_ROOT, env=os.environ, capture_output=True, text=True, check=False
    )


def test_describe_makes_what_is_missing_and_tells_what_there_is(worked):
    worked.embeddings.unlink()
    answer = call("describe", worked.run_id, "--json")
    assert answer.returncode == 0, answer.stderr
    facts = json.loads(answer.stdout)
    assert facts == {"run_id": worked.run_id, "embeddings": {"train": 120, "dev": 80, "test": 200}, "map": TSNE}
    before = worked.embeddings.stat().st_mtime_ns
    assert call("describe", worked.run_id).returncode == 0
    assert worked.embeddings.stat().st_mtime_ns == before


def test_describe_refuses_a_run_that_has_not_ended_or_was_not_tested(done):
    folder, _ = done
    running = new_folder(make_config(**CONFIG))
    assert "has not ended" in call("describe", running.run_id).stderr
    other = RunFolder(running.path.with_name("untested"))
    other.path.mkdir()
    for name in ("config.json", "events.jsonl", "best.safetensors"):
        (other.path / name).write_bytes((folder.path / name).read_bytes())
    answer = call("describe", "untested")
    assert answer.returncode == 1
    assert "python -m cifar_tl evaluate untested" in answer.stderr


def test_a_process_started_for_it_describes_a_run_and_is_the_only_one(worked):
    save_map(worked.embedding_map, first_map(load_embeddings(worked.embeddings), seed=0))
    launcher.start_description(worked.run_id)
    assert is_being_described(find_run(worked.run_id))
    with pytest.raises(RunActive):
        launcher.start_description(worked.run_id)
    wait_for_the_end(worked)
    assert load_map(worked.embedding_map).method == TSNE


def test_the_lock_of_a_running_run_is_not_waited_for_nor_its_worker_asked_to_stop(done, tmp_path):
    running = RunFolder(tmp_path / "running")
    running.path.mkdir()
    write_json(running.config, make_config(**CONFIG).model_dump(mode="json"))
    with EventWriter(running.events) as log:
        log.write(Phase(name="training", text="Training"))
    with held(running), pytest.raises(RunActive, match="still running"), held(running):
        pass
    assert not running.stop_request.exists()
