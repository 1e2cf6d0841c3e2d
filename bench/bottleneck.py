"""Whether large pictures should go through the small resolution that a model learned from: accuracy on enlarged test images.

    python -m bench.bottleneck [--run demo-efficientnet_lite0-cifar100] [--times 8] [--json]

Every test image is enlarged, every pixel repeated (as this program shows them), and answered as Predict does, which reduces it to the stored
resolution first; then without that, resized from the enlarged one straight to the network's input. The same with images enlarged smoothly (bicubic), which
loses what reducing cannot bring back. Exit code 1: the first is more than 0.5 points from the raw images.
"""

import argparse
import sys
from typing import Any

import numpy as np
from PIL import Image

from bench.common import Column, Row, make_parser, report
from cifar_tl.data.sources import prepare
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.runs.store import find_run

_DEMO = "demo-efficientnet_lite0-cifar100"
_BATCH = 128
_ALLOWED_POINTS = 0.5
COLUMNS = (
    Column("what", "test images"),
    Column("pixels", "px", "d"),
    Column("images", "images", ",d"),
    Column("accuracy", "accuracy", ".2%"),
    Column("points", "points from raw", "+.2f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--run", default=_DEMO, help=f"id of a run whose data are on this machine [{_DEMO}]")
    parser.add_argument("--times", type=int, default=8, help="how many times as wide the pictures are")
    parser.add_argument("--images", type=int, default=0, help="only the first ones [all]")
    rows = measured(parser.parse_args())
    report(rows, COLUMNS, as_json=parser.parse_args().json)
    return 1 if abs(rows[1]["points"]) > _ALLOWED_POINTS else 0


def measured(options: argparse.Namespace) -> list[Row]:
    from cifar_tl.data.decode import to_square
    from cifar_tl.inference import predictor_of

    folder = find_run(options.run)
    predictor = predictor_of(folder.path)
    evaluation = load_evaluation(folder.evaluation_of("test"))
    count = options.images or len(evaluation)
    images_NHWC = prepare(predictor.config.source)[evaluation.store_split].images_NHWC
    resolution = predictor.manifest.preprocessing.store_resolution
    side = resolution * options.times

    def enlarged(rows: np.ndarray, how: Image.Resampling) -> list[Image.Image]:
        return [Image.fromarray(images_NHWC[row]).resize((side, side), how) for row in rows]

    ways: dict[str, Any] = {"raw": lambda rows: np.asarray(images_NHWC[rows])}
    for word, how in (("pixels repeated", Image.Resampling.NEAREST), ("smoothly", Image.Resampling.BICUBIC)):
        ways[f"{word}, as Predict answers"] = lambda rows, how=how: np.stack([to_square(big, resolution) for big in enlarged(rows, how)])
        ways[f"{word}, straight to the network"] = lambda rows, how=how: np.stack([np.asarray(big) for big in enlarged(rows, how)])
    rows: list[Row] = []
    for what, squares in ways.items():
        chunks = [evaluation.rows_N[start : min(start + _BATCH, count)] for start in range(0, count, _BATCH)]
        hits = np.concatenate([predictor.probabilities(squares(chunk)).argmax(1) for chunk in chunks]) == evaluation.labels_N[:count]
        accuracy = float(hits.mean())
        points = 100 * (accuracy - rows[0]["accuracy"]) if rows else 0.0
        pixels = resolution if what == "raw" else side
        rows.append({"what": what, "pixels": pixels, "images": count, "accuracy": accuracy, "points": points})
    return rows


if __name__ == "__main__":
    sys.exit(main())
