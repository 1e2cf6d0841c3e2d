"""Names of runs as people type them, paste them and find them in other people's files: kept where they can be, never a path, never acting."""

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.__main__ import main
from cifar_tl.errors import SettingsError
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher
from cifar_tl.runs.annotations import MAX_NAME_LENGTH, annotate, read_annotations
from cifar_tl.runs.names import one_line, seen
from cifar_tl.runs.store import RUN_ID, read_config
from cifar_tl.ui import form_values, state
from cifar_tl.ui.compare_views import names_apart
from tests.made_runs import make_run

pytestmark = pytest.mark.usefixtures("predictor")

PAGES = PROJECT_ROOT / "cifar_tl/ui/pages"

# As typed, and as it is kept.
NAMES = {
    "empty": ("", ""),
    "blank": ("   ", ""),
    "a path": ("../../x", "../../x"),
    "an absolute path": ("/etc/passwd", "/etc/passwd"),
    "emoji": ("👩‍🔬 run 🦜", "👩‍🔬 run 🦜"),
    "Arabic": ("تجربة أولى", "تجربة أولى"),
    "combining": ("cafe\u0301", "café"),
    "new lines": ("first\nsecond\r\n\tthird", "first second third"),
    "control characters": ("a\x07b\x1b[31mred\x7f", "ab[31mred"),
    "turned around": ("gnp.\u202eexe", "gnp.exe"),
    "nothing seen": ("\u200b\u2060\ufeff\u200d", ""),
    "Markdown and HTML": ("| *a* $b$ `c` :red[d] <b>e</b> &lt; [f](g)", "| *a* $b$ `c` :red[d] <b>e</b> &lt; [f](g)"),
    "one long word": ("W" * 100, "W" * 100),
}
TYPED_AND_KEPT = pytest.mark.parametrize(("typed", "kept"), NAMES.values(), ids=NAMES)


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No worker is started: folders are made, and the ids noted."""
    ids: list[str] = []
    monkeypatch.setattr(launcher, "start_worker", lambda folder: ids.append(folder.run_id))
    monkeypatch.setattr(form_values, "is_at_hand", lambda source: source == "shapes")
    return ids


def opened(page: str, *, chosen: str = "", **parameters: str) -> AppTest:
    at = AppTest.from_file(PAGES / f"{page}.py", default_timeout=30)
    for name, value in parameters.items():
        at.query_params[name] = value
    if chosen:
        at.session_state["runs.chosen"] = [chosen]
    return at.run()


def click(at: AppTest, label: str) -> AppTest:
    assert not at.exception, at.exception
    return next(button for button in at.button if button.label == label).click().run()


def unescaped(text: str) -> str:
    return text.replace("\\", "")


@pytest.fixture
def around(tmp_path: Path) -> list[Path]:
    """What lies beside the folder of runs before a test."""
    return sorted(path for path in tmp_path.rglob("*") if path.is_file())


def the_only_run(checkpoints: Path, started: list[str]) -> RunFolder:
    (run_id,) = started
    assert [path.name for path in checkpoints.iterdir()] == [run_id]
    assert RUN_ID.fullmatch(run_id)
    return RunFolder(checkpoints / run_id)


@TYPED_AND_KEPT
def test_a_name_typed_into_the_form_is_kept_and_never_a_path(checkpoints, tmp_path, started, around, typed, kept):
    at = opened("train")
    at.text_input(key=state.setting_key("name")).set_value(typed).run()
    click(at, "Start training")
    assert not at.exception
    folder = the_only_run(checkpoints, started)
    assert read_config(folder).name == kept
    assert unescaped(at.title[0].value) == (kept or folder.run_id)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*around, folder.config])


def test_the_form_takes_no_more_characters_than_a_name_may_have(checkpoints, started):
    at = opened("train")
    at.text_input(key=state.setting_key("name")).set_value("x" * 300).run()
    click(at, "Start training")
    assert read_config(the_only_run(checkpoints, started)).name == "x" * MAX_NAME_LENGTH


@TYPED_AND_KEPT
def test_a_name_given_on_the_command_line_is_kept_and_never_a_path(checkpoints, started, capsys, typed, kept):
    main(["train", "--source", "shapes", f"--name={typed}", "--json"])
    said = capsys.readouterr()
    folder = the_only_run(checkpoints, started)
    assert read_config(folder).name == kept
    assert len(said.out.splitlines()) == 1
    assert json.loads(said.out)["run_id"] == folder.run_id


@pytest.mark.parametrize(("name", "words"), [("x" * 300, "at most 100 characters"), ("\udcff", "valid string")], ids=["300", "no text"])
def test_a_name_that_cannot_be_kept_is_refused_in_one_line(checkpoints, capsys, name, words):
    assert main(["train", "--source", "shapes", f"--name={name}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "Run name" in said.err
    assert words in said.err
    assert list(checkpoints.iterdir()) == []


@TYPED_AND_KEPT
def test_a_name_given_later_is_shown_in_the_table_and_in_the_picker(checkpoints, typed, kept):
    folder = make_run(checkpoints, run_id="r")
    at = click(opened("runs", chosen="r"), "Annotate")
    next(box for box in at.text_input if box.label == "Name").set_value(typed)
    at.button(key="runs.annotate").click().run()
    assert not at.exception
    assert not at.error
    assert read_annotations(folder).name == kept
    assert list(at.dataframe[0].value["Run"]) == [kept or "r"]
    assert any(unescaped(element.value) == f"**{kept or 'r'}**" for element in at.markdown)
    assert opened("explore", run="r").selectbox[0].options == [f"{kept or 'r'} · Shapes · completed"]
    assert [path.name for path in checkpoints.iterdir()] == ["r"]


def test_a_longer_name_than_may_be_is_refused_and_the_one_before_stays(checkpoints):
    folder = make_run(checkpoints, run_id="r")
    annotate("r", name="Before")
    with pytest.raises(SettingsError, match="at most 100 characters; this one has 300"):
        annotate("r", name="x" * 300)
    assert read_annotations(folder).name == "Before"


def test_the_list_on_the_command_line_has_a_line_for_each_run(checkpoints, capsys):
    for number, (typed, _) in enumerate(NAMES.values()):
        folder = make_run(checkpoints, run_id=f"run{number}", with_evaluation=False)
        found = json.loads(folder.config.read_text("utf-8"))
        folder.config.write_text(json.dumps(found | {"name": typed}), "utf-8")
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.rstrip("\n").split("\n")
    assert len(lines) == len(NAMES)
    assert all(line.replace("\u200d", "").isprintable() for line in lines)


def test_what_other_peoples_files_name_is_cut_and_cleaned_when_it_is_read(checkpoints):
    folder = make_run(checkpoints, run_id="r")
    found = json.loads(folder.config.read_text("utf-8"))
    folder.config.write_text(json.dumps(found | {"name": "a\ud800\nb"}), "utf-8")
    assert read_config(folder).name == "a b"
    folder.annotations.write_text(
        json.dumps({"name": "n" * 5000, "tags": ["t" * 5000, "\u202e", "x\ny"] + [str(number) for number in range(50)], "note": "1\n2\x00"})
    )
    kept = read_annotations(folder)
    assert kept.name == "n" * 100
    assert kept.tags[:2] == ("t" * 30, "x y")
    assert len(kept.tags) == 20
    assert kept.note == "1\n2"
    at = opened("runs", chosen="r")
    assert not at.exception
    assert list(at.dataframe[0].value["Run"]) == ["n" * 100]


def test_the_settings_of_a_run_with_a_name_that_is_no_text_are_not_made_up(checkpoints):
    folder = make_run(checkpoints, run_id="r")
    found = json.loads(folder.config.read_text("utf-8"))
    folder.config.write_text(json.dumps(found | {"name": ["a"]}), "utf-8")
    at = opened("runs", chosen="r")
    assert not at.exception
    assert "Run name" in unescaped(at.error[0].value)


def test_names_are_told_apart_where_they_head_columns():
    assert names_apart(["One", "Two"]) == ["One", "Two"]
    assert names_apart(["Same", "Same", "Other"]) == ["Same (A)", "Same (B)", "Other"]
    assert names_apart(["Class", "Change"]) == ["Class (A)", "Change (B)"]
    assert names_apart(["Same", "Same", "Same (A)"]) == ["Same (A)", "Same (B)", "Same (A) (C)"]


def test_compared_runs_show_their_names_as_they_are(checkpoints):
    names = ("*a* | $b$ :red[c]", "W" * 92 + " the end")
    for run_id, name, seed in (("a", names[0], 1), ("b", names[1], 2)):
        make_run(checkpoints, run_id=run_id, name=name, seed=seed)
    at = opened("compare", runs="a,b")
    assert not at.exception
    frame = next(element.value for element in at.dataframe if "95 % interval" in element.value)
    assert list(frame["Run"]) == list(names)
    buttons = next(group for group in at.get("button_group") if any("right" in option.content for option in group.proto.options))
    second, first = (option.content for option in buttons.proto.options)
    assert r"Only \*a\* \| \$b\$ \:red\[c\] is right" in first
    assert second.startswith("Only " + "W" * 31 + "… the end is right")


def test_joiners_inside_words_stay_and_alone_are_nothing():
    assert one_line("می\u200cخواهم") == "می\u200cخواهم"
    assert one_line(" \u200c ") == ""
    assert seen("a\u200eb\nc") == "ab\nc"
