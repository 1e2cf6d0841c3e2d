"""How long one refresh of the live view keeps the server: a run with 5,000 logged steps, growing by ten between refreshes.

    python -m bench.dashboard [--steps 5000] [--refreshes 50] [--json]

Runs the page's own code in Streamlit's test session (no browser, no network), so what is measured is reading the new lines,
folding, downsampling, building the charts and making Streamlit's messages. Exits 1 above the budget.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

from bench.common import Column, make_parser, report

BUDGET_MILLISECONDS = 50.0
EPOCHS = 10
COLUMNS = (
    Column("logged_steps", "logged steps", ",d"),
    Column("refreshes", "refreshes", "d"),
    Column("median_milliseconds", "median, ms of server time", ".1f"),
    Column("worst_milliseconds", "worst, ms", ".1f"),
    Column("budget_milliseconds", "budget, ms", ".0f"),
    Column("kibibytes", "charts to the browser, KiB", ".0f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--refreshes", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        milliseconds, payload = measure(Path(root) / "bench", options.steps, options.refreshes)
    row = {
        "logged_steps": options.steps,
        "refreshes": options.refreshes,
        "median_milliseconds": statistics.median(milliseconds),
        "worst_milliseconds": max(milliseconds),
        "budget_milliseconds": BUDGET_MILLISECONDS,
        "kibibytes": payload / 1024,
    }
    report([row], COLUMNS, as_json=options.json)
    return 0 if row["median_milliseconds"] < BUDGET_MILLISECONDS else 1


def measure(path: Path, steps: int, refreshes: int) -> tuple[list[float], int]:
    """Milliseconds of each refresh, and the bytes of the charts of the last."""
    import fcntl

    from streamlit.testing.v1 import AppTest

    from cifar_tl.config import make_config
    from cifar_tl.paths import RunFolder
    from cifar_tl.runs.log import EventWriter
    from cifar_tl.runs.store import write_json

    folder = RunFolder(path)
    folder.path.mkdir()
    write_json(folder.config, make_config(source="cifar100", epochs=EPOCHS, trainable="everything").model_dump(mode="json"))
    times: list[float] = []
    with folder.lock.open("ab") as lock, EventWriter(folder.events) as writer:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_steps(writer, 0, steps)
        page = AppTest.from_function(one_refresh, args=(folder.run_id,), default_timeout=60)
        page.run()
        for refresh in range(refreshes):
            write_steps(writer, steps + 10 * refresh, 10)
            page.run()
            assert not page.exception, page.exception
            times.append(1000 * page.session_state["bench.seconds"])
    payload = sum(element.proto.ByteSize() for element in page.get("bidi_component"))
    return times, payload


def one_refresh(run_id: str) -> None:
    import time

    import streamlit as st

    from cifar_tl.ui.live_view import refreshing_body

    began = time.perf_counter()
    refreshing_body(run_id, was_running=True)
    st.session_state["bench.seconds"] = time.perf_counter() - began


def write_steps(writer: object, first: int, count: int, *, logged_every: int = 1) -> None:
    """Log `count` steps after step `first`, or every so many of them, with the start of the run or an epoch where one falls."""
    from cifar_tl.runs.events import Epoch, Phase, Started, Step
    from cifar_tl.runs.log import EventWriter

    assert isinstance(writer, EventWriter)
    steps_per_epoch = 1_000
    if first == 0:
        writer.write(Phase(name="training", text="Training"))
        writer.write(
            Started(
                device="cpu", device_name="CPU", precision="float32", train_images=45_000, dev_images=5_000, test_images=10_000,
                num_classes=100, parameters=1, trainable_parameters=1, epochs=EPOCHS, steps_per_epoch=steps_per_epoch, worker_pid=1,
            )
        )  # fmt: skip
    for step in range(first + 1, first + count + 1):
        epoch = step / steps_per_epoch
        if step % logged_every == 0:
            writer.write(
                Step(
                    step=step, epoch=epoch, loss=4 / epoch, batch_accuracy=0.5, learning_rate=0.01, images_per_second=200.0, eta_seconds=9.0
                )
            )  # fmt: skip
        if step % steps_per_epoch == 0:
            writer.write(
                Epoch(
                    epoch=step // steps_per_epoch, step=step, train_loss=1.0, train_accuracy=0.9, train_images_measured=5_000, dev_loss=1.5,
                    dev_accuracy=0.6, dev_top5=0.9, dev_accuracy_per_class=[0.6] * 100, is_best=True, images_per_second=200.0,
                    epoch_seconds=200.0, eta_seconds=9.0, memory_bytes=10**9,
                )
            )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
