"""The end of a run's worker.log, read without reading the whole of it."""

import os
from pathlib import Path

# 200 lines of a traceback or a progress bar fit; a runaway log costs no more than this.
TAIL_BYTES = 64 * 1024


def last_lines(path: Path, count: int) -> str:
    """The last `count` lines of a text file, '' if there is none. A line cut by the size bound is left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read(TAIL_BYTES)
    except FileNotFoundError:
        return ""
    lines = data.decode("utf-8", "replace").splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]
    return "\n".join(lines[-count:])
