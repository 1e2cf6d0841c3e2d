"""ImageStore: a data set as memory-mapped uint8 images, however it came.

Owns the layout on disk and its reading and writing. Knows nothing of where images come from (`sources`) and nothing
of tensors (`batches`). One store is one folder under `paths.stores_root()`:

    store.json             everything but the arrays (see `StoreInfo`)
    train.images.npy       uint8, N x H x W x 3, RGB
    train.labels.npy       int64, N
    test.images.npy ...    the same; `dev` only where the source brings its own dev / val split

A store is written to a temporary folder that is renamed when whole, so a store that exists is complete.
Images of a million-file folder cost no memory: pages are mapped in as they are read.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from cifar_tl.errors import SourceInvalid

STORE_VERSION = 1
_INFO_FILE = "store.json"


@dataclass(frozen=True)
class UnreadableFile:
    """A file of the source that could not become an image, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class StoreInfo:
    """What is known of a store without opening its arrays.

    `superclass_of_class[i]` is an index into `superclass_names`; both are empty where there are no superclasses.
    `resolution` is the stored height and width in pixels.
    `fingerprint` is a hash of class names, labels and pixels: equal data, equal fingerprint, whatever the source.
    """

    source: str
    title: str
    resolution: int
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...] = ()
    superclass_of_class: tuple[int, ...] = ()
    split_sizes: dict[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    unreadable: tuple[UnreadableFile, ...] = ()
    notes: tuple[str, ...] = ()
    version: int = STORE_VERSION

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Split:
    """One split: `images_NHWC` uint8 RGB, memory-mapped; `labels_N` int64, class indices."""

    images_NHWC: np.ndarray
    labels_N: np.ndarray

    def __len__(self) -> int:
        return len(self.labels_N)


class ImageStore:
    """An opened store. `store["train"]` is a `Split`; `store.info` the rest. `train` and `test` always exist."""

    def __init__(self, folder: Path) -> None:
        """Raises SourceInvalid if the folder is not a whole store of this version."""
        self.folder = Path(folder)
        self.info = read_store_info(self.folder)
        self._splits = {name: self._open_split(name) for name in self.info.split_sizes}

    def _open_split(self, name: str) -> Split:
        images = np.load(_images_file(self.folder, name), mmap_mode="r")
        labels = np.load(_labels_file(self.folder, name))
        if len(images) != len(labels) or len(labels) != self.info.split_sizes[name]:
            raise SourceInvalid(f"The prepared store {self.folder} is damaged ({name}); delete that folder and prepare it again.")
        return Split(images, labels)

    def __getitem__(self, split: str) -> Split:
        return self._splits[split]

    def __contains__(self, split: str) -> bool:
        return split in self._splits

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self._splits)


def read_store_info(folder: Path) -> StoreInfo:
    """Read `store.json` alone: cheap, opens no array. Raises SourceInvalid."""
    try:
        raw = json.loads((folder / _INFO_FILE).read_text("utf-8"))
        if raw.get("version") != STORE_VERSION:
            raise SourceInvalid(f"The prepared store {folder} has version {raw.get('version')}; delete that folder and prepare it again.")
        raw["unreadable"] = tuple(UnreadableFile(**item) for item in raw["unreadable"])
        for key in ("class_names", "superclass_names", "superclass_of_class", "notes"):
            raw[key] = tuple(raw[key])
        return StoreInfo(**raw)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SourceInvalid(f"{folder} is not a readable image store ({error}); delete that folder and prepare it again.") from error


def is_store(folder: Path) -> bool:
    """True if a whole store lies there (its info file is written last)."""
    return (folder / _INFO_FILE).is_file()


class StoreWriter:
    """Fills a store split by split, inside `writing_store`. Images arrive in chunks, so memory stays flat."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._hash = hashlib.sha256()
        self.split_sizes: dict[str, int] = {}

    def write_split(self, name: str, labels: np.ndarray, image_chunks: Iterable[np.ndarray], resolution: int) -> None:
        """`labels` int, N; `image_chunks` yields uint8 n x resolution x resolution x 3 arrays, N images in all, in the labels' order."""
        labels = np.asarray(labels, np.int64)
        images = open_memmap(_images_file(self.folder, name), "w+", np.uint8, (len(labels), resolution, resolution, 3))
        start = 0
        self._hash.update(f"{name}:{len(labels)}:{resolution}".encode())
        for chunk in image_chunks:
            images[start : start + len(chunk)] = chunk
            self._hash.update(np.ascontiguousarray(chunk).data)
            start += len(chunk)
        assert start == len(labels), f"split {name}: {start} images for {len(labels)} labels"
        images.flush()
        np.save(_labels_file(self.folder, name), labels)
        self._hash.update(labels.data)
        self.split_sizes[name] = len(labels)

    def finish(self, info: StoreInfo) -> StoreInfo:
        """Write the info file with sizes and fingerprint filled in; returns it."""
        self._hash.update("\x00".join(info.class_names).encode())
        complete = StoreInfo(
            **(info.__dict__ | {"split_sizes": self.split_sizes, "fingerprint": self._hash.hexdigest()[:32], "version": STORE_VERSION})
        )
        (self.folder / _INFO_FILE).write_text(json.dumps(asdict(complete), ensure_ascii=False, indent=1), "utf-8")
        return complete


@contextmanager
def writing_store(folder: Path) -> Iterator[StoreWriter]:
    """A writer into a temporary folder beside `folder`, renamed to it when the block ends well, removed when it raises.

    If another process finished the same store meanwhile, theirs stays and ours is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield StoreWriter(temporary)
        assert is_store(temporary), "finish() was not called"
        try:
            os.rename(temporary, folder)
        except OSError:
            if not is_store(folder):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images.npy"


def _labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.labels.npy"
