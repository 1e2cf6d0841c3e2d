"""What data far larger than CIFAR-100 take: opening a store, an epoch of batches, dev answers, the log, Explore. docs/scale.md reads from it.

    python -m bench.scale [--images 1300000] [--classes 1000] [--explore-images 100000] [--epochs 90] [--json]

The store holds random pixels at 32 px, written by the product's own writer into a temporary folder (4 GB for 1.3 million; TMPDIR chooses
where) and deleted at the end. Each part is measured in a process of its own. Memory is what the process itself holds at most beyond what it
had at the beginning (RssAnon), without pages of files, which the system takes back when it needs them. What was just written is read from
the file cache: a cold disk is slower.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from bench.common import Column, Row, make_parser, report, run_contender
from bench.memory import status_megabytes

COLUMNS = (
    Column("part", "part"),
    Column("size", "size"),
    Column("seconds", "seconds", ".3f"),
    Column("peak_megabytes", "memory at most, MB", ",.0f"),
    Column("disk_megabytes", "on disk, MB", ",.0f"),
    Column("per_second", "a second", ",.0f"),
)
_BATCH = 128


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=1_300_000, help="of the store")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--explore-images", type=int, default=100_000, help="test images of the run that Explore shows")
    parser.add_argument("--epochs", type=int, default=90, help="of the log that is read")
    options = parser.parse_args()
    rows = [*_of_store(options), *_of_run(options)]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _of_store(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as root:
        cache, size = {"CIFAR_TL_CACHE": root}, f"{options.images:,} images"
        written = run_contender("bench.memory:write_large_store", {"images": options.images}, environment=cache)
        if "error" in written:
            return [{"part": "store", "size": size} | written]
        parts = {"opening the store": "open_store", "train and dev split": "split_store", "an epoch of batches": "epoch_of_batches"}
        return [
            {"part": part, "size": size} | run_contender(f"bench.scale:{function}", {}, environment=cache)
            for part, function in parts.items()
        ]


def _of_run(options: argparse.Namespace) -> list[Row]:
    dev = max(1, options.images // 10)
    answers = {"images": dev, "classes": options.classes}
    log = {"epochs": options.epochs, "classes": options.classes, "steps": options.images * 9 // 10 // _BATCH // 10}
    explore = {"images": options.explore_images, "classes": options.classes}
    return [
        {"part": "dev answers, kept", "size": f"{dev:,} × {options.classes:,}"} | run_contender("bench.scale:dev_answers", answers),
        {"part": "reading a log", "size": f"{options.epochs} epochs"} | run_contender("bench.scale:log_of_epochs", log),
        {"part": "Explore, slowest first look", "size": f"{options.explore_images:,} × {options.classes:,}"}
        | run_contender("bench.scale:explore", explore | {"click": False}),
        {"part": "Explore, slowest click", "size": f"{options.explore_images:,} × {options.classes:,}"}
        | run_contender("bench.scale:explore", explore | {"click": True}),
    ]


def _store() -> Any:
    from cifar_tl.data.cifar.source import CifarSource
    from cifar_tl.data.store import ImageStore
    from cifar_tl.paths import stores_root

    return ImageStore(stores_root() / CifarSource("cifar100").store_name)


def open_store() -> Row:
    def work() -> None:
        store = _store()
        assert len(store["train"]) > 0
        store["train"].image_rows[_first_rows()]

    folder = _store().folder
    disk = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    return _measured(work) | {"disk_megabytes": disk / 1e6}


def split_store() -> Row:
    from cifar_tl.data.splits import run_splits

    store = _store()
    return _measured(lambda: run_splits(store, classes=(), images_per_class=None, seed=0))


def epoch_of_batches() -> Row:
    """Every training image once, in random order, as a run reads them; no network."""
    import torch

    from cifar_tl.data.batches import ImageBatches, epoch_batches
    from cifar_tl.data.splits import run_splits

    store = _store()
    train = run_splits(store, classes=(), images_per_class=None, seed=0).train

    def work() -> None:
        batches = ImageBatches(store["train"], train.rows, train.labels, torch.device("cpu"))
        for positions in epoch_batches(train.labels, batch_size=_BATCH, seed=0, epoch=0):
            batches.images(positions)

    row = _measured(work)
    return row | {"per_second": len(train.rows) / row["seconds"]}


def dev_answers(*, images: int, classes: int) -> Row:
    """What an epoch keeps of the dev images: probabilities made of logits, metrics, the file."""
    from pathlib import Path

    import numpy as np
    import torch

    from cifar_tl.evaluation.arrays import Evaluation, save_evaluation

    def work() -> None:
        logits_NC = torch.randn(images, classes)
        top_NK = logits_NC.topk(min(5, classes), dim=1).indices.numpy().astype(np.int32)
        labels_N = (np.arange(images) % classes).astype(np.int32)
        probabilities_NC = logits_NC.softmax(1).half().numpy()
        rows_N = np.arange(images, dtype=np.int64)
        save_evaluation(path, Evaluation(labels_N, top_NK, probabilities_NC, rows_N=rows_N, store_split="train"))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dev.npz"
        return _measured(work) | {"disk_megabytes": path.stat().st_size / 1e6}


def log_of_epochs(*, epochs: int, classes: int, steps: int) -> Row:
    """A page that opens a run reads all of its log once."""
    from pathlib import Path

    from cifar_tl.paths import RunFolder
    from cifar_tl.runs.events import Epoch, Step
    from cifar_tl.runs.history import RunHistory
    from cifar_tl.runs.log import EventReader, EventWriter

    with tempfile.TemporaryDirectory() as root:
        folder = RunFolder(Path(root))
        with EventWriter(folder.events) as log:
            for epoch in range(1, epochs + 1):
                for number in range(steps):
                    step = (epoch - 1) * steps + number + 1
                    log.write(
                        Step(
                            step=step,
                            epoch=step / steps,
                            loss=2.0,
                            batch_accuracy=0.5,
                            learning_rate=0.01,
                            images_per_second=500.0,
                            eta_seconds=1.0,
                        )
                    )
                log.write(
                    Epoch(
                        epoch=epoch, step=epoch * steps, train_loss=2.0, train_accuracy=0.5, train_images_measured=2000, dev_loss=2.0,
                        dev_accuracy=0.5, dev_top5=0.7, dev_accuracy_per_class=[0.5123456] * classes, is_best=True, images_per_second=500.0,
                        epoch_seconds=100.0, eta_seconds=1.0, memory_bytes=10**9,
                    )
                )  # fmt: skip

        def work() -> None:
            RunHistory().extend(EventReader(folder.events).read_new())

        return _measured(work) | {"disk_megabytes": folder.events.stat().st_size / 1e6}


def explore(*, images: int, classes: int, click: bool) -> Row:
    """Of all views, the one that keeps the server longest."""
    import os
    from pathlib import Path

    from bench.explore import make_run, views_of

    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        make_run(Path(root), classes, images)
        rows: list[Row] = []
        measured = _measured(lambda: rows.extend(views_of("made", "made")))
    key = "click_ms" if click else "first_ms"
    return measured | {"seconds": max(row[key] for row in rows) / 1000}


def _first_rows() -> Any:
    import numpy as np

    return np.arange(8)


def _measured(work: Callable[[], object]) -> Row:
    """Seconds, and the most memory of its own that the process held beyond what it had before."""
    before, peak, done = status_megabytes("RssAnon") or 0.0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, (status_megabytes("RssAnon") or 0.0) - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak_megabytes": max(peak, (status_megabytes("RssAnon") or 0.0) - before)}


if __name__ == "__main__":
    sys.exit(main())
