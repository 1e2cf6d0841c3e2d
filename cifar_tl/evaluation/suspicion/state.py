"""How an audit goes, as its process writes it and the page reads it: state.json, two kinds of it.

    {"text": "Comparing images with each other", "done": 4096, "total": 60000, "unit": "images"}
    {"failure": "The weights of resnet50 are not on this machine and cannot be fetched. ..."}

While the process lives it holds the folder's lock; the kernel drops it whichever way the process ends. So nothing here can claim that
work goes on which does not.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cifar_tl.data.download import explained
from cifar_tl.data.progress import Progress
from cifar_tl.paths import AuditFolder
from cifar_tl.runs.lock import try_lock

DIED = "Its process ended without a word; it may have been stopped, or have run out of memory. The end of {log} may say more."


class AuditStatus(StrEnum):
    ABSENT = "absent"
    WORKING = "working"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class AuditState:
    """`progress` while it works, `reason` if it failed."""

    status: AuditStatus
    progress: Progress | None = None
    reason: str = ""


@contextmanager
def writing(files: AuditFolder) -> Iterator[None]:
    """What the disk refuses (read-only, full, not ours) is told in one line. Raises DataError."""
    try:
        yield
    except OSError as error:
        raise explained(error, f"What is found cannot be kept in {files.path}") from error


def working(progress: Progress) -> dict[str, Any]:
    values = asdict(progress)
    return {"text": values.pop("phase")} | values


def failed(reason: str) -> dict[str, Any]:
    return {"failure": reason}


def audit_state(files: AuditFolder) -> AuditState:
    """The order matters: (1) probe the lock, (2) look for a result. The other way round an audit that ends between the two looks failed."""
    if _is_alive(files):
        return AuditState(AuditStatus.WORKING, _progress(_read(files)))
    if files.result.exists():
        return AuditState(AuditStatus.DONE)
    state = _read(files)
    if state is None:
        return AuditState(AuditStatus.ABSENT)
    return AuditState(AuditStatus.FAILED, reason=str(state.get("failure") or DIED.format(log=files.log)))


def _is_alive(files: AuditFolder) -> bool:
    try:
        with files.lock.open("rb") as file:
            # Shared, so that two pages probing at once do not take each other for the process.
            return not try_lock(file.fileno(), shared=True)
    except FileNotFoundError:
        return False


def _read(files: AuditFolder) -> dict[str, Any] | None:
    """None if there is no file; empty if it cannot be read."""
    try:
        state = json.loads(files.state.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _progress(state: dict[str, Any] | None) -> Progress:
    try:
        return Progress(str(state["text"]), int(state["done"]), int(state["total"]), str(state["unit"])) if state else _STARTING
    except (KeyError, TypeError, ValueError):
        return _STARTING


_STARTING = Progress("Starting", 0, 0, "images")
