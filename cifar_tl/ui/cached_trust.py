"""Cached numbers of the Trust view, each cache bounded: a run's temperature, its calibration, and the runs that were tested alike.

Keys carry the time and size of the file, so a run that was evaluated again is measured again.
"""

from dataclasses import dataclass, field

import numpy as np
import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.evaluation.calibration import Reliability, Scores, fit_temperature, reliability, scores
from cifar_tl.evaluation.coverage import Coverage, coverage
from cifar_tl.runs.store import RunManifest, RunStatus, find_run, read_manifest
from cifar_tl.ui.cached import file_stamp, summaries
from cifar_tl.ui.cached_evaluation import Explored, explored
from cifar_tl.ui.picking import Contender

MAX_TEMPERATURES = 200  # a number each
MAX_MEASURED = 12  # of 10,000 images, 0.5 MB each


@dataclass(frozen=True)
class Measured:
    """A split at one temperature."""

    bins: Reliability
    nll: float
    brier: float


@dataclass(frozen=True)
class Trust:
    """One evaluated split: as trained, and after temperature scaling where a temperature could be fitted."""

    temperature: float | None
    before: Measured
    after: Measured | None
    curve: Coverage  # of confidences after temperature scaling, where there is one, which is what Predict shows
    dev_curve: Coverage | None


def trust_of(shown: Explored) -> Trust:
    """What the Trust view shows of a split. Without a readable evaluation of dev there is no temperature. Raises RunNotFound."""
    dev = _dev(shown)
    temperature = None if dev is None else _temperature(*_key(dev), dev.evaluation)
    return Trust(
        temperature=temperature,
        before=_measured(*_key(shown), 1.0, shown.evaluation),
        after=None if temperature is None else _measured(*_key(shown), temperature, shown.evaluation),
        curve=_coverage(*_key(shown), temperature or 1.0, shown.evaluation),
        dev_curve=None if dev is None else _coverage(*_key(dev), temperature or 1.0, dev.evaluation),
    )


def _dev(shown: Explored) -> Explored | None:
    if shown.split == "dev":
        return shown
    try:
        return explored(shown.run_id, "dev")
    except (CifarTLError, FileNotFoundError):
        return None


def _key(loaded: Explored) -> tuple[str, tuple[int, int]]:
    path = find_run(loaded.run_id).evaluation_of(loaded.split)
    return str(path), file_stamp(path)


@st.cache_data(max_entries=MAX_TEMPERATURES, show_spinner="Fitting the temperature on dev")
def _temperature(path: str, stamp: tuple[int, int], _evaluation: Evaluation) -> float:  # noqa: ARG001 - part of the key
    return fit_temperature(_evaluation)


@st.cache_data(max_entries=MAX_MEASURED, show_spinner="Measuring how sure the model is")
def _measured(path: str, stamp: tuple[int, int], temperature: float, _evaluation: Evaluation) -> Measured:  # noqa: ARG001
    found: Scores = scores(_evaluation, temperature)
    return Measured(reliability(_confidences(_evaluation, temperature), _is_right(_evaluation)), found.nll, found.brier)


@st.cache_data(max_entries=MAX_MEASURED, show_spinner=False)
def _coverage(path: str, stamp: tuple[int, int], temperature: float, _evaluation: Evaluation) -> Coverage:  # noqa: ARG001
    return coverage(_confidences(_evaluation, temperature), _is_right(_evaluation))


def _confidences(evaluation: Evaluation, temperature: float) -> np.ndarray:
    # As trained, the stored ones: they are what other views show, while others are rounded and summed up to 1 again.
    return evaluation.confidences_N if temperature == 1.0 else scores(evaluation, temperature).confidences_N


def _is_right(evaluation: Evaluation) -> np.ndarray:
    return evaluation.predictions_N == evaluation.labels_N


def contenders(shown: Explored) -> list[Contender]:
    """The completed runs, this one among them, that were tested on the same images: those of the same data and classes."""
    known, found = _tested_on().by_folder, []
    kept: dict[str, tuple[tuple[int, int], int]] = {}
    for run in summaries():
        if run.status is not RunStatus.COMPLETED or run.test_accuracy is None or run.data_title != shown.manifest.data_title:
            continue
        try:
            folder = find_run(run.run_id)
            path, stamp = str(folder.path), file_stamp(folder.manifest)
            kept[path] = known[path] if path in known and known[path][0] == stamp else (stamp, _test_images_of(read_manifest(folder)))
        except CifarTLError:  # deleted or damaged since it was listed
            continue
        if kept[path][1] == _test_images_of(shown.manifest):
            found.append(Contender(run.run_id, run.label, run.test_accuracy, run.best_dev_accuracy))
    _tested_on().by_folder = kept
    return found


def _test_images_of(manifest: RunManifest | None) -> int:
    """Equal for runs that were tested on the same images: all those of their classes in the same data. 0 where it is not known."""
    return hash((manifest.data_fingerprint, manifest.class_names)) if manifest else 0


@dataclass
class _TestedOn:
    """Of each folder, the stamp of its run.json and what it was tested on: as many as there are runs, a hundred bytes each."""

    by_folder: dict[str, tuple[tuple[int, int], int]] = field(default_factory=dict)


@st.cache_resource(max_entries=1, show_spinner=False)
def _tested_on() -> _TestedOn:
    return _TestedOn()
