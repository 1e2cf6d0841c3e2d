"""The entry to all data: a source name becomes a prepared ImageStore, or one sentence about why not yet.

    cifar100 · cifar10 · shapes · folder:PATH

Owns the names, the place of prepared stores, and that one process at a time prepares one of them. What a source is made of
is in `cifar`, `folder` and `shapes`; the layout of a store in `store`. Called by training, the command line and the pages.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from cifar_tl.data.cifar.source import CifarSource
from cifar_tl.data.download import explained
from cifar_tl.data.folder.source import open_folder
from cifar_tl.data.progress import Availability, Progress, Tell, tell_nobody
from cifar_tl.data.shapes import ShapesSource
from cifar_tl.data.store import ImageStore, StoreInfo, StoreWriter, is_store, read_store_info, remove_leftovers, writing_store
from cifar_tl.errors import CifarTLError, SourceInvalid
from cifar_tl.paths import stores_root

__all__ = ["Progress", "KNOWN_SOURCES", "KnownSource", "SourceStatus", "State", "describe", "find_store", "prepare"]

State = Literal["prepared", "on_disk", "download", "invalid"]
_FOLDER = "folder:"


@dataclass(frozen=True)
class KnownSource:
    """A source with a name of its own, for lists to choose from."""

    source: str
    title: str
    description: str


KNOWN_SOURCES = (
    KnownSource("cifar100", "CIFAR-100", "60,000 photos of 32 x 32 pixels in 100 classes and 20 superclasses."),
    KnownSource("cifar10", "CIFAR-10", "60,000 photos of 32 x 32 pixels in 10 classes."),
    KnownSource("shapes", "Shapes", "5,000 drawn pictures of 32 x 32 pixels in 20 classes and 5 superclasses; needs no download."),
)


@dataclass(frozen=True)
class SourceStatus:
    """What can be said of a source at once. `store_folder` and `info` only when `state` is "prepared"."""

    source: str
    title: str
    state: State
    message: str
    store_folder: Path | None = None
    info: StoreInfo | None = None


class _Source(Protocol):
    """What `cifar`, `folder` and `shapes` offer."""

    @property
    def title(self) -> str: ...

    @property
    def store_name(self) -> str:
        """Name of the store's folder; another one whenever the store would be another."""
        ...

    def availability(self) -> tuple[Availability, str]:
        """For a source that is not prepared."""
        ...

    def write(self, writer: StoreWriter, tell: Tell) -> StoreInfo:
        """Write every split; the info is finished by the caller."""
        ...


def prepare(source: str, *, store_resolution: int = 160, seed: int = 0, progress: Callable[[Progress], None] | None = None) -> ImageStore:
    """The store of a source: from the cache, or built now (and fetched, if need be). Raises DataError.

    `store_resolution` is for folders; `seed` for folders without a test split. While another process prepares the same
    store this one waits.
    """
    tell = progress or tell_nobody
    found = _resolve(source, store_resolution, seed)
    folder = stores_root() / found.store_name
    store = _whole_store(folder)
    if store is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _one_at_a_time(folder, tell):
                store = _whole_store(folder) or _build(found, folder, tell)
        except OSError as error:
            raise explained(error, f"{found.title} cannot be prepared in {folder.parent}") from error
    return store


def describe(source: str, *, store_resolution: int = 160, seed: int = 0) -> SourceStatus:
    """What is known without reading an image. Never raises: what is wrong is the message of state "invalid".

    Instant for named sources; a folder is listed (about a second for 100,000 files).
    """
    try:
        found = _resolve(source, store_resolution, seed)
        folder = stores_root() / found.store_name
        info = _info_of(folder)
        if info is not None:
            return SourceStatus(source, info.title, "prepared", _sizes(info), folder, info)
        return SourceStatus(source, found.title, *found.availability())
    except (CifarTLError, OSError, ValueError) as error:
        return SourceStatus(source, source, "invalid", " ".join(str(error).split()))


def find_store(source: str, store_resolution: int = 160, seed: int = 0) -> Path | None:
    """The folder of a store that is prepared already; None also for sources that do not exist."""
    return describe(source, store_resolution=store_resolution, seed=seed).store_folder


def _resolve(source: str, store_resolution: int, seed: int) -> _Source:
    """Raises SourceInvalid for an unknown name or a folder that is no data set."""
    name = source.strip()
    if name in ("cifar100", "cifar10"):
        return CifarSource(name)
    if name == "shapes":
        return ShapesSource()
    if not name.startswith(_FOLDER):
        names = ", ".join(known.source for known in KNOWN_SOURCES)
        raise SourceInvalid(f"There is no data set {source!r}. Choose {names} or folder:PATH.")
    path = name.removeprefix(_FOLDER).strip()
    if not path:
        raise SourceInvalid("folder: needs the path of a folder that holds one folder of pictures per class, as in folder:/data/birds.")
    try:
        return open_folder(Path(path).expanduser().absolute(), store_resolution, seed)
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a zero byte, an unknown ~user
        raise SourceInvalid(f"The folder {path!r} cannot be read ({error}).") from error


def _info_of(folder: Path) -> StoreInfo | None:
    try:
        return read_store_info(folder) if is_store(folder) else None
    except SourceInvalid:
        return None


def _whole_store(folder: Path) -> ImageStore | None:
    """None also for a damaged one, which is then built again: stores are derived data."""
    try:
        return ImageStore(folder) if is_store(folder) else None
    except SourceInvalid:
        return None


def _build(found: _Source, folder: Path, tell: Tell) -> ImageStore:
    shutil.rmtree(folder, ignore_errors=True)  # it is there only if it is damaged
    remove_leftovers(folder)
    with writing_store(folder) as writer:
        writer.finish(found.write(writer, tell))
    return ImageStore(folder)


@contextmanager
def _one_at_a_time(folder: Path, tell: Tell) -> Iterator[None]:
    """Holds the lock beside `folder`. The kernel drops it whichever way its holder dies; the empty file stays."""
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(Progress("Waiting for another process that prepares the same data", 0, 0, "images"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sizes(info: StoreInfo) -> str:
    sizes = ", ".join(f"{size:,} {split}" for split, size in info.split_sizes.items())
    superclasses = f" in {len(info.superclass_names)} superclasses" if info.superclass_names else ""
    unreadable = f" {len(info.unreadable):,} files could not be read." if info.unreadable else ""
    return (
        f"Prepared: {sizes} images of {info.resolution} x {info.resolution} pixels, {info.num_classes} classes{superclasses}.{unreadable}"
    )
