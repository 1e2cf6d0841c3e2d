"""How long pages keep the server with a great deal to show: the list of a thousand runs, and a run with a million logged events.

    python -m bench.opening [--runs 1000] [--events 1000000] [--json]

Runs the pages' own code in Streamlit's test session (no browser, no network). `first` is the first time that this server shows it, with
empty caches; `again` is the next time. The run with a million events then grows by ten. Exits 1 above the budget.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import Column, Row, make_parser, report
from bench.dashboard import one_refresh, write_steps

BUDGET_SECONDS = 1.0
_STEPS, _LOGGED_EVERY = 10_000, 28  # of each of the many runs: ten epochs with 36 logged steps each
COLUMNS = (
    Column("what", "what"),
    Column("first_seconds", "first, s", ".2f"),
    Column("again_seconds", "again, s", ".3f"),
    Column("budget_seconds", "budget, s", ".1f"),
    Column("megabytes", "logs, MB", ",.0f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    rows = [_many_runs(options.runs), _long_log(options.events)]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any(row["first_seconds"] > BUDGET_SECONDS for row in rows) else 0


def _many_runs(count: int) -> Row:
    from streamlit.testing.v1 import AppTest

    from cifar_tl.paths import PROJECT_ROOT

    page = PROJECT_ROOT / "cifar_tl" / "ui" / "pages" / "runs.py"
    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        _write_runs(Path(root), 1)
        AppTest.from_file(page, default_timeout=60).run()  # another list: everything is imported
    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        _write_runs(Path(root), count)
        session = AppTest.from_file(page, default_timeout=600)
        first, again = _seconds(session), _seconds(session)
        assert len(session.dataframe[0].value) == count
        size = _megabytes(Path(root))
    return {"what": f"Runs page, {count:,} runs", "first_seconds": first, "again_seconds": again} | _rest(size)


def _long_log(events: int) -> Row:
    import fcntl

    from streamlit.testing.v1 import AppTest

    from cifar_tl.runs.log import EventWriter

    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        folder = _new_run(Path(root) / "bench")
        with folder.lock.open("ab") as lock, EventWriter(folder.events) as writer:
            fcntl.flock(lock, fcntl.LOCK_EX)
            write_steps(writer, 0, events)
            page = AppTest.from_function(one_refresh, args=(folder.run_id,), default_timeout=600)
            page.run()
            first = page.session_state["bench.seconds"]
            write_steps(writer, events, 10)
            page.run()
            again = page.session_state["bench.seconds"]
        assert not page.exception, page.exception
        size = _megabytes(Path(root))
    return {"what": f"Live view, {events:,} logged steps", "first_seconds": first, "again_seconds": again} | _rest(size)


def _rest(megabytes: float) -> dict[str, Any]:
    return {"budget_seconds": BUDGET_SECONDS, "megabytes": megabytes}


def _seconds(session: Any) -> float:
    began = time.perf_counter()
    session.run()
    assert not session.exception, session.exception
    return time.perf_counter() - began


def _megabytes(root: Path) -> float:
    return sum(path.stat().st_size for path in root.rglob("events.jsonl")) / 1e6


def _new_run(path: Path) -> Any:
    from cifar_tl.config import make_config
    from cifar_tl.paths import RunFolder
    from cifar_tl.runs.store import write_json

    folder = RunFolder(path)
    folder.path.mkdir()
    write_json(folder.config, make_config(source="cifar100", epochs=10).model_dump(mode="json"))
    return folder


def _write_runs(root: Path, count: int) -> None:
    from cifar_tl.runs.events import Completed
    from cifar_tl.runs.log import EventWriter

    first = _new_run(root / "20260101-000000-bench-0")
    with EventWriter(first.events) as writer:
        write_steps(writer, 0, _STEPS, logged_every=_LOGGED_EVERY)
        writer.write(Completed(best_epoch=10, best_dev_accuracy=0.6, test_accuracy=0.6, test_top5=0.9, test_loss=1.5, seconds=2_000.0))
    for number in range(1, count):
        shutil.copytree(first.path, root / f"20260101-000000-bench-{number}")


if __name__ == "__main__":
    sys.exit(main())
