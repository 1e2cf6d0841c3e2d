"""The pictures of one session on their way to the prediction process and back. Draws nothing; the Predict page does.

Bounded on the way in: number of pictures, bytes of each, bytes of all. What exceeds a bound is answered at once with why. The bytes
are kept while their picture is on the page: another run, or another way of framing, can be asked about them without dropping them again.
"""

from collections.abc import Sequence

from cifar_tl.answers import Answer, Asked
from cifar_tl.data.archive import is_zip, pictures_in_zip
from cifar_tl.errors import CifarTLError
from cifar_tl.paths import RunFolder
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.state import Picture, Predictions, Request

MAX_PICTURES = 1_000
MAX_FILE_MIB = 32  # as server.maxUploadSize in .streamlit/config.toml
MAX_BATCH_MIB = 256
# Answers come back group by group, so the first pictures do not wait for the last. A full batch of the engine where there are many.
FEW_PER_REQUEST, MANY_PER_REQUEST = 8, 32
_MIB = 1024 * 1024


def add(batch: Predictions, files: Sequence[tuple[str, bytes]], *, true_classes: Sequence[str] = ()) -> None:
    """Put files before the pictures that are there; archives become the pictures in them. Nothing is asked yet."""
    room = MAX_PICTURES - sum(not picture.error for picture in batch.pictures)
    taken = sum(len(picture.data) for picture in batch.pictures)
    new: list[Picture] = []
    for name, data in files:
        for picture in _unpacked(name, data, max(0, room - len(new))):
            problem = picture.error or _problem(len(picture.data), taken, room - sum(not other.error for other in new))
            if not problem:
                taken += len(picture.data)
            new.append(Picture(picture.name, b"" if problem else picture.data, error=problem))
    for picture, true_class in zip(new, true_classes, strict=False):
        picture.true_class = true_class
    batch.pictures = [*new, *batch.pictures]
    batch.page = 0


def _unpacked(name: str, data: bytes, room: int) -> list[Picture]:
    if not is_zip(data):
        return [Picture(name, data)]
    return [Picture(member.name, member.data, error=member.error) for member in pictures_in_zip(name, data, room=room)]


def _problem(size: int, taken: int, room: int) -> str:
    if size == 0:
        return "The file is empty."
    if size > MAX_FILE_MIB * _MIB:
        return f"The file has {size / _MIB:.0f} MiB; at most {MAX_FILE_MIB} MiB are taken. Save the picture smaller."
    if room <= 0:
        return f"Not asked: at most {MAX_PICTURES:,} pictures are on the page at once. Clear it, then drop this one again."
    if taken + size > MAX_BATCH_MIB * _MIB:
        return f"Not asked: together the pictures exceed {MAX_BATCH_MIB} MiB. Clear the page, then drop this one again."
    return ""


def ask(batch: Predictions, folders: Sequence[RunFolder], asked: Asked) -> None:
    """Ask each of these runs about the pictures that it has not answered and is not answering. Returns at once."""
    if asked != batch.asked:
        forget_answers(batch)
        batch.asked = asked
    _withdraw(batch, {folder.run_id for folder in folders})
    for folder in folders:
        on_their_way = {id(picture) for request in batch.requests if request.run_id == folder.run_id for picture in request.pictures}
        open_ones = [
            picture
            for picture in batch.pictures
            if not picture.error and folder.run_id not in picture.answers and id(picture) not in on_their_way
        ]
        step = FEW_PER_REQUEST if len(open_ones) <= MANY_PER_REQUEST else MANY_PER_REQUEST
        for start in range(0, len(open_ones), step):
            group = open_ones[start : start + step]
            files = [(picture.name, picture.data) for picture in group]
            future = cached.predictor().submit("cifar_tl.inference:predict_files", str(folder.path), files, asked)
            batch.requests.append(Request(folder.run_id, future, group))


def _withdraw(batch: Predictions, run_ids: set[str]) -> None:
    """Requests to runs that are no longer asked, unless they are being worked on."""
    batch.requests = [request for request in batch.requests if request.run_id in run_ids or not request.future.cancel()]


def collect(batch: Predictions) -> None:
    """Give the pictures the answers that have come back. Never waits."""
    waiting = []
    for request in batch.requests:
        if not request.future.done():
            waiting.append(request)
            continue
        try:
            answers = result_of(request.future)
        except CifarTLError as error:
            answers = [Answer(picture.name, error=str(error)) for picture in request.pictures]
            batch.can_ask_again = True
        for picture, answer in zip(request.pictures, answers, strict=True):
            picture.answers[request.run_id] = answer
    batch.requests = waiting


def forget_answers(batch: Predictions) -> None:
    """Of all runs; requests not yet begun are withdrawn, and what the others bring goes to pictures that nobody shows."""
    for request in batch.requests:
        request.future.cancel()
    batch.requests, batch.can_ask_again = [], False
    batch.pictures = [Picture(old.name, old.data, old.true_class, old.error) for old in batch.pictures]


def ask_again(batch: Predictions) -> None:
    """Forget the answers that are errors: a process that died is another one by now."""
    batch.can_ask_again = False
    for picture in batch.pictures:
        picture.answers = {run_id: answer for run_id, answer in picture.answers.items() if not answer.error}


def clear(batch: Predictions) -> None:
    """Empty the page: the pictures, their answers and the uploader."""
    forget_answers(batch)
    batch.pictures, batch.chosen, batch.page = [], "", 0
    batch.seen_files.clear()
    batch.upload_number += 1
