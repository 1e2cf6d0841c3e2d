"""The Runs page in every state, through Streamlit's AppTest."""

from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.runs.annotations import annotate, read_annotations
from cifar_tl.ui import state
from tests.made_runs import FAILURE, hold_lock, make_run

PAGE = PROJECT_ROOT / "cifar_tl/ui/pages/runs.py"


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    st.cache_data.clear()
    st.cache_resource.clear()
    return tmp_path


def opened(chosen: str | None = None) -> AppTest:
    at = AppTest.from_file(PAGE, default_timeout=20)
    if chosen:
        at.session_state["runs.chosen"] = [chosen]
    return at.run()


def column(at: AppTest, name: str) -> list[object]:
    return list(at.dataframe[0].value[name])


def button(at: AppTest, label: str):
    return next(button for button in at.button if button.label == label)


def texts(at: AppTest) -> str:
    return "\n".join(element.value for kind in (at.markdown, at.caption, at.error) for element in kind).replace("\\", "")


def test_without_runs_the_page_leads_to_training():
    at = opened()
    assert not at.exception
    assert "No runs yet" in texts(at)
    assert [button.label for button in at.button] == ["Train a model"]


def test_runs_are_listed_newest_first_under_their_names(roots: Path):
    make_run(roots, run_id="old", created=1000, name="The first")
    make_run(roots, run_id="new", created=2000)
    at = opened()
    assert not at.exception
    assert column(at, "Run") == ["new", "The first"]


def test_every_status_has_its_word(roots: Path):
    for created, status in enumerate(("completed", "stopped", "failed", "lost", "running")):
        folder = make_run(roots, run_id=status, status=status, created=1000 + created)
    with hold_lock(folder):
        at = opened()
    assert [list(words) for words in column(at, "Status")] == [["Running"], ["Lost"], ["Failed"], ["Stopped"], ["Completed"]]


def test_a_run_that_waits_is_listed_as_queued_and_can_be_moved_to_the_front(roots: Path, monkeypatch: pytest.MonkeyPatch):
    moved: list[str] = []
    monkeypatch.setattr("cifar_tl.runs.queue.move_to_front", moved.append)
    with hold_lock(make_run(roots, run_id="a", status="queued")):
        at = opened(chosen="a")
        assert list(column(at, "Status")[0]) == ["Queued"]
        assert button(at, "Delete").disabled
        button(at, "Move to front").click().run()
    assert moved == ["a"]


def test_accuracies_and_duration_are_shown(roots: Path):
    make_run(roots)
    at = opened()
    assert column(at, "Best dev") == [pytest.approx(71.2, abs=0.01)]
    assert column(at, "Test") == [pytest.approx(71.5)]
    assert column(at, "Duration") == ["10 min 12 s"]


def test_nothing_can_be_done_before_a_run_is_chosen(roots: Path):
    make_run(roots)
    at = opened()
    assert len(at.button) == 0
    assert "Choose a run" in texts(at)


def test_chosen_run_can_be_opened_explored_annotated_and_deleted(roots: Path):
    folder = make_run(roots)
    folder.best_weights.touch()
    folder.last_checkpoint.touch()
    at = opened(chosen=folder.run_id)
    assert not at.exception
    assert {button.label: button.disabled for button in at.button} == dict.fromkeys(
        ("Open", "Explore", "Predict", "Train longer", "Star", "Annotate", "Clone settings", "Archive", "Delete"), False
    )


def test_run_without_weights_cannot_predict_and_says_why(roots: Path):
    folder = make_run(roots, status="empty")
    predict = button(opened(chosen=folder.run_id), "Predict")
    assert predict.disabled
    assert "no weights" in predict.help


def test_running_run_cannot_be_deleted_and_says_why(roots: Path):
    folder = make_run(roots, status="running")
    with hold_lock(folder):
        delete = button(opened(chosen=folder.run_id), "Delete")
    assert delete.disabled
    assert "stop it first" in delete.help


def test_failed_run_tells_why(roots: Path):
    folder = make_run(roots, status="failed")
    assert FAILURE in texts(opened(chosen=folder.run_id))


def test_unreadable_folder_shows_its_problem_and_can_only_be_kept_or_deleted(roots: Path):
    folder = make_run(roots)
    folder.config.write_text("{broken", "utf-8")
    at = opened(chosen=folder.run_id)
    assert not at.exception
    assert [list(words) for words in column(at, "Status")] == [["Unreadable"]]
    assert "cannot be read" in texts(at)
    assert [button.label for button in at.button if not button.disabled] == ["Star", "Annotate", "Archive", "Delete"]


def test_rename_gives_the_run_its_new_name(roots: Path):
    folder = make_run(roots, name="Before")
    at = opened(chosen=folder.run_id)
    button(at, "Annotate").click().run()
    at.text_input[0].set_value("After")
    at.button(key="runs.annotate").click().run()
    assert not at.exception
    assert read_annotations(folder).name == "After"
    assert column(at, "Run") == ["After"]


def test_delete_asks_before_it_removes_the_folder(roots: Path):
    folder = make_run(roots, name="Doomed")
    at = opened(chosen=folder.run_id)
    button(at, "Delete").click().run()
    assert folder.path.is_dir()
    assert "Delete **Doomed**" in texts(at)
    at.button(key="runs.delete").click().run()
    assert not at.exception
    assert not folder.path.exists()
    assert "No runs yet" in texts(at)


def test_keeping_a_run_removes_nothing(roots: Path):
    folder = make_run(roots)
    at = opened(chosen=folder.run_id)
    button(at, "Delete").click().run()
    button(at, "Keep").click().run()
    assert folder.path.is_dir()
    assert "Keep" not in [button.label for button in at.button]


def test_run_that_started_meanwhile_is_not_deleted(roots: Path):
    folder = make_run(roots)
    at = opened(chosen=folder.run_id)
    button(at, "Delete").click().run()
    with hold_lock(folder):
        at.button(key="runs.delete").click().run()
    assert not at.exception
    assert folder.path.is_dir()


def test_markdown_in_a_name_is_shown_as_it_is(roots: Path):
    folder = make_run(roots, name="lr *0.1* :red[x] $a$")
    at = opened(chosen=folder.run_id)
    assert any(r"\*0\.1\*" in element.value for element in at.markdown)


def test_a_deleted_run_is_taken_back_from_the_trash(roots: Path):
    folder = make_run(roots, run_id="a")
    at = opened(chosen="a")
    button(at, "Delete").click().run()
    at.button(key="runs.delete").click().run()
    assert not folder.path.exists()
    at.button(key="runs.restore.a").click().run()
    assert not at.exception
    assert folder.path.is_dir()
    assert column(at, "Run") == ["a"]


def test_starred_runs_come_first_and_archived_ones_are_not_listed(roots: Path):
    for created, run_id in enumerate(("a", "b", "c")):
        make_run(roots, run_id=run_id, created=1000 + created)
    at = opened(chosen="a")
    button(at, "Star").click().run()
    assert column(at, "Run") == ["★ a", "c", "b"]
    at = opened(chosen="b")
    button(at, "Archive").click().run()
    assert column(at, "Run") == ["★ a", "c"]
    at.toggle(key="runs.archived").set_value(True).run()
    assert column(at, "Run") == ["★ a", "c", "b"]


def test_tags_and_note_are_kept_shown_and_searched(roots: Path):
    for number in range(9):
        make_run(roots, run_id=f"run{number}", created=1000 + number)
    at = opened(chosen="run4")
    button(at, "Annotate").click().run()
    box = next(box for box in at.multiselect if box.label == "Tags")
    assert box.options == []
    annotate("run4", tags=["baseline"], note="with *stars*")
    at = opened(chosen="run4")
    assert "with *stars*" in texts(at)
    at.text_input(key="runs.search").set_value("base EFFICIENT").run()
    assert column(at, "Run") == ["run4"]
    at.text_input(key="runs.search").set_value("nothing like it").run()
    assert "No run is like that." in texts(at)


def test_runs_are_filtered_by_status_and_tag(roots: Path):
    for number in range(6):
        make_run(roots, run_id=f"done{number}", created=1000 + number)
    for number in range(3):
        make_run(roots, run_id=f"failed{number}", status="failed", created=900 + number)
    annotate("done3", tags=["kept"])
    at = opened()
    at.multiselect(key="runs.statuses").set_value(["Failed"]).run()
    assert column(at, "Run") == ["failed2", "failed1", "failed0"]
    at.multiselect(key="runs.statuses").set_value([]).run()
    at.multiselect(key="runs.tags").set_value(["kept"]).run()
    assert column(at, "Run") == ["done3"]


def test_cloning_fills_the_form_with_the_settings_of_the_run(roots: Path, tmp_path: Path):
    make_run(roots, run_id="a", image_size=96, learning_rate=0.07, trainable="everything", name="Mine", classes=("circle", "ring"))
    at = opened(chosen="a")
    button(at, "Clone settings").click()
    at.run()
    values = {name: at.session_state[state.setting_key(name)] for name in ("image_size", "learning_rate", "trainable", "name", "classes")}
    assert values == {"image_size": 96, "learning_rate": 0.07, "trainable": "everything", "name": "", "classes": ["circle", "ring"]}
    assert at.session_state[state.SOURCE_KIND] == "shapes"
