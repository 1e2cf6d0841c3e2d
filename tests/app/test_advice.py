"""Advice in the form: asked in a process of its own, shown as it comes, taken over with a click."""

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.advice.answers import BackboneAdvice, suggest, to_json
from cifar_tl.answers import EpochEstimate
from cifar_tl.config import BUNDLED_BACKBONE
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.ui import advice as advice_module
from cifar_tl.ui import estimate, train_form
from cifar_tl.ui.state import PRESET, setting_key
from tests.app.conftest import NotingPredictor

MEASURE = "cifar_tl.probe:measure_epoch"
PAGE = PROJECT_ROOT / "cifar_tl" / "ui" / "pages" / "train.py"


class Process:
    """Stands for the process that is asked: it writes what the test gives it, and lives until it is told to end."""

    def __init__(self, arguments: list[str], stdout: Any, stderr: Any, **_named: Any) -> None:
        self.arguments, self.out, self.err = arguments, stdout.name, stderr.name
        self.code: int | None = None

    def say(self, *lines: str) -> None:
        with open(self.out, "a") as file:  # noqa: PTH123 - a name as open files have it
            file.write("".join(lines))

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.code = -15

    def wait(self) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, predictor: NotingPredictor) -> list[Process]:
    started: list[Process] = []

    def popen(arguments: list[str], **named: Any) -> Process:
        named.pop("cwd"), named.pop("stdin")
        started.append(Process(arguments, **named))
        return started[-1]

    monkeypatch.setattr(advice_module, "subprocess", SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL))
    return started


def open_form() -> AppTest:
    return AppTest.from_file(str(PAGE), default_timeout=30).run()


def click(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def shown(page: AppTest) -> str:
    assert not page.exception, page.exception
    return "\n".join(str(element.value) for kind in (page.markdown, page.caption, page.error) for element in kind)


def test_backbones_are_shown_as_they_come_and_one_is_taken_over(asked: list[Process]) -> None:
    page = click(open_form(), "Advise me")
    (process,) = asked
    assert process.arguments[3:5] == ["advise", "--progress"]
    process.say(json.dumps({"text": "Looking at images", "done": 5, "total": 10}) + "\n", '{"text": "half a li')
    page.run()
    process.say('ne", "done": 1, "total": 2}\n', to_json(BackboneAdvice("resnet18", 0.6, 0.55, 0.65, 0.4, 2000, 30.0, 300.0, 10**9)) + "\n")
    process.say(to_json(BackboneAdvice("resnet50", error="its file is damaged")) + "\n")
    process.code = 0
    page.run()
    text = shown(page)
    assert "55 to 65 % on dev" in text
    table = page.dataframe[0].value
    assert list(table["Backbone"]) == ["resnet18", "resnet50"]
    assert list(table["Why not"]) == ["", "its file is damaged"]
    click(page, "Use resnet18")
    assert page.session_state[setting_key("backbone")] == "resnet18"


def test_the_settings_of_the_form_are_asked_about_and_a_change_is_noticed(asked: list[Process]) -> None:
    page = open_form()
    page.number_input(key=setting_key("image_size")).set_value(96).run()
    click(page, "Advise me")
    assert "--image-size=96" in asked[0].arguments
    asked[0].say(to_json(BackboneAdvice(BUNDLED_BACKBONE, 0.6, 0.55, 0.65, 0.4, 2000, 0.25, 3.0, 10**9)) + "\n")
    asked[0].code = 0
    page.run()
    assert "have been changed since" not in shown(page)
    page.number_input(key=setting_key("image_size")).set_value(128).run()
    assert "have been changed since" in shown(page)


def test_a_learning_rate_is_found_and_taken_over(asked: list[Process]) -> None:
    page = click(open_form(), "Find a learning rate")
    assert asked[0].arguments[3] == "lr-range"
    asked[0].say(to_json(suggest([0.001, 0.01, 0.1, 1.0], [2.3, 2.0, 1.0, 3.0])) + "\n")
    asked[0].code = 0
    page.run()
    assert "Suggested: **0.01**" in shown(page)
    click(page, "Use 0.01")
    assert page.session_state[setting_key("learning_rate")] == 0.01


def test_a_rate_that_is_taken_over_leaves_the_preset_and_is_compared_with_no_more(asked: list[Process]) -> None:
    page = click(open_form(), "Find a learning rate")
    asked[0].say(to_json(suggest([0.001, 0.01, 0.3, 1.0], [2.3, 2.0, 1.9, 3.0])) + "\n")
    asked[0].code = 0
    assert "Yours, 0.01, is lower." in shown(page.run())
    assert page.session_state[PRESET] is not None
    click(page, "Use 0.03")
    assert page.session_state[PRESET] is None
    assert "It is the one you have." in shown(page)


def test_the_time_can_be_measured_again_and_says_how_old_it_is(asked: list[Process], predictor: NotingPredictor, monkeypatch: Any) -> None:
    page = open_form().run()
    predictor.of(MEASURE)[0][1].set_result(EpochEstimate(3600, 42.0, 210.0, 85.7, "cpu", "bf16"))
    assert "Measured with a few steps: 86 images/s" in shown(page.run()).replace("\\", "")
    now = estimate.time.time()
    monkeypatch.setattr(train_form, "time", SimpleNamespace(time=lambda: now + 12 * 60, monotonic=lambda: 1e9))
    assert "Measured with a few steps 12 min ago: 86 images/s" in shown(page.run())
    click(page, "Measure again").run()
    assert len(predictor.of(MEASURE)) == 2
    assert "Measuring how long an epoch takes here" in shown(page)


def test_a_failure_is_told_in_its_own_words_and_closing_ends_the_process(asked: list[Process]) -> None:
    page = click(open_form(), "Advise me")
    with open(asked[0].err, "a") as file:  # noqa: PTH123
        file.write("a warning\nerror: The data set is not on disk.\n")
    asked[0].code = 1
    page.run()
    assert "The data set is not on disk" in shown(page)
    click(page, "Find a learning rate")
    click(page, "Cancel")
    assert asked[1].code == -15
    assert "Which learning rate?" not in shown(page)
