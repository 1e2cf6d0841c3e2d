"""EventWriter and EventReader: append-only, torn lines, damaged lines."""

import json
import os

import pytest

from cifar_tl.runs.events import EVENT_TYPES, Phase, Progress, Record, Resumed, Step, Stopped, Warned, parse_record
from cifar_tl.runs.history import RunHistory
from cifar_tl.runs.log import EventReader, EventWriter


def warned(number: int) -> Warned:
    return Warned(message=f"warning {number}")


def test_reader_returns_what_the_writer_wrote_in_order(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        written = [log.write(event) for event in (Phase(name="training", text="Träining 猫"), warned(1))]
    read = EventReader(path).read_new()
    assert [(record.seq, record.event) for record in read] == [(record.seq, record.event) for record in written]
    assert [record.seq for record in read] == [0, 1]


def test_reader_keeps_a_torn_last_line_for_next_time(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        log.write(warned(1))
        log.write(warned(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    reader = EventReader(path)
    assert [record.event for record in reader.read_new()] == [warned(1)]
    path.write_bytes(whole)
    assert [record.event for record in reader.read_new()] == [warned(2)]
    assert reader.damaged_lines == 0


def test_reader_reads_each_event_once(tmp_path):
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    assert reader.read_new() == []
    with EventWriter(path) as log:
        for number in range(3):
            log.write(warned(number))
            assert [record.event for record in reader.read_new()] == [warned(number)]
    assert reader.read_new() == []


def test_reader_skips_and_counts_a_garbled_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        log.write(warned(1))
    with path.open("ab") as file:
        file.write(b"\xff\x00 not json\n[1,2]\n")
        file.write(b'{"v":1,"seq":9,"time":1.0,"type":"stopped"}\n')
    reader = EventReader(path)
    assert [record.event for record in reader.read_new()] == [warned(1)]
    assert reader.damaged_lines == 3


def test_reader_ignores_types_of_a_newer_version(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"v":2,"seq":0,"time":1.0,"type":"hologram","x":1}\n')
    reader = EventReader(path)
    assert reader.read_new() == []
    assert reader.damaged_lines == 0


def test_unknown_fields_of_a_known_type_are_ignored():
    record = parse_record({"seq": 3, "time": 1.5, "type": "warning", "message": "hi", "colour": "red"})
    assert record is not None
    assert record.event == Warned(message="hi")


def test_writer_cuts_a_torn_line_and_continues_the_numbers(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        log.write(warned(0))
        log.write(warned(1))
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":2,"ti')
    with EventWriter(path) as log:
        assert log.write(warned(2)).seq == 2
    assert [record.seq for record in EventReader(path).read_new()] == [0, 1, 2]


def test_reader_starts_again_when_the_log_shrank(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        for number in range(5):
            log.write(warned(number))
    reader = EventReader(path)
    reader.read_new()
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert len(reader.read_new()) == 2


def test_writer_refuses_numbers_that_are_no_json(tmp_path):
    with EventWriter(tmp_path / "events.jsonl") as log, pytest.raises(ValueError, match="not JSON compliant"):
        log.write(Stopped(step=1, best_dev_accuracy=float("nan"), seconds=0.0))


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_the_sample_line_in_each_docstring_is_a_valid_event(name):
    text = EVENT_TYPES[name].__doc__ or ""
    sample = text[text.index('{"type"') : text.index("}", text.index('{"type"')) + 1].replace("[0.8,...]", "[0.8]")
    record = parse_record(json.loads(sample) | {"seq": 0, "time": 0.0})
    assert record is not None
    assert record.event.type == name


def test_progress_survives_the_round_trip(tmp_path):
    event = Progress(text="Downloading", done=2**40, total=2**41, unit="bytes")
    with EventWriter(tmp_path / "e") as log:
        log.write(event)
    assert EventReader(tmp_path / "e").read_new()[0].event == event


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint():
    history = RunHistory()
    history.extend(Record(n, 100.0 + n, step(n)) for n in range(1, 8))
    history.extend([Record(8, 110.0, Stopped(step=7, best_dev_accuracy=None, seconds=10.0))])
    history.extend([Record(9, 500.0, Phase(name="resuming", text="Going on"))])
    assert history.terminal is None
    history.extend([Record(10, 505.0, Resumed(step=4, epoch=0, seconds=6.0))])
    history.extend(Record(6 + n, 505.0 + n, step(n)) for n in range(5, 7))
    assert [item.step for item in history.steps] == [1, 2, 3, 4, 5, 6]
    assert history.seconds == 6.0 + 6.0  # before, and since; not the pause


def test_a_clock_that_was_set_back_gives_no_negative_time():
    history = RunHistory()
    history.extend([Record(0, 500.0, Phase(name="training", text="")), Record(1, 100.0, step(1))])
    assert history.seconds == 0.0


def step(number: int) -> Step:
    return Step(step=number, epoch=0.1 * number, loss=1.0, batch_accuracy=0.5, learning_rate=0.1, images_per_second=1.0, eta_seconds=None)


def test_a_long_log_is_continued_without_reading_it_all(tmp_path, monkeypatch):
    path = tmp_path / "events.jsonl"
    with EventWriter(path) as log:
        for number in range(100):
            log.write(warned(number))
    with path.open("ab") as file:
        file.write(b"x" * 5000)  # torn, and longer than what is read first
    monkeypatch.setattr("cifar_tl.runs.log._TAIL_BYTES", 300)
    with EventWriter(path) as log:
        assert log.next_seq == 100
        log.write(warned(100))
    assert [record.seq for record in EventReader(path).read_new()] == list(range(101))


def test_the_last_word_finds_room_on_a_full_disk(tmp_path, monkeypatch):
    """A disk that is full but for what the writer set aside."""
    path = tmp_path / "events.jsonl"
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if (tmp_path / ".reserve").exists():
            return real(descriptor, data[:10])
        return real(descriptor, data)

    with EventWriter(path) as log:
        monkeypatch.setattr("cifar_tl.runs.log.os.write", full)
        with pytest.raises(OSError, match="No space left"):
            log.write(warned(1))
        log.write_last(warned(2))
    reader = EventReader(path)
    assert [record.event for record in reader.read_new()] == [warned(2)]
    assert reader.damaged_lines == 0
    assert not (tmp_path / ".reserve").exists()


def test_of_a_very_long_log_some_steps_are_parsed_and_all_that_is_new(tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tl.runs.log._ALL_PARSED_BYTES", 20_000)
    monkeypatch.setattr("cifar_tl.runs.log._BLOCK_BYTES", 3_000)
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    with EventWriter(path) as log:
        for number in range(1, 2001):
            log.write(step(number))
            if number % 500 == 0:
                log.write(warned(number))
        records = [record.event for record in reader.read_new()]
        steps = [event.step for event in records if isinstance(event, Step)]
        assert [event for event in records if isinstance(event, Warned)] == [warned(number) for number in (500, 1000, 1500, 2000)]
        assert len(steps) < 300
        assert steps[-50:] == list(range(1951, 2001))
        assert steps == sorted(set(steps))
        for number in range(2001, 2011):
            log.write(step(number))
        assert [record.event.step for record in reader.read_new()] == list(range(2001, 2011))
    assert reader.damaged_lines == 0


def test_a_line_longer_than_a_block_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr("cifar_tl.runs.log._BLOCK_BYTES", 10)
    path = tmp_path / "events.jsonl"
    reader = EventReader(path)
    with EventWriter(path) as log:
        log.write(warned(1))
        log.write(warned(2))
    assert [record.event for record in reader.read_new()] == [warned(1), warned(2)]
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert reader.read_new() == []
