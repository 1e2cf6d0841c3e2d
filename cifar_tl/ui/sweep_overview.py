"""A sweep as a line of a list: how far it is, and its best accuracy."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from cifar_tl.errors import RunError
from cifar_tl.paths import SweepFolder
from cifar_tl.sweeps.store import Sweep, read_sweep
from cifar_tl.sweeps.study import best_of, load_study, rows_of
from cifar_tl.ui import cached


@dataclass(frozen=True)
class Overview:
    """A sweep in a list: trials that have ended, and the best accuracy of complete ones."""

    ended: int
    best: float | None


def overview(folder: SweepFolder, sweep: Sweep) -> Overview | None:
    """None if it cannot be told at once: trials in a storage of others may take long, or be out of reach."""
    if sweep.storage:
        return None
    return _overview(str(folder.path), cached.file_stamp(folder.study_file))


@st.cache_data(max_entries=200, show_spinner=False)
def _overview(path: str, stamp: tuple[int, int]) -> Overview | None:  # noqa: ARG001 - part of the cache's key
    """Opening a study takes a tenth of a second: a list opens those that have changed."""
    folder = SweepFolder(Path(path))
    try:
        study = load_study(folder, read_sweep(folder))
    except RunError:
        return None
    rows = rows_of(study) if study else []
    best = best_of(rows)
    return Overview(sum(row.has_ended for row in rows), best.accuracy if best else None)
