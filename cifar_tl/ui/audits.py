"""Audits of data sets for the Suspicious data view: how one goes, what it found, and the process that makes one.

The process is a fresh interpreter of its own session, as a run's worker is: it survives a closed tab and a restart of the dashboard.
Its lock is taken here and handed over as an open file, so there is no moment in which a starting audit looks dead or is started twice.
"""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from cifar_tl.errors import RunError
from cifar_tl.evaluation.suspicion.result import Suspicion, audit_key, load_suspicion
from cifar_tl.evaluation.suspicion.state import writing
from cifar_tl.paths import PROJECT_ROOT, AuditFolder, audit_folder
from cifar_tl.runs.lock import OPEN_TO_ALL, try_lock
from cifar_tl.runs.store import RunManifest, find_run, read_config
from cifar_tl.ui.cached import file_stamp
from cifar_tl.ui.explore.suspects import Kind, SuspectList, suspect_lists

MAX_AUDITS = 6  # in memory; of CIFAR-100 one takes a megabyte


def audit_of(run_id: str, manifest: RunManifest) -> AuditFolder:
    """Where the audit of a run's data is kept, made or not. Raises RunNotFound, RunInvalid."""
    return audit_folder(audit_key(read_config(find_run(run_id)), manifest.data_fingerprint))


@dataclass(frozen=True)
class Audit:
    """What was found, and the same as lists to go through."""

    found: Suspicion
    lists: dict[Kind, SuspectList]


def audit_in(files: AuditFolder) -> Audit:
    """Raises DataError if the file is damaged, FileNotFoundError if there is none (any more)."""
    return _audit(str(files.result), file_stamp(files.result))


@st.cache_resource(max_entries=MAX_AUDITS, show_spinner="Reading what was found")
def _audit(path: str, stamp: tuple[int, int]) -> Audit:  # noqa: ARG001 - part of the key
    found = load_suspicion(Path(path))
    return Audit(found, suspect_lists(found))


def start_audit(run_id: str, files: AuditFolder) -> None:
    """Begin to look at the data of a run, unless that goes on already. Returns at once. Raises DataError, RunError."""
    with writing(files):
        files.path.mkdir(parents=True, exist_ok=True)
        lock = os.open(files.lock, os.O_RDWR | os.O_CREAT, OPEN_TO_ALL)
    try:
        if try_lock(lock):
            _spawn(run_id, files, lock)
    finally:
        os.close(lock)  # the process that was started has inherited it, and holds it for as long as it lives


def _spawn(run_id: str, files: AuditFolder, lock: int) -> None:
    with writing(files):
        files.state.unlink(missing_ok=True)
        log = files.log.open("wb")
    with log:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "cifar_tl", "audit", run_id, "--lock-file", str(lock)],
                cwd=PROJECT_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:  # no memory, no process to be had
            raise RunError(f"The data cannot be looked at: {error.strerror or error}.") from error
    # A finished child stays a zombie until someone waits for it.
    threading.Thread(target=process.wait, name=f"reap-audit-{files.path.name}", daemon=True).start()
