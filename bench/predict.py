"""From the bytes of a picture to its answer: the wait for one, and the rate for many.

    python -m bench.predict [--pixels 512] [--single 200] [--pictures 1000] [--json]

`ours` is what the Predict page and the command line call: decoding, squaring, the network, ranking the classes, a preview of each picture.
The pictures are JPEG files of `--pixels` pixels made from the source's test images. `ready_forward` and `bare_forward` are forward passes
of a batch that stays in memory (`bench.forward`): what is left when there is nothing to decode. All run on the best device there is.
"""

import argparse
import io
import statistics
import sys
import time
from typing import Any

from bench.common import Column, Row, add_ratios, add_source_option, add_timing_options, make_parser, report, run_contender, timing

OURS = "ours"
_JPEG_QUALITY = 90
_WARM_UP = 5
COLUMNS = (
    Column("model", "model"),
    Column("image_size", "px", "d"),
    Column("contender", "contender"),
    Column("precision", "precision"),
    Column("single_milliseconds", "one picture, ms", ".1f"),
    Column("single_worst_milliseconds", "worst, ms", ".1f"),
    Column("images_per_second", "images/s", ",.0f"),
    Column("ours_over_this", "ours is x times", ".2f"),
)


def main() -> int:
    options = _parser().parse_args()
    rows = [_measured(contender, options) for contender in (OURS, "ready_forward", "bare_forward")]
    add_ratios(rows, "images_per_second", OURS, ("model", "image_size"))
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any("error" in row for row in rows) else 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    add_source_option(parser)
    add_timing_options(parser, warm_up=5, steps=20)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128, help="image size of the network in px")
    parser.add_argument("--pixels", type=int, default=512, help="height and width of the pictures")
    parser.add_argument("--single", type=int, default=200, help="pictures answered one by one")
    parser.add_argument("--pictures", type=int, default=1_000, help="pictures answered in one go")
    parser.add_argument("--batch", type=int, default=128, help="of the forward passes")
    return parser


def _measured(contender: str, options: argparse.Namespace) -> Row:
    row: Row = {"model": options.model, "image_size": options.size, "contender": contender}
    settings: Row = {"source": options.source, "model": options.model, "image_size": options.size}
    if contender == OURS:
        settings |= {"pixels": options.pixels, "single": options.single, "pictures": options.pictures}
        return row | run_contender("bench.predict:ours", settings)
    settings |= {"device": "auto", "weights": "default", "batch": options.batch, "timing": timing(options)}
    return row | run_contender(f"bench.forward:{contender}", settings)


def ours(*, source: str, model: str, image_size: int, pixels: int, single: int, pictures: int) -> dict[str, Any]:
    """A predictor of pretrained stages under an untrained head: what it answers is worth nothing, how fast it answers is."""
    from cifar_tl.data.sources import prepare

    store = prepare(source)
    predictor = _predictor(store, source, model, image_size)
    files = _jpegs(store["test"].images_NHWC, max(single, pictures, 1), pixels)
    for file in files[:_WARM_UP]:
        list(predictor.answer([file]))
    waits = []
    for file in files[:single]:
        began = time.perf_counter()
        list(predictor.answer([file]))
        waits.append(1000 * (time.perf_counter() - began))
    began = time.perf_counter()
    answers = list(predictor.answer(files[:pictures]))
    seconds = time.perf_counter() - began
    assert not any(answer.error for answer in answers)
    return {
        "precision": predictor.compute.precision,
        "single_milliseconds": statistics.median(waits),
        "single_worst_milliseconds": max(waits),
        "images_per_second": pictures / seconds,
        "pixels": pixels,
    }


def _predictor(store: Any, source: str, model: str, image_size: int) -> Any:
    from bench.networks import plain_network
    from cifar_tl.config import make_config
    from cifar_tl.inference import Predictor
    from cifar_tl.runs.store import Preprocessing, RunManifest

    network = plain_network(model, "default", store.info.num_classes, image_size).eval()
    manifest = RunManifest(
        run_id="bench",
        created=time.time(),
        data_title=store.info.title,
        data_fingerprint=store.info.fingerprint,
        class_names=store.info.class_names,
        superclass_names=store.info.superclass_names,
        superclass_of_class=store.info.superclass_of_class,
        preprocessing=Preprocessing(store.info.resolution, image_size, network.mean, network.std),
        stage_names=tuple(network.stage_names),
        versions={},
    )
    return Predictor(make_config(source=source, backbone=model, image_size=image_size), manifest, network)


def _jpegs(images_NHWC: Any, count: int, pixels: int) -> list[tuple[str, bytes]]:
    """`count` files; test images are taken again from the start where there are fewer."""
    from PIL import Image

    files = []
    for number in range(count):
        picture = Image.fromarray(images_NHWC[number % len(images_NHWC)]).resize((pixels, pixels), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        files.append((f"{number}.jpg", buffer.getvalue()))
    return files


if __name__ == "__main__":
    sys.exit(main())
