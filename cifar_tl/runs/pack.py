"""A run as one .zip file, to be handed on, and back: `pack_run`, `unpack_run`.

    <run id>/config.json, run.json, events.jsonl, best.safetensors, evaluation/test.npz ...

What comes from elsewhere is not trusted: only the files that a run has are taken, by name; each may be as large as it says and the
whole as large as the bounds allow; nothing of it is executed (weights and arrays are read by loaders that run no code).
"""

import shutil
import stat
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO, BinaryIO

from cifar_tl.errors import RunActive, RunInvalid
from cifar_tl.paths import RunFolder, checkpoints_root
from cifar_tl.runs.store import RUN_ID, find_run, is_alive, new_run_folder, read_config, read_manifest, write_manifest

MOST_BYTES = 20 * 10**9  # of all files together, unpacked
_MOST_BYTES_OF_TEXT = 2 * 10**9  # of a log or a settings file
_ALREADY_DENSE = (".safetensors", ".pt")  # weights hardly shrink
_CHUNK = 2**20


def _files(folder: RunFolder) -> list[Path]:
    """The files of a run that say something; locks and requests are of the moment."""
    return [
        folder.config, folder.manifest, folder.annotations, folder.events, folder.worker_log, folder.best_weights,
        folder.last_checkpoint, folder.previous_checkpoint, folder.evaluation_of("dev"), folder.evaluation_of("test"),
    ]  # fmt: skip


def pack_run(run_id: str, target: Path | BinaryIO) -> None:
    """Write the run into a new .zip file. Raises RunNotFound, RunActive, OSError."""
    folder = find_run(run_id)
    if is_alive(folder):
        raise RunActive(f"Run {run_id} is still running; pack it when it has ended.")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in _files(folder):
            if path.is_file():
                how = zipfile.ZIP_STORED if path.suffix in _ALREADY_DENSE else zipfile.ZIP_DEFLATED
                archive.write(path, f"{run_id}/{path.relative_to(folder.path).as_posix()}", how)


def unpack_run(source: Path | BinaryIO) -> str:
    """Make a run of a .zip file; returns its id, which has a number added if there is such a run already. Raises RunInvalid, OSError."""
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
    if any(info.file_size > _MOST_BYTES_OF_TEXT for info in members if not info.filename.endswith(_ALREADY_DENSE)):
        raise RunInvalid("This .zip file holds a log or an evaluation that is larger than any run's.")
    if known.config.as_posix() not in names:
        raise RunInvalid("This .zip file lacks the run's settings (config.json).")
    return run_id, members


def _unpack(archive: zipfile.ZipFile, run_id: str, members: list[zipfile.ZipInfo]) -> str:
    root = checkpoints_root()
    root.mkdir(parents=True, exist_ok=True)
    temporary = root / f".{run_id}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for info in members:
            path = temporary / info.filename.split("/", 1)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as packed, path.open("wb") as file:
                _copy(packed, file, info.file_size)
        read_config(RunFolder(temporary))
        manifest, target = read_manifest(RunFolder(temporary)), _free_place(run_id)
        if manifest:
            write_manifest(RunFolder(temporary), replace(manifest, run_id=target.run_id))
        temporary.rename(target.path)
        return target.run_id
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
