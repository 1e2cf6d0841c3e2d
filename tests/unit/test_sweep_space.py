"""What a sweep may vary, and how that is written; sweeps on disk."""

import json

import optuna
import pytest

from cifar_tl.errors import RunInvalid, RunNotFound, SettingsError
from cifar_tl.sweeps import store
from cifar_tl.sweeps.space import (
    Choice,
    Range,
    checked,
    config_of,
    first_range,
    from_json,
    parse_dimension,
    suggest,
    to_json,
    variable_settings,
    without_effect,
)
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learning_rate=0.001..0.1:log", Range("learning_rate", 0.001, 0.1, True)),
        ("learning-rate = 1e-3..1e-1", Range("learning_rate", 0.001, 0.1)),
        ("batch_size=32..256", Range("batch_size", 32, 256)),
        ("trainable=head,last_stages", Choice("trainable", ("head", "last_stages"))),
        ("dropout=0.12345671,0.12345672", Choice("dropout", (0.12345671, 0.12345672))),
        ("ema_decay=0.9..0.99999999", Range("ema_decay", 0.9, 0.99999999)),
        ("flip=true,off", Choice("flip", (True, False))),
        ("image_size=64,128", Choice("image_size", (64, 128))),
        ("first_image_size=,64", Choice("first_image_size", (None, 64))),
        ("backbone=resnet18,timm:resnet18.a1_in1k", Choice("backbone", ("resnet18", "timm:resnet18.a1_in1k"))),
    ],
)
def test_a_dimension_is_read_as_written_and_survives_the_disk(text, expected):
    assert parse_dimension(text) == expected
    assert from_json(json.loads(json.dumps(to_json(expected)))) == expected
    assert parse_dimension(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate", "is no range or choice"),
        ("name=a,b", "cannot vary 'name'"),
        ("evaluate_test=true,false", "cannot vary"),
        ("classes=a,b", "cannot vary"),
        ("learning_rate=0..0.1:log", "begins above 0"),
        ("learning_rate=0.1..0.01", "from a smaller to a larger"),
        ("learning_rate=0.1..99", "cannot be 99: it must be above 0 and at most 10"),
        ("learning_rate=0..0.1", "cannot be 0: it must be above 0"),
        ("head_learning_rate_factor=0,1", "cannot be 0: it must be above 0 and at most 1000"),
        ("dropout=0.5,1", "cannot be 1: it must be at least 0 and below 1"),
        ("label_smoothing=0..1", "below 1"),
        ("head_epochs=0..2", "cannot be 0: it must be at least 1"),
        ("batch_size=nan..8", "cannot be nan: give a finite number"),
        ("batch_size=1..inf", "cannot be inf"),
        ("learning_rate=nan,0.1", "cannot be nan"),
        ("learning_rate=1e-3..inf", "cannot be inf"),
        ("image_size=65..90", "goes in steps of 32"),
        ("batch_size=1..8", "goes in steps of 8"),
        ("learning_rate=a..b", "is no number"),
        ("batch_size=1.5..8", "whole numbers only"),
        ("trainable=head,nothing", "It can be: head"),
        ("trainable=head,head", "two different values"),
        ("trainable=1..2", "has no range"),
        ("flip=yes,no", "is true or false"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_in_words(text, words):
    with pytest.raises(SettingsError, match=words):
        parse_dimension(text)


def test_every_setting_that_may_vary_is_one_of_the_training_itself():
    names = {item.name for item in variable_settings()}
    assert {"learning_rate", "weight_decay", "trainable", "backbone", "trivial_augment", "mixup", "epochs"} <= names
    assert not names & {"source", "name", "seed", "device", "processes", "evaluate_test", "classes"}


def test_what_nobody_can_list_is_not_varied():
    assert "weights" not in {item.name for item in variable_settings()}
    with pytest.raises(SettingsError, match="Pretrained weights cannot vary: which values there are depends on the backbone"):
        parse_dimension("weights=default,none")


@pytest.mark.parametrize("setting", variable_settings(), ids=lambda setting: setting.name)
def test_each_setting_has_a_first_range_that_it_can_have(setting):
    first = first_range(setting)
    assert first.name == setting.name
    assert checked(first) == first
    for value in (first.low, first.high) if isinstance(first, Range) else first.values:
        config_of({"trainable": "everything", "epochs": 5}, {setting.name: setting.kind(value) if value is not None else None})


def test_first_ranges_are_those_of_practice():
    first = {str(first_range(setting)) for setting in variable_settings()}
    assert {"learning_rate=0.001..0.1:log", "weight_decay=1e-05..0.01:log", "image_size=64..160", "batch_size=64,128,256"} <= first
    assert {"ema_decay=0.9..0.9999", "dropout=0..0.5", "stage_learning_rate_decay=0.5..1", "flip=false,true"} <= first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image_size=64..160", {64, 96, 128, 160}),
        ("image_size=60..170", {64, 96, 128, 160}),
        ("image_size=64..256:log", {64, 96, 128, 160, 224}),
        ("batch_size=10..40", {16, 24, 32, 40}),
        ("batch_size=16..300:log", {16, 32, 64, 128, 256}),
        ("first_image_size=32..64", {32, 64}),
        ("epochs=1..3", {1, 2, 3}),
    ],
)
def test_whole_numbers_are_drawn_in_steps_that_matter(text, expected):
    space = (parse_dimension(text),)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {suggest(study.ask(), space)[space[0].name] for _ in range(60)} == expected


def test_a_sweep_of_before_is_read_although_its_values_are_refused_today():
    for raw in ({"name": "weights", "values": ["default", "none"]}, {"name": "dropout", "values": [0.5, 1.0]}):
        assert to_json(from_json(raw)) == raw


@pytest.mark.parametrize("is_log", [False, True])
def test_a_sweep_of_before_goes_on_with_what_its_trials_have_drawn(is_log, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2), direction="maximize")
    for _ in range(4):
        trial = study.ask()
        trial.suggest_int("image_size", 64, 256, log=is_log)
        study.tell(trial, 0.5)
    for _ in range(4):
        trial = study.ask()
        assert 64 <= suggest(trial, (Range("image_size", 64, 256, is_log),))["image_size"] <= 256
        study.tell(trial, 0.5)


def test_a_sweep_of_before_whose_range_holds_one_step_is_read_and_drawn_from_as_it_is():
    dimension = from_json({"name": "image_size", "low": 100, "high": 102, "log": False})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {suggest(study.ask(), (dimension,))["image_size"] for _ in range(30)} == {100, 101, 102}


@pytest.mark.parametrize(
    ("base", "vary", "words"),
    [
        ({}, ("trainable_stages=1..4",), "Trained stages has no effect here: it matters where what trains is 'Last stages and head'."),
        ({"trainable": "last_stages"}, ("trainable_stages=1..4",), ""),
        ({"trainable": "head"}, ("trainable_stages=1..4", "trainable=head,last_stages"), ""),
        ({}, ("head_epochs=1..3", "trainable=head,everything"), "Head-only epochs has no effect"),
        ({"trainable": "everything"}, ("cached_views=1..4", "learning_rate=0.001..0.1:log"), "Cached views has no effect"),
    ],
)
def test_what_varies_without_effect_is_said(base, vary, words):
    problems = without_effect(base, tuple(map(parse_dimension, vary)))
    assert (words in problems[0]) if words else not problems


def test_combinations_are_seen_at_the_trial():
    with pytest.raises(SettingsError, match="Head-only epochs"):
        config_of({"epochs": 2, "trainable": "head_then_everything"}, {"head_epochs": 5})


SWEEP = Sweep(
    "My sweep / é", {"source": "shapes"}, (Range("learning_rate", 0.001, 0.1, True), Choice("flip", (True, False))), pruner=Pruner.HYPERBAND
)


def test_a_sweep_is_kept_whole(root):
    folder = store.create_sweep(SWEEP)
    assert folder.path.parent == root / "sweeps"
    assert store.read_sweep(folder) == SWEEP
    assert store.sweep_ids() == [folder.sweep_id]
    assert store.create_sweep(SWEEP).sweep_id != folder.sweep_id
    assert store.status_of(folder)[0] is SweepStatus.LOST
    store.say_last_word(folder, SweepStatus.FAILED, "why")
    assert store.status_of(folder) == (SweepStatus.FAILED, "why")
    lock = store.take_lock(folder)
    assert lock is not None
    assert store.take_lock(folder) is None
    assert store.status_of(folder)[0] is SweepStatus.RUNNING


@pytest.mark.parametrize("sweep_id", ["", "..", "../runs", "/etc", "a/b", "no-such"])
def test_only_sweeps_are_found(sweep_id):
    with pytest.raises(RunNotFound):
        store.find_sweep(sweep_id)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"space": [{"name": "learning_rate"}], "pruner": "none"}', '{"space": [], "pruner": "x", "name": ""}']
)
def test_a_damaged_declaration_is_said(text):
    folder = store.create_sweep(SWEEP)
    folder.declaration.write_text(text)
    with pytest.raises((RunInvalid, SettingsError)):
        store.read_sweep(folder)


@pytest.mark.parametrize(
    "changes", [{"space": ()}, {"trials": 0}, {"at_once": 0}, {"minutes": 0}, {"space": (Choice("flip", (True, False)),) * 2}]
)
def test_a_sweep_that_makes_no_sense_is_refused_before_it_starts(changes):
    with pytest.raises(SettingsError):
        store.create_sweep(Sweep(**SWEEP.__dict__ | changes))
    assert not store.sweep_ids()
