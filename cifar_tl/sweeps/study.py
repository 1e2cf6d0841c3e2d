"""A sweep's trials in Optuna's study: opened here, read into plain rows for whoever shows them. Optuna is imported only when asked for.

What is kept with a trial, besides what Optuna keeps: the run it is, the machine that conducts it, that it was given up, why it failed.
"""

from __future__ import annotations

import logging
import socket
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cifar_tl.errors import RunInvalid
from cifar_tl.paths import SweepFolder
from cifar_tl.sweeps.store import Pruner, Sweep, storage_of

if TYPE_CHECKING:
    import optuna

RUN, MACHINE, GIVEN_UP, REASON, RESUMED, REFUSED = "run", "machine", "given up", "reason", "resumed", "refused"
SPENT = "seconds spent"  # of the study: by all conductors so far
_SECONDS_FOR_STORAGE = 10.0


@dataclass(frozen=True)
class TrialRow:
    """One trial. `state` is waiting, running, complete, pruned or fail; `accuracy` of the best epoch on dev, so far or in the end."""

    number: int
    state: str
    accuracy: float | None
    values: dict[str, Any]
    run_id: str
    reason: str
    epochs: int

    @property
    def has_ended(self) -> bool:
        return self.state not in ("waiting", "running")


def open_study(folder: SweepFolder, sweep: Sweep) -> optuna.Study:
    """Made if it is not there: before anybody can look, and by the conductor. Raises RunInvalid if the storage cannot be used."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    deadline = time.monotonic() + _SECONDS_FOR_STORAGE
    while True:
        try:
            study = optuna.create_study(
                storage=_storage(folder, sweep), study_name=sweep.study, direction="maximize", load_if_exists=True, pruner=_pruner(sweep)
            )
        except Exception as error:  # two that make one database at once: the second finds it half made
            if time.monotonic() > deadline or not sweep.storage:
                raise RunInvalid(f"The trials cannot be kept in {sweep.storage or folder.study_file}: {_first_line(error)}") from error
            time.sleep(0.5)
            continue
        study.sampler = optuna.samplers.TPESampler(seed=_seed(folder, sweep, len(study.get_trials(deepcopy=False))), constant_liar=True)
        return study


def machine_of(folder: SweepFolder) -> str:
    """Which machine conducts, among those that share a storage: with the folder, as one machine may conduct several sweeps of one study."""
    return f"{socket.gethostname()}:{folder.path}"


def _seed(folder: SweepFolder, sweep: Sweep, trials: int) -> int:
    """A sampler that began again with the same seed would draw its first trials again; so would two machines that begin together."""
    seed = sweep.seed + trials
    if sweep.storage:
        seed += zlib.crc32(machine_of(folder).encode())
    return seed % 2**32  # what numpy takes


def load_study(folder: SweepFolder, sweep: Sweep) -> optuna.Study | None:
    """For who only looks; None while there is nothing. Raises RunInvalid."""
    import optuna

    logging.getLogger("optuna").setLevel(logging.WARNING)
    if not sweep.storage and not folder.study_file.exists():
        return None
    try:
        return optuna.load_study(storage=_storage(folder, sweep), study_name=sweep.study)
    except KeyError:
        return None
    except Exception as error:
        raise RunInvalid(f"The trials of {folder.sweep_id} cannot be read: {_first_line(error)}") from error


def rows_of(study: optuna.Study) -> list[TrialRow]:
    """Of trials that were run; combinations that settings refused are left out."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get(REFUSED):
            continue
        best = max(trial.intermediate_values.values(), default=None)
        found.append(
            TrialRow(
                number=trial.number,
                state=trial.state.name.lower(),
                # Optuna gives a pruned trial the value that was reported last.
                accuracy=trial.value if trial.state.name == "COMPLETE" else best,
                values=dict(trial.params),
                run_id=str(trial.user_attrs.get(RUN, "")),
                reason=str(trial.user_attrs.get(REASON, "")),
                epochs=max(trial.intermediate_values, default=0),
            )
        )
    return found


def best_of(rows: list[TrialRow]) -> TrialRow | None:
    """The complete trial of highest dev accuracy, the earliest of equals."""
    complete = [row for row in rows if row.state == "complete" and row.accuracy is not None]
    return max(complete, key=lambda row: (row.accuracy or 0.0, -row.number), default=None)


def _storage(folder: SweepFolder, sweep: Sweep) -> Any:
    from optuna.storages import RDBStorage

    url = storage_of(folder, sweep)
    arguments = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return RDBStorage(url, engine_kwargs=arguments)


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    import optuna

    if sweep.pruner is Pruner.MEDIAN:
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    if sweep.pruner is Pruner.HYPERBAND:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource="auto", reduction_factor=3)
    return optuna.pruners.NopPruner()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
