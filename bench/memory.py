"""Peak memory of a run, on CIFAR-100 and on a store of a million images, against that of the bare step at the same batch.

    python -m bench.memory [--images 1300000] [--size 64] [--batch 128] [--steps 200] [--evaluate] [--json]

The large store holds 32 px images of a thousand classes, written by the product's own writer into a temporary folder (4 GB for 1.3 million;
set TMPDIR to choose where). Memory is the highest resident size of the process (VmHWM), in which pages of the memory-mapped store count for
as long as they are mapped in; private is the rest of it (RssAnon), which the system cannot take back as it can pages of a file. `--evaluate`
also evaluates dev once, as every epoch ends, and gives the peak after that.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.common import Column, Row, add_engine_options, make_parser, report, run_contender

_LARGE_CLASSES = 1_000
_LARGE_TEST_IMAGES = 10_000
_RESOLUTION = 32
_WRITTEN_AT_ONCE = 10_000
_BARE_STEPS = 20
COLUMNS = (
    Column("contender", "contender"),
    Column("data", "data"),
    Column("images", "images", ",d"),
    Column("batch", "batch", "d"),
    Column("steps", "steps", "d"),
    Column("preparing_seconds", "preparing, s", ".1f"),
    Column("before_megabytes", "before the first step, MB", ",.0f"),
    Column("peak_megabytes", "peak, MB", ",.0f"),
    Column("private_megabytes", "of it private, MB", ",.0f"),
    Column("evaluated_peak_megabytes", "peak with evaluation, MB", ",.0f"),
    Column("over_bare_megabytes", "over bare, MB", "+,.0f"),
)


def main() -> int:
    options = _parser().parse_args()
    bare = _row("bare", "one batch in memory", options) | run_contender("bench.memory:bare", _settings(options))
    rows = [bare, _row("ours", options.source, options) | _run_prepared(options)]
    if options.images:
        rows.append(_row("ours", "large store", options) | _run_on_large_store(options))
    for row in rows[1:]:
        if "peak_megabytes" in row and "peak_megabytes" in bare:
            row["over_bare_megabytes"] = row["peak_megabytes"] - bare["peak_megabytes"]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_engine_options(parser)
    parser.add_argument("--images", type=int, default=1_300_000, help="of the large store; 0 leaves it out")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=64, help="image size in px")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="enough that more pixels are read than may stay mapped")
    parser.add_argument("--evaluate", action="store_true", help="evaluate dev after the steps: a tenth of the data, all of it")
    return parser


def _row(contender: str, data: str, options: argparse.Namespace) -> Row:
    return {"contender": contender, "data": data, "batch": options.batch, "steps": options.steps}


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": options.device, "source": options.source, "backbone": options.backbone, "image_size": options.size,
        "batch": options.batch, "steps": options.steps,
    }  # fmt: skip


def _run_prepared(options: argparse.Namespace) -> Row:
    """Prepared by another process before: what decoding takes is no part of a run's peak."""
    prepared = run_contender("bench.memory:prepare_data", {"source": options.source})
    return prepared if "error" in prepared else run_contender("bench.memory:ours", _settings(options) | {"evaluate": options.evaluate})


def _run_on_large_store(options: argparse.Namespace) -> Row:
    """The store lies where the prepared store of CIFAR-100 would, so the run finds it as it finds any."""
    with tempfile.TemporaryDirectory() as root:
        cache = {"CIFAR_TL_CACHE": root}
        written = run_contender("bench.memory:write_large_store", {"images": options.images}, environment=cache)
        if "error" in written:
            return written
        settings = _settings(options) | {"source": "cifar100", "evaluate": options.evaluate}
        return run_contender("bench.memory:ours", settings, environment=cache)


def prepare_data(*, source: str) -> Row:
    from cifar_tl.data.sources import prepare

    return {"images": len(prepare(source)["train"])}


def write_large_store(*, images: int) -> Row:
    """A store of random pixels under this process's cache root."""
    import numpy as np

    from cifar_tl.data.cifar.source import CifarSource
    from cifar_tl.data.store import StoreInfo, writing_store
    from cifar_tl.paths import stores_root

    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (_WRITTEN_AT_ONCE, _RESOLUTION, _RESOLUTION, 3), np.uint8)

    def chunks(count: int) -> Iterator[Any]:
        for start in range(0, count, _WRITTEN_AT_ONCE):
            yield pixels[: count - start]

    names = tuple(f"class {number}" for number in range(_LARGE_CLASSES))
    with writing_store(stores_root() / CifarSource("cifar100").store_name) as writer:
        for split, count in (("train", images), ("test", min(images, _LARGE_TEST_IMAGES))):
            writer.write_split(split, np.arange(count) % _LARGE_CLASSES, chunks(count), _RESOLUTION)
        writer.finish(StoreInfo("cifar100", "Random pixels", _RESOLUTION, names))
    return {"images": images}


def ours(*, device: str, source: str, backbone: str, image_size: int, batch: int, steps: int, evaluate: bool) -> Row:
    """A run that trains everything, up to its last step and, if asked, through the evaluation of dev."""
    from bench.ours import endless_steps, start
    from cifar_tl.config import make_config
    from cifar_tl.evaluation.collect import collect

    config = make_config(
        source=source, backbone=backbone, device=device, image_size=image_size, batch_size=batch, trainable="everything", crop=True
    )
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared, trainer = start(config, Path(folder))
    row: Row = {"images": len(prepared.store["train"]), "preparing_seconds": time.perf_counter() - began}
    row["before_megabytes"] = peak_megabytes()
    next_step = endless_steps(trainer)
    row["private_megabytes"] = _private_peak(next_step.__next__, steps)
    row["peak_megabytes"] = peak_megabytes()
    if evaluate:
        collect(trainer.best_guess, prepared.image_inputs(prepared.splits.dev), prepared.splits.dev, prepared.compute)
        row["evaluated_peak_megabytes"] = peak_megabytes()
    return row


def bare(*, device: str, source: str, backbone: str, image_size: int, batch: int, steps: int) -> Row:
    """Plain torch on one batch; few steps are enough, as nothing is read that was not there before."""
    import torch

    from bench.networks import batch_in_memory, channels_last_network, num_classes_of, plain_compute
    from bench.peers import bare_step

    compute, num_classes = plain_compute(device), num_classes_of(source)
    classifier = channels_last_network(backbone, "default", num_classes, image_size, compute)
    classifier.set_freeze_batch_norm(True)
    optimizer = torch.optim.SGD(classifier.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=True)
    images_BCHW, labels_B = batch_in_memory(batch, image_size, num_classes, compute.device)
    row: Row = {"before_megabytes": peak_megabytes()}
    step = bare_step(classifier, compute, optimizer, images_BCHW, labels_B)
    row["private_megabytes"] = _private_peak(step, min(steps, _BARE_STEPS))
    return row | {"peak_megabytes": peak_megabytes()}


def _private_peak(step: Callable[[], int], steps: int) -> float | None:
    """The most private memory seen after any of the steps; None where the system does not tell it apart."""
    seen = []
    for _ in range(steps):
        step()
        seen.append(status_megabytes("RssAnon"))
    return max((value for value in seen if value is not None), default=None)


def peak_megabytes() -> float:
    """The highest resident size of this process so far.

    Linux keeps it per program (VmHWM); what `getrusage` says there begins with the size of the process that started this one.
    """
    highest = status_megabytes("VmHWM")
    if highest is not None:
        return highest
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def status_megabytes(name: str) -> float | None:
    """A line of /proc/self/status, as in "VmHWM: 123456 kB"; None where there is none."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    sys.exit(main())
