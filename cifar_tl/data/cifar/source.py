"""CifarSource: finds the published files in one of their three forms, fetches them where there are none, writes the store.

Owns the order of looking and what is told when nothing is found. Reading files is `files`, fetching one is `data.download`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_tl.data.cifar import published
from cifar_tl.data.cifar.files import CifarFiles, ParquetFiles, check_parquet, files_in_archive, files_in_folder
from cifar_tl.data.cifar.published import CifarFormat
from cifar_tl.data.download import download_root, fetch, lookup_roots
from cifar_tl.data.progress import Availability, Progress, Tell
from cifar_tl.data.store import StoreInfo, StoreWriter
from cifar_tl.errors import SourceInvalid, SourceUnavailable

RESOLUTION = 32
SPLITS = ("train", "test")


@dataclass(frozen=True)
class CifarSource:
    """`source` is "cifar100" or "cifar10"."""

    source: str

    @property
    def title(self) -> str:
        return self._format.title

    @property
    def store_name(self) -> str:
        return f"{self.source}-v1"

    @property
    def _format(self) -> CifarFormat:
        return published.FORMATS[self.source]

    def availability(self) -> tuple[Availability, str]:
        """State and sentence, by looking for files only: nothing is read."""
        for root in lookup_roots():
            for path in _places(self._format, root):
                if path.exists():
                    return "on_disk", f"Found in {path.parent}. It is prepared once, when a run first needs it."
        megabytes = self._format.archive_bytes / 1e6
        return (
            "download",
            f"Not on this machine: {megabytes:.0f} MB will be downloaded from {_host(published.ARCHIVE_BASE)} when a run first needs it.",
        )

    def write(self, writer: StoreWriter, tell: Tell) -> StoreInfo:
        """Find or fetch the published files and write both splits. Raises SourceUnavailable, SourceInvalid."""
        files = _found(self._format, tell)
        if isinstance(files, list):
            _download(self._format, self.title, files, tell)
            files = _found(self._format, tell)
        if isinstance(files, list):
            raise SourceInvalid(f"{self.title} was downloaded, but cannot be read. {' '.join(files)}")
        class_names, superclass_names = files.names()
        superclass_of_class: tuple[int, ...] = ()
        for split in SPLITS:
            tell(Progress(f"Reading {split} images", 0, 0, "images"))
            content = files.read(split)
            _check_labels(content.labels_N, len(class_names), split)
            if split == "train" and content.superclass_labels_N is not None:
                superclass_of_class = _superclass_of_class(content.labels_N, content.superclass_labels_N, len(class_names))
            writer.write_split(split, content.labels_N, _told(content.chunks, split, len(content.labels_N), tell), RESOLUTION)
        return StoreInfo(self.source, self.title, RESOLUTION, class_names, superclass_names, superclass_of_class)


def _places(form: CifarFormat, root: Path) -> tuple[Path, ...]:
    """The path whose existence says that a form of the data set is there, in the order of looking."""
    return (root / form.folder / form.pickles["train"][0].name, root / form.archive.name, form.parquet_file(root, "test"))


def _found(form: CifarFormat, tell: Tell) -> CifarFiles | list[str]:
    """The first whole copy, or what is wrong with those that are there (nothing there: an empty list)."""
    problems = []
    for root in lookup_roots():
        for path, opener in zip(_places(form, root), (files_in_folder, files_in_archive, ParquetFiles), strict=True):
            if path.exists():
                tell(Progress(f"Checking {path.parent.name}/{path.name}", 0, 0, "bytes"))
                try:
                    return opener(form, root)
                except SourceInvalid as error:
                    problems.append(str(error))
    return problems


def _download(form: CifarFormat, title: str, problems: list[str], tell: Tell) -> None:
    """The archive from its authors, or the parquet pair from Hugging Face. Raises SourceUnavailable."""
    root = download_root()
    try:
        fetch(f"{published.ARCHIVE_BASE}/{form.archive.name}", root / form.archive.name, md5=form.archive.md5, tell=tell)
        return
    except SourceUnavailable as error:
        failures = [str(error)]
    try:
        for split in SPLITS:
            target = form.parquet_file(root, split)
            if not _is_whole(target):  # the other half may have come in an earlier attempt
                fetch(f"{published.PARQUET_BASE}/{form.parquet_path}/{target.name}", target, tell=tell)
    except SourceUnavailable as error:
        failures.append(str(error))
        raise SourceUnavailable(
            f"{title} is not on this machine and cannot be fetched. {'; '.join(failures)}. {' '.join(problems)}"
            f" Connect to the network, or place the file by hand at {root / form.archive.name},"
            " or choose the data set shapes, which the program draws itself."
        ) from error


def _is_whole(parquet: Path) -> bool:
    try:
        check_parquet(parquet)
    except SourceInvalid:
        return False
    return True


def _check_labels(labels_N: np.ndarray, num_classes: int, split: str) -> None:
    if len(labels_N) == 0 or labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise SourceInvalid(f"The labels of {split} are not within 0..{num_classes - 1}. Delete the files and fetch them again.")
    if split == "train" and (missing := num_classes - len(np.unique(labels_N))):
        raise SourceInvalid(f"{missing} classes have no training images. Delete the files and fetch them again.")


def _superclass_of_class(labels_N: np.ndarray, superclass_labels_N: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """Read off the images; every class must be there and lie in one superclass."""
    of_class = np.zeros(num_classes, np.int64)
    of_class[labels_N] = superclass_labels_N
    if not np.array_equal(of_class[labels_N], superclass_labels_N):
        raise SourceInvalid("Images of one class lie in different superclasses. Delete the files and fetch them again.")
    return tuple(of_class.tolist())


def _told(chunks: Iterator[np.ndarray], split: str, total: int, tell: Tell) -> Iterator[np.ndarray]:
    done = 0
    for images in chunks:
        yield images
        done += len(images)
        tell(Progress(f"Decoding {split} images", done, total, "images"))


def _host(address: str) -> str:
    return address.split("/")[2]
