"""How long a sweep takes, and whether it finds anything: head-only trials on cached features.

    python -m bench.sweep [--trials 30] [--epochs 10] [--image-size 128] [--at-once 2] [--source cifar100] [--json]

The default settings are trained and tested first, which also fills the cache of features; then the sweep varies learning rate, weight
decay, label smoothing and dropout, and its best trial is tested. The time is that of the sweep alone, from its start to its last word.
Exit code 1: it took longer than 10 minutes.
"""

import argparse
import sys
import time

from bench.common import Column, Row, add_source_option, make_parser, report
from cifar_tl.config import RunConfig, make_config
from cifar_tl.errors import RunError
from cifar_tl.paths import RunFolder
from cifar_tl.runs import launcher as runs
from cifar_tl.runs.store import find_run, is_alive
from cifar_tl.runs.summary import summarize
from cifar_tl.sweeps.launcher import start_sweep
from cifar_tl.sweeps.space import parse_dimension
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus, find_sweep, read_sweep, status_of
from cifar_tl.sweeps.study import best_of, load_study, rows_of

PROMISED_SECONDS = 600.0
VARIED = ("learning_rate=0.001..1:log", "weight_decay=1e-6..0.01:log", "label_smoothing=0..0.3", "dropout=0..0.6")
COLUMNS = (
    Column("settings", "settings"),
    Column("trials", "trials", ",d"),
    Column("given_up", "given up", ",d"),
    Column("dev_accuracy", "dev accuracy", ".2%"),
    Column("test_accuracy", "test accuracy", ".2%"),
    Column("seconds", "seconds", ".0f"),
)


def main() -> int:
    options = _parser().parse_args()
    config = make_config(
        source=options.source,
        trainable="head",
        epochs=options.epochs,
        image_size=options.image_size,
        device="cpu" if options.device == "cpu" else "auto",
        describe=False,
    )
    rows = [_defaults(config), _sweep(config, options)]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if rows[1]["seconds"] > PROMISED_SECONDS else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_source_option(parser)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    return parser


def _defaults(config: RunConfig) -> Row:
    began = time.monotonic()
    return _tested("defaults", runs.start_run(config)) | {"trials": 1, "seconds": time.monotonic() - began}


def _sweep(config: RunConfig, options: argparse.Namespace) -> Row:
    space = tuple(map(parse_dimension, VARIED))
    base = config.model_dump(mode="json") | {"evaluate_test": False}
    for dimension in space:
        del base[dimension.name]
    sweep = Sweep("Benchmark", base, space, trials=options.trials, pruner=Pruner.MEDIAN, at_once=options.at_once)
    began = time.monotonic()
    folder = find_sweep(start_sweep(sweep))
    while status_of(folder)[0] is SweepStatus.RUNNING:
        time.sleep(0.2)
    seconds = time.monotonic() - began
    study = load_study(folder, read_sweep(folder))
    trials = rows_of(study) if study else []
    best = best_of(trials)
    if best is None:
        raise RunError(f"No trial was completed: {status_of(folder)[1]}")
    runs.resume_run(best.run_id, is_tested=True)
    given_up = sum(trial.state == "pruned" for trial in trials)
    return _tested("best trial", best.run_id) | {"trials": len(trials), "given_up": given_up, "seconds": seconds}


def _tested(name: str, run_id: str) -> Row:
    folder: RunFolder = find_run(run_id)
    while is_alive(folder):
        time.sleep(0.1)
    summary = summarize(run_id)
    return {"settings": name, "dev_accuracy": summary.best_dev_accuracy, "test_accuracy": summary.test_accuracy}


if __name__ == "__main__":
    sys.exit(main())
