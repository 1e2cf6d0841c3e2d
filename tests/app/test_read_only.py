"""A folder of runs in which nothing can be written: one clear line for whatever would write, and everything can still be looked at."""

import errno
import fcntl
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.__main__ import main
from cifar_tl.config import make_config
from cifar_tl.errors import RunError
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs import launcher, queue, trash
from cifar_tl.runs.annotations import annotate
from cifar_tl.runs.pack import pack_run, unpack_run
from cifar_tl.ui import form_values
from tests.made_runs import make_run
from tests.small_disk import mounted_disk

pytestmark = pytest.mark.usefixtures("predictor")

PAGES = PROJECT_ROOT / "cifar_tl/ui/pages"
MakeReadOnly = Callable[[], None]


@pytest.fixture(params=["mounted", "refused"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, MakeReadOnly]]:
    """A folder of runs, and what makes it read-only: a mount, and where this user may not mount, the answers of the system."""
    root = tmp_path / "disk"
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(root))
    monkeypatch.setattr(form_values, "is_at_hand", lambda source: source == "shapes")
    if request.param == "refused":
        root.mkdir()
        yield root, lambda: refuse_writing(monkeypatch, root)
        monkeypatch.undo()
    else:
        with mounted_disk(root, "8m"):
            yield root, lambda: subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)


def refuse_writing(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """What a read-only file system answers, for all below `root`."""

    def refuse(owner: Any, name: str, writes: Callable[..., bool] = lambda *_, **__: True) -> None:
        original = getattr(owner, name)

        def refusing(path: Any, *arguments: Any, **named: Any) -> Any:
            is_below = named.get("dir_fd") is not None or str(path).startswith(str(root))
            if is_below and writes(*arguments, **named):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *arguments, **named)

        monkeypatch.setattr(owner, name, refusing)

    refuse(os, "open", lambda flags, *_, **__: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    refuse(io, "open", lambda mode="r", *_, **__: any(letter in mode for letter in "wax+"))
    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "utime"):
        refuse(os, name)


def opened(page: str, *, chosen: str = "", **parameters: str) -> AppTest:
    at = AppTest.from_file(PAGES / f"{page}.py", default_timeout=30)
    for name, value in parameters.items():
        at.query_params[name] = value
    if chosen:
        at.session_state["runs.chosen"] = [chosen]
    return at.run()


def errors(at: AppTest) -> str:
    assert not at.exception, at.exception
    return "\n".join(element.value for element in at.error).replace("\\", "")


def names_the_folder_and_the_way_out(text: str, root: Path) -> bool:
    return str(root) in text and "Read-only file system" in text and "CIFAR_TL_CHECKPOINTS" in text and "\n" not in text.strip()


def files(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in root.rglob("*"))


def button(at: AppTest, label: str):
    return next(button for button in at.button if button.label == label)


def resumable(root: Path, run_id: str = "r", status: str = "stopped") -> RunFolder:
    folder = make_run(root, run_id=run_id, status=status)
    folder.last_checkpoint.touch()
    folder.best_weights.touch()
    return folder


def test_start_on_the_form_says_where_and_what_to_do(disk):
    root, make_read_only = disk
    make_read_only()
    at = opened("train")
    button(at, "Start training").click().run()
    assert names_the_folder_and_the_way_out(errors(at), root)
    assert "run" not in at.query_params
    assert not button(at, "Start training").disabled
    assert files(root) == []


def test_start_of_a_folder_that_cannot_be_made_says_so(disk, monkeypatch):
    root, make_read_only = disk
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(root / "of" / "mine"))
    make_read_only()
    with pytest.raises(RunError) as refused:
        launcher.start_run(make_config(source="shapes"))
    assert names_the_folder_and_the_way_out(str(refused.value), root / "of" / "mine")


@pytest.mark.parametrize("command", [["train", "--source", "shapes"], ["resume", "r"], ["unpack", "r.zip"]], ids=lambda words: words[0])
def test_the_command_line_says_it_in_one_line(disk, command, tmp_path, monkeypatch, capsys):
    root, make_read_only = disk
    monkeypatch.chdir(tmp_path)
    resumable(root)
    pack_run("r", tmp_path / "r.zip")
    before = files(root)
    make_read_only()
    assert main(command) == 1
    said = capsys.readouterr()
    assert names_the_folder_and_the_way_out(said.err, root)
    assert said.out == ""
    assert files(root) == before


def pack(run_id: str) -> io.BytesIO:
    file = io.BytesIO()
    pack_run(run_id, file)
    file.seek(0)
    return file


WRITES: dict[str, Callable[[], object]] = {
    "resume": lambda: launcher.resume_run("r"),
    "train longer": lambda: launcher.resume_run("done", epochs=9),
    "rename": lambda: annotate("r", name="Other"),
    "star": lambda: annotate("r", is_starred=True),
    "delete": lambda: trash.delete_run("r"),
    "restore": lambda: trash.restore_run("deleted"),
    "empty the trash": trash.empty_trash,
    "import": lambda: unpack_run(pack("r")),
    "move to front": lambda: queue.move_to_front("r"),
    "stop": lambda: launcher.request_stop("alive"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whatever_would_write_says_so_and_changes_nothing(disk, write, monkeypatch):
    root, make_read_only = disk
    resumable(root)
    resumable(root, "done", "completed")
    resumable(root, "deleted")
    trash.delete_run("deleted")
    alive = make_run(root, run_id="alive", status="running")
    alive.lock.touch()
    monkeypatch.setattr(queue, "runs_waiting", lambda: ["r"])
    before = files(root)
    make_read_only()
    with alive.lock.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError) as refused:
            write()
    assert names_the_folder_and_the_way_out(str(refused.value), root)
    assert files(root) == before


@pytest.mark.parametrize(
    ("labels", "status"),
    [
        (["Resume"], "stopped"),
        (["Train longer"], "completed"),
        (["Star"], "completed"),
        (["Archive"], "completed"),
        (["Annotate", "Save"], "completed"),
        (["Delete", "Move to trash"], "completed"),
        (["Restore"], "completed"),
        (["Empty the trash for good"], "completed"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else value,
)
def test_every_button_of_the_runs_page_says_it_and_the_page_stays(disk, labels, status):
    root, make_read_only = disk
    resumable(root, "r", status)
    resumable(root, "deleted")
    trash.delete_run("deleted")
    make_read_only()
    at = opened("runs", chosen="r")
    for label in labels:
        button(at, label).click().run()
    assert names_the_folder_and_the_way_out(errors(at), root)
    assert list(at.dataframe[0].value["Run"]) == ["r"]
    assert {"Explore", "Star", "Annotate", "Delete"} <= {button.label for button in at.button}


def test_a_run_that_ended_is_resumed_nowhere_and_its_curves_stay(disk):
    root, make_read_only = disk
    resumable(root)
    make_read_only()
    at = opened("train", run="r")
    curves = len(at.get("bidi_component"))
    button(at, "Resume").click().run()
    assert names_the_folder_and_the_way_out(errors(at), root)
    assert len(at.get("bidi_component")) == curves > 0


def test_everything_can_be_looked_at(disk):
    root, make_read_only = disk
    for run_id, seed in (("a", 1), ("b", 2)):
        make_run(root, run_id=run_id, seed=seed, name=f"Run {run_id}")
    before = files(root)
    make_read_only()
    runs = opened("runs", chosen="a")
    assert errors(runs) == ""
    assert list(runs.dataframe[0].value["Run"]) == ["Run b", "Run a"]
    explore = opened("explore", run="a")
    assert errors(explore) == ""
    assert any(metric.label == "Accuracy" for metric in explore.metric)
    compare = opened("compare", runs="a,b")
    assert errors(compare) == ""
    assert any("McNemar" in element.value for element in compare.markdown)
    train = opened("train", run="a")
    assert errors(train) == ""
    assert train.title[0].value == "Run a"
    assert files(root) == before


def test_a_start_on_a_full_disk_leaves_no_half_made_folder(tmp_path, monkeypatch):
    with mounted_disk(tmp_path / "full", "64k") as root:
        monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(root))
        (root / "filler").write_bytes(bytes(64 * 1024))
        with pytest.raises(RunError, match=r"No space left on device.*CIFAR_TL_CHECKPOINTS"):
            launcher.start_run(make_config(source="shapes"))
        assert [path.name for path in root.iterdir()] == ["filler"]


def test_a_worker_that_cannot_be_started_leaves_no_run(checkpoints, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(launcher.subprocess, "Popen", refuse)
    with pytest.raises(RunError, match="cannot be started: Resource temporarily unavailable"):
        launcher.start_run(make_config(source="shapes"))
    assert list(checkpoints.iterdir()) == []
