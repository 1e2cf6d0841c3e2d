"""The Compare page in every state, through Streamlit's AppTest."""

import json
import shutil
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.paths import PROJECT_ROOT
from tests.made_runs import hold_lock, make_run

PAGE = PROJECT_ROOT / "cifar_tl/ui/pages/compare.py"

pytestmark = pytest.mark.usefixtures("predictor")


def opened(*run_ids: str) -> AppTest:
    at = AppTest.from_file(PAGE, default_timeout=30)
    if run_ids:
        at.query_params["runs"] = ",".join(run_ids)
    return at.run()


def texts(at: AppTest) -> str:
    assert not at.exception, at.exception
    return "\n".join(element.value for kind in (at.markdown, at.caption, at.error, at.subheader) for element in kind).replace("\\", "")


def table(at: AppTest, column: str) -> dict[str, list[object]]:
    """The table that has this column."""
    frame = next(element.value for element in at.dataframe if column in element.value)
    return {name: list(frame[name]) for name in frame}


def test_nothing_is_compared_before_two_runs_are_chosen(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    assert "Choose two to 6 runs" in texts(opened())
    assert "Choose two to 6 runs" in texts(opened("a", "no-such-run", "../x"))


def test_two_runs_are_compared_in_curves_results_settings_and_classes(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", name="First", learning_rate=0.1, seed=1)
    make_run(checkpoints, run_id="b", name="Second", learning_rate=0.2, seed=2)
    at = opened("a", "b")
    text = texts(at)
    assert json.loads(at.get("bidi_component")[0].proto.json)["traces"][0]["name"] == "First"
    assert table(at, "95 % interval")["Run"] == ["First", "Second"]
    assert all("to" in interval for interval in table(at, "95 % interval")["95 % interval"])
    assert table(at, "Setting") == {"Setting": ["Learning rate"], "First": ["0.1"], "Second": ["0.2"]}
    changes = table(at, "Change")["Change"]
    assert changes == sorted(changes, reverse=True)
    assert "McNemar's test" in text
    assert "fixes" in text


def test_three_runs_have_no_pairs_and_two_of_one_name_are_told_apart(checkpoints: Path) -> None:
    for run_id in ("a", "b", "c"):
        make_run(checkpoints, run_id=run_id, name="Same" if run_id != "c" else "Other")
    at = opened("a", "b", "c")
    assert table(at, "95 % interval")["Run"] == ["Same (A)", "Same (B)", "Other"]
    assert "Image by image" not in texts(at)
    assert "None: these runs have the same settings." in texts(at)


def test_runs_that_were_not_tested_compare_what_they_have(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    make_run(checkpoints, run_id="b", status="stopped")
    text = texts(opened("a", "b"))
    assert "Not yet: b" in text
    assert "Both runs must have been tested." in text


def test_runs_without_an_epoch_say_so(checkpoints: Path) -> None:
    for run_id in ("a", "b"):
        make_run(checkpoints, run_id=run_id, status="failed")
    assert "None of these runs has finished an epoch yet." in texts(opened("a", "b"))


def test_runs_on_different_data_are_not_paired(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    make_run(checkpoints, run_id="b", data_fingerprint="other")
    make_run(checkpoints, run_id="c", num_classes=10)
    assert "different data or classes" in texts(opened("a", "b"))
    assert "different classes, so their classes cannot be compared" in texts(opened("a", "c"))


def test_a_damaged_evaluation_is_told_and_no_traceback(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    make_run(checkpoints, run_id="b").evaluation_of("test").write_bytes(b"damaged")
    assert "Not yet: b" in texts(opened("a", "b"))


def test_a_run_that_still_trains_is_waited_for_and_then_compared(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", name="First")
    running = make_run(checkpoints, run_id="b", name="Second", status="running")
    with hold_lock(running):
        at = opened("a", "b")
        assert "Not yet: Second" in texts(at)
        (bar,) = at.get("progress")
        assert "**Second**" in bar.proto.text
    shutil.rmtree(running.path)
    make_run(checkpoints, run_id="b", name="Second", seed=2)
    at = at.run()
    assert "fixes" in texts(at)
    assert not at.get("progress")
