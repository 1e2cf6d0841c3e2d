"""RunSummary: one run as a row of a list. Made from its folder, cheaply: of an ended run's log only what a row shows is parsed."""

import os
from contextlib import suppress
from dataclasses import dataclass, field

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunInvalid, RunNotFound
from cifar_tl.runs.annotations import Annotations, read_annotations
from cifar_tl.runs.events import Completed, Failed, Progress, Step
from cifar_tl.runs.store import RunFollower, RunStatus, find_run, read_config, read_manifest

NO_WORD = "The worker process ended before it could say anything; the end of its log says why."


@dataclass(frozen=True)
class RunSummary:
    """One row of the Runs page. Accuracies are fractions, None where there are none yet. `problem` says why a folder is unreadable."""

    run_id: str
    name: str
    status: RunStatus
    created: float
    config: RunConfig | None
    data_title: str
    best_dev_accuracy: float | None = None
    test_accuracy: float | None = None
    test_top5: float | None = None
    seconds: float | None = None
    message: str = ""
    problem: str = ""
    images_per_second: float | None = None  # of the last epoch's training
    dev_curve: tuple[float, ...] = ()  # dev accuracy after each epoch
    size_bytes: int = 0
    annotations: Annotations = field(default_factory=Annotations)

    @property
    def label(self) -> str:
        """What lists show: the name a person gave, else the id."""
        return self.name or self.run_id


def summarize(run_id: str, follower: RunFollower | None = None) -> RunSummary:
    """One run as a row. Never raises for a damaged folder: the row then carries `problem`. Raises RunNotFound."""
    folder = find_run(run_id)
    try:
        created = folder.config.stat().st_mtime
    except OSError as error:
        raise RunNotFound(f"Run {run_id!r} has just been removed.") from error
    annotations = read_annotations(folder)
    try:
        config, manifest = read_config(folder), read_manifest(folder)
    except RunInvalid as error:
        return RunSummary(run_id, annotations.name, RunStatus.FAILED, created, None, "", problem=str(error), annotations=annotations)
    follower = follower or RunFollower(folder, leave_out=(Step, Progress))
    status, history = follower.update(), follower.history
    best, end = history.best_epoch, history.terminal
    return RunSummary(
        run_id=run_id,
        name=annotations.name or config.name,
        status=status,
        created=manifest.created if manifest else created,
        config=config,
        data_title=manifest.data_title if manifest else config.source,
        best_dev_accuracy=best.dev_accuracy if best else None,
        test_accuracy=end.test_accuracy if isinstance(end, Completed) else None,
        test_top5=end.test_top5 if isinstance(end, Completed) else None,
        seconds=history.seconds,
        message=end.message if isinstance(end, Failed) else "" if history.has_begun or status is not RunStatus.FAILED else NO_WORD,
        images_per_second=history.epochs[-1].images_per_second if history.epochs else None,
        dev_curve=tuple(epoch.dev_accuracy for epoch in history.epochs),
        size_bytes=_size(folder.path),
        annotations=annotations,
    )


def _size(folder: str | os.PathLike[str]) -> int:
    """Bytes of all files below a folder; os.scandir, since a list of a thousand runs asks a thousand times.

    A file that is renamed or removed meanwhile, as those of a living run are, counts for nothing.
    """
    size = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                size += _size(entry) if entry.is_dir() else entry.stat().st_size
    return size
