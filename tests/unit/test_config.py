"""RunConfig: declared once, bounds and combinations checked, readable errors."""

import pytest

from cifar_tl.config import SECTIONS, RunConfig, make_config, upgrade
from cifar_tl.errors import SettingsError
from cifar_tl.presets import PRESETS
from cifar_tl.settings import CHOICE_LABELS, settings


def test_every_setting_has_title_help_and_section():
    for setting in settings():
        assert setting.title, setting.name
        assert setting.help.endswith("."), setting.name
        assert setting.section in SECTIONS


def test_every_choice_has_a_label_for_people():
    missing = {choice for setting in settings() for choice in setting.choices} - CHOICE_LABELS.keys()
    assert not missing


def test_numbers_are_bounded():
    unbounded = [s.name for s in settings() if s.kind in (int, float) and s.minimum is None]
    assert not unbounded


def test_settings_are_the_fields_of_the_config_in_order():
    assert [s.name for s in settings()] == [name for name in RunConfig.model_fields if name != "version"]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_is_a_valid_config(preset):
    config = make_config(**preset.values)
    assert {name: getattr(config, name) for name in preset.values} == preset.values


def test_a_config_survives_json():
    config = make_config(classes=("cat", "dog"), images_per_class=5, name="Käse 猫")
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "Epochs = 0"),
        ({"learning_rate": -1}, "Learning rate"),
        ({"colour": "red"}, "colour: there is no such setting"),
        ({"trainable": "nothing"}, "What trains"),
        ({"weights": "none", "trainable": "head"}, "frozen random backbone"),
        ({"weights": "none", "trainable": "everything", "freeze_batch_norm": True}, "batch-norm"),
        ({"trainable": "head_then_everything", "epochs": 2, "head_epochs": 2}, "fewer than all epochs"),
        ({"precision": "fp16", "device": "cpu"}, "float16"),
        ({"classes": ("cat",)}, "two classes"),
        ({"classes": ("cat", "cat")}, "twice"),
    ],
)
def test_a_bad_setting_is_refused_with_its_name_and_reason(values, words):
    with pytest.raises(SettingsError, match=words):
        make_config(**values)


def test_a_config_of_a_newer_version_is_refused_in_words():
    with pytest.raises(SettingsError, match="newer version"):
        upgrade({"version": 99})
