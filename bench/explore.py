"""How long a look and a click keep the server, in each view of Explore.

    python -m bench.explore [--run demo-efficientnet_lite0-cifar100] [--classes 1000 --images 50000] [--json]

Runs the page's own code in Streamlit's test session (no browser, no network), as the first visitor of a fresh server and then once more
with another class chosen, which is what a click costs. First on a run that is there, then on one made up with many classes.
Exits 1 if a click takes longer than the budget on the run that is there.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import Column, Row, make_parser, report

BUDGET_MS = 300.0
_DEMO = "demo-efficientnet_lite0-cifar100"
COLUMNS = (
    Column("run", "run"),
    Column("view", "view"),
    Column("first_ms", "first, ms", ",.0f"),
    Column("click_ms", "click, ms", ",.0f"),
    Column("budget_ms", "budget, ms", ",.0f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--run", default=_DEMO, help=f"id of an evaluated run [{_DEMO}]")
    parser.add_argument("--classes", type=int, default=1000, help="of the run that is made up")
    parser.add_argument("--images", type=int, default=50_000, help="test images of the run that is made up")
    options = parser.parse_args()
    rows = [row | {"budget_ms": BUDGET_MS} for row in views_of(options.run, options.run)]
    with tempfile.TemporaryDirectory() as root:
        os.environ["CIFAR_TL_CHECKPOINTS"] = root
        make_run(Path(root), options.classes, options.images)
        rows += views_of("made", f"{options.images:,} images of {options.classes:,} classes")
    report(rows, COLUMNS, as_json=options.json)
    return 1 if any(row["click_ms"] > row.get("budget_ms", row["click_ms"]) for row in rows) else 0


def views_of(run_id: str, named: str) -> list[Row]:
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    from cifar_tl.paths import PROJECT_ROOT
    from cifar_tl.runs.store import find_run, read_manifest
    from cifar_tl.ui.pages.explore import VIEWS

    manifest = read_manifest(find_run(run_id))
    assert manifest is not None
    page = PROJECT_ROOT / "cifar_tl" / "ui" / "pages" / "explore.py"
    rows = []
    for view in VIEWS:
        st.cache_resource.clear()
        st.cache_data.clear()
        session = AppTest.from_file(page, default_timeout=600)
        _look_at(session, run=run_id, view=view, true=manifest.class_names[0])
        first = _milliseconds(session)
        _look_at(session, true=manifest.class_names[1], **{"class": manifest.class_names[1]})
        rows.append({"run": named, "view": view, "first_ms": first, "click_ms": _milliseconds(session)})
    return rows


def _look_at(session: Any, **address: str) -> None:
    for name, value in address.items():
        session.query_params[name] = value


def _milliseconds(session: Any) -> float:
    began = time.perf_counter()
    session.run()
    assert not session.exception, session.exception
    return 1000 * (time.perf_counter() - began)


def make_run(root: Path, num_classes: int, images: int) -> None:
    """The files that Explore reads, with answers of which two thirds are right."""
    import numpy as np

    from cifar_tl.config import make_config
    from cifar_tl.evaluation.arrays import Evaluation, save_evaluation
    from cifar_tl.paths import RunFolder
    from cifar_tl.runs.events import Completed, Phase
    from cifar_tl.runs.log import EventWriter
    from cifar_tl.runs.store import Preprocessing, RunManifest, write_json, write_manifest

    folder, random = RunFolder(root / "made"), np.random.default_rng(0)
    folder.path.mkdir()
    write_json(folder.config, make_config(source="cifar100").model_dump(mode="json"))
    groups = max(1, num_classes // 10)
    names = tuple(f"class {i}" for i in range(num_classes))
    manifest = RunManifest(
        run_id="made", created=0.0, data_title="Made", data_fingerprint="made", class_names=names,
        superclass_names=tuple(f"group {i}" for i in range(groups)), superclass_of_class=tuple(i % groups for i in range(num_classes)),
        preprocessing=Preprocessing(32, 128, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), stage_names=("stem", "head"),
    )  # fmt: skip
    write_manifest(folder, manifest)
    labels_N = np.arange(images) % num_classes
    is_right_N = random.random(images) < 2 / 3
    predicted_N = np.where(is_right_N, labels_N, random.integers(0, num_classes, images))
    top_NK = (predicted_N[:, None] + np.arange(5)) % num_classes
    probabilities_NC = np.zeros((images, num_classes), np.float16)
    np.put_along_axis(probabilities_NC, top_NK, np.array([0.6, 0.2, 0.1, 0.06, 0.04], np.float16)[None], 1)
    rows_N = np.arange(images, dtype=np.int64)
    save_evaluation(
        folder.evaluation_of("test"),
        Evaluation(labels_N.astype(np.int32), top_NK.astype(np.int32), probabilities_NC, rows_N=rows_N, store_split="test"),
    )
    with EventWriter(folder.events) as log:
        log.write(Phase(name="training", text="Training"))
        log.write(Completed(best_epoch=1, best_dev_accuracy=0.66, test_accuracy=0.66, test_top5=0.9, test_loss=1.5, seconds=1.0))


if __name__ == "__main__":
    sys.exit(main())
