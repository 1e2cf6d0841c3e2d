"""How the dashboard starts an export and knows how it stands."""

import fcntl
import io
import os
import subprocess
import sys
import zipfile

import pytest

from cifar_tl.errors import RunError
from cifar_tl.export.report import ExportOptions, ExportReport, Kind, export_folder, save_report
from cifar_tl.paths import RunFolder
from cifar_tl.ui import exports


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.exports.mkdir(parents=True)
    run.best_weights.write_bytes(b"weights")
    return run


def made(folder: RunFolder, kind: Kind, **files: bytes) -> ExportReport:
    place = export_folder(folder, kind)
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    report = ExportReport(kind, folder.run_id, folder.best_weights.stat().st_mtime_ns, tuple(files))
    save_report(place, report)
    return report


def test_before_anything_was_exported_there_is_nothing_to_tell(folder):
    assert exports.export_state(folder, Kind.ONNX) == exports.ExportState(False, None, False, "")
    assert exports.export_state(RunFolder(folder.path / "elsewhere"), Kind.ONNX).report is None


def test_it_runs_for_as_long_as_its_lock_is_held(folder):
    with (folder.exports / "onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert exports.export_state(folder, Kind.ONNX).is_running
        assert not exports.export_state(folder, Kind.WEB).is_running
    assert not exports.export_state(folder, Kind.ONNX).is_running


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        ("Writing the ONNX file: 0  [00:00]\nerror: The data of run x has changed.\n", "The data of run x has changed."),
        ("Writing the ONNX file: 0  [00:00]", "The export ended before it was done."),
        ("Exported: model.onnx in /somewhere\n", ""),
        ("", ""),
    ],
)
def test_what_its_log_ends_with_is_told(folder, log, problem):
    (folder.exports / "onnx.log").write_text(log)
    assert exports.export_state(folder, Kind.ONNX).problem == problem


def test_other_weights_make_an_export_outdated(folder):
    report = made(folder, Kind.ONNX, model=b"1")
    assert exports.export_state(folder, Kind.ONNX) == exports.ExportState(False, report, False, "")
    os.utime(folder.best_weights, ns=(1, 1))
    assert exports.export_state(folder, Kind.ONNX).is_outdated


def test_a_page_is_downloaded_as_it_is_and_several_files_as_an_archive(folder):
    page = made(folder, Kind.WEB, **{"index.html": b"<html>"})
    assert exports.download(folder, page) == b"<html>"
    report = made(folder, Kind.BUNDLE, **{"model.safetensors": b"weights", "README.md": b"card"})
    with zipfile.ZipFile(io.BytesIO(exports.download(folder, report))) as archive:
        assert archive.namelist() == [f"run-bundle/{name}" for name in ("model.safetensors", "README.md", "report.json")]
    assert exports.size(folder, report) == len(b"weights") + len(b"card")


def test_a_second_start_while_one_goes_on_does_nothing(folder, monkeypatch):
    started: list[list[str]] = []

    def wait_for_input(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(command)
        return Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=options["pass_fds"])  # type: ignore[call-overload]

    Popen = subprocess.Popen
    children = []
    monkeypatch.setattr(
        exports.subprocess, "Popen", lambda *args, **options: children.append(wait_for_input(*args, **options)) or children[0]
    )
    options = ExportOptions(Kind.ONNX, with_preprocessing=False, int8=True)
    exports.start_export(folder, options)
    exports.start_export(folder, options)
    assert exports.export_state(folder, Kind.ONNX).is_running
    (command,) = started
    assert command[2:] == ["cifar_tl", "export", "run", "--kind", "onnx", "--int8", "--bare"]
    children[0].communicate(b"\n")
    assert not exports.export_state(folder, Kind.ONNX).is_running


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "exports").write_text("a file where the folder should be")
    with pytest.raises(RunError, match="cannot be written"):
        exports.start_export(RunFolder(tmp_path), ExportOptions(Kind.ONNX))
