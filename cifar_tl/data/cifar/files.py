"""The three forms in which CIFAR is published, read alike: torchvision's folder, its archive, Hugging Face's parquet pair.

Owns checking and parsing of files that are on disk. Which form is looked for first, and fetching, is `source`.
A pickle is opened only after its published MD5 matched, and even then may build nothing but numpy arrays.
"""

import hashlib
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cifar_tl.data.cifar.published import CifarFormat, PublishedFile
from cifar_tl.data.decode import decode_image
from cifar_tl.data.download import file_md5
from cifar_tl.errors import ImageUnreadable, SourceInvalid

_SIDE = 32
_CHUNK = 500  # images


@dataclass(frozen=True)
class CifarSplit:
    """`labels_N` int64; `chunks` yields uint8 n x 32 x 32 x 3 RGB, N in all."""

    labels_N: np.ndarray
    superclass_labels_N: np.ndarray | None
    chunks: Iterator[np.ndarray]


class CifarFiles(Protocol):
    """Names first, then each split once."""

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Class names and superclass names, in the order of their labels."""
        ...

    def read(self, split: str) -> CifarSplit: ...


def files_in_folder(form: CifarFormat, root: Path) -> CifarFiles:
    """torchvision's unpacked folder. Raises SourceInvalid unless every file has its published MD5."""
    folder = root / form.folder
    for item in form.all_pickles:
        with _opening(folder / item.name), (folder / item.name).open("rb") as file:
            _check_md5(folder / item.name, file_md5(file), item.md5)

    def read(item: PublishedFile) -> bytes:
        with _opening(folder / item.name):
            data = (folder / item.name).read_bytes()
        _check_md5(folder / item.name, hashlib.md5(data, usedforsecurity=False).hexdigest(), item.md5)
        return data

    return _PickleFiles(form, read)


def files_in_archive(form: CifarFormat, root: Path) -> CifarFiles:
    """torchvision's archive, read without unpacking it to disk. Raises SourceInvalid unless it has its published MD5."""
    path = root / form.archive.name
    wanted = {f"{form.folder}/{item.name}" for item in form.all_pickles}
    members: dict[str, bytes] = {}
    with _opening(path), path.open("rb") as file:
        _check_md5(path, file_md5(file), form.archive.md5)
        with tarfile.open(fileobj=file, mode="r|gz") as archive:  # one pass: seeking back would inflate it all again
            for member in archive:
                content = archive.extractfile(member) if member.name in wanted else None
                if content is not None:
                    members[member.name] = content.read()
    if missing := sorted(wanted - set(members)):
        raise SourceInvalid(f"{path} has no {', '.join(missing)} inside. Delete it and fetch it again.")
    return _PickleFiles(form, lambda item: members.pop(f"{form.folder}/{item.name}"))  # popped: 150 MB that are not needed twice


class _PickleFiles:
    """CIFAR's own pickles, wherever their bytes come from."""

    def __init__(self, form: CifarFormat, read: Callable[[PublishedFile], bytes]) -> None:
        self._form, self._read = form, read

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        meta = self._load(self._form.meta)
        key = self._form.superclass_names_key
        return tuple(meta[self._form.names_key]), tuple(meta[key]) if key else ()

    def read(self, split: str) -> CifarSplit:
        batches = [self._load(item) for item in self._form.pickles[split]]
        key = self._form.superclass_labels_key
        labels_N = np.concatenate([np.asarray(batch[self._form.labels_key], np.int64) for batch in batches])
        superclass_labels_N = np.concatenate([np.asarray(batch[key], np.int64) for batch in batches]) if key else None
        pixels = [np.asarray(batch["data"], np.uint8) for batch in batches]
        if sum(len(rows) for rows in pixels) != len(labels_N):
            raise SourceInvalid(f"The {split} files of {self._form.folder} have not as many labels as images.")
        return CifarSplit(labels_N, superclass_labels_N, _planes_to_images(pixels))

    def _load(self, item: PublishedFile) -> dict[str, Any]:
        content = _ArraysOnly(io.BytesIO(self._read(item)), encoding="latin1").load()
        assert isinstance(content, dict), f"{item.name} has the published MD5 but holds no dictionary"
        return content


class _ArraysOnly(pickle.Unpickler):
    """Refuses everything that a pickled array does not need."""

    _allowed = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: str(text).encode(encoding)
        if (module, name) not in self._allowed:
            raise SourceInvalid(
                f"A CIFAR file wants to run {module}.{name}, which the published ones do not. Delete it and fetch it again."
            )
        return self._allowed[module, name]


def _planes_to_images(pixels: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Rows of 1024 red, 1024 green, 1024 blue values -> images."""
    for rows in pixels:
        for start in range(0, len(rows), _CHUNK):
            yield rows[start : start + _CHUNK].reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


class ParquetFiles:
    """Hugging Face's train and test file. Opening checks that both are whole; there is no published MD5."""

    def __init__(self, form: CifarFormat, root: Path) -> None:
        """Raises SourceInvalid."""
        self._form, self._root = form, root
        for split in form.pickles:
            check_parquet(form.parquet_file(root, split))

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        path = self._form.parquet_file(self._root, "train")
        with _opening(path), _parquet(path) as file:
            metadata = (file.schema_arrow.metadata or {}).get(b"huggingface")
            features = json.loads(metadata)["info"]["features"] if metadata else {}
            columns = (self._form.labels_column, self._form.superclass_labels_column)
            own = [tuple(features[column].get("names") or ()) if column in features else () for column in columns]
        return own[0] or self._form.class_names, own[1] or self._form.superclass_names

    def read(self, split: str) -> CifarSplit:
        path, coarse = self._form.parquet_file(self._root, split), self._form.superclass_labels_column
        columns = [self._form.labels_column, *([coarse] if coarse else [])]
        with _opening(path), _parquet(path) as file:
            table = file.read(columns=columns)
            labels = [np.asarray(table.column(column).to_pylist(), np.int64) for column in columns]
        return CifarSplit(labels[0], labels[1] if coarse else None, self._images(path))

    def _images(self, path: Path) -> Iterator[np.ndarray]:
        row = 0
        with _opening(path), _parquet(path) as file:
            for batch in file.iter_batches(batch_size=_CHUNK, columns=["img"]):
                pictures = batch.column("img").field("bytes").to_pylist()
                yield np.stack([_decoded(data, path, row + i) for i, data in enumerate(pictures)])
                row += len(pictures)


def check_parquet(path: Path) -> None:
    """Raises SourceInvalid if the file is not there or cut off (its index is at its end)."""
    with _opening(path):
        _parquet(path).close()


def _decoded(data: bytes, path: Path, row: int) -> np.ndarray:
    try:
        image = np.asarray(decode_image(data))
    except ImageUnreadable as error:
        raise SourceInvalid(f"{path}, row {row}: {error} Delete the file and fetch it again.") from error
    if image.shape != (_SIDE, _SIDE, 3):
        raise SourceInvalid(f"{path}, row {row}: the image has {image.shape[1]} x {image.shape[0]} pixels instead of {_SIDE} x {_SIDE}.")
    return image


def _parquet(path: Path) -> Any:
    from pyarrow.parquet import ParquetFile  # here: it takes longer to import than all the rest, and pages import this module

    return ParquetFile(path)


def _check_md5(path: Path, found: str, published: str) -> None:
    if found != published:
        raise SourceInvalid(f"{path} is damaged: its MD5 is {found}, the published one is {published}. Delete it and fetch it again.")


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Failures of opening and parsing become SourceInvalid. pyarrow's own errors are ValueError or OSError, KeyError for a column."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, tarfile.TarError, zlib.error) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceInvalid(f"{path} cannot be read ({reason}). Delete it and fetch it again.") from error
