"""The run that is shipped: whole, small, as good as the README says, and ready to be explored and to predict."""

import io

import numpy as np
import pytest
from PIL import Image

from cifar_tl.evaluation.analysis import accuracy
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.embeddings import TSNE, load_embeddings, load_map
from cifar_tl.inference import Predictor
from cifar_tl.paths import PROJECT_ROOT, RunFolder
from cifar_tl.presets import preset
from cifar_tl.runs.store import RunStatus, read_config, read_manifest
from cifar_tl.runs.summary import summarize

DEMO = RunFolder(PROJECT_ROOT / "checkpoints" / "demo-efficientnet_lite0-cifar100")
MOST_BYTES_OF_WEIGHTS = 10_000_000
MOST_BYTES = 20_000_000


@pytest.fixture(autouse=True)
def roots(monkeypatch):
    monkeypatch.setenv("CIFAR_TL_CHECKPOINTS", str(DEMO.path.parent))


def test_it_is_a_completed_run_of_the_preset():
    row = summarize(DEMO.run_id)
    assert (row.status, row.problem) == (RunStatus.COMPLETED, "")
    config = read_config(DEMO)
    assert {name: getattr(config, name) for name in preset("Best accuracy").values} == preset("Best accuracy").values
    assert config.source == "cifar100"


def test_it_is_small():
    assert DEMO.best_weights.stat().st_size < MOST_BYTES_OF_WEIGHTS
    assert sum(path.stat().st_size for path in DEMO.path.rglob("*") if path.is_file()) < MOST_BYTES


def test_its_evaluation_is_of_the_whole_test_set_and_says_what_its_log_says():
    evaluation, manifest = load_evaluation(DEMO.evaluation_of("test")), read_manifest(DEMO)
    assert manifest
    assert len(manifest.class_names) == 100
    assert np.bincount(evaluation.labels_N).tolist() == [100] * 100
    assert accuracy(evaluation).fraction == pytest.approx(summarize(DEMO.run_id).test_accuracy)


def test_the_readme_states_its_accuracy_and_interval():
    share = accuracy(load_evaluation(DEMO.evaluation_of("test")))
    low, high = share.interval
    stated = f"**{100 * share.fraction:.1f} %** ({100 * low:.1f} to {100 * high:.1f})"
    assert stated in (PROJECT_ROOT / "README.md").read_text("utf-8")


def test_it_answers_for_a_picture():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)).save(buffer, "PNG")
    (answer,) = Predictor.from_run(DEMO.path).answer([("noise.png", buffer.getvalue())])
    assert not answer.error
    assert len(answer.classes) == 5
    assert sum(item.probability for item in answer.classes) <= 1 + 1e-6
    assert answer.familiarity == 0  # noise is like nothing it knows


def test_it_knows_how_unlike_its_dev_images_are():
    found = load_embeddings(DEMO.embeddings)
    assert found.axes
    assert found.dev_unlikeness_N is not None
    assert len(found.dev_unlikeness_N) == len(load_evaluation(DEMO.evaluation_of("dev")))
    assert found.axes.axes_FD.shape == (1280, 64)


def test_every_view_of_explore_has_what_it_needs():
    drawn, embeddings = load_map(DEMO.embedding_map), load_embeddings(DEMO.embeddings)
    assert drawn.method == TSNE
    assert len(drawn.splits["test"]) == len(embeddings.splits["test"]) == 10_000
    train = load_evaluation(DEMO.evaluation_of("train"))
    assert train.rows_N.tolist() == drawn.splits["train"].rows_N.tolist() == embeddings.splits["train"].rows_N.tolist()
    dev = load_evaluation(DEMO.evaluation_of("dev"))
    assert accuracy(dev).fraction == pytest.approx(summarize(DEMO.run_id).best_dev_accuracy)
