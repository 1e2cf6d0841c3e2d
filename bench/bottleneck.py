"""Test accuracy on photos of test images: each enlarged, written as a file, and answered as an upload is.

    python -m bench.bottleneck [--run RUN_ID] [--images 10000] [--times 8] [--single-view] [--json]

`raw` are the stored pixels. `through the bottleneck` decodes the file and makes it as small as the stored images before the network
enlarges it, as the program does (`Predictor.square`); `bicubic` makes it so with the usual filter; `without` lets the network's input be
made of the photo itself. The last rows are of pictures that are no squares: of each image the middle rows, five eighths of them. All rows
are answered as the run was evaluated, or without mirror images. Exit code 1: through the bottleneck, accuracy of a bicubic enlargement
differs from raw by more than half a point.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from bench.common import Column, Row, make_parser, report
from cifar_tl.answers import Framing
from cifar_tl.data.decode import decode_image, to_square
from cifar_tl.data.sources import prepare
from cifar_tl.data.store import Split
from cifar_tl.inference import Predictor
from cifar_tl.runs.store import find_run

DEMO = "demo-efficientnet_lite0-cifar100"
PROMISED_DIFFERENCE = 0.005
_BATCH = 128
_JPEG_QUALITY = 90
COLUMNS = (
    Column("pictures", "pictures"),
    Column("file", "file"),
    Column("seen", "what the model sees"),
    Column("accuracy", "test accuracy", ".2%"),
    Column("difference", "against raw, points", "+.2f"),
    Column("seconds", "seconds", ".0f"),
)
See = Callable[[np.ndarray], np.ndarray]


def main() -> int:
    options = _parser().parse_args()
    predictor = Predictor.from_run(find_run(options.run).path)
    test = prepare(predictor.config.source, store_resolution=predictor.config.store_resolution, seed=predictor.config.seed)["test"]
    views = False if options.single_view else None
    rows = [row | _measured(predictor, test, options.images, views, see) for row, see in _contenders(predictor, options.times)]
    for row in rows:
        row["difference"] = 100 * (row["accuracy"] - rows[0]["accuracy"])
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any(abs(row["difference"]) > 100 * PROMISED_DIFFERENCE for row in rows[1:3]) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--run", default=DEMO, help="the run whose model answers")
    parser.add_argument("--images", type=int, default=10_000, help="of test, evenly spaced")
    parser.add_argument("--single-view", action="store_true", help="do not average mirror images, whatever the run was evaluated with")
    parser.add_argument("--times", type=int, default=8, help="how many times larger the photos are")
    return parser


def _contenders(predictor: Predictor, times: int) -> Iterator[tuple[Row, See]]:
    resolution = predictor.manifest.preprocessing.store_resolution

    def seen(image: np.ndarray, enlarge: str, format: str, framing: Framing = Framing.CENTER) -> np.ndarray:
        return predictor.square(_photo(image, times, enlarge, format), framing)

    yield {"pictures": "raw", "file": "", "seen": f"{resolution} px"}, lambda image: image
    for enlarge, format in (("bicubic", "PNG"), ("bicubic", "JPEG"), ("Lanczos", "PNG"), ("nearest", "PNG")):
        row = {"pictures": f"{times} times larger ({enlarge})", "file": format, "seen": f"{resolution} px, through the bottleneck"}
        yield row, lambda image, enlarge=enlarge, format=format: seen(image, enlarge, format)  # type: ignore[misc]
    row = {"pictures": f"{times} times larger (bicubic)", "file": "PNG"}
    yield (
        row | {"seen": f"{resolution} px, bicubic"},
        lambda image: to_square(decode_image(_photo(image, times, "bicubic", "PNG")), resolution),
    )
    yield (
        row | {"seen": f"{resolution * times} px, without"},
        lambda image: np.asarray(decode_image(_photo(image, times, "bicubic", "PNG"))),
    )
    rows = max(1, round(resolution * 3 / 16))
    for framing in Framing:
        row = {
            "pictures": "the same of 5/8 of their height",
            "file": "PNG",
            "seen": f"{framing.value.lower()} of it, through the bottleneck",
        }
        yield row, lambda image, framing=framing: seen(image[rows : resolution - rows], "bicubic", "PNG", framing)  # type: ignore[misc]


def _photo(image: np.ndarray, times: int, enlarge: str, format: str) -> bytes:
    height, width = image.shape[:2]
    buffer = io.BytesIO()
    large = Image.fromarray(image).resize((width * times, height * times), Image.Resampling[enlarge.upper()])
    large.save(buffer, format, **({"quality": _JPEG_QUALITY} if format == "JPEG" else {"compress_level": 1}))
    return buffer.getvalue()


def _measured(predictor: Predictor, test: Split, images: int, average_flips: bool | None, see: See) -> Row:
    rows = np.linspace(0, len(test) - 1, min(images, len(test))).astype(np.int64)
    began, right = time.perf_counter(), 0
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        squares = np.stack([see(np.array(image)) for image in test.images_NHWC[batch]])
        right += int((predictor.probabilities(squares, average_flips=average_flips).argmax(1) == test.labels_N[batch]).sum())
    print(f"{right / len(rows):.2%} of {len(rows):,}", file=sys.stderr, flush=True)
    return {"accuracy": right / len(rows), "images": len(rows), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    sys.exit(main())
