"""A run as one .zip file, to be handed on, and back: `pack_run`, `unpack_run`.

    <run id>/config.json, run.json, events.jsonl, best.safetensors, evaluation/test.npz ...

What comes from elsewhere is not trusted: only the files that a run has are taken, by name; each may be as large as it says and the
whole as large as the bounds allow; nothing of it is executed (weights and arrays are read by loaders that run no code).
"""

import shutil
import stat
import zipfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, BinaryIO

from cifar_tl.errors import RunActive, RunInvalid
from cifar_tl.paths import RunFolder, checkpoints_root
from cifar_tl.runs.hold import has_ended
from cifar_tl.runs.store import RUN_ID, find_run, is_alive, new_run_folder, read_config, read_manifest, write_manifest, writing_in

MOST_BYTES = 20 * 10**9  # of all files together, unpacked
_MOST_BYTES_OF_ONE = 2 * 10**9  # of a log, or of an evaluation, unpacked too
_MOST_BYTES_OF_SETTINGS = 16 * 2**20  # of a file that is read whole at a look at the list of runs; a thousand long class names are 0.1 MB
_MOST_EPOCHS = 1000  # of any run
_ALREADY_DENSE = (".safetensors", ".pt")  # weights hardly shrink
_CHUNK = 2**20


def _files(folder: RunFolder) -> list[Path]:
    """The files of a run that say something; locks and requests are of the moment."""
    return [
        folder.config, folder.manifest, folder.annotations, folder.events, folder.worker_log, folder.best_weights,
        folder.last_checkpoint, folder.previous_checkpoint, *(folder.evaluation_of(split) for split in ("train", "dev", "test")),
        folder.embeddings, folder.embedding_map, *(folder.dev_answers_of(epoch) for epoch in range(1, _MOST_EPOCHS + 1)),
    ]  # fmt: skip


def pack_run(run_id: str, target: Path | BinaryIO) -> None:
    """Write the run into a new .zip file. Raises RunNotFound, RunActive, OSError."""
    folder = find_run(run_id)
    if is_alive(folder) and not has_ended(folder):
        raise RunActive(f"Run {run_id} is still running; pack it when it has ended.")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(folder):
            if path.is_file():
                how = zipfile.ZIP_STORED if path.suffix in _ALREADY_DENSE else zipfile.ZIP_DEFLATED
                archive.write(path, f"{run_id}/{path.relative_to(folder.path).as_posix()}", how)


def unpack_run(source: Path | BinaryIO) -> str:
    """Make a run of a .zip file; returns its id, which has a number added if there is such a run already.

    Raises RunInvalid, RunError where nothing can be written, OSError if the file cannot be opened.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            run_id, members = _checked(archive)
            return _unpack(archive, run_id, members)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise RunInvalid(f"This is no .zip file that can be read: {error}.") from error


def _checked(archive: zipfile.ZipFile) -> tuple[str, list[zipfile.ZipInfo]]:
    """The run's id and its files. Raises RunInvalid for anything that is not the archive of one run."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    tops = {info.filename.split("/", 1)[0] for info in members}
    if len(tops) != 1 or not RUN_ID.fullmatch(run_id := tops.pop()):
        raise RunInvalid("This is not the .zip file of a run: it must hold one folder, named as a run.")
    known = RunFolder(Path(run_id))
    allowed = {path.as_posix() for path in _files(known)}
    names = [info.filename for info in members]
    if unknown := sorted(set(names) - allowed):
        raise RunInvalid(f"This is not the .zip file of a run: {unknown[0]!r} is none of a run's files.")
    if len(set(names)) != len(names):
        raise RunInvalid("This .zip file names a file twice.")
    if any(stat.S_ISLNK(info.external_attr >> 16) for info in members):
        raise RunInvalid("This .zip file holds a link; a run has none.")
    if sum(info.file_size for info in members) > MOST_BYTES:
        raise RunInvalid(f"This .zip file would take more than {MOST_BYTES / 1e9:.0f} GB unpacked.")
    if too_large := [info.filename for info in members if info.file_size > _most_bytes(info.filename)]:
        raise RunInvalid(f"This .zip file holds {too_large[0]!r}, which is larger than any run's.")
    if known.config.as_posix() not in names:
        raise RunInvalid("This .zip file lacks the run's settings (config.json).")
    return run_id, members


def _most_bytes(name: str) -> int:
    if name.endswith(_ALREADY_DENSE):
        return MOST_BYTES
    return _MOST_BYTES_OF_SETTINGS if name.endswith(".json") else _MOST_BYTES_OF_ONE


def _unpack(archive: zipfile.ZipFile, run_id: str, members: list[zipfile.ZipInfo]) -> str:
    root = checkpoints_root()
    temporary = root / f".{run_id}.unpacking"
    try:
        with writing_in(root):
            root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            for info in members:
                path = temporary / info.filename.split("/", 1)[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(info) as packed, path.open("wb") as file:
                    _copy(packed, file, info.file_size)
            return _moved_to_its_place(RunFolder(temporary), run_id)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _moved_to_its_place(unpacked: RunFolder, run_id: str) -> str:
    """Raises RunInvalid if it is no run that can be read."""
    read_config(unpacked)
    for path in unpacked.evaluation.rglob("*.npz"):
        _refuse_too_large_arrays(path)
    manifest, target = read_manifest(unpacked), _free_place(run_id)
    if manifest:
        write_manifest(unpacked, replace(manifest, run_id=target.run_id))
    unpacked.path.rename(target.path)
    return target.run_id


def _refuse_too_large_arrays(path: Path) -> None:
    """Arrays may be packed once more inside their own file. A damaged one is let in: pages say of it that it is."""
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as arrays:
        if sum(info.file_size for info in arrays.infolist()) > _MOST_BYTES_OF_ONE:
            raise RunInvalid(f"This .zip file holds {path.name!r}, which is larger than any run's.")


def _copy(packed: IO[bytes], file: BinaryIO, size: int) -> None:
    """No more than the archive says: a small file may unpack to any size."""
    left = size
    while chunk := packed.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise RunInvalid("This .zip file holds more than it says.")
        file.write(chunk)


def _free_place(run_id: str) -> RunFolder:
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = new_run_folder(f"{run_id}{suffix}", may_exist=True)
        if not folder.path.exists():
            return folder
    raise RunInvalid(f"There are a thousand runs named {run_id} already.")
