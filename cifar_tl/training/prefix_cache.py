"""PrefixCache: activations at the freeze boundary, computed once per image and view, memory-mapped.

What lies before the boundary never changes during a run, so it runs once instead of every epoch. A cache is shared by all
runs with the same data, frozen weights, boundary, image size and precision; that is what its key says:

    prefixes/<key>/info.json               the key's parts, for people, and the shape of one activation
                   train.plain.npy         N x activation shape; rows not yet computed are holes in a sparse file
                   train.plain.done.npy    N booleans: which rows are computed
                   train.mirrored.npy ...  the same for the other view and the other splits
                   lock                    held while rows are being computed, so that a second run waits instead of repeating

Values are stored in the run's own precision (bfloat16 as its 16 bits), so a cached run sees the numbers an uncached one does.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap

from cifar_tl.paths import prefix_cache_root

VIEWS = ("plain", "mirrored")
_CHUNK = 256  # images per forward pass
_CHUNKS_PER_COMMIT = 8  # a killed run repeats at most this many
_SHARE_OF_FREE_DISK = 0.5
_LARGEST_BYTES = 20 * 2**30

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
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.backbone.replace(':', '-').replace('/', '-')}-{self.boundary}-{self.image_size}px-{digest}"


def hash_weights(modules: torch.nn.Module) -> str:
    """A hash of every tensor of the modules' state, in order."""
    digest = hashlib.sha256()
    for name, tensor in modules.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


class PrefixCache:
    """The activations of one key. `activation_shape` is the shape of one image's, without the batch."""

    def __init__(self, key: PrefixKey, activation_shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.folder = prefix_cache_root() / key.folder_name
        self.dtype = dtype
        self.activation_shape = activation_shape
        self._open: dict[tuple[str, str], np.ndarray] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "info.json").write_text(json.dumps(asdict(key) | {"activation_shape": activation_shape}, indent=1), "utf-8")

    def fill(
        self,
        split: str,
        split_size: int,
        rows: np.ndarray,
        view: str,
        compute: Callable[[np.ndarray], torch.Tensor],
        progress: Callable[[int], None],
    ) -> None:
        """Make sure that `rows` of `split` are there. `compute(rows)` gives their activations; `progress(n)` hears of n more rows done."""
        with self._locked():
            activations = self._array(split, view, split_size, "r+")
            done_file = self.folder / f"{split}.{view}.done.npy"
            done = np.load(done_file) if done_file.exists() else np.zeros(split_size, bool)
            missing = np.sort(rows[~done[rows]])
            progress(len(rows) - len(missing))
            chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
            for number, chunk in enumerate(chunks, 1):
                activations[chunk] = self._to_stored(compute(chunk))
                done[chunk] = True
                if number % _CHUNKS_PER_COMMIT == 0 or number == len(chunks):
                    self._commit(activations, done, done_file)
                progress(len(chunk))

    def _commit(self, activations: np.ndarray, done: np.ndarray, done_file: Path) -> None:
        # Rows first, then the word that they are there: a crash between the two repeats work, never trusts holes.
        assert isinstance(activations, np.memmap)
        activations.flush()
        temporary = done_file.with_suffix(".writing.npy")
        np.save(temporary, done)
        temporary.replace(done_file)

    def read(self, split: str, split_size: int, rows: np.ndarray, view: str) -> torch.Tensor:
        """Activations of `rows`, in their order, on the CPU, of the run's dtype."""
        array = self._open.get((split, view))
        if array is None:
            array = self._open[(split, view)] = self._array(split, view, split_size, "r")
        values = torch.from_numpy(np.ascontiguousarray(array[rows]))
        return values.view(torch.bfloat16) if self.dtype is torch.bfloat16 else values

    def _to_stored(self, activations: torch.Tensor) -> np.ndarray:
        values = activations.to("cpu", self.dtype).contiguous()
        return values.view(torch.uint16).numpy() if self.dtype is torch.bfloat16 else values.numpy()

    def _array(self, split: str, view: str, split_size: int, mode: str) -> np.ndarray:
        path = self.folder / f"{split}.{view}.npy"
        if not path.exists():
            open_memmap(path, "w+", _STORED_DTYPE[self.dtype], (split_size, *self.activation_shape)).flush()
        return np.load(path, mmap_mode="r+" if mode == "r+" else "r")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.folder / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def reason_not_to_cache(num_activations: int, activation_shape: tuple[int, ...], dtype: torch.dtype) -> str:
    """Why a cache of that many activations should not be made on this disk; '' if it may."""
    needed = num_activations * int(np.prod(activation_shape)) * dtype.itemsize
    root = prefix_cache_root()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > _LARGEST_BYTES:
        return f"its {needed / 1e9:.1f} GB are more than the limit of {_LARGEST_BYTES / 1e9:.0f} GB"
    if needed > free * _SHARE_OF_FREE_DISK:
        return f"its {needed / 1e9:.1f} GB are more than half of the {free / 1e9:.1f} GB free in {root}"
    return ""
