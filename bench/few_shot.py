"""Few images per class: test accuracy with 1, 5, 10 and 25 training images of each class, three seeds each.

    python -m bench.few_shot [--images 1 5 10 25] [--seeds 0 1 2] [--set key=value ...] [--json]

Runs the command line, as a person would, with one cache for all runs: the frozen part sees dev and test once. A seed decides which
images train, in which order, and the head's first weights. Dev (a tenth of the training images) chooses the epoch, in each run
alike, so a real project with so few labels would choose a little worse; test is touched once per run, at its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.common import Column, Row, make_parser, report
from cifar_tl.paths import PROJECT_ROOT

# A few dozen images are an epoch of few steps, so there are many epochs of small batches.
SETTINGS = {"source": "cifar100", "trainable": "head", "image_size": 128, "epochs": 60, "batch_size": 32, "learning_rate": 0.03}
COLUMNS = (
    Column("images_per_class", "images per class", "d"),
    Column("mean", "test accuracy, mean", ".3f"),
    Column("deviation", "standard deviation", ".3f"),
    Column("lowest", "lowest", ".3f"),
    Column("highest", "highest", ".3f"),
    Column("train_accuracy", "train accuracy, mean", ".3f"),
    Column("seconds", "seconds per run, median", ".0f"),
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 5, 10, 25])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings that differ from the ones here")
    options = parser.parse_args()
    settings = SETTINGS | dict(item.split("=", 1) for item in options.set)
    with tempfile.TemporaryDirectory() as checkpoints:
        rows = [_row(settings, count, options.seeds, Path(checkpoints)) for count in options.images]
    report(rows, COLUMNS, as_json=options.json)


def _row(settings: dict[str, object], count: int, seeds: list[int], checkpoints: Path) -> Row:
    runs = [_run(settings | {"images_per_class": count, "seed": seed}, checkpoints) for seed in seeds]
    accuracies = [run["test_accuracy"] for run in runs]
    return {
        "images_per_class": count,
        "mean": statistics.mean(accuracies),
        "deviation": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "test_accuracies": accuracies,
        "train_accuracy": statistics.mean(run["train_accuracy"] for run in runs),
        "seconds": statistics.median(run["seconds"] for run in runs),
    }


def _run(settings: dict[str, object], checkpoints: Path) -> Row:
    print(f"{settings['images_per_class']} images per class, seed {settings['seed']}", file=sys.stderr, flush=True)
    arguments = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "cifar_tl", "train", *arguments, "--no-describe", "--json"],
        cwd=PROJECT_ROOT,
        env=os.environ | {"CIFAR_TL_CHECKPOINTS": str(checkpoints)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    result: Row = json.loads(done.stdout.splitlines()[-1])
    events = [json.loads(line) for line in (Path(result["run_dir"]) / "events.jsonl").read_text("utf-8").splitlines()]
    best = [event for event in events if event["type"] == "epoch" and event["is_best"]][-1]
    return result | {"train_accuracy": best["train_accuracy"]}


if __name__ == "__main__":
    main()
