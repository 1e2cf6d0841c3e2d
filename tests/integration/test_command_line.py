"""The command line as a person types it: real processes, exit codes, one JSON object as the last line."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_tl.config import make_config
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.embeddings import TSNE, load_embeddings, load_map
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.events import Completed, Started
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader
from cifar_tl.runs.store import find_run

TRAIN = ["train", "--source", "shapes", "--backbone", "efficientnet_lite0", "--trainable", "head", "--image-size", "64", "--device", "cpu"]

HEARING = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from cifar_tl.__main__ import main; sys.exit(main())"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home) -> dict[str, str]:
    """Folders of its own."""
    folders = {
        "CIFAR_TL_DATA": str(home / "data"),
        "CIFAR_TL_CACHE": str(home / "cache"),
        "CIFAR_TL_CHECKPOINTS": str(home / "checkpoints"),
    }
    return os.environ | folders


@pytest.fixture(scope="module")
def call(environment):
    """`call(*arguments)` runs `python -m cifar_tl` and returns the finished process."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "cifar_tl", *arguments]
        return subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)

    return run


@pytest.fixture
def begun(environment):
    """`begun(*arguments)` is a process that still runs, and hears Ctrl-C even where the tests themselves were told not to."""
    processes = []

    def begin(*arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HEARING, *arguments]
        processes.append(
            subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def training(call) -> subprocess.CompletedProcess:
    """A real run on all of shapes."""
    done = call(*TRAIN, "--epochs", "3", "--json")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(training) -> dict:
    """Its JSON."""
    return json.loads(training.stdout.strip().splitlines()[-1])


def test_train_prints_what_the_run_reached(trained):
    assert trained["status"] == "completed"
    assert Path(trained["run_dir"]).is_dir()
    assert trained["seconds"] > 0
    assert 0.3 < trained["test_accuracy"] <= trained["test_top5"] <= 1
    assert 0.3 < trained["best_dev_accuracy"] <= 1


def test_train_into_a_file_says_each_thing_once(training):
    lines = training.stderr.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert len(lines) == len(set(lines)) < 15


def test_runs_lists_the_run(trained, call):
    done = call("runs", "--json")
    assert [row["run_id"] for row in json.loads(done.stdout)["runs"]] == [trained["run_id"]]


def test_sweep_tells_each_trial_once_and_ctrl_c_stops_it_with_its_runs(trained, begun, call):
    process = begun(
        "sweep", *TRAIN[1:], "--epochs", "3", "--vary", "learning_rate=0.001..0.1:log", "--trials", "40", "--at-once", "2", "--json"
    )
    told = [process.stderr.readline() for _ in range(3)]
    assert told[0].startswith("sweep ")
    assert told[1].startswith("trial ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["status"] == "stopped"
    trials = [line.split(":")[0] for line in told[1:] + err.splitlines() if line.startswith("trial ")]
    assert len(trials) == len(set(trials)) < 40
    runs = json.loads(call("runs", "--limit", "100", "--json").stdout)["runs"]
    assert not [row for row in runs if row["status"] in ("running", "queued")]


def test_ctrl_c_ends_other_commands_in_a_line(begun):
    process = begun("lr-range", *TRAIN[1:])
    assert process.stderr.readline()  # it works by now
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_predict_answers_per_file_and_names_the_broken_one(trained, call, tmp_path):
    picture, broken = tmp_path / "picture.png", tmp_path / "broken.jpg"
    Image.fromarray(np.full((50, 80, 3), 128, np.uint8)).save(picture)
    broken.write_bytes(b"this is no picture")
    done = call("predict", trained["run_id"], str(picture), str(broken), str(tmp_path / "absent.png"), "--json")
    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)["files"]
    probabilities = [item["probability"] for item in first["classes"]]
    assert len(probabilities) == 5
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(first["superclasses"]) == 5
    assert "familiarity" in first
    assert second["error"]
    assert "\n" not in second["error"]
    assert third["error"]


def test_predict_frames_and_mirrors_as_asked(trained, call, tmp_path):
    wide = np.full((20, 80, 3), 255, np.uint8)
    wide[5:15, 35:42] = (200, 0, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    answers = []
    for options in ([], ["--framing", "whole"], ["--average-flips"]):
        done = call("predict", trained["run_id"], str(tmp_path / "wide.png"), "--json", *options)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout)["files"][0]["classes"])
    assert answers[0] != answers[1]
    assert answers[0] != answers[2]


def test_predict_fails_when_no_file_answers(trained, call, tmp_path):
    done = call("predict", trained["run_id"], str(tmp_path / "absent.png"), "--json")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) <= 2


def test_evaluate_repeats_the_test_accuracy(trained, call):
    done = call("evaluate", trained["run_id"], "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] == pytest.approx(trained["test_accuracy"], abs=0.002)


def test_a_shrunk_run_is_small_and_answers_as_the_whole_one_does(trained, call):
    done = call("shrink", trained["run_id"], "demo-small", "--json")
    assert done.returncode == 0, done.stderr
    small = RunFolder(Path(json.loads(done.stdout)["run_dir"]))
    whole = RunFolder(Path(trained["run_dir"]))
    assert small.best_weights.stat().st_size < 0.52 * whole.best_weights.stat().st_size
    assert not small.last_checkpoint.exists()
    assert small.events.read_bytes() == whole.events.read_bytes()
    for split in ("dev", "test"):
        before, after = (load_evaluation(folder.evaluation_of(split)) for folder in (whole, small))
        assert np.array_equal(before.probabilities_NC, after.probabilities_NC)
    done = call("evaluate", "demo-small", "--json")
    assert done.returncode == 0, done.stderr
    # Image by image: of a run this short, rounded weights move enough answers that were hardly decided to make a point of accuracy.
    again = load_evaluation(small.evaluation_of("test"))
    assert again.probabilities_NC.astype(np.float32) == pytest.approx(before.probabilities_NC.astype(np.float32), abs=0.08)
    listed = {row["run_id"]: row for row in json.loads(call("runs", "--json").stdout)["runs"]}
    assert listed["demo-small"]["test_accuracy"] == pytest.approx(trained["test_accuracy"])


def test_a_shrunk_run_has_the_map_of_the_whole_one_and_nearly_its_embeddings(trained, call):
    """Shrinking waits until the worker has described the run."""
    done = call("shrink", trained["run_id"], "demo-map", "--json")
    assert done.returncode == 0, done.stderr
    small, whole = RunFolder(Path(json.loads(done.stdout)["run_dir"])), RunFolder(Path(trained["run_dir"]))
    before, after = load_map(whole.embedding_map), load_map(small.embedding_map)
    assert (before.method, after.method) == (TSNE, TSNE)
    assert np.array_equal(before.splits["test"].rows_N, after.splits["test"].rows_N)
    assert after.splits["test"].vectors_ND.astype(np.float32) == pytest.approx(before.splits["test"].vectors_ND, abs=0.05)
    assert np.bincount(after.splits["train"].labels_N).tolist() == [75] * 20
    embeddings = load_embeddings(small.embeddings)
    rows = after.splits["train"].rows_N.tolist()
    assert embeddings.splits["train"].rows_N.tolist() == load_evaluation(small.evaluation_of("train")).rows_N.tolist() == rows
    length = np.linalg.norm(embeddings.splits["train"].vectors_ND.astype(np.float32), axis=1)
    assert 0.5 < np.mean(length**2) < 1.2
    assert small.embeddings.stat().st_size < 0.3 * whole.embeddings.stat().st_size
    all_embeddings = load_embeddings(whole.embeddings)
    assert np.array_equal(embeddings.axes.axes_FD, all_embeddings.axes.axes_FD)
    assert np.array_equal(embeddings.dev_unlikeness_N, all_embeddings.dev_unlikeness_N)


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "a b"])
def test_a_shrunk_run_needs_a_name_that_is_a_plain_one(trained, call, name):
    done = call("shrink", trained["run_id"], name)
    assert done.returncode == 1
    assert "cannot name a run" in done.stderr


def test_a_shrunk_run_takes_no_name_that_is_taken(trained, call):
    done = call("shrink", trained["run_id"], trained["run_id"])
    assert done.returncode == 1
    assert "already" in done.stderr


def test_data_prepare_tells_sizes_and_classes(call):
    done = call("data", "prepare", "shapes", "--json")
    facts = json.loads(done.stdout)
    assert facts["split_sizes"] == {"train": 4000, "test": 1000}
    assert facts["num_classes"] == 20


@pytest.fixture
def same_roots(home, monkeypatch):
    """This process looks where `call` does."""
    for name in ("data", "cache", "checkpoints"):
        monkeypatch.setenv(f"CIFAR_TL_{name.upper()}", str(home / name))


def test_two_runs_at_once_take_turns_and_both_end(call, same_roots):
    """Started together, as two people on one machine would."""
    config = make_config(source="shapes", images_per_class=3, image_size=32, epochs=1, device="cpu", describe=False)
    folders = [find_run(launcher.start_run(config)) for _ in range(2)]
    for folder in folders:
        with folder.lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until its worker has ended
    times = []
    for folder in folders:
        records = EventReader(folder.events).read_new()
        assert isinstance(records[-1].event, Completed)
        times.append((next(r.time for r in records if isinstance(r.event, Started)), records[-1].time))
    (_, first_ended), (second_started, _) = sorted(times)
    assert first_ended <= second_started
    assert json.loads(call("queue", "--json").stdout.splitlines()[-1]) == {"waiting": []}


def test_resume_trains_a_completed_run_longer_and_nothing_else(call, same_roots):
    done = call(*TRAIN, "--epochs", "1", "--images-per-class", "3", "--json")
    run_id = json.loads(done.stdout.splitlines()[-1])["run_id"]
    done = call("resume", run_id)
    assert done.returncode == 1
    assert "completed after 1 epochs" in done.stderr
    done = call("resume", run_id, "--epochs", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "completed"
    history = RunHistory()
    history.extend(EventReader(find_run(run_id).events).read_new())
    assert [epoch.epoch for epoch in history.epochs] == [1, 2]


def test_stop_of_an_ended_run_says_that_it_is_not_running(trained, call):
    done = call("stop", trained["run_id"], "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["was_running"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--epochs", "0"], "Epochs"),
        (["train", "--epochs", "many"], "epochs"),
        (["train", "--backbone", "resnet5000", "--source", "shapes"], "resnet5000"),
        (["train", "--source", "folder:/no/such/folder"], "/no/such/folder"),
        (["train", "--colour", "red"], "colour"),
        (["dance"], "dance"),
        (["train", "--weights", "none", "--source", "shapes"], "frozen random backbone"),
    ],
)
def test_wrong_use_is_one_line_on_standard_error_and_exit_code_two(call, arguments, words):
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_fails_is_exit_code_one_with_its_reason(call):
    done = call(
        "train", "--source", "shapes", "--backbone", "resnet18", "--trainable", "head", "--epochs", "1", "--image-size", "64", "--json"
    )
    assert done.returncode == 1
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "failed"
    assert "efficientnet_lite0" in result["error"]


@pytest.mark.parametrize("command", [["stop"], ["predict"], ["evaluate"]])
def test_a_run_that_does_not_exist_is_one_line(call, command):
    done = call(*command, "nothing-here", *(["x.png"] if command == ["predict"] else []))
    assert done.returncode == 1
    assert "nothing-here" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_audit_tells_what_it_found_and_is_made_once(trained, call):
    done = call("audit", trained["run_id"], "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["run_id"] == trained["run_id"]
    assert found["doubted_labels"] > 0
    assert found["outliers"] > 0
    again = call("audit", trained["run_id"], "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == found
    assert "Comparing" in done.stderr
    assert "Comparing" not in again.stderr
