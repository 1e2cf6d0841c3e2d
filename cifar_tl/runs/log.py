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
from typing import Self

from cifar_tl.runs.events import SCHEMA_VERSION, Event, Record, parse_record

_RESERVE = ".reserve"  # a file that is deleted to make room for the last event on a full disk
_RESERVED_BYTES = 64 * 1024
_TAIL_BYTES = 64 * 1024


class EventWriter:
    """Appends events; each is on its way to the disk when `write` returns. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Continues an existing log: a torn last line (power cut) is cut off, `seq` goes on from the last whole one."""
        self.next_seq = _prepare_for_append(path)
        self._path = str(path)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
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


class EventReader:
    """Reads what is new since the last call. `damaged_lines` counts whole lines that were no event."""

    def __init__(self, path: Path, leave_out: Sequence[type[Event]] = ()) -> None:
        """`leave_out`: types of events that are not even parsed, except the newest event of each reading."""
        self.path = path
        self.damaged_lines = 0
        self._offset = 0
        self._left_out = tuple(f'"type":"{cls.type}"'.encode() for cls in leave_out)

    def read_new(self) -> list[Record]:
        """Records appended since the last call; empty if there is no file yet. A log that shrank is read again from its start."""
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        lines = data[:whole].splitlines()
        if self._left_out:
            lines = [line for line in lines[:-1] if not any(mark in line for mark in self._left_out)] + lines[-1:]
        return [record for line in lines if (record := self._parse(line))]

    def _parse(self, line: bytes) -> Record | None:
        try:
            return parse_record(json.loads(line))
        except (ValueError, AttributeError):
            self.damaged_lines += 1
            return None
