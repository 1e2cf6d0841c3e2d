"""The pictures of the Predict page on their way to the prediction process and back. Draws nothing; `ui.predict` does.

Bounded on the way in: number of pictures, bytes of each, bytes of all. What exceeds a bound is told at once with why. Bounded on the
way out: few requests are with the process at a time, so that whoever asks it for something else waits for a second, not for hundreds of
pictures. Nothing here waits; each rerun of the page moves on what can be moved on.
"""

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from cifar_tl.answers import Answer
from cifar_tl.data.archive import MAX_ARCHIVE_BYTES, is_zip
from cifar_tl.data.decode import MAX_BYTES
from cifar_tl.errors import CifarTLError
from cifar_tl.runs.store import find_run
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.state import Archive, Picture, Predictions, Question, Request

MAX_PICTURES = 1000
MAX_TOTAL_BYTES = 256 * 2**20  # of all pictures of a session: they stay here to be explained, and asked of another run
# The first answers come soon, the others in larger groups.
FIRST_REQUEST, LATER_REQUESTS = 8, 32
MAX_REQUEST_BYTES = 32 * 2**20  # one picture may have that many
MAX_REQUESTS = 2  # with the process at a time: one it works on, and the next
MAX_QUESTIONS = 4  # of which answers are kept
_MIB = 2**20


@dataclass(frozen=True)
class Handed:
    """A file that somebody hands over: a picture, or an archive of them. See `state.Picture`."""

    name: str
    data: bytes
    true_class: str | None = None
    file_id: str = ""


def add(batch: Predictions, files: Sequence[Handed]) -> None:
    """Take files before those that are here: pictures at once, archives once they are unpacked. Older pictures give way."""
    for file in files:
        if is_zip(file.data):
            _unpack(batch, file)
    _take(batch, [file for file in files if not is_zip(file.data)])


def _unpack(batch: Predictions, file: Handed) -> None:
    size = len(file.data)
    if size > MAX_ARCHIVE_BYTES:
        problem = f"The archive has {size / _MIB:.0f} MiB; at most {MAX_ARCHIVE_BYTES // _MIB} MiB are read."
        batch.refused.append(Answer(file.name, error=problem))
        return
    future = cached.predictor().submit("cifar_tl.data.archive:pictures_in_zip", file.data, file.name)
    batch.archives.append(Archive(file.name, file.file_id, future))


def _take(batch: Predictions, files: Iterable[Handed]) -> None:
    taken: list[Picture] = []
    total = 0
    for file in files:
        problem = _problem(len(file.data), total, len(taken))
        if problem:
            batch.refused.append(Answer(file.name, error=problem))
            continue
        total += len(file.data)
        digest = hashlib.blake2b(file.data, digest_size=16).hexdigest()
        taken.append(Picture(batch.next_number, file.name, file.data, digest, file.true_class, file.file_id))
        batch.next_number += 1
    batch.pictures = _bounded([*taken, *batch.pictures])
    _let_go(batch)


def _problem(size: int, total: int, count: int) -> str:
    if size == 0:
        return "The file is empty."
    if size > MAX_BYTES:
        return f"The file has {size / _MIB:.0f} MiB; at most {MAX_BYTES / _MIB:.0f} MiB are taken. Save the picture smaller."
    if count >= MAX_PICTURES:
        return f"Not taken: at most {MAX_PICTURES:,} pictures at once. Drop it again after these."
    if total + size > MAX_TOTAL_BYTES:
        return f"Not taken: together the pictures exceed {MAX_TOTAL_BYTES / _MIB:.0f} MiB. Drop it again after these."
    return ""


def _bounded(pictures: Sequence[Picture]) -> list[Picture]:
    kept, total = [], 0
    for picture in pictures[:MAX_PICTURES]:
        total += len(picture.data)
        if total > MAX_TOTAL_BYTES:
            break
        kept.append(picture)
    return kept


def _let_go(batch: Predictions) -> None:
    """Forget what is known of pictures that are here no more."""
    here = {picture.number for picture in batch.pictures}
    batch.previews = {number: preview for number, preview in batch.previews.items() if number in here}
    for answers in batch.answers.values():
        for number in [number for number in answers if number not in here]:
            del answers[number]


def take_back(batch: Predictions, file_ids: Set[str]) -> None:
    """Files that somebody removed from the uploader go, with all that was in them."""
    for archive in [archive for archive in batch.archives if archive.file_id in file_ids]:
        archive.future.cancel()
        batch.archives.remove(archive)
    batch.pictures = [picture for picture in batch.pictures if picture.file_id not in file_ids]
    _let_go(batch)


def advance(batch: Predictions, questions: Sequence[Question]) -> None:
    """Collect what has come back and hand over what is next, for these questions in their order. Never waits."""
    _collect_archives(batch)
    _collect_answers(batch)
    for question in questions:
        batch.answers[question] = batch.answers.pop(question, {})  # the latest are kept
    for question in list(batch.answers)[:-MAX_QUESTIONS]:
        del batch.answers[question]
    for request in [request for request in batch.requests if request.question not in questions]:
        request.future.cancel()  # nobody wants to know any more
        batch.requests.remove(request)
    while len(batch.requests) < MAX_REQUESTS and (wanted := _next_request(batch, questions)) is not None:
        batch.requests.append(wanted)


def is_waiting(batch: Predictions, questions: Sequence[Question]) -> bool:
    """True while anything is on its way or to be handed over."""
    return bool(batch.archives or batch.requests) or missing(batch, questions) > 0


def missing(batch: Predictions, questions: Sequence[Question]) -> int:
    """How many answers have not come."""
    return sum(len(batch.pictures) - len(batch.answers.get(question, ())) for question in questions)


def _next_request(batch: Predictions, questions: Sequence[Question]) -> Request | None:
    for question in questions:
        on_their_way = {number for request in batch.requests if request.question == question for number in request.numbers}
        known = batch.answers[question]
        wanted = [picture for picture in batch.pictures if picture.number not in known and picture.number not in on_their_way]
        if wanted:
            group = _group(wanted, LATER_REQUESTS if known or on_their_way else FIRST_REQUEST)
            files = [(picture.name, picture.data) for picture in group]
            path = str(find_run(question.run_id).path)
            future = cached.predictor().submit("cifar_tl.inference:predict_files", path, files, question.asked)
            return Request(question, tuple(picture.number for picture in group), future)
    return None


def _group(pictures: Sequence[Picture], most: int) -> list[Picture]:
    group: list[Picture] = []
    size = 0
    for picture in pictures[:most]:
        size += len(picture.data)
        if group and size > MAX_REQUEST_BYTES:
            break
        group.append(picture)
    return group


def _collect_archives(batch: Predictions) -> None:
    for archive in [archive for archive in batch.archives if archive.future.done()]:
        batch.archives.remove(archive)
        try:
            pictures, refusals = result_of(archive.future)
        except CifarTLError as error:
            batch.refused.append(Answer(archive.name, error=str(error)))
            continue
        batch.refused.extend(Answer(refusal.name, error=refusal.reason) for refusal in refusals)
        _take(batch, [Handed(name, data, file_id=archive.file_id) for name, data in pictures])


def _collect_answers(batch: Predictions) -> None:
    here = {picture.number: picture for picture in batch.pictures}
    for request in [request for request in batch.requests if request.future.done()]:
        batch.requests.remove(request)
        known = batch.answers.get(request.question)
        if known is None:
            continue
        try:
            answers: list[Answer] = result_of(request.future)
        except CifarTLError as error:
            batch.has_failed = True
            answers = [Answer(here[number].name if number in here else "", error=str(error)) for number in request.numbers]
        for number, answer in zip(request.numbers, answers, strict=True):
            if number in here:
                known[number] = replace(answer, preview=b"")
                if number not in batch.previews and answer.preview:
                    batch.previews[number] = answer.preview


def ask_again(batch: Predictions) -> None:
    """Forget the answers that are errors, so that they are asked for once more."""
    batch.has_failed = False
    for answers in batch.answers.values():
        for number in [number for number, answer in answers.items() if answer.error]:
            del answers[number]


def clear(batch: Predictions) -> None:
    """Empty the page: pictures, answers and the uploader. Requests not yet begun are withdrawn."""
    for request in batch.requests:
        request.future.cancel()
    for archive in batch.archives:
        archive.future.cancel()
    batch.pictures, batch.requests, batch.archives, batch.refused = [], [], [], []
    batch.answers, batch.previews, batch.has_failed = {}, {}, False
    batch.seen_files.clear()
    batch.shown_files.clear()
    batch.upload_number += 1
