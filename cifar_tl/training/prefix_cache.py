"""PrefixCache: activations at the freeze boundary, computed once per image and view, memory-mapped.

What lies before the boundary never changes during a run, so it runs once instead of every epoch. A cache is shared by all
runs with the same data, frozen weights, boundary, image size and precision; that is what its key says:

    prefixes/<key>/info.json              the key's parts, for people, and the shape of one activation
                   train.plain.npy        N x activation shape; rows not yet computed are holes in a sparse file
                   train.plain.crc.npy    N checksums, one per row; 0: not computed. Written after the rows they vouch for
                   train.mirrored.npy ... the same for the other views and splits
                   lock                   held while rows are being computed, so that a second run waits instead of repeating
                   in_use                 held, shared, by every run that reads: such a cache is not evicted

Values are stored in the run's own precision (bfloat16 as its 16 bits), maps channels last as the network reads them, so a cached run
sees the numbers an uncached one does.
Every row is checked against its checksum before a run may read it; rows that fail are computed again. When all caches together
would outgrow the limit, those that were used least recently are deleted.
"""

import fcntl
import hashlib
import json
import mmap
import os
import shutil
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from cifar_tl.data.store import KEPT_IN_MEMORY, StoredRows
from cifar_tl.paths import prefix_cache_root

PLAIN, MIRRORED = "plain", "mirrored"
CHUNK = 256  # images per forward pass
_CHUNKS_PER_COMMIT = 8  # a killed run repeats at most this many
_SHARE_OF_FREE_DISK = 0.5
_NOT_COMPUTED = 0
_LAYOUT = 2  # of the files; raised when it changes, so that older ones are not read

# numpy has no bfloat16: its 16 bits are stored as they are.
_STORED_DTYPE: dict[torch.dtype, np.dtype] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),
}


@dataclass(frozen=True)
class PrefixKey:
    """What activations depend on. `frozen_weights` is a hash of the frozen stages' parameters and statistics."""

    data_fingerprint: str
    backbone: str
    frozen_weights: str
    boundary: int
    image_size: int
    precision: str

    @property
    def folder_name(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self) | {"layout": _LAYOUT}, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.backbone.replace(':', '-').replace('/', '-')}-{self.boundary}-{self.image_size}px-{digest}"


def hash_weights(modules: torch.nn.Module) -> str:
    """A hash of every tensor of the modules' state, in order."""
    digest = hashlib.sha256()
    for name, tensor in modules.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class PrefixCache:
    """The activations of one key, of `activation_shape` (one image's, without the batch). Not evicted for as long as it is open."""

    def __init__(self, key: PrefixKey, activation_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.folder = prefix_cache_root() / key.folder_name
        self.dtype = dtype
        self.activation_shape = activation_shape
        self._open: dict[tuple[str, str], StoredRows] = {}
        # Closed with this object, at the latest when the process ends, whichever way.
        self.close = weakref.finalize(self, os.close, _hold(self.folder))
        (self.folder / "info.json").write_text(json.dumps(asdict(key) | {"activation_shape": activation_shape}, indent=1), "utf-8")

    def fill(
        self,
        split: str,
        split_size: int,
        rows: np.ndarray,
        view: str,
        compute: Callable[[np.ndarray], torch.Tensor],
        progress: Callable[[int], None],
    ) -> int:
        """Make sure that `rows` of `split` are there and whole; returns how many were damaged and had to be computed again.

        `compute(rows)` gives activations; `progress(n)` hears of n more rows done.
        """
        with self._locked():
            activations = self._array(split, view, split_size, "r+")
            checksums_file = self.folder / f"{split}.{view}.crc.npy"
            checksums = _load_checksums(checksums_file, split_size)
            claimed = rows[checksums[rows] != _NOT_COMPUTED]
            damaged = claimed[_checksums(activations, claimed) != checksums[claimed]]
            checksums[damaged] = _NOT_COMPUTED
            missing = np.sort(rows[checksums[rows] == _NOT_COMPUTED])
            progress(len(rows) - len(missing))
            chunks = [missing[start : start + CHUNK] for start in range(0, len(missing), CHUNK)]
            for number, chunk in enumerate(chunks, 1):
                activations[chunk] = self._to_stored(compute(chunk))
                checksums[chunk] = _checksums(activations, chunk)
                if number % _CHUNKS_PER_COMMIT == 0 or number == len(chunks):
                    _commit(activations, checksums, checksums_file)
                progress(len(chunk))
        return len(damaged)

    def read(self, split: str, split_size: int, rows: np.ndarray, view: str) -> torch.Tensor:
        """Activations of `rows`, in their order, on the CPU, of the run's dtype."""
        return self._from_stored(self._rows(split, split_size, view)[rows])

    def read_views(self, split: str, split_size: int, rows: np.ndarray, views: tuple[str, ...], view_of_row: np.ndarray) -> torch.Tensor:
        """As `read`, but each row in a view of its own: `views[view_of_row[i]]` for `rows[i]`."""
        values = np.empty((len(rows), *_stored_shape(self.activation_shape)), _STORED_DTYPE[self.dtype])
        for number, view in enumerate(views):
            slots = np.flatnonzero(view_of_row == number)
            self._rows(split, split_size, view).copy_into(values, slots, rows[slots])
        return self._from_stored(values)

    def _rows(self, split: str, split_size: int, view: str) -> StoredRows:
        array = self._open.get((split, view))
        if array is None:
            array = self._open[(split, view)] = StoredRows(self._array(split, view, split_size, "r"), keep_bytes=KEPT_IN_MEMORY)
        return array

    def _from_stored(self, stored: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(stored)
        values = values.view(torch.bfloat16) if self.dtype is torch.bfloat16 else values
        return values.permute(0, 3, 1, 2) if values.ndim == 4 else values

    def _to_stored(self, activations: torch.Tensor) -> np.ndarray:
        values = activations.to("cpu", self.dtype)
        values = (values.permute(0, 2, 3, 1) if values.ndim == 4 else values).contiguous()
        return values.view(torch.uint16).numpy() if self.dtype is torch.bfloat16 else values.numpy()

    def _array(self, split: str, view: str, split_size: int, mode: str) -> np.ndarray:
        """The memory-mapped rows; a file that is not what it should be (cut short, another shape) is started anew."""
        path = self.folder / f"{split}.{view}.npy"
        shape = (split_size, *_stored_shape(self.activation_shape))
        try:
            array = np.load(path, mmap_mode="r+" if mode == "r+" else "r")
            if array.shape == shape and array.dtype == _STORED_DTYPE[self.dtype]:
                return array
        except (OSError, ValueError, EOFError):
            pass
        assert mode == "r+", f"{path} is read before it is filled"
        (self.folder / f"{split}.{view}.crc.npy").unlink(missing_ok=True)
        array = open_memmap(path, "w+", _STORED_DTYPE[self.dtype], shape)
        array.flush()
        return array

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _stored_shape(activation_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels last, as the network that reads them wants its memory."""
    return (*activation_shape[1:], activation_shape[0]) if len(activation_shape) == 3 else activation_shape


def _load_checksums(path: Path, split_size: int) -> np.ndarray:
    try:
        checksums = np.load(path)
        if checksums.shape == (split_size,) and checksums.dtype == np.uint32:
            return checksums
    except (OSError, ValueError, EOFError):
        pass
    return np.full(split_size, _NOT_COMPUTED, np.uint32)


def _checksums(activations: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """CRC-32 of each row as stored; never _NOT_COMPUTED."""
    stored = StoredRows(activations)
    found = np.empty(len(rows), np.uint32)
    for start in range(0, len(rows), CHUNK):
        found[start : start + CHUNK] = [zlib.crc32(row) or 1 for row in stored[rows[start : start + CHUNK]]]
    return found


def _commit(activations: np.ndarray, checksums: np.ndarray, checksums_file: Path) -> None:
    # Rows first, then the word that they are there: a crash between the two repeats work, never trusts holes.
    assert isinstance(activations, np.memmap)
    activations.flush()
    if isinstance(mapping := getattr(activations, "_mmap", None), mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)  # written pages stop counting as this process's memory; the file keeps them
    temporary = checksums_file.with_suffix(".writing.npy")
    np.save(temporary, checksums)
    temporary.replace(checksums_file)


def _hold(folder: Path) -> int:
    """Make the folder if need be and mark it as in use until the file descriptor returned is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "in_use", os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        # An eviction may have removed the folder between the two lines above: then this file is nobody's.
        if (folder / "in_use").exists() and os.fstat(descriptor).st_ino == (folder / "in_use").stat().st_ino:
            os.utime(folder / "in_use")
            return descriptor
        os.close(descriptor)


def activation_bytes(activation_shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """What one cached activation takes on disk."""
    return int(np.prod(activation_shape)) * dtype.itemsize


def reason_not_to_cache(needed_bytes: int, limit_bytes: float) -> str:
    """Why a cache of that size should not be made on this disk; '' if it may."""
    root = prefix_cache_root()
    root.mkdir(parents=True, exist_ok=True)
    if needed_bytes > limit_bytes:
        return f"its {needed_bytes / 1e9:.1f} GB are more than the limit of {limit_bytes / 1e9:.1f} GB"
    available = shutil.disk_usage(root).free + sum(_bytes_on_disk(folder) for folder in _caches())
    if needed_bytes > available * _SHARE_OF_FREE_DISK:
        return f"its {needed_bytes / 1e9:.1f} GB are more than half of the {available / 1e9:.1f} GB free in {root}"
    return ""


def make_room(needed_bytes: int, limit_bytes: float) -> list[str]:
    """Delete the least recently used caches until `needed_bytes` more fit under the limit; returns the names of those deleted.

    A cache that some run has open stays.
    """
    sizes = {folder: _bytes_on_disk(folder) for folder in _caches()}
    total, deleted = sum(sizes.values()), []
    for folder in sorted(sizes, key=lambda folder: (folder / "in_use").stat().st_mtime if (folder / "in_use").exists() else 0.0):
        if total + needed_bytes <= limit_bytes:
            break
        if _delete_unless_in_use(folder):
            total -= sizes[folder]
            deleted.append(folder.name)
    return deleted


def _caches() -> list[Path]:
    root = prefix_cache_root()
    return [folder for folder in root.iterdir() if folder.is_dir()] if root.is_dir() else []


def _bytes_on_disk(folder: Path) -> int:
    """Blocks taken, which for a sparse file are fewer than its length."""
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir() if file.is_file())


def _delete_unless_in_use(folder: Path) -> bool:
    with (folder / "in_use").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder)
        return True
