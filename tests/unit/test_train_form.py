"""The parts of the Train form and its live view that need no page: labels, presets, estimates, progress."""

import pytest

from cifar_tl.answers import EpochEstimate, Hardware
from cifar_tl.config import RunConfig, make_config
from cifar_tl.models import catalog
from cifar_tl.models.catalog import Backbone
from cifar_tl.presets import PRESETS
from cifar_tl.runs.events import Phase, Progress, Started, Step
from cifar_tl.runs.history import RunHistory
from cifar_tl.settings import NEEDED_WITH, Setting, settings
from cifar_tl.ui.backbone_picker import facts_of, table_of
from cifar_tl.ui.estimate import WITHOUT_EFFECT_ON_TIME, device_in_words, estimate_key, sentence_of
from cifar_tl.ui.form_values import preset_values, source_in_words
from cifar_tl.ui.progress import RunProgress, counted_progress, progress_of
from cifar_tl.ui.setting_widgets import WHEN_EMPTY, label_of, value_in_words

STARTED = Started(
    device="cpu", device_name="CPU", precision="float32", train_images=100, dev_images=10, test_images=10, num_classes=2, parameters=1,
    trainable_parameters=1, epochs=4, steps_per_epoch=10, worker_pid=1,
)  # fmt: skip
TRAINING = Phase(name="training", text="Training")


def setting(name: str) -> Setting:
    return next(setting for setting in settings() if setting.name == name)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("image_size", "Image size (px)"),
        ("epochs", "Epochs"),
        ("head_epochs", "Head-only epochs"),
        ("trainable_stages", "Trained stages"),
        ("head_learning_rate_factor", "Head learning-rate factor (×)"),
        ("learning_rate", "Learning rate"),
    ],
)
def test_a_label_says_the_unit_unless_the_title_does(name: str, label: str) -> None:
    assert label_of(setting(name)) == label


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("flip", False, "off"),
        ("weight_decay", 0.0005, "0.0005"),
        ("optimizer", "adamw", "AdamW"),
        ("classes", ("a", "b"), "2 chosen"),
        ("seed", 7, "7"),
    ],
)
def test_values_are_put_into_words(name: str, value: object, words: str) -> None:
    assert value_in_words(setting(name), value) == words


def test_settings_named_by_the_form_exist() -> None:
    known = set(RunConfig.model_fields)
    assert set(NEEDED_WITH) <= known
    assert {other for other, _ in NEEDED_WITH.values()} <= known
    assert known >= WITHOUT_EFFECT_ON_TIME


def test_values_with_which_a_setting_matters_are_choices_of_the_other() -> None:
    for other, values in NEEDED_WITH.values():
        assert values <= set(setting(other).choices)


def test_every_optional_number_says_what_an_empty_box_means() -> None:
    assert set(WHEN_EMPTY) == {setting.name for setting in settings() if setting.is_optional}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_in_the_form_is_the_same_run_as_on_the_command_line(preset) -> None:
    assert make_config(**preset_values(preset.name)) == make_config(**preset.values)


def test_a_preset_says_nothing_of_data_network_and_machine() -> None:
    for name in ("source", "classes", "images_per_class", "backbone", "weights", "device", "precision", "seed", "name"):
        assert name not in preset_values(PRESETS[0].name)


def test_what_does_not_change_the_time_does_not_change_the_key() -> None:
    assert estimate_key(make_config(learning_rate=0.1, name="a")) == estimate_key(make_config())


@pytest.mark.parametrize(
    "change", [{"image_size": 96}, {"batch_size": 32}, {"backbone": "resnet18"}, {"epochs": 7}, {"trainable": "everything"}]
)
def test_what_changes_the_time_changes_the_key(change: dict[str, object]) -> None:
    assert estimate_key(make_config(**change)) != estimate_key(make_config())


HARDWARE = Hardware(("cpu",), "Xeon", True, 2, 8 * 1024**3)


def estimated(*, epoch: float = 42.0, run: float = 210.0, cache_bytes: int = 0) -> EpochEstimate:
    return EpochEstimate(45_000, epoch, run, 1071.0, "cpu", "bf16", cache_bytes)


def test_the_estimate_is_one_sentence_where_nothing_is_cached() -> None:
    config = make_config(trainable="everything", epochs=5)
    expected = "About **42 s per epoch**, 3 min 30 s in all, on 2 CPU cores (bfloat16)."
    assert sentence_of(estimated(), HARDWARE, config) == expected


@pytest.mark.parametrize("trainable", ["head", "last_stages"])
def test_the_estimate_says_what_is_computed_once_and_what_it_takes_on_disk(trainable: str) -> None:
    config = make_config(trainable=trainable, epochs=3)
    assert sentence_of(estimated(epoch=20.0, run=820.0, cache_bytes=1_440_000_000), HARDWARE, config) == (
        "About **20 s per epoch**, 13 min 40 s in all, on 2 CPU cores (bfloat16). "
        "12 min 40 s of it are spent once: the frozen layers run over every image before the first epoch. "
        "Their output takes 1.4 GB of disk, for up to 2 views of each training image; a run that finds it there begins at once."
    )


def test_a_quick_cache_is_told_without_its_time() -> None:
    config = make_config(trainable="head", epochs=5, cached_views=1)
    sentence = sentence_of(estimated(run=220.0, cache_bytes=80_000_000), HARDWARE, config)
    assert sentence.endswith(
        "(bfloat16). The frozen layers run over every image before the first epoch. Their output takes 80 MB of disk; a run that finds it there begins at once."
    )


def test_with_the_head_first_the_time_is_that_of_the_later_epochs() -> None:
    config = make_config(trainable="head_then_everything", epochs=5)
    assert sentence_of(estimated(run=190.0, cache_bytes=230_000_000), HARDWARE, config) == (
        "About **42 s per epoch** once everything trains, 3 min 10 s in all, on 2 CPU cores (bfloat16). "
        "Before the first epoch, the layers that are frozen at first run once over every image. "
        "Their output takes 230 MB of disk, for up to 2 views of each training image; a run that finds it there begins at once."
    )


def test_with_the_head_first_and_nothing_cached_there_is_one_sentence() -> None:
    config = make_config(trainable="head_then_everything", epochs=5, mixup=0.2)
    assert sentence_of(estimated(run=500.0), HARDWARE, config).count(". ") == 0


def test_a_large_share_of_time_without_a_cache_is_the_test_images() -> None:
    config = make_config(trainable="everything", epochs=1)
    sentence = sentence_of(estimated(epoch=10.0, run=70.0), HARDWARE, config)
    assert sentence.endswith("1 min 0 s of it are spent once: the test images are measured at the end.")


def test_a_cache_over_its_limit_is_told() -> None:
    config = make_config(trainable="head", cache_limit=1.0)
    sentence = sentence_of(estimated(cache_bytes=1_440_000_000), HARDWARE, config)
    assert sentence.endswith("would take 1.4 GB of disk, more than the cache limit of 1 GB: the run keeps fewer views, or none.")


def test_a_gpu_is_called_by_its_name_where_it_is_known() -> None:
    hardware = Hardware(("cuda", "cpu"), "NVIDIA H200", True, 16, 140 * 1024**3)
    assert device_in_words("cuda", hardware) == "NVIDIA H200"
    assert device_in_words("cuda", None) == "the CUDA GPU"
    assert device_in_words("cpu", None) == "the CPU"


def test_sources_have_names_for_people() -> None:
    assert source_in_words("cifar100") == "CIFAR-100"
    assert source_in_words("folder:/data/birds") == "/data/birds"


def test_a_backbone_of_which_nothing_is_known_has_no_made_up_numbers() -> None:
    facts = facts_of(Backbone("timm:resnet50", "timm"))
    assert not any(character.isdigit() for character in facts)


def test_the_comparison_has_one_row_per_backbone_in_every_column() -> None:
    backbones = catalog.backbones()
    assert {len(column) for column in table_of(backbones).values()} == {len(backbones)}


def test_before_the_first_event_a_run_is_starting() -> None:
    assert progress_of(RunHistory()).text == "Starting…"


def test_a_download_counts_in_mebibytes() -> None:
    history = RunHistory(
        phase=Phase(name="preparing_data", text="Preparing"), progress=Progress(text="Downloading a", done=2**20, total=2**22, unit="bytes")
    )
    assert progress_of(history).text == "Downloading a · 1.0 of 4.0 MiB"
    assert progress_of(history).fraction == 0.25


def test_of_an_unknown_total_no_share_is_made_up() -> None:
    assert counted_progress("Reading train images", 0, 0, "images") == RunProgress(0.0, "Reading train images…")


def test_training_is_a_share_of_the_whole_run() -> None:
    step = Step(step=25, epoch=2.5, loss=1.0, batch_accuracy=0.5, learning_rate=0.1, images_per_second=1.0, eta_seconds=90.0)
    progress = progress_of(RunHistory(phase=TRAINING, started=STARTED, steps=[step]))
    assert progress.text == "Epoch 3 of 4 · 62.5 % · about 1 min 30 s left"
    assert progress.fraction == pytest.approx(0.625)


def test_the_last_step_is_in_the_last_epoch() -> None:
    step = Step(step=40, epoch=4.0, loss=1.0, batch_accuracy=0.5, learning_rate=0.1, images_per_second=1.0, eta_seconds=0.0)
    assert progress_of(RunHistory(phase=TRAINING, started=STARTED, steps=[step])).text.startswith("Epoch 4 of 4")
