"""EventWriter and EventReader: the append-only log of a run, one JSON object a line.

The writer lives in the worker, which holds the run's lock, so there is one writer at a time. Readers live anywhere:
each keeps a byte offset, reads only what is new, and leaves a torn last line for next time.
"""

import errno
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Self

from cifar_tl.runs.events import SCHEMA_VERSION, Event, Record, Step, parse_record
from cifar_tl.runs.lock import OPEN_TO_ALL

_RESERVE = ".reserve"  # a file that is deleted to make room for the last event on a full disk
_RESERVED_BYTES = 64 * 1024
_TAIL_BYTES = 64 * 1024
_ALL_PARSED_BYTES = 4 * 2**20  # about 20,000 events, parsed in a fifth of a second
_BLOCK_BYTES = 2**20
_IS_STEP = f'"type":"{Step.type}"'.encode()


class EventWriter:
    """Appends events; each is on its way to the disk when `write` returns. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Continues an existing log: a torn last line (power cut) is cut off, `seq` goes on from the last whole one."""
        self.next_seq = _prepare_for_append(path)
        self._path = str(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OPEN_TO_ALL)
        self._reserve = path.with_name(_RESERVE)
        self._reserve.write_bytes(bytes(_RESERVED_BYTES))

    def write(self, event: Event) -> Record:
        """Raises OSError if the disk does not take the line; the log is then as it was."""
        record = Record(self.next_seq, time.time(), event)
        envelope = {"v": SCHEMA_VERSION, "seq": record.seq, "time": round(record.time, 3)}
        line = json.dumps(envelope | event.to_dict(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        data = line.encode() + b"\n"
        # One write call per line: a reader sees a line whole or torn, never two lines mixed.
        end = os.fstat(self._file).st_size
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self.next_seq += 1
        return record

    def write_last(self, event: Event) -> Record:
        """The last word of the worker, for which there is room even on a full disk."""
        self._reserve.unlink(missing_ok=True)
        return self.write(event)

    def close(self) -> None:
        self._reserve.unlink(missing_ok=True)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _prepare_for_append(path: Path) -> int:
    """Cut a torn last line off; returns the next sequence number."""
    if not path.exists():
        return 0
    size, tail_bytes = path.stat().st_size, _TAIL_BYTES
    while True:
        with path.open("r+b") as file:
            file.seek(max(0, size - tail_bytes))
            tail = file.read()
            whole = tail.rfind(b"\n") + 1
            if whole or tail_bytes >= size:
                file.truncate(size - len(tail) + whole)
                for line in reversed(tail[:whole].splitlines()):
                    try:
                        return int(json.loads(line)["seq"]) + 1
                    except (ValueError, KeyError, TypeError):
                        continue
        if tail_bytes >= size:
            return 0
        tail_bytes *= 16


def _whole_lines(file: BinaryIO) -> bytes:
    """The next whole lines, about a block of them; empty at the end and where only a torn line is left. The file is then behind them."""
    start, data = file.tell(), b""
    while block := file.read(_BLOCK_BYTES):
        data += block
        if whole := data.rfind(b"\n") + 1:
            file.seek(start + whole)
            return data[:whole]
    return b""


def _stride(new_bytes: int) -> int:
    """A power of two, so that steps that were parsed stay among those of a longer log."""
    stride = 1
    while new_bytes > stride * _ALL_PARSED_BYTES:
        stride *= 2
    return stride


class EventReader:
    """Reads what is new since the last call. `damaged_lines` counts whole lines that were no event."""

    def __init__(self, path: Path, leave_out: Sequence[type[Event]] = ()) -> None:
        """`leave_out`: types of events that are not even parsed, except the newest event of each reading."""
        self.path = path
        self.damaged_lines = 0
        self._offset = 0
        self._steps_seen = 0
        self._left_out = tuple(f'"type":"{cls.type}"'.encode() for cls in leave_out)

    def read_new(self) -> list[Record]:
        """Records appended since the last call; empty if there is no file (yet) that can be read. A log that shrank is read again from its start.

        Of a log with a great deal of news only some of the logged steps are parsed, evenly spaced, and all of the newest: a million
        steps are shown as a thousand points anyway.
        """
        lines: list[bytes] = []
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._offset:
                    self._offset = 0
                stride = _stride(size - self._offset)
                file.seek(self._offset)
                while whole := _whole_lines(file):
                    self._offset += len(whole)
                    is_newest = self._offset > size - _ALL_PARSED_BYTES
                    lines += self._wanted(whole.splitlines(), 1 if is_newest else stride)
        except OSError:  # none yet, or none that can be read
            return []
        return [record for line in lines if (record := self._parse(line))]

    def _wanted(self, lines: list[bytes], stride: int) -> list[bytes]:
        for mark in self._left_out:
            lines = [line for line in lines[:-1] if mark not in line] + lines[-1:]
        if stride == 1:
            return lines
        kept = []
        for line in lines:
            is_step = _IS_STEP in line
            self._steps_seen += is_step
            if not is_step or self._steps_seen % stride == 0:
                kept.append(line)
        return kept

    def _parse(self, line: bytes) -> Record | None:
        try:
            return parse_record(json.loads(line))
        except (ValueError, AttributeError):
            self.damaged_lines += 1
            return None
