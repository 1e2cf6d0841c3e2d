"""Exports of a run's model for the dashboard: the process that makes one, how it goes, and what it made. Draws nothing.

The process is `python -m cifar_tl export` in a session of its own: it survives a closed tab, and predictions go on meanwhile. Its lock is
an open file that it inherits, so whether it lives is known without asking it.
"""

import io
import os
import subprocess
import sys
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cifar_tl.errors import RunError, RunInvalid
from cifar_tl.export.report import REPORT_NAME, ExportOptions, ExportReport, Kind, export_folder, load_report
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.runs.lock import OPEN_TO_ALL, try_lock
from cifar_tl.ui.worker_log import last_lines

MOST_BYTES_TO_DOWNLOAD = 500 * 10**6
_DONE = "Exported: "  # how the command's last line begins


@dataclass(frozen=True)
class ExportState:
    """`report` of what is there, `is_outdated` where the run has other weights by now; `problem`: why the last attempt failed."""

    is_running: bool
    report: ExportReport | None
    is_outdated: bool
    problem: str


def export_state(folder: RunFolder, kind: Kind) -> ExportState:
    """How an export stands. Raises nothing: what is damaged is a problem."""
    problem = ""
    try:
        report = load_report(export_folder(folder, kind))
    except FileNotFoundError:
        report = None
    except RunInvalid as error:
        report, problem = None, str(error)
    is_running = _is_running(folder, kind)
    if not is_running:
        problem = _last_problem(_log(folder, kind)) or problem
    is_outdated = report is not None and folder.best_weights.is_file() and report.weights_changed != folder.best_weights.stat().st_mtime_ns
    return ExportState(is_running, report, is_outdated, problem)


def start_export(folder: RunFolder, options: ExportOptions) -> None:
    """Begin to export, unless that goes on already. Returns at once. Raises RunError."""
    try:
        folder.exports.mkdir(exist_ok=True)
        lock = os.open(_lock(folder, options.kind), os.O_RDWR | os.O_CREAT, OPEN_TO_ALL)
    except OSError as error:
        raise RunError(f"{folder.exports} cannot be written: {error.strerror or error}.") from error
    try:
        if try_lock(lock):
            _spawn(folder, options, lock)
    finally:
        os.close(lock)  # the process that was started has inherited it, and holds it for as long as it lives


def _spawn(folder: RunFolder, options: ExportOptions, lock: int) -> None:
    command = [sys.executable, "-m", "cifar_tl", "export", folder.run_id, "--kind", options.kind.value]
    command += ["--int8"] if options.int8 else []
    command += [] if options.with_preprocessing else ["--bare"]
    command += ["--inline-runtime", options.runtime_folder] if options.runtime_folder else []
    try:
        with _log(folder, options.kind).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
    except OSError as error:  # no memory, no process to be had, a full disk
        raise RunError(f"The export cannot be started: {error.strerror or error}.") from error
    # A finished child stays a zombie until someone waits for it.
    threading.Thread(target=process.wait, name=f"reap-export-{options.kind}", daemon=True).start()


def _is_running(folder: RunFolder, kind: Kind) -> bool:
    try:
        lock = os.open(_lock(folder, kind), os.O_RDONLY)
    except OSError:
        return False
    try:
        return not try_lock(lock, shared=True)
    finally:
        os.close(lock)


def _last_problem(log: Path) -> str:
    """What the command said last, if that was an error."""
    line = last_lines(log, 1)
    if line.startswith("error: "):
        return line.removeprefix("error: ")
    return "" if not line or line.startswith(_DONE) else "The export ended before it was done."


def _lock(folder: RunFolder, kind: Kind) -> Path:
    return folder.exports / f"{kind.value}.lock"


def _log(folder: RunFolder, kind: Kind) -> Path:
    return folder.exports / f"{kind.value}.log"


def download(folder: RunFolder, report: ExportReport) -> bytes:
    """What a browser gets: a page as it is, several files as one .zip."""
    place, name = export_folder(folder, report.kind), f"{folder.run_id}-{report.kind.value}"
    if report.kind is Kind.WEB:
        return (place / "index.html").read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:  # weights hardly shrink
        for file in (*report.files, REPORT_NAME):
            archive.write(place / file, f"{name}/{file}")
    return buffer.getvalue()


def size(folder: RunFolder, report: ExportReport) -> int:
    """Bytes of all its files."""
    place = export_folder(folder, report.kind)
    return sum(path.stat().st_size for file in report.files if (path := place / file).is_file())
