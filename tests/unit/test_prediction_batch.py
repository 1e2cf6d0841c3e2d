"""What the Predict page takes and keeps: bounds on the way in, groups on the way out, nothing forgotten and nothing kept for ever."""

import io
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cifar_tl.answers import Answer, Asked, Framing
from cifar_tl.ui import cached, prediction_batch
from cifar_tl.ui.prediction_batch import Handed, add, advance, clear, is_waiting, take_back
from cifar_tl.ui.state import Predictions, Question
from tests.made_runs import make_run

NOISE = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)


class Process:
    """Answers at once: each file with its name, an archive with what the test put there."""

    def __init__(self, members: list[tuple[str, bytes]] | None = None) -> None:
        self.groups: list[list[str]] = []
        self.members = members or []

    def submit(self, function: str, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if function.endswith("pictures_in_zip"):
            future.set_result((self.members, []))
        else:
            self.groups.append([name for name, _ in arguments[1]])
            future.set_result([Answer(name, preview=preview()) for name, _ in arguments[1]])
        return future


def preview() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(cached, "predictor", lambda: process)
    return process


@pytest.fixture
def question(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Question:
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(tmp_path))
    return Question(make_run(tmp_path).run_id, (0, 0), Asked())


def files(*names: str, data: bytes = b"x") -> list[Handed]:
    return [Handed(name, data) for name in names]


def finish(batch: Predictions, *questions: Question) -> None:
    while is_waiting(batch, questions):
        advance(batch, questions)


def names(batch: Predictions) -> list[str]:
    return [picture.name for picture in batch.pictures]


def test_files_beyond_the_number_are_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prediction_batch, "MAX_PICTURES", 2)
    batch = Predictions()
    add(batch, files("a", "b", "c", "d"))
    assert names(batch) == ["a", "b"]
    assert [refused.name for refused in batch.refused] == ["c", "d"]
    assert "at most 2 pictures at once" in batch.refused[0].error


def test_a_file_that_is_too_large_or_empty_is_refused_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prediction_batch, "MAX_BYTES", 3)
    batch = Predictions()
    add(batch, [Handed("large", b"xxxx"), Handed("empty", b""), Handed("good", b"xxx")])
    assert names(batch) == ["good"]
    assert "Save the picture smaller" in batch.refused[0].error
    assert batch.refused[1].error == "The file is empty."


def test_all_files_of_a_drop_together_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prediction_batch, "MAX_TOTAL_BYTES", 5)
    batch = Predictions()
    add(batch, files("a", "b", data=b"xxx"))
    assert names(batch) == ["a"]
    assert "together" in batch.refused[0].error


def test_newer_pictures_come_first_and_the_oldest_give_way_with_all_that_is_known_of_them(
    process: Process, question: Question, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prediction_batch, "MAX_TOTAL_BYTES", 4)
    batch = Predictions()
    add(batch, files("a", "b"))
    finish(batch, question)
    add(batch, files("c", "d", "e"))
    finish(batch, question)
    assert names(batch) == ["c", "d", "e", "a"]
    numbers = {picture.number for picture in batch.pictures}
    assert set(batch.answers[question]) == numbers == set(batch.previews)


def test_a_request_holds_no_more_bytes_than_it_may_but_always_a_picture(
    process: Process, question: Question, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prediction_batch, "MAX_REQUEST_BYTES", 2)
    batch = Predictions()
    add(batch, [Handed("a", b"x"), Handed("b", b"x"), Handed("c", b"xxx"), Handed("d", b"x")])
    finish(batch, question)
    assert process.groups == [["a", "b"], ["c"], ["d"]]


def test_previews_are_kept_once(process: Process, question: Question):
    batch = Predictions()
    add(batch, files("a"))
    other = Question(question.run_id, (0, 0), Asked(framing=Framing.WHOLE))
    finish(batch, question, other)
    (kept,) = batch.previews.values()
    assert kept == preview()
    assert not any(answer.preview for answers in batch.answers.values() for answer in answers.values())


def test_answers_to_the_latest_questions_only_are_kept(process: Process, question: Question):
    batch = Predictions()
    add(batch, files("a"))
    asked = [Question(question.run_id, (stamp, 0), Asked()) for stamp in range(prediction_batch.MAX_QUESTIONS + 2)]
    for each in asked:
        finish(batch, each)
    assert list(batch.answers) == asked[2:]


def test_pictures_of_an_archive_leave_with_it(process: Process, question: Question):
    process.members = [("z.zip/a", b"x"), ("z.zip/b", b"x")]
    batch = Predictions()
    add(batch, [Handed("z.zip", b"PK\x03\x04", file_id="1"), Handed("c", b"x", file_id="2")])
    finish(batch, question)
    assert sorted(names(batch)) == ["c", "z.zip/a", "z.zip/b"]
    take_back(batch, {"1"})
    assert names(batch) == ["c"]
    assert len(batch.answers[question]) == 1


def test_an_archive_larger_than_is_read_is_refused_at_once(process: Process, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prediction_batch, "MAX_ARCHIVE_BYTES", 4)
    batch = Predictions()
    add(batch, [Handed("z.zip", b"PK\x03\x04 and more")])
    assert not batch.archives
    assert "The archive has" in batch.refused[0].error


def test_clear_leaves_nothing_behind_and_numbers_go_on(process: Process, question: Question):
    batch = Predictions()
    add(batch, files("a"))
    finish(batch, question)
    clear(batch)
    assert [batch.pictures, batch.answers, batch.previews, batch.refused] == [[], {}, {}, []]
    add(batch, files("b"))
    assert batch.pictures[0].number == 1
