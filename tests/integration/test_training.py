"""Whole runs in this process on a small part of shapes: what is written, what is said, what is learned."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.sources import prepare
from cifar_tl.errors import NonFiniteLoss, SettingsError
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.inference import Predictor
from cifar_tl.models.build import Classifier
from cifar_tl.paths import PROJECT_ROOT, RunFolder, prefix_cache_root
from cifar_tl.runs.events import Completed, Epoch, Event, Failed, Phase, Resumed, Started, Step, Stopped, Warned
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader
from cifar_tl.runs.store import RunFollower, RunStatus, read_manifest, write_json
from cifar_tl.training.checkpoint import load_checkpoint, load_weights
from cifar_tl.training.loop import train
from tests.small_disk import mounted_disk


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for all of these tests: shapes are drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_TL_CACHE", str(tmp_path_factory.mktemp("cache")))
        prepare("shapes")
        yield


def small(**changes: object) -> RunConfig:
    values = {
        "source": "shapes",
        "images_per_class": 10,
        "image_size": 32,
        "epochs": 2,
        "batch_size": 32,
        "device": "cpu",
        "precision": "float32",
        "flip": False,
        "describe": False,
    }
    return make_config(**values | changes)


def run(config: RunConfig, tmp_path, should_stop=lambda: False) -> tuple[list[Event], Event, RunFolder]:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder.config, config.model_dump(mode="json"))
    events: list[Event] = []
    ending = train(config, folder, emit=events.append, should_stop=should_stop)
    return events, ending, folder


def of_type(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def test_a_run_writes_weights_arrays_and_manifest_and_says_what_it_did(tmp_path):
    events, ending, folder = run(small(), tmp_path)
    assert isinstance(ending, Completed)
    assert [phase.name for phase in of_type(events, Phase)] == [
        "preparing_data",
        "loading_weights",
        "caching_features",
        "training",
        "testing",
    ]
    assert [epoch.epoch for epoch in of_type(events, Epoch)] == [1, 2]
    assert [step.step for step in of_type(events, Step)] == sorted({step.step for step in of_type(events, Step)})
    started = of_type(events, Started)[0]
    assert (started.train_images, started.dev_images, started.test_images) == (200, 400, 1000)
    assert started.trainable_parameters == 1280 * 20 + 20
    manifest = read_manifest(folder)
    assert manifest is not None
    assert len(manifest.class_names) == 20
    for path in (folder.best_weights, folder.last_checkpoint, folder.previous_checkpoint):
        assert path.stat().st_size > 0
    test = load_evaluation(folder.evaluation_of("test"))
    assert len(test) == 1000
    assert float((test.predictions_N == test.labels_N).mean()) == pytest.approx(ending.test_accuracy)
    assert not [path.name for path in folder.path.iterdir() if path.name.startswith(".")]


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(tmp_path):
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        events, _, _ = run(small(seed=seed, crop=True, trainable="everything", epochs=1, images_per_class=3), tmp_path / str(number))
        losses.append([step.loss for step in of_type(events, Step)])
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_a_cached_run_learns_exactly_what_an_uncached_one_does(tmp_path, monkeypatch):
    accuracies = []
    for number, reason in enumerate(("", "the test says so")):
        monkeypatch.setattr("cifar_tl.training.prepare.reason_not_to_cache", lambda *_, reason=reason: reason)
        (tmp_path / str(number)).mkdir()
        events, _, _ = run(small(), tmp_path / str(number))
        assert bool(of_type(events, Warned)) == bool(reason)
        accuracies.append([epoch.dev_loss for epoch in of_type(events, Epoch)])
        AcceleratorState._reset_state(reset_partial_state=True)
    assert accuracies[0] == pytest.approx(accuracies[1], rel=1e-4)


def test_a_warm_cache_is_not_computed_again(tmp_path, monkeypatch):
    (tmp_path / "first").mkdir()
    run(small(seed=5), tmp_path / "first")
    AcceleratorState._reset_state(reset_partial_state=True)

    def refuse(*_: object) -> None:
        raise AssertionError("the frozen part ran again")

    monkeypatch.setattr("cifar_tl.training.prefix_cache.PrefixCache._to_stored", refuse)
    (tmp_path / "second").mkdir()
    _, ending, _ = run(small(seed=5), tmp_path / "second")
    assert isinstance(ending, Completed)


def test_augmented_views_are_cached_and_the_same_for_every_run(tmp_path):
    losses = []
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
        config = small(crop=True, trivial_augment=True, cached_views=3, flip=True, images_per_class=5, seed=number)
        events, ending, _ = run(config, tmp_path / str(number))
        assert isinstance(ending, Completed)
        assert not of_type(events, Warned)
        losses.append([step.loss for step in of_type(events, Step)])
        AcceleratorState._reset_state(reset_partial_state=True)
    names = {path.name for path in (prefix_cache_root()).glob("*/train.flip+crop+trivial_augment.*.npy")}
    assert {f"train.flip+crop+trivial_augment.{view}.npy" for view in range(3)} <= names
    assert losses[0] != losses[1]


def test_cached_maps_are_mixed_and_pooled_features_go_without_cutmix(tmp_path):
    for name, trainable, warned in (("maps", "last_stages", False), ("features", "head", True)):
        (tmp_path / name).mkdir()
        config = small(trainable=trainable, trainable_stages=3, image_size=64, cutmix=1.0, mixup=0.2, images_per_class=5)
        events, ending, _ = run(config, tmp_path / name)
        assert isinstance(ending, Completed)
        assert any("without CutMix" in event.message for event in of_type(events, Warned)) is warned
        AcceleratorState._reset_state(reset_partial_state=True)


def test_a_cache_that_would_be_too_large_gets_fewer_views_then_none(tmp_path):
    bytes_per_view = 20 * 5 * 1280 * 4
    evaluated = (1500 + 200) * 1280 * 4  # more than all of dev and test
    for name, limit, warned in (("one view", evaluated + 1.5 * bytes_per_view, False), ("none", bytes_per_view, True)):
        (tmp_path / name).mkdir()
        config = small(flip=True, images_per_class=5, seed=11, epochs=1, cache_limit=limit / 1e9)
        events, ending, _ = run(config, tmp_path / name)
        assert isinstance(ending, Completed)
        assert bool(of_type(events, Warned)) is warned
        AcceleratorState._reset_state(reset_partial_state=True)


def test_progressive_resizing_and_flip_averaging_train_and_predict_alike(tmp_path):
    config = small(trainable="everything", image_size=64, first_image_size=32, average_flips=True, images_per_class=5, flip=True)
    _, ending, folder = run(config, tmp_path)
    assert isinstance(ending, Completed)
    test = load_evaluation(folder.evaluation_of("test"))
    store = prepare("shapes")
    predictor = Predictor.from_run(folder.path)
    predictor.temperature = 1.0  # evaluations are kept as the network says them
    probabilities = predictor.probabilities(store["test"].images_NHWC[test.rows_N[:32]])
    assert np.allclose(probabilities, test.probabilities_NC[:32].astype(np.float32), atol=2e-3)
    mirrored = predictor.probabilities(store["test"].images_NHWC[test.rows_N[:32], :, ::-1])
    assert np.allclose(mirrored, probabilities, atol=2e-3)


def test_head_only_leaves_the_backbone_as_it_was(tmp_path):
    from cifar_tl.models.build import build_classifier

    _, _, folder = run(small(), tmp_path)
    pretrained = build_classifier("efficientnet_lite0", weights="default", num_classes=20, image_size=32)
    trained = Predictor.from_run(folder.path).classifier
    for name, tensor in pretrained.stages.state_dict().items():
        assert torch.equal(tensor, trained.stages.state_dict()[name]), name


def test_head_first_then_everything_moves_the_backbone_in_the_second_leg(tmp_path):
    events, ending, _ = run(small(trainable="head_then_everything", epochs=2, head_epochs=1), tmp_path)
    assert isinstance(ending, Completed)
    rates = [step.learning_rate for step in of_type(events, Step)]
    half = len(rates) // 2
    assert rates[half - 1] < max(rates) / 2
    assert max(rates[half:]) > max(rates) / 2


@pytest.mark.parametrize(
    "changes",
    [
        {"trainable": "last_stages", "trainable_stages": 2},
        {"trainable": "everything", "mixup": 0.2, "cutmix": 1.0, "trivial_augment": True, "random_erasing": 0.25, "ema_decay": 0.9},
        {"optimizer": "adamw", "learning_rate": 0.001, "schedule": "constant", "label_smoothing": 0.0},
        {"class_balance": "weighted_loss"},
        {"class_balance": "balanced_sampling", "flip": True},
        {"precision": "bf16", "freeze_batch_norm": False, "trainable": "everything"},
        {"classes": ("circle", "square"), "batch_size": 7},
        {"weights": "none", "trainable": "everything", "freeze_batch_norm": False, "epochs": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_kind_of_setting_trains_to_the_end_with_finite_numbers(changes, tmp_path):
    events, ending, _ = run(small(epochs=1) if "epochs" in changes else small(**{"epochs": 1} | changes), tmp_path)
    assert isinstance(ending, Completed)
    assert all(math.isfinite(step.loss) for step in of_type(events, Step))
    assert 0 <= ending.test_accuracy <= ending.test_top5 <= 1


def test_training_learns_more_than_chance(tmp_path):
    _, ending, _ = run(small(images_per_class=40, epochs=5, image_size=64), tmp_path)
    assert isinstance(ending, Completed)
    assert ending.test_accuracy > 0.3  # chance is 0.05


def test_a_stop_between_two_steps_ends_the_run_without_touching_test(tmp_path):
    calls = iter(range(10_000))
    _, ending, folder = run(small(epochs=50), tmp_path, should_stop=lambda: next(calls) > 30)
    assert isinstance(ending, Stopped)
    assert 0 < ending.step < 50 * 7
    assert not folder.evaluation_of("test").exists()


def test_a_stop_while_features_are_cached_ends_the_run(tmp_path):
    _, ending, _ = run(small(image_size=96, seed=3), tmp_path, should_stop=lambda: True)
    assert isinstance(ending, Stopped)
    assert ending.step == 0


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(tmp_path):
    with pytest.raises(NonFiniteLoss, match=r"at step \d+"):
        run(small(learning_rate=10, head_learning_rate_factor=1000, trainable="everything", schedule="constant", epochs=5), tmp_path)


def test_a_run_that_diverged_goes_on_from_whole_weights_with_a_lower_rate(tmp_path):
    config = small(trainable="everything", schedule="constant", epochs=3, learning_rate=0.01, checkpoint_minutes=1e-6)
    forward, steps = Classifier.forward_suffix, iter(range(1, 1000))

    def poisoned(self, batch, boundary):
        is_step = self.training and torch.is_grad_enabled()
        return forward(self, batch, boundary) * (math.nan if is_step and next(steps) == 9 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Classifier, "forward_suffix", poisoned)
        with pytest.raises(NonFiniteLoss, match="Resume from the last checkpoint with a learning rate below"):
            run(config, tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    folder = RunFolder(tmp_path / "run")
    state, problem = load_checkpoint(folder)
    assert state
    assert (state["progress"]["step"], problem) == (8, "")
    slower = make_config(**config.model_dump() | {"learning_rate": 0.001})
    events: list[Event] = []
    ending = train(slower, folder, emit=events.append, should_stop=lambda: False, is_resumed=True)
    assert isinstance(ending, Completed)
    assert of_type(events, Resumed)[0].step == 8
    assert {step.learning_rate for step in of_type(events, Step)} == {0.001}


def test_out_of_memory_halves_the_batch_and_keeps_the_step(tmp_path, monkeypatch):
    config = small(trainable="everything", epochs=1, images_per_class=4, dropout=0.0)
    (tmp_path / "whole").mkdir()
    whole, _, _ = run(config, tmp_path / "whole")
    AcceleratorState._reset_state(reset_partial_state=True)
    forward = Classifier.forward_suffix

    def small_device(self, batch, boundary):
        if self.training and len(batch) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch, boundary)

    monkeypatch.setattr(Classifier, "forward_suffix", small_device)
    (tmp_path / "parts").mkdir()
    parts, ending, _ = run(config, tmp_path / "parts")
    assert isinstance(ending, Completed)
    warnings = [event.message for event in of_type(parts, Warned)]
    assert ["in 2 parts" in message or "in 4 parts" in message for message in warnings] == [True, True]
    # The same batches make the same steps, to rounding.
    assert [step.loss for step in of_type(parts, Step)] == pytest.approx([step.loss for step in of_type(whole, Step)], rel=1e-3)


def test_a_batch_of_one_that_does_not_fit_is_the_end(tmp_path, monkeypatch):
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(Classifier, "forward_suffix", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run(small(trainable="everything", epochs=1), tmp_path)


def work(folder: RunFolder, **environment: str) -> int:
    """A worker process of its own; its exit code."""
    command = [sys.executable, "-m", "cifar_tl", "worker", str(folder.path)]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=os.environ | environment, check=False, capture_output=True).returncode


def test_a_full_disk_fails_the_run_in_words_and_what_was_whole_stays_whole(tmp_path):
    with mounted_disk(tmp_path / "small", "20m") as disk:  # room for the weights once, not for the next ones beside them
        folder = RunFolder(disk / "run")
        folder.path.mkdir()
        config = small(epochs=6, images_per_class=40, image_size=64, learning_rate=0.02)
        write_json(folder.config, config.model_dump(mode="json"))
        assert work(folder) == 1
        events = [record.event for record in EventReader(folder.events).read_new()]
        end = events[-1]
        assert isinstance(end, Failed)
        assert end.message.startswith("No space left on device")
        assert "What was saved before is whole" in end.message
        assert RunFollower(folder).update() is RunStatus.FAILED
        finished = of_type(events, Epoch)
        assert finished
        state, problem = load_checkpoint(folder)
        assert state
        assert (state["progress"]["epoch"], problem) == (finished[-1].epoch, "")
        load_weights(folder.best_weights, Predictor.from_run(folder.path).classifier)
        assert not [path.name for path in folder.path.iterdir() if path.name.startswith(".")]


def test_tensorboard_gets_the_curves_of_the_log_also_when_the_run_is_resumed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder.config, small(tensorboard=True, epochs=1).model_dump(mode="json"))
    assert work(folder) == 0
    write_json(folder.config, small(tensorboard=True, epochs=2).model_dump(mode="json"))
    assert work(folder) == 0
    board = EventAccumulator(str(folder.tensorboard))
    board.Reload()
    history = RunHistory()
    history.extend(EventReader(folder.events).read_new())
    drawn = [(event.step, event.value) for event in board.Scalars("accuracy/dev")]
    assert drawn == [(epoch.step, pytest.approx(epoch.dev_accuracy)) for epoch in history.epochs]
    assert [event.step for event in board.Scalars("batch/loss")] == [step.step for step in history.steps]
    assert isinstance(history.terminal, Completed)
    assert board.Scalars("accuracy/test")[-1].value == pytest.approx(history.terminal.test_accuracy)


def test_without_tensorboard_the_run_says_how_to_get_it(tmp_path):
    absent = tmp_path / "path" / "tensorboard" / "__init__.py"
    absent.parent.mkdir(parents=True)
    absent.write_text("raise ImportError")
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    write_json(folder.config, small(tensorboard=True).model_dump(mode="json"))
    assert work(folder, PYTHONPATH=str(tmp_path / "path")) == 1
    end = EventReader(folder.events).read_new()[-1].event
    assert isinstance(end, Failed)
    assert "pip install tensorboard" in end.message


def test_train_longer_goes_on_where_the_run_ended(tmp_path):
    config = small(epochs=2)
    _, first, folder = run(config, tmp_path)
    assert isinstance(first, Completed)
    AcceleratorState._reset_state(reset_partial_state=True)
    events: list[Event] = []
    longer = make_config(**config.model_dump() | {"epochs": 4})
    ending = train(longer, folder, emit=events.append, should_stop=lambda: False, is_resumed=True)
    assert isinstance(ending, Completed)
    assert [epoch.epoch for epoch in of_type(events, Epoch)] == [3, 4]
    assert of_type(events, Started)[0].epochs == 4
    assert ending.seconds > first.seconds
    rates = [step.learning_rate for step in of_type(events, Step)]
    assert 0 < rates[-1] < rates[0] < config.learning_rate


def test_train_longer_gives_early_stopping_its_patience_anew(tmp_path):
    config = small(epochs=3, early_stopping_patience=1, learning_rate=1e-9)
    events, _, folder = run(config, tmp_path)
    last = of_type(events, Epoch)[-1].epoch
    AcceleratorState._reset_state(reset_partial_state=True)
    more: list[Event] = []
    train(make_config(**config.model_dump() | {"epochs": 9}), folder, emit=more.append, should_stop=lambda: False, is_resumed=True)
    assert of_type(more, Epoch)[0].epoch == last + 1


def test_patience_of_the_head_leg_does_not_take_the_rest_away(tmp_path):
    config = small(trainable="head_then_everything", head_epochs=3, epochs=5, early_stopping_patience=1, learning_rate=1e-9)
    events, ending, _ = run(config, tmp_path)
    assert isinstance(ending, Completed)
    # Nothing is learned at this rate: the head's three epochs run all the same, then patience counts from the second leg's start.
    assert [epoch.epoch for epoch in of_type(events, Epoch)] == [1, 2, 3, 4]


def test_early_stopping_ends_when_dev_does_not_rise(tmp_path):
    events, ending, _ = run(small(epochs=30, early_stopping_patience=1, learning_rate=1e-9), tmp_path)
    assert isinstance(ending, Completed)
    assert len(of_type(events, Epoch)) < 30


def test_a_class_that_does_not_exist_is_refused_by_name(tmp_path):
    with pytest.raises(SettingsError, match="unicorn"):
        run(small(classes=("circle", "unicorn")), tmp_path)


def test_a_folder_of_pictures_trains_and_names_what_could_not_be_read(tmp_path):
    colours = np.random.default_rng(0)
    for name, base in (("dark", (20, 20, 60)), ("light", (230, 200, 120))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(colours.normal(base, 20, (48, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    (tmp_path / "pictures" / "dark" / "broken.png").write_bytes(b"no picture")
    config = small(
        source=f"folder:{tmp_path / 'pictures'}",
        store_resolution=32,
        images_per_class=None,
        image_size=64,
        epochs=15,
        batch_size=8,
        learning_rate=0.05,
    )
    events, ending, folder = run(config, tmp_path)
    assert "dark/broken.png" in of_type(events, Warned)[0].message
    assert isinstance(ending, Completed)
    assert ending.test_accuracy >= 0.75
    (answer,) = Predictor.from_run(folder.path).answer([("0.png", tmp_path / "pictures" / "light" / "0.png")])
    assert answer.classes[0].class_name == "light"


def test_a_prediction_of_a_stored_image_is_what_evaluation_said(tmp_path):
    _, _, folder = run(small(), tmp_path)
    test = load_evaluation(folder.evaluation_of("test"))
    predictor = Predictor.from_run(folder.path)
    predictor.temperature = 1.0  # evaluations are kept as the network says them
    images = prepare("shapes")["test"].images_NHWC[test.rows_N[:50]]
    probabilities = predictor.probabilities(np.ascontiguousarray(images))
    assert np.abs(probabilities - test.probabilities_NC[:50].astype(np.float32)).max() < 0.01
    assert (probabilities.argmax(1) == test.predictions_N[:50]).mean() > 0.95


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("precision", ["auto", "fp16", "float32"])
def test_a_run_on_a_gpu_agrees_with_the_cpu_on_what_it_learned(precision, tmp_path):
    events, ending, _ = run(small(device="cuda", precision=precision, trainable="everything", images_per_class=40, epochs=3), tmp_path)
    assert isinstance(ending, Completed)
    assert of_type(events, Started)[0].device == "cuda"
    assert ending.test_accuracy > 0.2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cached_activations_on_a_gpu_teach_what_images_do(tmp_path, monkeypatch):
    losses = []
    for number, reason in enumerate(("", "the test says so")):
        monkeypatch.setattr("cifar_tl.training.prepare.reason_not_to_cache", lambda *_, reason=reason: reason)
        (tmp_path / str(number)).mkdir()
        events, _, _ = run(small(device="cuda", trainable="last_stages", trainable_stages=2), tmp_path / str(number))
        losses.append([epoch.dev_loss for epoch in of_type(events, Epoch)])
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_compiled_network_learns_as_the_plain_one(tmp_path):
    losses = []
    for number, is_compiled in enumerate((False, True)):
        (tmp_path / str(number)).mkdir()
        config = small(device="cuda", trainable="everything", compile=is_compiled, dropout=0.0, epochs=1)
        events, ending, _ = run(config, tmp_path / str(number))
        assert isinstance(ending, Completed)
        losses.append([step.loss for step in of_type(events, Step)])
        AcceleratorState._reset_state(reset_partial_state=True)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_progressive_resizing_and_mixing_run_on_a_gpu(tmp_path):
    config = small(
        device="cuda", trainable="everything", image_size=64, first_image_size=32, cutmix=1.0, mixup=0.2, ema_decay=0.9, crop=True
    )
    _, ending, _ = run(config, tmp_path)
    assert isinstance(ending, Completed)


def test_compiling_is_left_to_gpus_and_says_so(tmp_path):
    events, ending, _ = run(small(device="cpu", compile=True, images_per_class=2, epochs=1), tmp_path)
    assert isinstance(ending, Completed)
    assert any("not compiled" in event.message for event in of_type(events, Warned))
