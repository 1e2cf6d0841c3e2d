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

import errno
import hashlib
import json
import os
import secrets
import shutil
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.format import write_array_header_1_0

from cifar_tl.errors import SourceInvalid

STORE_VERSION = 1
_INFO_FILE = "store.json"
_PART_SUFFIX = ".part"


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

    @cached_property
    def image_rows(self) -> "StoredRows":
        """The images for reading at random, one copy for all who do. A small split lies in memory: a read costs 0.1 ms beside training."""
        return StoredRows(self.images_NHWC, keep_bytes=KEPT_IN_MEMORY)


class ImageStore:
    """An opened store. `store["train"]` is a `Split`; `store.info` the rest. `train` and `test` always exist."""

    def __init__(self, folder: Path) -> None:
        """Raises SourceInvalid if the folder is not a whole store of this version."""
        self.folder = Path(folder)
        self.info = read_store_info(self.folder)
        self._splits = {name: self._open_split(name) for name in self.info.split_sizes}

    def _open_split(self, name: str) -> Split:
        try:
            images = np.load(_images_file(self.folder, name), mmap_mode="r")
            labels = np.load(_labels_file(self.folder, name))
        except (OSError, ValueError) as error:
            raise SourceInvalid(
                f"The prepared store {self.folder} is damaged ({error}); delete that folder and prepare it again."
            ) from error
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


KEPT_IN_MEMORY = 160 * 2**20  # CIFAR-100's training images are, and pooled features of as many


class StoredRows:
    """Rows of an array in a .npy file, read at random without this process's memory growing to the size of the file.

    A memory map would: the system maps up to megabytes around each byte that is touched and counts them as this process's.
    An array of at most `keep_bytes` is read into memory whole, when it is first asked for; one that lies there is simply indexed.
    """

    def __init__(self, array: np.ndarray, *, keep_bytes: int = 0) -> None:
        self.array = array
        self._file = None
        if isinstance(array, np.memmap) and array.filename is not None:
            if array.nbytes <= keep_bytes:
                self.array = np.array(array)
            else:
                self._file = os.open(array.filename, os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """A copy of these rows, in their order. Raises OSError if the file has been cut short."""
        if self._file is None:
            return self.array[rows]
        values = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
        self.copy_into(values, np.arange(len(rows)), rows)
        return values

    def copy_into(self, values: np.ndarray, slots: np.ndarray, rows: np.ndarray) -> None:
        """`values[slots] = self[rows]`, for contiguous `values` of this array's type."""
        if self._file is None:
            values[slots] = self.array[rows]
            return
        assert isinstance(self.array, np.memmap)
        row_bytes = int(self.array.strides[0])
        as_bytes = values.reshape(len(values), -1).view(np.uint8)
        for slot, row in zip(slots.tolist(), rows.tolist(), strict=True):
            if os.preadv(self._file, [as_bytes[slot].data], self.array.offset + row * row_bytes) != row_bytes:
                raise OSError(errno.EIO, "The file ends too early", str(self.array.filename))


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
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
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
        written = self.write_labelled(name, _with_labels(image_chunks, labels), resolution)
        assert written == len(labels), f"split {name}: {written} images for {len(labels)} labels"

    def write_labelled(self, name: str, chunks: Iterable[tuple[np.ndarray, np.ndarray]], resolution: int) -> int:
        """The same for images whose number is known only at the end: yields (images, labels) pairs. Returns the number written.

        Raises OSError when the disk is full (a memory map would be killed by the kernel instead).
        """
        all_labels = [np.empty(0, np.int64)]
        with _images_file(self.folder, name).open("wb") as file:
            _write_npy_header(file, 0, resolution)
            for images, labels in chunks:
                assert images.dtype == np.uint8
                assert images.shape == (len(labels), resolution, resolution, 3), f"{images.shape} for {len(labels)} labels"
                pixels = np.ascontiguousarray(images).tobytes()
                file.write(pixels)
                self._hash.update(pixels)
                all_labels.append(np.asarray(labels, np.int64))
            labels_N = np.concatenate(all_labels)
            file.seek(0)
            _write_npy_header(file, len(labels_N), resolution)
            _to_disk(file)
        with _labels_file(self.folder, name).open("wb") as file:
            np.save(file, labels_N)
            _to_disk(file)
        self._hash.update(f"{name}:{len(labels_N)}:{resolution}".encode())
        self._hash.update(labels_N.astype("<i8").tobytes())
        self.split_sizes[name] = len(labels_N)
        return len(labels_N)

    def finish(self, info: StoreInfo) -> StoreInfo:
        """Write the info file with sizes and fingerprint filled in; returns it."""
        self._hash.update("\x00".join(info.class_names).encode())
        complete = StoreInfo(
            **(info.__dict__ | {"split_sizes": self.split_sizes, "fingerprint": self._hash.hexdigest()[:32], "version": STORE_VERSION})
        )
        with (self.folder / _INFO_FILE).open("w", encoding="utf-8") as file:
            json.dump(asdict(complete), file, ensure_ascii=False, indent=1)
            _to_disk(file)
        return complete


@contextmanager
def writing_store(folder: Path) -> Iterator[StoreWriter]:
    """A writer into a temporary folder beside `folder`, renamed to it when the block ends well, removed when it raises.

    If another process finished the same store meanwhile, theirs stays and ours is removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.parent / f".{folder.name}.{secrets.token_hex(8)}{_PART_SUFFIX}"
    temporary.mkdir()  # not mkdtemp, whose folders are closed to the others who share the cache
    try:
        yield StoreWriter(temporary)
        assert is_store(temporary), "finish() was not called"
        try:
            temporary.rename(folder)
        except OSError:
            if not is_store(folder):
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers of `folder` left that were killed. Only while no one else can be writing it."""
    prefix = f".{folder.name}."
    for entry in folder.parent.iterdir() if folder.parent.is_dir() else ():
        if entry.name.startswith(prefix) and entry.name.endswith(_PART_SUFFIX):
            shutil.rmtree(entry, ignore_errors=True)


def _with_labels(image_chunks: Iterable[np.ndarray], labels_N: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    start = 0
    for images in image_chunks:
        yield images, labels_N[start : start + len(images)]
        start += len(images)


def _write_npy_header(file: IO[bytes], count: int, resolution: int) -> None:
    """numpy leaves room in the header for the first axis to grow, so it can be written again in place."""
    write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (count, resolution, resolution, 3)})


def _to_disk(file: IO[Any]) -> None:
    """So that a rename never outruns the data: after a power cut a store that exists is still complete."""
    file.flush()
    os.fsync(file.fileno())


def _images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images.npy"


def _labels_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.labels.npy"
