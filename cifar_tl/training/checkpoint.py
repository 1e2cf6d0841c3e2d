"""Weights and training state on disk: atomic to write, safe to load.

Weights are safetensors (no code in the file); the rest is read with torch's weights_only loader. Every file is written to a
temporary name, flushed to the disk and renamed, so what exists is whole.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cifar_tl.errors import RunInvalid
from cifar_tl.models.build import Classifier


def save_weights(path: Path, classifier: Classifier) -> None:
    """All parameters and statistics, in the precision they have."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.state_dict().items()}
    _write_whole(path, lambda temporary: save_file(tensors, temporary))


def load_weights(path: Path, classifier: Classifier) -> None:
    """Into `classifier`, in place. Raises RunInvalid if the file is missing, damaged or of another network."""
    try:
        classifier.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise RunInvalid(f"There are no weights at {path}: the run has not finished an epoch.") from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise RunInvalid(f"The weights at {path} cannot be loaded: {str(error).splitlines()[0]}") from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Optimizer state and counters: tensors, numbers, strings, lists and dicts only."""
    _write_whole(path, lambda temporary: torch.save(state, temporary))


def _write_whole(path: Path, write: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
