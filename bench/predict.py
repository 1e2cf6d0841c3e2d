"""From the bytes of a picture to its answer: the wait for one, and the rate for many.

    python -m bench.predict [--pixels 512] [--single 200] [--pictures 1000] [--json]

`ours` is what the Predict page and the command line call: checking and decoding the file, squaring, the network, ranking classes and
superclasses, how familiar it is, a preview of each picture and what the model saw of it. The pictures are JPEG files of `--pixels` pixels
made from the source's test images. `ready_forward` and `bare_forward` are forward passes of a batch that stays in memory (`bench.forward`):
what is left when there is nothing to decode. All run on the best device there is. Memory is how much more the process takes at its peak
while it answers all pictures than after it answered a tenth of them. Exit code 1: a row failed, one warm picture takes over 40 ms, or many
go at less than nine tenths of `bare_forward`'s rate.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import Column, Row, add_ratios, add_source_option, add_timing_options, make_parser, report, run_contender, timing

OURS = "ours"
_JPEG_QUALITY = 90
_WARM_UP = 5
_COMPONENTS = 64
PROMISED_MILLISECONDS, PROMISED_SHARE = 40.0, 0.9
COLUMNS = (
    Column("model", "model"),
    Column("image_size", "px", "d"),
    Column("contender", "contender"),
    Column("precision", "precision"),
    Column("single_milliseconds", "one picture, ms", ".1f"),
    Column("single_worst_milliseconds", "worst, ms", ".1f"),
    Column("images_per_second", "images/s", ",.0f"),
    Column("ours_over_this", "ours is x times", ".2f"),
    Column("more_memory_mb", "more memory, MB", ".0f"),
)


def main() -> int:
    options = _parser().parse_args()
    rows = [_measured(contender, options) for contender in (OURS, "ready_forward", "bare_forward")]
    add_ratios(rows, "images_per_second", OURS, ("model", "image_size"))
    report(rows, COLUMNS, as_json=options.json)
    return 0 if _keeps_promises(rows) else 1


def _keeps_promises(rows: Sequence[Row]) -> bool:
    if any("error" in row for row in rows):
        return False
    mine, bare = rows[0], rows[-1]
    return mine["single_milliseconds"] <= PROMISED_MILLISECONDS and bare["ours_over_this"] >= PROMISED_SHARE


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
    with tempfile.TemporaryDirectory() as folder:
        return _answered(Path(folder), source, model, image_size, pixels, single, pictures)


def _answered(folder: Path, source: str, model: str, image_size: int, pixels: int, single: int, pictures: int) -> dict[str, Any]:
    import psutil

    from cifar_tl.data.sources import prepare

    store = prepare(source)
    predictor = _predictor(store, source, model, image_size, folder)
    files = _jpegs(store["test"].images_NHWC, max(single, pictures, 1), pixels)
    for file in files[:_WARM_UP]:
        list(predictor.answer([file]))
    waits = []
    for file in files[:single]:
        began = time.perf_counter()
        list(predictor.answer([file]))
        waits.append(1000 * (time.perf_counter() - began))
    assert not any(answer.error for answer in predictor.answer(files[: pictures // 10]))
    before, most = psutil.Process().memory_info().rss, 0
    began = time.perf_counter()
    for number, answer in enumerate(predictor.answer(files[:pictures])):
        assert answer.familiarity is not None
        most = max(most, psutil.Process().memory_info().rss) if number % 50 == 0 else most
    seconds = time.perf_counter() - began
    return {
        "precision": predictor.compute.precision,
        "single_milliseconds": statistics.median(waits),
        "single_worst_milliseconds": max(waits),
        "images_per_second": pictures / seconds,
        "pixels": pixels,
        "more_memory_mb": max(0, most - before) / 1e6,
    }


def _predictor(store: Any, source: str, model: str, image_size: int, folder: Path) -> Any:
    from bench.networks import plain_network
    from cifar_tl.config import make_config
    from cifar_tl.inference import Predictor
    from cifar_tl.paths import RunFolder
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
    run = RunFolder(folder)
    _write_embeddings(run, network.feature_dim)
    return Predictor(make_config(source=source, backbone=model, image_size=image_size), manifest, network, run)


def _write_embeddings(run: Any, features: int) -> None:
    """Made up, so that familiarity is computed as for a run that was described."""
    import numpy as np

    from cifar_tl.evaluation.embeddings import Axes, Embeddings, SplitVectors, save_embeddings

    none = SplitVectors(np.zeros((0, _COMPONENTS), np.float16), np.zeros(0, np.int32), np.zeros(0, np.int64), "test")
    axes = Axes(np.zeros(features, np.float32), np.eye(features, _COMPONENTS, dtype=np.float16), 1.0)
    save_embeddings(run.embeddings, Embeddings({"test": none}, 0.5, axes, np.linspace(0, 1, 5000, dtype=np.float32)))


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
