"""audit_data(): look for what is suspicious in the data of a run, through the frozen features of its backbone before any fine-tuning.

A network that was fine-tuned has memorised the labels it was given, wrong ones too, so its own features would hide what is looked
for here. The pretrained ones come from the cache that all runs share: after a run of the head they are there already.

Kept under `paths.audits_root()` by data and backbone (`suspicion.result.audit_key`), so that runs on the same data share an audit. One process
at a time makes one: it holds the folder's lock, writes how far it is into state.json, and why, if it fails. Level 4.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

from cifar_tl.config import RunConfig
from cifar_tl.data.progress import Progress, Tell
from cifar_tl.data.splits import SplitRows
from cifar_tl.devices import choose_compute
from cifar_tl.errors import CifarTLError, RunActive, RunInvalid
from cifar_tl.evaluation.suspicion.linear import Features, blocks_of
from cifar_tl.evaluation.suspicion.result import DEV, TEST, TRAIN, Suspicion, audit_key, audit_settings, load_suspicion, save_suspicion
from cifar_tl.evaluation.suspicion.search import SplitData, search
from cifar_tl.evaluation.suspicion.state import failed, working, writing
from cifar_tl.paths import AuditFolder, RunFolder, audit_folder, audits_root
from cifar_tl.runs.events import Event, Phase
from cifar_tl.runs.events import Progress as ProgressEvent
from cifar_tl.runs.lock import OPEN_TO_ALL, try_lock
from cifar_tl.runs.store import read_config, read_manifest, write_json
from cifar_tl.training.inputs import Inputs
from cifar_tl.training.prepare import Prepared, counted_progress, inputs_for, load_data, load_network

_STATE_SECONDS = 0.5
_BATCH = 256
_NICENESS = 5  # of a process that a page has started and does not wait for: a training run beside it goes first


def audit_data(folder: RunFolder, *, tell: Tell, lock_file: int | None = None) -> Suspicion:
    """What is suspicious in the data of the run in `folder`: as it was found before, else looked for now and kept.

    `lock_file` is an inherited file descriptor that already holds the audit's lock. Raises RunInvalid, RunActive if another process is at
    it, DataError, BackboneError.
    """
    config, manifest = read_config(folder), read_manifest(folder)
    if manifest is None:
        raise RunInvalid(f"Run {folder.run_id} has not prepared its data yet, so there is nothing to look at.")
    files = audit_folder(audit_key(config, manifest.data_fingerprint))
    if lock_file is not None:
        os.nice(_NICENESS)
    with _held(files, lock_file):
        with suppress(FileNotFoundError, CifarTLError):  # a damaged one is made again
            return load_suspicion(files.result)
        try:
            found = examine(audit_settings(config), _noting(files, tell), data_fingerprint=manifest.data_fingerprint)
            with writing(files):
                save_suspicion(files.result, found)
        except CifarTLError as error:
            write_json(files.state, failed(str(error)))
            raise
        except Exception as error:
            traceback.print_exc()
            reason = (str(error).splitlines() or [""])[0]
            write_json(files.state, failed(f"An unexpected error ({type(error).__name__}: {reason}). Details are in {files.log}."))
            raise
        files.state.unlink(missing_ok=True)
        return found


def examine(config: RunConfig, tell: Tell, *, data_fingerprint: str | None = None) -> Suspicion:
    """The whole work for settings as `audit_settings` makes them. Raises RunInvalid if the data are not those of the fingerprint."""
    compute, emit = choose_compute(config.device, config.precision), as_progress(tell)
    store = load_data(config, emit)
    if data_fingerprint not in (None, store.info.fingerprint):
        raise RunInvalid(f"The data of this run have changed since it was trained: {config.source} is not the same any more.")
    prepared = load_network(config, store, compute, emit)
    return search(split_data(prepared, emit), config, prepared.num_classes, tell)


def split_data(prepared: Prepared, emit: Callable[[Event], object]) -> list[SplitData]:
    """Features, labels and pixels of every split of the store, of the run's classes; features from the cache, which is filled first."""
    inputs, splits = inputs_for(prepared, len(prepared.classifier.stages), emit), prepared.splits
    has_own_dev = splits.dev.store_split != "train"
    of_train = [(inputs.train, splits.train)] if has_own_dev else [(inputs.train, splits.train), (inputs.dev, splits.dev)]
    parts = [(TRAIN, of_train), *([(DEV, [(inputs.dev, splits.dev)])] if has_own_dev else []), (TEST, [(inputs.test, splits.test)])]
    return [_split(prepared, split, pairs, emit) for split, pairs in parts]


def _split(prepared: Prepared, split: int, parts: list[tuple[Inputs, SplitRows]], emit: Callable[[Event], object]) -> SplitData:
    stored = prepared.store[parts[0][1].store_split]
    rows, labels = (np.concatenate([getattr(part, name) for _, part in parts]) for name in ("rows", "labels"))
    features: Features = _FrozenFeatures(prepared, [inputs for inputs, _ in parts])
    if not all(inputs.is_cached for inputs, _ in parts):
        features = _computed_once(features, counted_progress(emit, f"Running {prepared.config.backbone}", len(rows)))
    return SplitData(split, len(stored), rows, labels, features, lambda wanted: stored.image_rows[wanted])


class _FrozenFeatures:
    """Pooled features of one or several inputs, one after the other."""

    def __init__(self, prepared: Prepared, parts: list[Inputs]) -> None:
        self._classifier, self._compute, self._parts = prepared.classifier.eval(), prepared.compute, parts
        self._starts = [sum(len(part) for part in parts[:number]) for number in range(len(parts))]

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """float32 n x F."""
        found = []
        for part, start in zip(self._parts, self._starts, strict=True):
            first, last = max(rows.start - start, 0), min(rows.stop - start, len(part))
            found += [self._of(part, np.arange(at, min(at + _BATCH, last))) for at in range(first, last, _BATCH)]
        return np.concatenate(found)

    @torch.inference_mode()
    def _of(self, part: Inputs, positions: np.ndarray) -> np.ndarray:
        (view,) = part.evaluation_views(positions)
        with self._compute.autocast():
            return self._classifier.suffix_features(view, part.boundary).float().cpu().numpy()


def _computed_once(features: Features, heard: Callable[[int], object]) -> np.ndarray:
    """Features are read several times. Those that the cache may not hold lie in a file without a name for as long as they are needed."""
    audits_root().mkdir(parents=True, exist_ok=True)
    size = features[slice(0, 1)].shape[1]
    with tempfile.TemporaryFile(dir=audits_root()) as file:
        kept = np.memmap(file, np.float32, "w+", shape=(len(features), size))
    for rows, block in blocks_of(features, heard):
        kept[rows] = block
    return kept


@contextmanager
def _held(files: AuditFolder, lock_file: int | None) -> Iterator[None]:
    """Hold the audit's lock, here or as it was handed over. Raises RunActive, DataError."""
    if lock_file is None:
        with writing(files):
            files.path.mkdir(parents=True, exist_ok=True)
            lock_file = os.open(files.lock, os.O_RDWR | os.O_CREAT, OPEN_TO_ALL)
        if not try_lock(lock_file):
            os.close(lock_file)
            raise RunActive("Another process is looking at these data already. Wait for it; what it finds is shared.")
    try:
        yield
    finally:
        os.close(lock_file)


def _noting(files: AuditFolder, tell: Tell) -> Tell:
    """Tells, and writes it down for pages that wait, at most twice a second."""
    noted = 0.0

    def note(progress: Progress) -> None:
        nonlocal noted
        tell(progress)
        now = time.monotonic()
        if progress.total == 0 or now - noted >= _STATE_SECONDS:
            noted = now
            write_json(files.state, working(progress))

    return note


def as_progress(tell: Tell) -> Callable[[Event], None]:
    """What preparing a run says, for who waits for an audit."""

    def emit(event: Event) -> None:
        if isinstance(event, Phase):
            tell(Progress(event.text, 0, 0, "images"))
        elif isinstance(event, ProgressEvent):
            tell(Progress(event.text, event.done, event.total, event.unit))

    return emit
