"""One batch of dropped pictures on its way to the prediction process and back. Draws nothing; the Predict page does.

Bounded on the way in: number of files, bytes of each, bytes of all. What exceeds a bound is answered at once with why.
"""

from cifar_tl.answers import Answer
from cifar_tl.errors import CifarTLError
from cifar_tl.paths import RunFolder
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.state import Predictions

MAX_FILES = 50
MAX_FILE_MIB = 32  # as server.maxUploadSize in .streamlit/config.toml
MAX_BATCH_MIB = 256
# Answers come back group by group, so the first pictures do not wait for the last.
FILES_PER_REQUEST = 8
TOP_CLASSES = 5
_MIB = 1024 * 1024


def ask(batch: Predictions, folder: RunFolder, files: list[tuple[str, bytes]]) -> None:
    """Hand the files over; answers of the same run stay behind the new ones. Returns at once."""
    kept = [*batch.answers, *batch.older] if batch.run_id == folder.run_id else []
    forget(batch)
    accepted, batch.answers = admit(files)
    batch.older = kept[:MAX_FILES]
    batch.run_id = folder.run_id
    for start in range(0, len(accepted), FILES_PER_REQUEST):
        group = accepted[start : start + FILES_PER_REQUEST]
        batch.futures.append(cached.predictor().submit("cifar_tl.inference:predict_files", str(folder.path), group, TOP_CLASSES))
        batch.asked.append(tuple(name for name, _ in group))


def admit(files: list[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], list[Answer]]:
    """The files within the bounds, and one refusal for each of the others."""
    accepted: list[tuple[str, bytes]] = []
    refused: list[Answer] = []
    total = 0
    for name, data in files:
        problem = _problem(len(data), total, len(accepted))
        if problem:
            refused.append(Answer(name, error=problem))
        else:
            accepted.append((name, data))
            total += len(data)
    return accepted, refused


def _problem(size: int, total: int, count: int) -> str:
    if size == 0:
        return "The file is empty."
    if size > MAX_FILE_MIB * _MIB:
        return f"The file has {size / _MIB:.0f} MiB; at most {MAX_FILE_MIB} MiB are taken. Save the picture smaller."
    if count >= MAX_FILES:
        return f"Not asked: at most {MAX_FILES} pictures at once. Drop it again with the next ones."
    if total + size > MAX_BATCH_MIB * _MIB:
        return f"Not asked: together the pictures exceed {MAX_BATCH_MIB} MiB. Drop it again with the next ones."
    return ""


def collect(batch: Predictions) -> None:
    """Move what has come back into `answers`, in the order of the files. Never waits."""
    while batch.futures and batch.futures[0].done():
        future, names = batch.futures.pop(0), batch.asked.pop(0)
        try:
            batch.answers.extend(result_of(future))
        except CifarTLError as error:
            batch.answers.extend(Answer(name, error=str(error)) for name in names)


def forget(batch: Predictions) -> None:
    """Forget all answers; requests not yet begun are withdrawn."""
    for future in batch.futures:
        future.cancel()
    batch.run_id = ""
    batch.answers, batch.older, batch.futures, batch.asked = [], [], [], []


def clear(batch: Predictions) -> None:
    """Empty the page: the answers and the uploader."""
    forget(batch)
    batch.seen_files.clear()
    batch.upload_number += 1
