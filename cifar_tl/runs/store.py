"""The run folders on disk: list them, read one, tell its status.

Status is derived, never stored: a terminal event says completed, stopped or failed; a held lock says running, or queued if the
worker's last word is that it waits; neither says lost (crashed, killed, power cut), failed if the worker ended before its first word, or queued if the run has just been sent to a cluster. The kernel drops the lock
whichever way the worker dies.
"""

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from cifar_tl.config import RunConfig, make_config, upgrade
from cifar_tl.errors import RunError, RunInvalid, RunNotFound, SettingsError
from cifar_tl.paths import RunFolder, checkpoints_root, run_folder
from cifar_tl.runs.events import Completed, Event, Failed, Stopped
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.log import EventReader
from cifar_tl.runs.names import one_line
from cifar_tl.runs.submission import is_expected

MANIFEST_VERSION = 1
RUN_ID_TIME = "%Y%m%d-%H%M%S"  # local time; every run id begins with it
_TIME_IN_RUN_ID = re.compile(r"\d{8}-\d{6}")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_active(self) -> bool:
        """True while its worker lives: it waits for a device, or works."""
        return self in (RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass(frozen=True)
class Preprocessing:
    """How a stored or uploaded image becomes the network's input: stored resolution first, then image size, then (x - mean) / std."""

    store_resolution: int
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class RunManifest:
    """run.json: what a run became. Written once by the worker, before the first step."""

    run_id: str
    created: float
    data_title: str
    data_fingerprint: str
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...]
    superclass_of_class: tuple[int, ...]
    preprocessing: Preprocessing
    stage_names: tuple[str, ...]
    versions: dict[str, str] = field(default_factory=dict)
    corrections: str = ""  # version of the corrections of the data that it trained on; "" for the data as they came
    version: int = MANIFEST_VERSION


def find_run(run_id: str) -> RunFolder:
    """The folder of an existing run. Raises RunNotFound, also for ids that are no plain names."""
    folder = run_folder(run_id) if RUN_ID.fullmatch(run_id) else None
    if folder is None or not _has_settings(folder):
        raise RunNotFound(f"There is no run {run_id!r} in {checkpoints_root()}. `python -m cifar_tl runs` lists the runs.")
    return folder


def new_run_folder(run_id: str, *, may_exist: bool = False) -> RunFolder:
    """The folder that a run of this name will have; makes none. Raises RunInvalid for what is no name for a run, or is taken."""
    if not RUN_ID.fullmatch(run_id):
        raise RunInvalid(
            f"{run_id!r} cannot name a run: at most 151 letters, digits, dots, hyphens and underscores, a letter or digit first."
        )
    folder = run_folder(run_id)
    if folder.path.exists() and not may_exist:
        raise RunInvalid(f"There is a run {run_id} already in {checkpoints_root()}.")
    return folder


def run_ids() -> list[str]:
    """Ids of all runs, newest first."""
    root = checkpoints_root()
    if not root.is_dir():
        return []
    found = []
    for path in root.iterdir():
        with suppress(FileNotFoundError):  # deleted since it was listed
            if RUN_ID.fullmatch(path.name) and _has_settings(RunFolder(path)):
                found.append((_start_time(path), path.name))
    return [run_id for _, run_id in sorted(found, reverse=True)]


def _has_settings(folder: RunFolder) -> bool:
    """False also where another user of this machine has closed the folder."""
    try:
        return folder.config.is_file()
    except OSError:
        return False


def _start_time(path: Path) -> tuple[str, str]:
    """When a run was made, from its id (a copied folder has new file times), else from its settings file."""
    made = time.strftime(RUN_ID_TIME, time.localtime(RunFolder(path).config.stat().st_mtime))
    return path.name[: len(made)] if _TIME_IN_RUN_ID.match(path.name) else made, path.name


def read_config(folder: RunFolder) -> RunConfig:
    """Raises RunInvalid."""
    try:
        raw = upgrade(json.loads(folder.config.read_text("utf-8")))
        if isinstance(raw.get("name"), str):
            raw["name"] = one_line(raw["name"])  # the folder may come from anywhere
        return make_config(**raw)
    except (OSError, ValueError, TypeError, SettingsError) as error:
        raise RunInvalid(f"The settings of run {folder.run_id} cannot be read: {error}") from error


def read_manifest(folder: RunFolder) -> RunManifest | None:
    """None if the worker has not written it (the run has not come that far). Raises RunInvalid."""
    if not folder.manifest.is_file():
        return None
    try:
        raw: dict[str, Any] = json.loads(folder.manifest.read_text("utf-8"))
        if raw["version"] > MANIFEST_VERSION:
            raise ValueError(f"made by a newer version of the program (version {raw['version']}, known up to {MANIFEST_VERSION})")
        known = {key: value for key, value in raw.items() if key in RunManifest.__dataclass_fields__}
        preprocessing = dict(known["preprocessing"])
        preprocessing |= {"mean": tuple(preprocessing["mean"]), "std": tuple(preprocessing["std"])}
        known["preprocessing"] = Preprocessing(**preprocessing)
        for key in ("class_names", "superclass_names", "superclass_of_class", "stage_names"):
            known[key] = tuple(known[key])
        return RunManifest(**known)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunInvalid(f"run.json of run {folder.run_id} cannot be read: {error}") from error


def write_manifest(folder: RunFolder, manifest: RunManifest) -> None:
    write_json(folder.manifest, asdict(manifest))


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: to a temporary name in the same folder, flushed, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """What the disk refuses (read-only, full, not ours) is told in one line. Raises RunError."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"Nothing can be written in {folder}: {error.strerror or error}. "
            "Free space or permissions there, or set CIFAR_TL_CHECKPOINTS to another folder."
        ) from error


def is_alive(folder: RunFolder) -> bool:
    """True while a worker holds the run's lock. Takes microseconds."""
    try:
        with folder.lock.open("rb") as file:
            # Shared, so that two pages probing at once do not take each other for a worker.
            return not try_lock(file.fileno(), shared=True)
    except OSError:  # none, or none that may be read
        return False


class RunFollower:
    """One run's log, folded as it grows. Cheap to poll; several page sessions may share one."""

    def __init__(self, folder: RunFolder, leave_out: Sequence[type[Event]] = ()) -> None:
        """`leave_out`: types of events that are not read, for who does not need them."""
        self.folder = folder
        self.history = RunHistory()
        self._reader = EventReader(folder.events, leave_out)
        self._lock = threading.Lock()

    def update(self) -> RunStatus:
        """Read what is new into `history` and tell the status.

        The order matters: (1) probe the lock, (2) read the log. The other way round a worker that writes its terminal
        event and exits between the two looks lost.
        """
        with self._lock:
            alive = is_alive(self.folder)
            self.history.extend(self._reader.read_new())
        end = self.history.terminal
        if end is not None:
            return _STATUS_OF_TERMINAL[type(end)]
        if alive:
            return RunStatus.QUEUED if self.history.is_queued else RunStatus.RUNNING
        if self.history.is_queued and is_expected(self.folder):
            return RunStatus.QUEUED
        return RunStatus.LOST if self.history.has_begun else RunStatus.FAILED


_STATUS_OF_TERMINAL: dict[type, RunStatus] = {Completed: RunStatus.COMPLETED, Stopped: RunStatus.STOPPED, Failed: RunStatus.FAILED}
