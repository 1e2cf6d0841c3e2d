"""What lies in an image folder, and what it means: classes, splits, and files that have no place.

Owns the walk (hidden files, links that loop, files that are no files) and the rules of the layout. Opens no file.

    root/cat/1.jpg ...                     classes only: test is split off by the source
    root/train/cat/1.jpg, root/test/...    splits as given; dev is called dev, val, valid or validation

A top folder counts as a split only if it holds folders itself: CIFAR-100 has a class named `train`.
"""

import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cifar_tl.data.store import UnreadableFile
from cifar_tl.errors import SourceInvalid

_SPLIT_OF_FOLDER = {"train": "train", "test": "test", "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev"}
_NO_IMAGES = {"thumbs.db", "desktop.ini", "__macosx"}  # what file managers leave behind


@dataclass(frozen=True)
class ClassFile:
    """A file of a class folder. `path` is relative to the root, as the system spells it."""

    path: str
    class_index: int


@dataclass
class FolderLayout:
    """`files` by split ("train", and "test" and "dev" where there are such folders), ordered by class, then path.

    `signature` changes whenever a path, size or modification time does.
    """

    root: Path
    class_names: tuple[str, ...] = ()
    files: dict[str, list[ClassFile]] = field(default_factory=dict)
    strays: list[UnreadableFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    signature: str = ""

    @property
    def num_files(self) -> int:
        return sum(len(files) for files in self.files.values())


def read_layout(root: Path) -> FolderLayout:
    """Raises SourceInvalid where the folder cannot be a data set, naming what is wrong."""
    folders = _top_folders(root)
    walk = _Walk(root)
    splits = _split_folders(root, folders)
    layout = FolderLayout(root)
    layout.notes += _notes_on_unused(folders, splits)
    if "train" not in splits:
        splits = {"train": root}
    classes = {split: _class_folders(folder) for split, folder in splits.items()}
    _check_classes(root, classes)
    names = sorted(classes["train"])
    layout.class_names = tuple(displayed(name) for name in names)
    for split, folder in splits.items():
        layout.files[split] = [
            ClassFile(path, index)
            for index, name in enumerate(names)
            if name in classes[split]
            for path in walk.files_below(classes[split][name], above=(root, folder))
        ]
    _check_files(root, layout)
    for folder in {root, *splits.values()}:
        walk.note_strays(folder)
    layout.strays = sorted(walk.strays, key=lambda stray: stray.path)
    layout.signature = walk.signature()
    return layout


def displayed(name: str) -> str:
    """A file name as text: names that are not UTF-8 get replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


class _Walk:
    """Gathers files, in order, and whatever is none; remembers sizes and times for the signature."""

    def __init__(self, root: Path) -> None:
        self.strays: list[UnreadableFile] = []
        self._prefix = len(str(root).rstrip("/")) + 1
        self._hash = hashlib.sha256()

    def files_below(self, top: Path, above: tuple[Path, ...]) -> list[str]:
        """Sorted relative paths. A folder that was read already, or is one of `above`, is not entered: links may form loops."""
        seen = {_identity(folder) for folder in above}
        waiting, found = [str(top)], list[str]()
        while waiting:
            folder = waiting.pop()
            try:
                identity = _identity(folder)
                if identity in seen:
                    self._stray(folder, "a link to a folder that is read already")
                    continue
                seen.add(identity)
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self._stray(folder, f"the folder cannot be opened ({error.strerror})")
                continue
            for entry in entries:
                if _is_folder(entry):
                    waiting.append(entry.path)
                elif not _is_ignored(entry.name) and self._is_file(entry):
                    found.append(entry.path[self._prefix :])
        return sorted(found)

    def note_strays(self, folder: Path) -> None:
        """Files directly in a folder that should hold folders only."""
        for entry in _entries(folder):
            if not _is_folder(entry) and not _is_ignored(entry.name) and self._is_file(entry):
                self._stray(entry.path, "lies outside the class folders, so it has no class")

    def signature(self) -> str:
        return self._hash.hexdigest()

    def _is_file(self, entry: os.DirEntry[str]) -> bool:
        """Follows links. What is no file becomes a stray."""
        try:
            status = entry.stat()
        except OSError as error:
            self._stray(entry.path, f"cannot be opened ({error.strerror})")
            return False
        if not stat.S_ISREG(status.st_mode):
            self._stray(entry.path, "not a regular file")
            return False
        self._hash.update(os.fsencode(f"{entry.path[self._prefix :]}\0{status.st_size}\0{status.st_mtime_ns}\0"))
        return True

    def _stray(self, path: str, reason: str) -> None:
        relative = path[self._prefix :]
        self._hash.update(os.fsencode(f"{relative}\0{reason}\0"))
        self.strays.append(UnreadableFile(displayed(relative), reason))


def _top_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise SourceInvalid(f"{displayed(str(root))} is not a folder." if root.exists() else f"There is no folder {displayed(str(root))}.")
    return _class_folders(root)


def _class_folders(folder: Path) -> dict[str, Path]:
    return {entry.name: Path(entry.path) for entry in _entries(folder) if _is_folder(entry)}


def _split_folders(root: Path, folders: dict[str, Path]) -> dict[str, Path]:
    """Split name -> folder, train first, then test; empty without a train folder."""
    found: dict[str, Path] = {}
    for split in ("train", "test", "dev"):
        for name, folder in folders.items():
            if _SPLIT_OF_FOLDER.get(name.lower()) == split and _class_folders(folder):
                if split in found:
                    raise SourceInvalid(f"{displayed(str(root))} has both {found[split].name}/ and {name}/, which mean the same. Keep one.")
                found[split] = folder
    if found and "train" not in found and len(found) == len(folders):
        raise SourceInvalid(f"{displayed(str(root))} has {' and '.join(f.name + '/' for f in found.values())}, but no train/.")
    return found if "train" in found else {}


def _notes_on_unused(folders: dict[str, Path], splits: dict[str, Path]) -> list[str]:
    unused = sorted(displayed(name) for name, folder in folders.items() if splits and folder not in splits.values())
    return [f"Not used, because they are no split with class folders: {', '.join(unused)}."] if unused else []


def _check_classes(root: Path, classes: dict[str, dict[str, Path]]) -> None:
    names = classes["train"]
    if len(names) < 2:
        has = f"only one class folder ({displayed(next(iter(names)))})" if names else "no class folders"
        raise SourceInvalid(f"{displayed(str(root))} has {has}. At least two are needed, each with the pictures of one class.")
    for split, of_split in classes.items():
        if extra := sorted(displayed(name) for name in set(of_split) - set(names)):
            raise SourceInvalid(
                f"{split}/ has classes that train/ has not: {', '.join(extra)}. Add pictures of them to train/ or remove them."
            )


def _check_files(root: Path, layout: FolderLayout) -> None:
    for split, files in layout.files.items():
        present = {item.class_index for item in files}
        missing = [name for index, name in enumerate(layout.class_names) if index not in present]
        if split == "train" and missing:
            raise SourceInvalid(
                f"There are no files for the class {missing[0]!r} in {displayed(str(root))}. Add pictures or remove the folder."
            )
        if not files:
            raise SourceInvalid(f"The {split} folder of {displayed(str(root))} has no files. Add pictures or remove the folder.")
        if missing:
            layout.notes.append(f"Classes without {split} images: {', '.join(missing)}.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceInvalid(f"{displayed(str(folder))} cannot be opened ({error.strerror}).") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Or a link to one. Hidden folders are not seen at all."""
    try:
        return entry.is_dir() and not _is_ignored(entry.name)
    except OSError:  # a link to itself
        return False


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in _NO_IMAGES


def _identity(folder: Path | str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino
