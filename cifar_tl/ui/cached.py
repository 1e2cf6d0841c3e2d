"""Every st.cache_* wrapper of the dashboard, each bounded. Caches hold what is derived from files and may be dropped at any time."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from cifar_tl.answers import EpochEstimate, Hardware
from cifar_tl.config import RunConfig
from cifar_tl.data import sources
from cifar_tl.data.sources import SourceStatus
from cifar_tl.errors import CifarTLError, PredictionProcessDied, RunNotFound
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunFollower, RunManifest, find_run, is_alive, read_config, read_manifest, run_ids
from cifar_tl.runs.summary import RunSummary, summarize
from cifar_tl.ui.charts.curves import Chart
from cifar_tl.ui.image_fetch import Fetch, WantedImages
from cifar_tl.ui.live_plot import ensure_plotly_js
from cifar_tl.ui.predictor import PredictionProcess, result_of

# A follower of a long run (5,000 logged steps) holds about 3 MB.
MAX_FOLLOWERS = 32
MAX_ESTIMATES = 200
SOURCE_SECONDS = 20


@st.cache_resource(max_entries=1, show_spinner=False)
def predictor() -> PredictionProcess:
    """The prediction process, shared by all sessions; starts nothing by itself."""
    return PredictionProcess()


@st.cache_resource(max_entries=1, show_spinner=False)
def static_files() -> None:
    """Put plotly.js where the browser finds it, once a start. Where the folder cannot be written, each chart says so in its place."""
    with suppress(OSError):
        ensure_plotly_js()


def follower(run_id: str) -> RunFollower:
    """The follower of a run, shared by all sessions. Raises RunNotFound."""
    return _follower(str(find_run(run_id).path))


@st.cache_resource(max_entries=MAX_FOLLOWERS, show_spinner=False)
def _follower(path: str) -> RunFollower:
    return RunFollower(RunFolder(Path(path)))


def settings_of(folder: RunFolder) -> tuple[RunConfig, RunManifest | None]:
    """What was asked of a run, and what it became, read again when a file changes. Raises RunInvalid."""
    return _settings_of(str(folder.path), file_stamp(folder.config), file_stamp(folder.manifest))


@st.cache_resource(max_entries=MAX_FOLLOWERS, show_spinner=False)
def _settings_of(path: str, *stamps: tuple[int, int]) -> tuple[RunConfig, RunManifest | None]:  # noqa: ARG001 - part of the cache's key
    folder = RunFolder(Path(path))
    return read_config(folder), read_manifest(folder)


def drawn(folder: RunFolder, version: int, draw: Callable[[], list[Chart]]) -> list[Chart]:
    """The charts of a run, drawn once for all who watch it: again when its history has another version."""
    kept = _drawn(str(folder.path))
    if kept.version != version:
        kept.charts, kept.version = draw(), version
    return kept.charts


@dataclass
class _Drawn:
    version: int = -1
    charts: list[Chart] = field(default_factory=list)


@st.cache_resource(max_entries=MAX_FOLLOWERS, show_spinner=False)
def _drawn(path: str) -> _Drawn:  # noqa: ARG001 - the cache's key
    return _Drawn()


def summaries() -> list[RunSummary]:
    """All runs, newest first. An ended run is read once and then when one of its files changes; a live one through its follower."""
    known, rows = _ended_runs().rows, []
    ended: dict[str, tuple[_Signature, RunSummary]] = {}
    for run_id in run_ids():
        try:
            folder = find_run(run_id)
            if is_alive(folder):
                rows.append(summarize(run_id, follower(run_id)))
                continue
            path, signature = str(folder.path), _signature(folder)
            ended[path] = known[path] if path in known and known[path][0] == signature else (signature, summarize(run_id))
            rows.append(ended[path][1])
        except RunNotFound:  # deleted since it was listed
            continue
    _ended_runs().rows = ended
    return rows


_Signature = tuple[tuple[int, int], ...]


@dataclass
class _EndedRuns:
    """Rows by folder, as many as there are runs. (st.cache_data for each would take a millisecond a run and refresh.)"""

    rows: dict[str, tuple[_Signature, RunSummary]] = field(default_factory=dict)


@st.cache_resource(max_entries=1, show_spinner=False)
def _ended_runs() -> _EndedRuns:
    return _EndedRuns()


def _signature(folder: RunFolder) -> _Signature:
    """Changes whenever something that a summary shows has changed."""
    return tuple(file_stamp(path) for path in (folder.config, folder.manifest, folder.annotations, folder.events))


def file_stamp(path: Path) -> tuple[int, int]:
    """Time of last change in nanoseconds and size in bytes: a cache key that changes with the file; zeros if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)


@st.cache_data(max_entries=50, ttl=SOURCE_SECONDS, show_spinner=False)
def source_status(source: str, *, store_resolution: int, seed: int) -> SourceStatus:
    """What is known of a data set. Kept for a moment: a form asks several times, and listing a large folder takes a second."""
    return sources.describe(source, store_resolution=store_resolution, seed=seed)


@st.cache_resource(max_entries=1, show_spinner=False)
def image_fetches() -> dict[WantedImages, Fetch]:
    """Data sets on their way and those that could not be had, for all sessions: no more than the runs here were trained on."""
    return {}


def fetch_images(wanted: WantedImages) -> None:
    """Begin to get these images, unless they are on their way already. Returns at once."""
    fetch = image_fetches().get(wanted)
    if fetch is None or fetch.over.is_set():
        image_fetches()[wanted] = Fetch(wanted, when_here=source_status.clear)


def hardware() -> Hardware | None:
    """What this machine trains on; None while the prediction process is still looking, or if it cannot tell."""
    future = _hardware_future()
    if not future.done():
        return None
    try:
        answer = result_of(future)
    except PredictionProcessDied:
        _hardware_future.clear()
        return None
    except CifarTLError:
        return None
    assert isinstance(answer, Hardware)
    return answer


@st.cache_resource(max_entries=1, show_spinner=False)
def _hardware_future() -> Future[Any]:
    return predictor().submit("cifar_tl.probe:hardware")


@st.cache_resource(max_entries=1, show_spinner=False)
def epoch_estimates() -> dict[str, EpochEstimate | CifarTLError]:
    """Measured estimates of all sessions, by the key of their settings; `remember_estimate` keeps it bounded."""
    return {}


def remember_estimate(key: str, estimate: EpochEstimate | CifarTLError) -> None:
    """Keep a measured estimate; the oldest goes when there are too many."""
    known = epoch_estimates()
    known[key] = estimate
    while len(known) > MAX_ESTIMATES:
        known.pop(next(iter(known)), None)
