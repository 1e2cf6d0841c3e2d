"""The form of the Train page: presets, pickers, problems, the estimate, and a Start that makes one run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cifar_tl.answers import EpochEstimate
from cifar_tl.config import make_config
from cifar_tl.data.sources import prepare
from cifar_tl.errors import RunError, WeightsUnavailable
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.presets import PRESETS
from cifar_tl.runs import launcher
from cifar_tl.runs.store import read_config, run_ids
from cifar_tl.settings import settings
from cifar_tl.ui import form_values, state, train_form
from tests.app.conftest import NotingPredictor
from tests.made_runs import hold_lock, make_run

PAGE = str(PROJECT_ROOT / "cifar_tl/ui/pages/train.py")
MEASURE = "cifar_tl.probe:measure_epoch"
ESTIMATE = EpochEstimate(train_images=3600, epoch_seconds=42.0, run_seconds=210.0, images_per_second=85.7, device="cpu", precision="bf16")


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor) -> list[str]:
    """No worker is started: folders are made, and the ids noted."""
    ids: list[str] = []

    def start_worker(folder: RunFolder) -> None:
        ids.append(folder.run_id)

    monkeypatch.setattr(launcher, "start_worker", start_worker)
    return ids


@pytest.fixture(autouse=True)
def _shapes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first data set does not depend on what this machine has."""
    at_hand = form_values.is_at_hand
    monkeypatch.setattr(form_values, "is_at_hand", lambda source: source != "cifar100" and at_hand(source))


def open_form() -> AppTest:
    return AppTest.from_file(PAGE, default_timeout=30).run()


def shown(page: AppTest) -> str:
    assert not page.exception, page.exception
    kinds = ("title", "markdown", "caption", "info", "error", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in page.get(kind)).replace("\\", "")


def widget(page: AppTest, name: str) -> object:
    return page.session_state[state.setting_key(name)]


def start_button(page: AppTest):
    return next(button for button in page.button if button.label == "Start training")


def choose_preset(page: AppTest, name: str) -> AppTest:
    page.button_group(key=state.PRESET).set_value(name)
    return page.run()


def number(page: AppTest, name: str):
    return page.number_input(key=state.setting_key(name))


def test_the_form_opens_with_the_first_preset_and_may_be_started() -> None:
    page = open_form()
    assert page.session_state[state.PRESET] == PRESETS[0].name
    assert widget(page, "image_size") == PRESETS[0].values["image_size"]
    assert not start_button(page).disabled


def test_without_cifar100_the_form_starts_with_shapes_and_says_why() -> None:
    page = open_form()
    assert page.session_state[state.SOURCE_KIND] == "shapes"
    assert "because CIFAR-100 is not here" in shown(page)


def test_with_cifar100_at_hand_the_form_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form_values, "is_at_hand", lambda source: True)
    page = open_form()
    assert page.session_state[state.SOURCE_KIND] == "cifar100"
    assert "is not here" not in shown(page)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_fills_in_its_values(preset) -> None:
    page = choose_preset(choose_preset(open_form(), PRESETS[2].name), preset.name)
    assert {name: widget(page, name) for name in preset.values} == preset.values
    assert preset.summary in shown(page)


def test_a_preset_takes_back_what_another_one_has_set() -> None:
    page = choose_preset(choose_preset(open_form(), "Best accuracy"), "Balanced")
    assert widget(page, "cutmix") == 0.0


def test_a_preset_leaves_data_and_network_alone() -> None:
    page = open_form()
    page.selectbox(key=state.setting_key("backbone")).set_value("resnet18").run()
    number(choose_preset(page, "Balanced"), "epochs")
    assert widget(page, "backbone") == "resnet18"


def test_an_edit_leaves_the_preset_and_going_back_returns_to_it() -> None:
    page = open_form()
    epochs = widget(page, "epochs")
    number(page, "epochs").set_value(17).run()
    assert page.session_state[state.PRESET] is None
    number(page, "epochs").set_value(epochs).run()
    assert page.session_state[state.PRESET] == PRESETS[0].name


def test_every_setting_has_a_widget_once_the_advanced_ones_are_shown() -> None:
    page = open_form()
    page.toggle(key=state.SHOW_ADVANCED).set_value(True).run()
    kinds = ("selectbox", "number_input", "text_input", "toggle", "multiselect")
    drawn = {element.key for kind in kinds for element in page.get(kind)}
    expected = {state.setting_key(setting.name) for setting in settings() if setting.name != "source"}
    assert expected <= drawn


def test_advanced_settings_count_also_when_they_are_hidden(started: list[str]) -> None:
    page = open_form()
    page.toggle(key=state.SHOW_ADVANCED).set_value(True).run()
    number(page, "seed").set_value(7).run()
    page.toggle(key=state.SHOW_ADVANCED).set_value(False).run()
    assert "Seed 7" in shown(page)
    start_button(page).click().run()
    assert read_config(run_folder_of(started[0])).seed == 7


def show_advanced(page: AppTest) -> AppTest:
    return page.toggle(key=state.SHOW_ADVANCED).set_value(True).run()


def choose_what_trains(page: AppTest, trainable: str) -> AppTest:
    return page.selectbox(key=state.setting_key("trainable")).set_value(trainable).run()


@pytest.mark.parametrize(("name", "words"), [("images_per_class", "All"), ("first_image_size", "Same as image size")])
def test_an_empty_optional_number_says_what_it_means(name: str, words: str) -> None:
    assert number(show_advanced(open_form()), name).placeholder == words


@pytest.mark.parametrize(
    ("trainable", "without_effect"),
    [
        ("head", {"trainable_stages", "head_epochs", "stage_learning_rate_decay", "first_image_size"}),
        ("last_stages", {"head_epochs", "first_image_size"}),
        ("everything", {"trainable_stages", "head_epochs", "cached_views", "cache_limit"}),
        ("head_then_everything", {"trainable_stages"}),
    ],
)
def test_numbers_without_effect_on_what_trains_are_disabled(trainable: str, without_effect: set[str]) -> None:
    page = choose_what_trains(show_advanced(open_form()), trainable)
    disabled = {element.key for element in page.number_input if element.disabled}
    assert disabled == {state.setting_key(name) for name in without_effect}


def test_a_disabled_setting_counts_as_its_default_and_comes_back(started: list[str]) -> None:
    page = choose_what_trains(show_advanced(open_form()), "everything")
    number(page, "first_image_size").set_value(32).run()
    choose_what_trains(page, "head")
    assert not page.error
    assert "First image size" not in shown(page)
    choose_what_trains(page, "everything")
    start_button(page).click().run()
    assert read_config(run_folder_of(started[0])).first_image_size == 32


def test_a_run_does_not_record_what_was_entered_in_a_disabled_setting(started: list[str]) -> None:
    page = choose_what_trains(show_advanced(open_form()), "everything")
    number(page, "first_image_size").set_value(32).run()
    start_button(choose_what_trains(page, "head")).click().run()
    assert read_config(run_folder_of(started[0])).first_image_size is None


def run_folder_of(run_id: str) -> RunFolder:
    from cifar_tl.paths import run_folder

    return run_folder(run_id)


def test_a_refused_combination_is_shown_and_disables_start() -> None:
    page = choose_what_trains(open_form(), "head_then_everything")
    number(page, "epochs").set_value(1).run()
    assert "Head-only epochs (1) must be fewer than all epochs (1)" in shown(page)
    assert start_button(page).disabled


def test_an_unknown_backbone_is_shown_and_disables_start() -> None:
    page = AppTest.from_file(PAGE, default_timeout=30)
    page.session_state[state.setting_key("backbone")] = "no_such_network"  # as if typed: AppTest chooses listed options only
    page.run()
    assert "no_such_network" in page.error[0].value.replace("\\", "")
    assert start_button(page).disabled


def test_a_folder_needs_its_path_first() -> None:
    page = open_form()
    page.selectbox(key=state.SOURCE_KIND).set_value("folder").run()
    assert "Type the path of a folder" in shown(page)
    assert start_button(page).disabled


def test_a_folder_that_is_not_there_is_refused_in_the_form(tmp_path: Path) -> None:
    page = open_form()
    page.selectbox(key=state.SOURCE_KIND).set_value("folder").run()
    page.text_input(key=state.SOURCE_FOLDER).set_value(str(tmp_path / "nothing")).run()
    assert page.error
    assert start_button(page).disabled


def test_files_that_could_not_be_read_are_listed_by_name_and_reason(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (20, 20), "red").save(tmp_path / "pets" / name / f"{number}.png")
    (tmp_path / "pets" / "dog" / "broken.png").write_bytes(b"no picture")
    prepare(f"folder:{tmp_path / 'pets'}")
    page = open_form()
    page.selectbox(key=state.SOURCE_KIND).set_value("folder").run()
    page.text_input(key=state.SOURCE_FOLDER).set_value(str(tmp_path / "pets")).run()
    (table,) = [table.value for table in page.dataframe if "Reason" in table.value.columns]
    assert table["File"].tolist() == ["dog/broken.png"]
    assert table["Reason"][0]


def test_a_device_this_machine_lacks_is_refused_in_the_form() -> None:
    page = open_form()
    page.toggle(key=state.SHOW_ADVANCED).set_value(True).run()
    page.selectbox(key=state.setting_key("device")).set_value("cuda").run()
    assert "This machine has no CUDA GPU (it has: CPU)" in shown(page)
    assert start_button(page).disabled


def test_start_makes_a_run_of_the_form_and_shows_it(started: list[str]) -> None:
    page = open_form()
    page.text_input(key=state.setting_key("name")).set_value("First").run()
    start_button(page).click().run()
    assert len(started) == 1
    assert page.query_params["run"] == started[0]
    assert page.title[0].value == "First"
    assert read_config(run_folder_of(started[0])) == make_config(**PRESETS[0].values | {"source": "shapes", "name": "First"})


def test_an_edit_that_arrives_with_the_click_counts(started: list[str]) -> None:
    page = open_form()
    number(page, "epochs").set_value(9)
    start_button(page).click().run()
    assert read_config(run_folder_of(started[0])).epochs == 9


def test_the_second_click_of_a_double_click_makes_no_second_run(started: list[str]) -> None:
    page = open_form()
    start_button(page).click().run()
    # The echo: its message left the browser before ?run= arrived there.
    page.query_params.clear()
    page.run()
    assert run_ids() == started
    assert page.query_params["run"] == started[0]


def test_going_back_to_the_form_allows_another_run(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_form()
    start_button(page).click().run()
    monkeypatch.setattr(train_form, "DOUBLE_CLICK_SECONDS", 0.0)
    page.query_params.clear()
    page.run()
    start_button(page).click().run()
    assert len(started) == 2


def test_a_run_that_cannot_be_made_says_why_in_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object, on: str) -> str:
        raise RunError("A run folder cannot be made in /nowhere: no space.")

    monkeypatch.setattr(launcher, "start_run", refuse)
    page = open_form()
    start_button(page).click().run()
    assert "cannot be made in /nowhere" in shown(page)


def test_a_run_can_be_sent_to_a_cluster_and_no_cluster_is_said_in_words(checkpoints: Path) -> None:
    page = open_form()
    assert not [box for box in page.text_input if box.key == state.CLUSTER_ADDRESS]
    page.session_state[state.WHERE] = "Ray cluster"
    page.run()
    page.text_input(key=state.CLUSTER_ADDRESS).set_value("ray://head:10001").run()
    start_button(page).click().run()
    assert "is no address of a Ray cluster" in shown(page)
    assert not list(checkpoints.glob("*/config.json"))


def test_runs_in_progress_are_shown_with_the_way_to_them(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="busy", status="running", name="Busy one")
    with hold_lock(folder):
        page = open_form()
        assert "Busy one" in shown(page)
        page.button(key="show.busy").click().run()
        assert page.query_params["run"] == "busy"
        assert page.title[0].value == "Busy one"


def measured(predictor: NotingPredictor, answer: Callable[..., None] | None = None) -> int:
    return len(predictor.of(MEASURE))


def test_settings_are_measured_once_they_have_rested(predictor: NotingPredictor) -> None:
    page = open_form()
    assert measured(predictor) == 0
    page.run()
    assert measured(predictor) == 1
    assert "Measuring how long an epoch takes here" in shown(page)


def test_the_estimate_says_epoch_run_and_machine(predictor: NotingPredictor) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_result(ESTIMATE)
    text = shown(page.run())
    assert "About **42 s per epoch**, 3 min 30 s in all, on 2 CPU cores (bfloat16)." in text


def test_the_estimate_says_before_the_start_what_a_run_takes_on_disk(predictor: NotingPredictor) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_result(replace(ESTIMATE, cache_bytes=1_440_000_000))
    text = shown(page.run())
    assert "Their output takes 1.4 GB of disk" in text
    assert not start_button(page).disabled


def test_known_settings_are_not_measured_again(predictor: NotingPredictor) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_result(ESTIMATE)
    page.run()
    again = open_form().run().run()
    assert measured(predictor) == 1
    assert "42 s per epoch" in shown(again)


def test_a_setting_without_effect_on_time_is_not_measured(predictor: NotingPredictor) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_result(ESTIMATE)
    page.run()
    number(page, "learning_rate").set_value(0.01).run().run()
    assert measured(predictor) == 1


def test_other_settings_wait_for_the_measurement_in_progress(predictor: NotingPredictor) -> None:
    page = open_form().run()
    number(page, "image_size").set_value(96).run().run()
    assert measured(predictor) == 1
    predictor.of(MEASURE)[0][1].set_result(ESTIMATE)
    page.run()
    assert predictor.of(MEASURE)[1][0][0]["image_size"] == 96


def test_an_estimate_that_failed_says_why_and_may_be_asked_again(predictor: NotingPredictor) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_exception(WeightsUnavailable("The weights are not here."))
    assert "The weights are not here." in shown(page.run())
    assert not start_button(page).disabled
    next(button for button in page.button if button.label == "Measure again").click().run().run()
    assert measured(predictor) == 2
