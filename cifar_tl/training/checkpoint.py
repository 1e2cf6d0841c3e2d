"""Weights and training state on disk: whole or not at all, safe to load, checked when read.

    best.safetensors        the weights that predict (no code in the file)
    last.pt, previous.pt    the two newest checkpoints: everything that an exact resume needs

Every file is written to a temporary name, flushed to the disk and renamed; the checkpoint before is kept, so one whole checkpoint is
always there. Checkpoints are read with torch's weights_only loader, after the checksums of their parts (they are zip files).
"""

import errno
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cifar_tl.errors import RunInvalid
from cifar_tl.models.build import Classifier
from cifar_tl.paths import RunFolder

State = dict[str, Any]  # of tensors, numbers, strings, lists and such dicts


def save_weights(path: Path, classifier: Classifier) -> None:
    """All parameters and statistics, in the precision they have. Raises OSError."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    temporary = _write(path, lambda file: save_file(tensors, file))
    temporary.replace(path)
    _sync_folder(path.parent)


def load_weights(path: Path, classifier: Classifier) -> None:
    """Into `classifier`, in place. Raises RunInvalid if the file is missing, damaged or of another network."""
    try:
        classifier.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise RunInvalid(f"There are no weights at {path}: the run has not finished an epoch.") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunInvalid(f"The weights at {path} cannot be loaded: {str(error).splitlines()[0]}") from error


def save_checkpoint(folder: RunFolder, state: State) -> None:
    """The newest checkpoint from now on; the one before becomes `previous.pt`. Raises OSError."""
    temporary = _write(folder.last_checkpoint, lambda path: _save_state(state, path))
    if folder.last_checkpoint.exists():
        folder.last_checkpoint.replace(folder.previous_checkpoint)
    temporary.replace(folder.last_checkpoint)
    _sync_folder(folder.path)


def load_checkpoint(folder: RunFolder) -> tuple[State | None, str]:
    """The newest whole checkpoint (None if none was ever written), and in words what is wrong with a newer one ('' if nothing).

    Raises RunInvalid if there are checkpoints and none of them is whole.
    """
    problems: list[str] = []
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        if not path.exists():
            continue
        try:
            return _read_checked(path), " ".join(problems)
        except RunInvalid as error:
            problems.append(str(error))
    if problems:
        raise RunInvalid(" ".join(problems))
    return None, ""


def _read_checked(path: Path) -> State:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        state: State = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except Exception as error:  # a damaged file makes zipfile and torch raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunInvalid(f"The checkpoint {path.name} is damaged ({reason}).") from error


def _save_state(state: State, path: Path) -> None:
    with path.open("wb") as file:  # given the path alone, torch would not tell what the disk said
        torch.save(state, file)


def _write(path: Path, write: Callable[[Path], None]) -> Path:
    """Write to a temporary name beside `path`, and to the disk; returns the temporary name. Raises OSError, leaving nothing behind."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, SafetensorError | RuntimeError):  # what the two libraries make of an error of the disk
            raise _disk_error(path, error) from error
        raise
    return temporary


def _disk_error(path: Path, error: Exception) -> OSError:
    """torch hides the error of the disk behind one of its own, safetensors writes its number into the message."""
    number = re.search(r"os error (\d+)", str(error))
    code = error.__context__.errno if isinstance(error.__context__, OSError) else int(number[1]) if number else None
    return OSError(code or errno.EIO, os.strerror(code or errno.EIO), str(path))


def _sync_folder(path: Path) -> None:
    """So that the new name survives a power cut, as the bytes do."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
