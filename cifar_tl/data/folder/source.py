"""FolderSource: pictures of any size in class folders become a store of squares at one resolution.

Owns decoding in threads, chunk by chunk, and the test split where the folder brings none. What the folders mean is `layout`,
what a picture is, `data.decode`. Memory: one chunk of squares, and one picture at full size per thread.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cifar_tl.data.decode import decode_image, to_square
from cifar_tl.data.folder.layout import ClassFile, FolderLayout, displayed, read_layout
from cifar_tl.data.progress import Availability, Progress, Tell
from cifar_tl.data.splits import train_dev_split
from cifar_tl.data.store import StoreInfo, StoreWriter, UnreadableFile
from cifar_tl.errors import ImageUnreadable, SourceInvalid

TEST_FRACTION = 0.2
_CHUNK_BYTES = 32 * 2**20
_MAX_CHUNK = 512  # images


@dataclass
class FolderSource:
    """Made by `open_folder`. `resolution` in pixels; `seed` decides the test split where there is none."""

    layout: FolderLayout
    resolution: int
    seed: int
    _unreadable: list[UnreadableFile] = field(default_factory=list)

    @property
    def source(self) -> str:
        return f"folder:{displayed(str(self.layout.root))}"

    @property
    def title(self) -> str:
        return displayed(self.layout.root.name) or self.source

    @property
    def store_name(self) -> str:
        seed = "" if "test" in self.layout.files else self.seed
        key = hashlib.sha256(os.fsencode(f"{self.layout.root}\0{self.layout.signature}\0{self.resolution}\0{seed}")).hexdigest()
        words = re.sub(r"[^A-Za-z0-9]+", "-", self.layout.root.name).strip("-")[:40]
        return f"folder-{words or 'images'}-{self.resolution}px-v1-{key[:16]}"

    def availability(self) -> tuple[Availability, str]:
        """State and sentence."""
        classes = len(self.layout.class_names)
        return (
            "on_disk",
            f"{self.layout.num_files:,} files in {classes} classes. They are prepared once at {self.resolution} px, when a run first needs them.",
        )

    def write(self, writer: StoreWriter, tell: Tell) -> StoreInfo:
        """Raises SourceInvalid if a class or a split has no readable picture."""
        self._unreadable = list(self.layout.strays)
        splits, notes = self._splits()
        with ThreadPoolExecutor(os.cpu_count(), "decode") as pool:
            for split, files in splits.items():
                written: Counter[int] = Counter()
                size = writer.write_labelled(split, self._chunks(split, files, pool, written, tell), self.resolution)
                if split == "train":
                    self._check_every_class(written, files)
                if size == 0:
                    raise SourceInvalid(f"Not one {split} picture of {self.title} can be read. {self._first_unreadable()}")
        return StoreInfo(
            self.source,
            self.title,
            self.resolution,
            self.layout.class_names,
            unreadable=tuple(sorted(self._unreadable, key=lambda item: item.path)),
            notes=(*self.layout.notes, *notes),
        )

    def _splits(self) -> tuple[dict[str, list[ClassFile]], list[str]]:
        """Files by split, with a test split in any case, and what to note about it."""
        given = self.layout.files
        if "test" in given:
            return given, []
        files = given["train"]
        train, test = train_dev_split(np.array([item.class_index for item in files]), seed=self.seed, dev_fraction=TEST_FRACTION)
        if len(test) == 0:
            raise SourceInvalid(f"{self.title} has one picture per class, so none is left to test with. Add pictures or a test folder.")
        parts = {"train": [files[i] for i in train], "test": [files[i] for i in test]}
        note = f"The folder has no test split: {TEST_FRACTION:.0%} of the training images of each class were set aside (seed {self.seed})."
        return parts | {name: given[name] for name in given if name != "train"}, [note]

    def _chunks(
        self, split: str, files: list[ClassFile], pool: ThreadPoolExecutor, written: Counter[int], tell: Tell
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        size = max(1, min(_MAX_CHUNK, _CHUNK_BYTES // (3 * self.resolution**2)))
        for start in range(0, len(files), size):
            chunk = files[start : start + size]
            squares, labels = [], []
            for item, square in zip(chunk, pool.map(self._square, chunk), strict=True):
                if isinstance(square, UnreadableFile):
                    self._unreadable.append(square)
                else:
                    squares.append(square)
                    labels.append(item.class_index)
            written.update(labels)
            if squares:
                yield np.stack(squares), np.array(labels)
            tell(Progress(f"Decoding {split} images", start + len(chunk), len(files), "images"))

    def _square(self, item: ClassFile) -> np.ndarray | UnreadableFile:
        try:
            return to_square(decode_image(self.layout.root / item.path), self.resolution)
        except ImageUnreadable as error:
            return UnreadableFile(displayed(item.path), str(error))

    def _check_every_class(self, written: Counter[int], files: list[ClassFile]) -> None:
        for index, name in enumerate(self.layout.class_names):
            if not written[index]:
                tried = sum(item.class_index == index for item in files)
                raise SourceInvalid(
                    f"The class {name!r} of {self.title} has no readable training picture ({tried} tried). {self._first_unreadable(name)}"
                )

    def _first_unreadable(self, class_name: str = "") -> str:
        of_class = [item for item in self._unreadable if class_name in item.path.split("/")] if class_name else self._unreadable
        return f"First: {of_class[0].path}: {of_class[0].reason}" if of_class else ""


def open_folder(path: Path, resolution: int, seed: int) -> FolderSource:
    """Lists the folder. Raises SourceInvalid."""
    return FolderSource(read_layout(path), resolution, seed)
