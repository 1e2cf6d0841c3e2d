"""Evaluated images a second: a whole split through `collect`, against forward passes of a batch that stays in memory.

    python -m bench.evaluation [--model efficientnet_lite0] [--sizes 64 128 224] [--images 10000] [--json]

`ours` reads the images of test from the store, resizes them, runs the network, keeps probabilities and embeddings and computes the metrics.
What the others are is in `bench.forward`; those that are not installed are named as not measured.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from bench.common import Column, Row, add_engine_options, add_ratios, add_timing_options, make_parser, report, run_contender, timing

OURS = "ours"
FORWARDS = ("bare_forward", "ready_forward", "compiled_forward", "onnxruntime_forward", "openvino_forward")
_WARM_UP_IMAGES = 512
COLUMNS = (
    Column("model", "model"),
    Column("image_size", "px", "d"),
    Column("contender", "contender"),
    Column("precision", "precision"),
    Column("batch", "batch", "d"),
    Column("images_per_second", "images/s", ".0f"),
    Column("lowest", "lowest", ".0f"),
    Column("highest", "highest", ".0f"),
    Column("ours_over_this", "ours is x times", ".2f"),
)


def main() -> int:
    options = _parser().parse_args()
    rows = [_measured(image_size, contender, options) for image_size in options.sizes for contender in options.contenders]
    add_ratios(rows, "images_per_second", OURS, ("model", "image_size"))
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_engine_options(parser)
    add_timing_options(parser, warm_up=5, steps=20)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 224], help="image sizes in px")
    parser.add_argument("--contenders", nargs="+", choices=(OURS, *FORWARDS), default=[OURS, *FORWARDS])
    parser.add_argument("--images", type=int, default=10_000, help="of test, for this program")
    parser.add_argument("--batch", type=int, default=256, help="of the forward passes; this program evaluates 256 at a time")
    return parser


def _measured(image_size: int, contender: str, options: argparse.Namespace) -> Row:
    from bench.forward import CPU_ENGINES, reason_not_to_measure

    settings: Row = {"model": options.model, "weights": options.weights, "image_size": image_size}
    row = {**settings, "contender": contender}
    settings |= {"source": options.source} | ({} if contender in CPU_ENGINES else {"device": options.device})
    if contender == OURS:
        return row | run_contender("bench.evaluation:ours", settings | {"images": options.images, "repeats": options.repeats})
    if reason := reason_not_to_measure(contender, options.device):
        return row | {"not_measured": f"not measured: {reason}"}
    settings |= {"batch": options.batch, "timing": timing(options)}
    return row | {"batch": options.batch} | run_contender(f"bench.forward:{contender}", settings)


def ours(*, device: str, source: str, model: str, weights: str, image_size: int, images: int, repeats: int) -> dict[str, Any]:
    """`collect` over the first `images` of test (all, where there are fewer), as at the end of a run."""
    from bench.networks import engine_compute, ready_network
    from cifar_tl.config import make_config
    from cifar_tl.data.batches import ImageBatches
    from cifar_tl.data.sources import prepare
    from cifar_tl.data.splits import SplitRows, run_splits
    from cifar_tl.evaluation.collect import collect
    from cifar_tl.runs.store import Preprocessing
    from cifar_tl.training.inputs import ImageInputs

    store, compute = prepare(source), engine_compute(device)
    network = ready_network(model, weights, store.info.num_classes, image_size, compute)
    preprocessing = Preprocessing(store.info.resolution, image_size, network.mean, network.std)
    test = run_splits(store, classes=(), images_per_class=None, seed=0).test
    config = make_config()

    def evaluated(count: int) -> float:
        rows = SplitRows(test.store_split, test.rows[:count], test.labels[:count])
        batches = ImageBatches(store[rows.store_split], rows.rows, rows.labels, compute.device)
        began = time.perf_counter()
        collect(network, ImageInputs(batches, preprocessing, config, store.info.num_classes), rows, compute)
        return len(rows) / (time.perf_counter() - began)

    evaluated(min(images, _WARM_UP_IMAGES))
    rates = [evaluated(images) for _ in range(repeats)]
    return {
        "images_per_second": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "images": min(images, len(test)),
        "precision": compute.precision,
    }


if __name__ == "__main__":
    sys.exit(main())
