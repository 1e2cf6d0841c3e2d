"""fetch: one file from the network, whole or not at all. And where downloads go.

Owns temporary names, renaming, length and MD5 checks. Does not know which data set has which address (`cifar`).
"""

import errno
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cifar_tl.data.progress import Progress, Tell
from cifar_tl.errors import DataError, SourceUnavailable
from cifar_tl.paths import cache_root, data_root

TIMEOUT_SECONDS = 30.0  # without a byte
_CHUNK = 2**20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def download_root() -> Path:
    """The data root, or a folder under the cache root where the data root is read-only."""
    root = data_root()
    nearest = next((folder for folder in (root, *root.parents) if folder.exists()), root)
    return root if os.access(nearest, os.W_OK | os.X_OK) else cache_root() / "downloads"


def lookup_roots() -> tuple[Path, ...]:
    """Every folder in which a published data set may lie, in the order of looking."""
    return (data_root(), cache_root() / "downloads")


def fetch(url: str, target: Path, *, tell: Tell, md5: str | None = None) -> None:
    """Download `url` to `target`, replacing a file that is there. Raises SourceUnavailable, or DataError if it cannot be written.

    Nothing appears under the target's name before its length (and MD5, where published) is right.
    """
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    with _locked_folder(target.parent):
        try:
            digest = _transfer(url, part, f"Downloading {target.name}", tell)
            if md5 is not None and digest != md5:
                raise SourceUnavailable(f"{url}: the file that came has the MD5 {digest}, the published one is {md5}")
            with _writing(target):
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def file_md5(file: IO[bytes]) -> str:
    """MD5 of an open file from its start; leaves it there again."""
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    file.seek(0)
    return digest.hexdigest()


def explained(error: OSError, doing: str) -> DataError:
    """`doing` is what failed, for example "cannot write /cache"."""
    advice = "Free some space or choose another folder" if error.errno in _NO_ROOM else "Check the folder and who may write there"
    return DataError(f"{doing} ({error.strerror or error}). {advice}: CIFAR_TL_CACHE and CIFAR_TL_DATA say where data goes.")


def _transfer(url: str, part: Path, phase: str, tell: Tell) -> str:
    """Returns the MD5 of what was written to `part`."""
    digest = hashlib.md5(usedforsecurity=False)
    done = 0
    with _reading(url):
        response = _opened(url)
        total = int(response.headers.get("Content-Length") or 0)
    with _writing(part):
        file = part.open("wb")
    with response, file:
        tell(Progress(phase, 0, total, "bytes"))
        while True:
            with _reading(url):
                chunk = response.read(_CHUNK)
            if not chunk:
                break
            with _writing(part):
                file.write(chunk)
                file.flush()  # here, so that a full disk is met here
            digest.update(chunk)
            done += len(chunk)
            tell(Progress(phase, done, total, "bytes"))
    if done == 0 or (total and done != total):
        raise SourceUnavailable(f"{url}: the transfer broke off after {done:,} of {total:,} bytes")
    return digest.hexdigest()


def _opened(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "cifar_tl", "Accept-Encoding": "identity"})
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Failures of the network become SourceUnavailable."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceUnavailable(f"{url}: HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceUnavailable(f"{url}: {reason}") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Failures of the disk become DataError."""
    try:
        yield
    except OSError as error:
        raise explained(error, f"The download cannot be written to {path}") from error


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """One download at a time into `folder`, whichever process: all use the same temporary name, so that a killed one leaves at most one."""
    with _writing(folder):
        lock = (folder / ".download.lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
