"""The only place where a file or folder name is spelled.

Four roots, each from one environment variable, read when asked (never at import):

    CIFAR_TL_DATA          where data sets as published are looked up and downloaded to; may be read-only
    CIFAR_TL_CACHE         what we derive and may delete: prepared stores, cached features, weights
    CIFAR_TL_CHECKPOINTS   run folders; by default `checkpoints/` beside `app.py`
    CIFAR_TL_CORRECTIONS   what people decided about labels and images; by default `corrections/` beside the data sets
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent
APP_FILE = PROJECT_ROOT / "app.py"
STATIC_FOLDER = PROJECT_ROOT / "static"


def _user_cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _root(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


def data_root() -> Path:
    """Where published data sets live. May not exist yet; may be read-only."""
    return _root("CIFAR_TL_DATA", _user_cache() / "cifar_tl" / "data")


def cache_root() -> Path:
    """What we derive and may delete. May not exist yet."""
    return _root("CIFAR_TL_CACHE", _user_cache() / "cifar_tl")


def stores_root() -> Path:
    """Prepared image stores, one folder each."""
    return cache_root() / "stores"


def prefix_cache_root() -> Path:
    """Activations of frozen prefixes, one folder each."""
    return cache_root() / "prefixes"


def audits_root() -> Path:
    """Suspicious images of data sets, one folder for each data set and way of looking."""
    return cache_root() / "audits"


def corrections_root() -> Path:
    """Corrections of data sets, one file each: the work of people, so not in a cache."""
    return _root("CIFAR_TL_CORRECTIONS", data_root() / "corrections")


def corrections_file(fingerprint: str) -> Path:
    """What was decided about the data set of this fingerprint."""
    return corrections_root() / f"{fingerprint}.json"


def device_locks_root() -> Path:
    """Who has which device of this machine, and who waits for one."""
    return cache_root() / "devices"


def checkpoints_root() -> Path:
    """Run folders, one per run."""
    return _root("CIFAR_TL_CHECKPOINTS", PROJECT_ROOT / "checkpoints")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Names only: nothing here touches the disk."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        """What was asked: RunConfig as JSON, written by the launcher, again when a resumed run is to train longer."""
        return self.path / "config.json"

    @property
    def manifest(self) -> Path:
        """What it became: class names, preprocessing, versions, data fingerprint. Written once, whole, by the worker."""
        return self.path / "run.json"

    @property
    def corrections(self) -> Path:
        """What was corrected in the data that the run trains on, where it was to be. Written once by the worker."""
        return self.path / "corrections.json"

    @property
    def annotations(self) -> Path:
        """What people wrote about the run (its name). The only file the dashboard rewrites."""
        return self.path / "annotations.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def last_checkpoint(self) -> Path:
        """Everything an exact resume needs."""
        return self.path / "last.pt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before: kept for the case that the last one is damaged."""
        return self.path / "previous.pt"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def worker_log(self) -> Path:
        return self.path / "worker.log"

    @property
    def lock(self) -> Path:
        """Held with an exclusive flock for as long as the worker lives."""
        return self.path / "worker.lock"

    @property
    def stop_request(self) -> Path:
        return self.path / "stop.requested"

    @property
    def submission(self) -> Path:
        """There while the run is on a Ray cluster."""
        return self.path / "cluster.json"

    @property
    def queue_front(self) -> Path:
        """There while a run that waits for a device is to be the next one."""
        return self.path / "queue.front"

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard, where a run was asked to write them."""
        return self.path / "tensorboard"

    @property
    def exports(self) -> Path:
        """What was made of the model to be used elsewhere: one folder for each kind."""
        return self.path / "exports"

    @property
    def evaluation(self) -> Path:
        return self.path / "evaluation"

    def evaluation_of(self, split: str) -> Path:
        """`split` is "train", "dev" or "test"."""
        return self.evaluation / f"{split}.npz"

    def dev_answers_of(self, epoch: int) -> Path:
        """What the weights of that epoch, counted from 1, took each dev image for."""
        return self.evaluation / "epochs" / f"{epoch:04}.npz"

    @property
    def embeddings(self) -> Path:
        """The best weights' features of train, dev and test images, reduced to few dimensions."""
        return self.evaluation / "embeddings.npz"

    @property
    def embedding_map(self) -> Path:
        """Two coordinates for each image of the embedding map."""
        return self.evaluation / "map.npz"


@dataclass(frozen=True)
class AuditFolder:
    """The files of one audit of a data set. Names only: nothing here touches the disk."""

    path: Path

    @property
    def result(self) -> Path:
        return self.path / "suspicious.npz"

    @property
    def state(self) -> Path:
        """How far it is while it goes on, or why it failed."""
        return self.path / "state.json"

    @property
    def lock(self) -> Path:
        """Held with an exclusive flock for as long as its process works."""
        return self.path / "audit.lock"

    @property
    def log(self) -> Path:
        """Standard output, errors and tracebacks of its process."""
        return self.path / "audit.log"


def audit_folder(key: str) -> AuditFolder:
    """The folder of an audit's key (`evaluation.suspicion.result`)."""
    return AuditFolder(audits_root() / key)


@dataclass(frozen=True)
class SweepFolder:
    """The files of one sweep (`sweeps.store`)."""

    path: Path

    @property
    def sweep_id(self) -> str:
        return self.path.name

    @property
    def declaration(self) -> Path:
        return self.path / "sweep.json"

    @property
    def study_file(self) -> Path:
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        return self.path / "conductor.lock"

    @property
    def log(self) -> Path:
        return self.path / "conductor.log"

    @property
    def stop_request(self) -> Path:
        return self.path / "stop.requested"

    @property
    def ending(self) -> Path:
        return self.path / "ended.json"


def sweeps_root() -> Path:
    """Sweeps, one folder each, beside the runs that are their trials."""
    return checkpoints_root() / "sweeps"


def run_folder(run_id: str) -> RunFolder:
    """The folder of a run id under the checkpoints root. The id is trusted here; `runs.store` checks it."""
    return RunFolder(checkpoints_root() / run_id)
