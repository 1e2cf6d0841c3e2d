"""What the cache of frozen stages costs and what it gives.

    python -m bench.prefix_cache [--cuts head last_stages:3] [--size 128] [--epochs 20] [--images-per-class 50] [--json]

For each cut, from an empty cache on data that is prepared already:

    fill       seconds to run the frozen stages over train (in its views), dev and test, and what that takes on disk
    reopen     seconds until a second run may read it: every row is read and its checksum compared
    cached     images a second of an epoch of steps from the cache
    uncached   the same with the frozen stages run at every step
    run        seconds of a whole run of `--epochs` epochs on the full cache, dev measured each epoch and test at the end; head only
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import Column, Row, add_engine_options, make_parser, rate, report, run_contender

_UNCACHED_WARM_UP = 3
COLUMNS = (
    Column("cut", "what trains"),
    Column("image_size", "px", "d"),
    Column("images", "images", ",d"),
    Column("fill_seconds", "fill, s", ".1f"),
    Column("gigabytes", "GB", ".2f"),
    Column("reopen_seconds", "reopen, s", ".2f"),
    Column("cached_images_per_second", "cached, images/s", ",.0f"),
    Column("uncached_images_per_second", "uncached, images/s", ",.0f"),
    Column("gain", "x times", ".1f"),
    Column("epochs", "epochs", "d"),
    Column("run_seconds", "run, s", ".1f"),
)


def main() -> int:
    options = _parser().parse_args()
    rows = [_measured(cut, options) for cut in options.cuts]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_engine_options(parser)
    parser.add_argument("--cuts", nargs="+", default=["head", "last_stages:3"], help="what trains: head, or last_stages:N")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128, help="image size in px")
    parser.add_argument("--epochs", type=int, default=20, help="of the run with the head only")
    parser.add_argument("--uncached-steps", type=int, default=20, help="steps timed without the cache")
    parser.add_argument("--images-per-class", type=int, help="train on fewer images, to try this out [all]")
    return parser


def _measured(cut: str, options: argparse.Namespace) -> Row:
    settings = {
        "device": options.device, "source": options.source, "backbone": options.backbone, "cut": cut, "image_size": options.size,
        "epochs": options.epochs, "uncached_steps": options.uncached_steps, "images_per_class": options.images_per_class,
    }  # fmt: skip
    return {"cut": cut.replace("_", " ").replace(":", " "), "image_size": options.size} | run_contender("bench.prefix_cache:ours", settings)


def ours(
    *, device: str, source: str, backbone: str, cut: str, image_size: int, epochs: int, uncached_steps: int, images_per_class: int | None
) -> dict[str, Any]:
    from cifar_tl.config import make_config
    from cifar_tl.data.sources import prepare

    trainable, _, stages = cut.partition(":")
    config = make_config(
        source=source, backbone=backbone, device=device, image_size=image_size, epochs=epochs, images_per_class=images_per_class,
        trainable=trainable, trainable_stages=int(stages or 1),
    )  # fmt: skip
    store = prepare(source)
    with tempfile.TemporaryDirectory() as root:
        _use_empty_cache(Path(root) / "cache", store.folder)
        result = _measure(config, Path(root), uncached_steps)
        if trainable == "head":
            result |= {"epochs": epochs, "run_seconds": _run_seconds(config, Path(root) / "run")}
    return result


def _use_empty_cache(cache: Path, store: Path) -> None:
    """From here on this process derives everything into `cache`, where only the prepared data is."""
    os.environ["CIFAR_TL_CACHE"] = str(cache)
    from cifar_tl.paths import stores_root

    stores_root().mkdir(parents=True)
    (stores_root() / store.name).symlink_to(store, target_is_directory=True)


def _measure(config: Any, root: Path, uncached_steps: int) -> dict[str, Any]:
    from bench.ours import endless_steps, tell_nobody
    from cifar_tl.paths import RunFolder, prefix_cache_root
    from cifar_tl.training.plan import plan_legs
    from cifar_tl.training.prepare import inputs_for, prepare_run
    from cifar_tl.training.trainer import Trainer

    prepared = prepare_run(config, RunFolder(root), tell_nobody)
    (leg,) = plan_legs(config, prepared.classifier)
    prepared.classifier.freeze_before(leg.boundary)
    began = time.perf_counter()
    inputs_for(prepared, leg.boundary, tell_nobody)
    filled = time.perf_counter()
    inputs = inputs_for(prepared, leg.boundary, tell_nobody)
    reopened = time.perf_counter()
    if not inputs.train.is_cached:
        raise ValueError("these settings are not cached: too little disk, or a cut without frozen stages")
    trainer = Trainer(prepared, leg, inputs.train)
    cached = rate(endless_steps(trainer).__next__, warm_up=1, steps=trainer.steps_per_epoch, repeats=1)
    trainer = Trainer(prepared, leg, prepared.image_inputs(prepared.splits.train))
    uncached = rate(endless_steps(trainer).__next__, warm_up=_UNCACHED_WARM_UP, steps=uncached_steps, repeats=1)
    return {
        "images": len(prepared.splits.train),
        "fill_seconds": filled - began,
        "reopen_seconds": reopened - filled,
        "gigabytes": sum(file.stat().st_blocks * 512 for file in prefix_cache_root().rglob("*") if file.is_file()) / 1e9,
        "cached_images_per_second": cached["images_per_second"],
        "uncached_images_per_second": uncached["images_per_second"],
        "gain": cached["images_per_second"] / uncached["images_per_second"],
    }


def _run_seconds(config: Any, folder: Path) -> float:
    from bench.ours import tell_nobody
    from cifar_tl.paths import RunFolder
    from cifar_tl.training.loop import train

    folder.mkdir()
    began = time.perf_counter()
    train(config, RunFolder(folder), emit=tell_nobody, should_stop=lambda: False)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
