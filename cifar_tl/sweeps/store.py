"""Sweeps on disk: what was asked, how it stands. The trials themselves lie in Optuna's study, each of them a run in its own folder.

checkpoints/sweeps/<sweep id>/
    sweep.json         what was asked: settings, what varies, how many trials ...
    study.db           Optuna's study (SQLite), unless another storage was asked for
    conductor.lock     held with flock by the process that conducts the sweep, for as long as it lives
    conductor.log      what that process prints
    stop.requested     asks it to stop
    ended.json         its last word
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunInvalid, RunNotFound, SettingsError
from cifar_tl.paths import SweepFolder, sweeps_root
from cifar_tl.runs.lock import try_lock
from cifar_tl.runs.names import one_line
from cifar_tl.runs.store import RUN_ID, RUN_ID_TIME, write_json, writing_in
from cifar_tl.settings import settings
from cifar_tl.sweeps.space import Dimension, from_json, require_space, to_json

# Whatever the settings of one run say: trials leave test alone and are not prepared for Explore, which the best one is when it is tested;
# several GPUs train several trials rather than one.
LEFT_TO_THE_SWEEP: dict[str, Any] = {"evaluate_test": False, "describe": False, "tensorboard": False, "processes": 1}
MOST_TRIALS, MOST_AT_ONCE = 10_000, 64


class Pruner(StrEnum):
    """Who gives up a trial early, by dev accuracy per epoch."""

    NONE = "none"
    MEDIAN = "median"
    HYPERBAND = "hyperband"


class SweepStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    LOST = "lost"


@dataclass(frozen=True)
class Sweep:
    """What was asked. `base` are settings of RunConfig that do not vary; `minutes` of None is no limit; `storage` of "" is a file of its own;
    `at_once` trials train at the same time, on all devices of the machine together: on free devices first, then beside each other.

    Sweeps with one storage and one `study` name, also on several machines, share their trials.
    """

    name: str
    base: dict[str, Any]
    space: tuple[Dimension, ...]
    trials: int = 20
    minutes: float | None = None
    pruner: Pruner = Pruner.MEDIAN
    at_once: int = 1
    seed: int = 0
    storage: str = ""
    study: str = "sweep"

    def require_sound(self) -> None:
        """Raises SettingsError."""
        require_space(self.space)
        if not 1 <= self.trials <= MOST_TRIALS:
            raise SettingsError(f"A sweep has between 1 and {MOST_TRIALS:,} trials, not {self.trials}.")
        if not 1 <= self.at_once <= MOST_AT_ONCE:
            raise SettingsError(f"Between 1 and {MOST_AT_ONCE} trials run at once, not {self.at_once}.")
        if self.minutes is not None and not self.minutes > 0:
            raise SettingsError("The time for a sweep must be more than 0 minutes.")


def new_sweep(config: RunConfig, space: tuple[Dimension, ...], *, name: str = "", **asked: Any) -> Sweep:
    """A sweep around the settings of one run; `asked` are further fields of Sweep. Without a name it is called after what varies."""
    titles = {setting.name: setting.title.lower() for setting in settings()}
    varied = [dimension.name for dimension in space]
    base = config.model_dump(mode="json") | LEFT_TO_THE_SWEEP
    return Sweep(
        name=one_line(name) or "Sweep of " + ", ".join(titles[name] for name in varied[:3]),
        base={key: value for key, value in base.items() if key not in varied},
        space=space,
        **{"seed": config.seed} | asked,
    )


def create_sweep(sweep: Sweep) -> SweepFolder:
    """Raises SettingsError, RunError."""
    sweep.require_sound()
    root = sweeps_root()
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", one_line(sweep.name)).strip("-.")[:60] or "sweep"
    with writing_in(root):
        root.mkdir(parents=True, exist_ok=True)
        folder = next(folder for folder in _candidates(root, slug) if _made(folder.path))
        write_json(folder.declaration, asdict(sweep) | {"space": [to_json(dimension) for dimension in sweep.space]})
    return folder


def _candidates(root: Path, slug: str) -> Iterator[SweepFolder]:
    stamp = time.strftime(RUN_ID_TIME)
    yield SweepFolder(root / f"{stamp}-{slug}")
    for number in range(2, 1000):
        yield SweepFolder(root / f"{stamp}-{slug}-{number}")


def _made(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def find_sweep(sweep_id: str) -> SweepFolder:
    """Raises RunNotFound, also for ids that are no plain names."""
    folder = SweepFolder(sweeps_root() / sweep_id) if RUN_ID.fullmatch(sweep_id) else None
    if folder is None or not folder.declaration.is_file():
        raise RunNotFound(f"There is no sweep {sweep_id!r} in {sweeps_root()}. `python -m cifar_tl sweeps` lists the sweeps.")
    return folder


def sweep_ids() -> list[str]:
    """Newest first."""
    root = sweeps_root()
    if not root.is_dir():
        return []
    return sorted((path.name for path in root.iterdir() if SweepFolder(path).declaration.is_file()), reverse=True)


def read_sweep(folder: SweepFolder) -> Sweep:
    """Raises RunInvalid."""
    try:
        raw = json.loads(folder.declaration.read_text("utf-8"))
        known = {key: value for key, value in raw.items() if key in Sweep.__dataclass_fields__}
        return Sweep(**known | {"space": tuple(map(from_json, raw["space"])), "pruner": Pruner(raw["pruner"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunInvalid(f"The sweep {folder.sweep_id} cannot be read: {error}") from error


def storage_of(folder: SweepFolder, sweep: Sweep) -> str:
    """The URL of Optuna's storage."""
    return sweep.storage or f"sqlite:///{folder.study_file}"


def status_of(folder: SweepFolder) -> tuple[SweepStatus, str]:
    """And its last word, if there is more to say. The lock is looked at first: a conductor writes its last word before it lets go."""
    if is_conducted(folder):
        return SweepStatus.RUNNING, ""
    try:
        raw = json.loads(folder.ending.read_text("utf-8"))
        return SweepStatus(raw["status"]), str(raw["message"])
    except (OSError, ValueError, TypeError, KeyError):
        return SweepStatus.LOST, ""


def say_last_word(folder: SweepFolder, status: SweepStatus, message: str = "") -> None:
    write_json(folder.ending, {"status": status.value, "message": message})


def is_conducted(folder: SweepFolder) -> bool:
    try:
        with folder.lock.open("rb") as file:
            return not try_lock(file.fileno(), shared=True)
    except OSError:
        return False


def request_stop(sweep_id: str) -> bool:
    """Ask the conductor to stop, and its trials with it; False if there is none. Raises RunNotFound, RunError."""
    folder = find_sweep(sweep_id)
    if not is_conducted(folder):
        return False
    with writing_in(folder.path):
        folder.stop_request.touch()
    return True


def take_lock(folder: SweepFolder) -> int | None:
    """The open file that holds the sweep's lock; None if it is conducted already."""
    lock, deadline = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o666), time.monotonic() + 1.0
    while not (is_held := try_lock(lock)) and time.monotonic() < deadline:  # who looks at the status holds it for a moment
        time.sleep(0.02)
    if is_held:
        return lock
    with suppress(OSError):
        os.close(lock)
    return None
