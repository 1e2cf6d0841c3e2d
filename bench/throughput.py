"""Trained images a second: this program's steps against bare ones and against torchvision's training loop.

    python -m bench.throughput [--models efficientnet_lite0 resnet18] [--sizes 64 128 224] [--contenders ours bare ...] [--json]

`ours` is the real thing: rows drawn from the store, flip and crop, resizing, the trainer's step with its sums and its reports. What the
others are is in `bench.peers`. The whole network trains. Batch norms are frozen, as in this program's default (`--train-batch-norm`
trains them too, as the peers do). Weights that are not on this machine are made up, not downloaded: speed does not depend on them.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.common import Column, Row, add_engine_options, add_ratios, add_timing_options, make_parser, rate, report, run_contender, timing

OURS = "ours"
FUNCTIONS = {
    OURS: "bench.throughput:ours",
    "bare": "bench.peers:bare",
    "bare_engine": "bench.peers:bare_engine",
    "reference": "bench.peers:reference",
    "tuned": "bench.peers:tuned",
}
_LEARNING_RATE = 1e-5  # weights that are made up must not run away while the clock runs
COLUMNS = (
    Column("model", "model"),
    Column("image_size", "px", "d"),
    Column("contender", "contender"),
    Column("batch_norm", "batch norm"),
    Column("precision", "precision"),
    Column("batch", "batch", "d"),
    Column("workers", "workers", "d"),
    Column("images_per_second", "images/s", ".1f"),
    Column("lowest", "lowest", ".1f"),
    Column("highest", "highest", ".1f"),
    Column("ours_over_this", "ours is x times", ".2f"),
)


def main() -> int:
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as made_up:
        rows = [_measured(row, options, weights_for(row["model"], Path(made_up))) for row in _cases(options)]
    add_ratios(rows, "images_per_second", OURS, ("model", "image_size"))
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_engine_options(parser)
    add_timing_options(parser, warm_up=5, steps=20)
    parser.add_argument("--models", nargs="+", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 224], help="image sizes in px")
    parser.add_argument("--contenders", nargs="+", choices=FUNCTIONS, default=list(FUNCTIONS))
    parser.add_argument("--batch", type=int, default=128, help="of all but the reference")
    parser.add_argument("--reference-batch", type=int, default=32, help="torchvision's default")
    parser.add_argument("--reference-workers", type=int, help="torchvision's default is 16 [as many as cores, 16 at most]")
    parser.add_argument("--workers", type=int, help="of the tuned loop [as many as cores]")
    parser.add_argument("--train-batch-norm", action="store_true", help="this program's and the bare steps train batch norms too")
    return parser


def _cases(options: argparse.Namespace) -> Iterator[Row]:
    for model in options.models:
        for image_size in options.sizes:
            for contender in options.contenders:
                is_peer = contender in ("reference", "tuned")
                batch_norm = "trained" if options.train_batch_norm or is_peer else "frozen"
                yield {"model": model, "image_size": image_size, "contender": contender, "batch_norm": batch_norm}


def weights_for(model: str, made_up: Path) -> dict[str, str]:
    """Environment in which the network has weights: its own where they are on this machine, else random ones in the folder `made_up`."""
    from cifar_tl.models.catalog import weights_on_disk, weights_path

    if weights_on_disk(model):
        return {}
    import torch
    import torchvision

    environment = {"TORCH_HOME": str(made_up)}
    before = os.environ | {}
    os.environ.update(environment)
    try:
        path = weights_path(model, "default")
        assert path is not None
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(torchvision.models.get_model(model, weights=None).state_dict(), path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return environment


def _measured(row: Row, options: argparse.Namespace, environment: dict[str, str]) -> Row:
    """The row of a case with what was measured of it."""
    from bench.peers import default_workers
    from cifar_tl.devices import cpu_count

    contender = row["contender"]
    settings: dict[str, Any] = {key: row[key] for key in ("model", "image_size")} | {"weights": "default"}
    settings |= {"device": options.device, "source": options.source, "batch": options.batch, "timing": timing(options)}
    if contender == "reference":
        settings |= {"batch": options.reference_batch, "workers": _given(options.reference_workers, default_workers())}
    elif contender == "tuned":
        settings["workers"] = _given(options.workers, cpu_count())
    else:
        settings["frozen_batch_norm"] = row["batch_norm"] == "frozen"
    used = {key: settings[key] for key in ("batch", "workers") if key in settings}
    return row | used | run_contender(FUNCTIONS[contender], settings, environment=environment)


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


def ours(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, frozen_batch_norm: bool, timing: dict[str, int]
) -> dict[str, Any]:
    """Steps of this program's trainer on fresh images, as `training.loop` makes them."""
    from bench.networks import waiting_for
    from bench.ours import endless_steps, start
    from cifar_tl.config import make_config

    config = make_config(
        source=source, backbone=model, weights=weights, device=device, image_size=image_size, batch_size=batch,
        trainable="everything", freeze_batch_norm=frozen_batch_norm, flip=True, crop=True, learning_rate=_LEARNING_RATE,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepared, trainer = start(config, Path(folder))
        measured = rate(endless_steps(trainer).__next__, **timing, wait=waiting_for(prepared.compute.device))
    return measured | {"precision": prepared.compute.precision}


if __name__ == "__main__":
    sys.exit(main())
