"""Deleted runs lie in a trash folder beside the others until it is emptied: deleting can be undone."""

import shutil
from pathlib import Path

from cifar_tl.errors import RunNotFound
from cifar_tl.paths import RunFolder, checkpoints_root
from cifar_tl.runs.hold import held
from cifar_tl.runs.store import RUN_ID, find_run, new_run_folder, writing_in

_TRASH = ".trash"


def delete_run(run_id: str) -> None:
    """Move a run to the trash; one of that id that lies there goes. Raises RunNotFound, RunActive, RunError."""
    folder = find_run(run_id)
    with held(folder), writing_in(checkpoints_root()):  # held until the folder is away, so that no worker starts in it
        target = _trash() / run_id
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.stop_request.unlink(missing_ok=True)
        folder.path.rename(target)


def restore_run(run_id: str) -> None:
    """Take a run back out of the trash. Raises RunNotFound if it is not there, RunInvalid if its place is taken, RunError."""
    source = _in_trash(run_id)
    if source is None:
        raise RunNotFound(f"There is no run {run_id!r} in the trash.")
    target = new_run_folder(run_id).path
    with writing_in(checkpoints_root()):
        source.rename(target)


def deleted_runs() -> list[str]:
    """Ids of the runs in the trash, the last one deleted first."""
    trash = _trash()
    if not trash.is_dir():
        return []
    found = [path for path in trash.iterdir() if RunFolder(path).config.is_file()]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_ctime_ns, reverse=True)]


def empty_trash() -> int:
    """Remove what lies there for good; returns how many runs that were. Raises RunError if they cannot be removed."""
    count = len(deleted_runs())
    shutil.rmtree(_trash(), ignore_errors=True)
    if deleted_runs():
        with writing_in(_trash()):
            shutil.rmtree(_trash())
    return count


def _in_trash(run_id: str) -> Path | None:
    path = _trash() / run_id
    return path if RUN_ID.fullmatch(run_id) and RunFolder(path).config.is_file() else None


def _trash() -> Path:
    return checkpoints_root() / _TRASH
