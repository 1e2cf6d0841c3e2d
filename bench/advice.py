"""Whether advice comes true: expected dev accuracy against that of real head-only runs.

    python -m bench.advice [--sizes 64 96 128] [--seeds 0 1 2 3] [--epochs 10] [--backbone efficientnet_lite0] [--source cifar100] [--json]

For each image size one run is trained, and its backbone is advised on from subsets drawn with each seed.
Exit code 1: an interval does not hold the accuracy of the run.
"""

import sys
import time

from bench.common import Column, Row, add_source_option, make_parser, report
from cifar_tl.advice.backbones import IMAGES, features_of, load_for_advice, subset
from cifar_tl.advice.learning_curve import expect
from cifar_tl.config import BUNDLED_BACKBONE, RunConfig, make_config
from cifar_tl.runs import launcher
from cifar_tl.runs.store import find_run, is_alive
from cifar_tl.runs.summary import summarize

COLUMNS = (
    Column("image_size", "image size", "d"),
    Column("seed", "seed", "d"),
    Column("expected", "expected", ".3f"),
    Column("low", "from", ".3f"),
    Column("high", "to", ".3f"),
    Column("real", "real", ".3f"),
    Column("seconds", "seconds", ".1f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    add_source_option(parser)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backbone", default=BUNDLED_BACKBONE)
    options = parser.parse_args()
    rows: list[Row] = []
    for size in options.sizes:
        config = make_config(
            source=options.source, backbone=options.backbone, image_size=size, epochs=options.epochs, evaluate_test=False, describe=False
        )
        real = _trained(config)
        rows += [
            _expected(config.model_copy(update={"seed": seed})) | {"image_size": size, "seed": seed, "real": real} for seed in options.seeds
        ]
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any(not row["low"] <= row["real"] <= row["high"] for row in rows) else 0


def _trained(config: RunConfig) -> float:
    run_id = launcher.start_run(config)
    while is_alive(find_run(run_id)):
        time.sleep(0.2)
    accuracy = summarize(run_id).best_dev_accuracy
    assert accuracy is not None, summarize(run_id)
    return accuracy


def _expected(config: RunConfig) -> Row:
    began = time.monotonic()
    prepared = load_for_advice(config, lambda *_: None)
    rows = subset(prepared, IMAGES)
    features_NF = features_of(prepared, rows, lambda *_: None)
    found = expect(features_NF, rows.labels, prepared.num_classes, all_images=len(prepared.splits.train.rows), seed=config.seed)
    return {"expected": found.expected, "low": found.low, "high": found.high, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    sys.exit(main())
