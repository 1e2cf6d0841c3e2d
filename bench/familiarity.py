"""How well pictures of no class are told from pictures of the classes a model knows: AUROC of test images against others.

    python -m bench.familiarity [--run RUN_ID] [--images 10000] [--json]

Others are the built-in `shapes`, noise (of two kinds, uniform and normal around a colour) and the digits of scikit-learn, made as large as
the stored images. 0.5 is chance, 1 perfect. "Caught" is the share of them that is more unlike than 95 % of dev, and so would be called none
of the classes by a threshold that wrongly calls one in twenty so. `ours` is `evaluation.familiarity`; what the others are:

    max probability     of the softmax (Hendrycks and Gimpel 2017)
    max logit           (Hendrycks et al. 2022)
    energy              log of the sum of the logits' exponentials (Liu et al. 2020)
    nearest, 10 nearest mean cosine to training images, among embeddings (Sun et al. 2022)
    class centres       Mahalanobis distance to the nearest, among embeddings (Lee et al. 2018)

Dev images come from the run's own data. The embeddings are those of the run's folder, so a run that was shrunk has few to be near to.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bench.bottleneck import DEMO
from bench.common import Column, Row, make_parser, report
from cifar_tl.data.progress import tell_nobody
from cifar_tl.evaluation.embeddings import Embeddings, load_embeddings
from cifar_tl.evaluation.evaluate import Reopened, reopen
from cifar_tl.evaluation.familiarity import unlikeness
from cifar_tl.inference import Predictor
from cifar_tl.runs.store import find_run

OURS = "off the axes (ours)"
OTHERS = ("shapes", "noise", "digits")
_BATCH = 128
_RIDGE = 1e-3
_THRESHOLD = 0.95  # share of dev images that are let pass
COLUMNS = (
    Column("contender", "contender"),
    *(Column(f"{name}_auroc", f"{name}, AUROC", ".3f") for name in OTHERS),
    *(Column(f"{name}_caught", f"{name} caught", ".1%") for name in OTHERS),
    Column("test_refused", "test refused", ".1%"),
)


@dataclass(frozen=True)
class Seen:
    """What a network makes of pictures: float32 logits_NC, features_NF."""

    logits_NC: np.ndarray
    features_NF: np.ndarray


def main() -> int:
    from sklearn.metrics import roc_auc_score

    options = _parser().parse_args()
    folder = find_run(options.run)
    reopened = reopen(folder, progress=tell_nobody)
    embeddings = load_embeddings(folder.embeddings)
    seen = {name: _seen(reopened.predictor, squares) for name, squares in _pictures(reopened, options.images).items()}
    rows: list[Row] = []
    for contender, values in _unlikeness(seen, embeddings).items():
        row: Row = {"contender": contender, "threshold": float(np.quantile(values["dev"], _THRESHOLD))}
        for name in OTHERS:
            is_other = np.r_[np.zeros(len(values["test"])), np.ones(len(values[name]))]
            row[f"{name}_auroc"] = float(roc_auc_score(is_other, np.r_[values["test"], values[name]]))
            row[f"{name}_caught"] = float((values[name] > row["threshold"]).mean())
        rows.append(row | {"test_refused": float((values["test"] > row["threshold"]).mean())})
    report(rows, COLUMNS, as_json=options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(__doc__)
    parser.add_argument("--run", default=DEMO, help="the run whose model answers")
    parser.add_argument("--images", type=int, default=10_000, help="at most, of each kind")
    return parser


def _pictures(reopened: Reopened, most: int) -> dict[str, np.ndarray]:
    """uint8 N x H x W x 3 at the stored resolution."""
    from PIL import Image
    from sklearn.datasets import load_digits

    from cifar_tl.data.decode import to_square
    from cifar_tl.data.sources import prepare

    resolution = reopened.predictor.manifest.preprocessing.store_resolution
    random = np.random.default_rng(0)
    shape = (500, resolution, resolution, 3)
    colours, spreads = random.uniform(60, 200, (500, 1, 1, 3)), random.uniform(10, 60, (500, 1, 1, 1))
    noise = [random.integers(0, 256, shape), np.clip(random.normal(colours, spreads, shape), 0, 255)]
    others = {
        "shapes": [to_square(Image.fromarray(image), resolution) for image in prepare("shapes")["test"].images_NHWC],
        "digits": [
            to_square(Image.fromarray((digit * 255 / 16).astype(np.uint8)).convert("RGB"), resolution) for digit in load_digits().images
        ],
    }
    found = {name: np.stack(images) for name, images in others.items()} | {"noise": np.concatenate(noise).astype(np.uint8)}
    for name in ("dev", "test"):
        rows = getattr(reopened.splits, name)
        found[name] = reopened.store[rows.store_split].images_NHWC[rows.rows]
    return {name: images[np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)] for name, images in found.items()}


def _seen(predictor: Predictor, squares_NHWC: np.ndarray) -> Seen:
    batches = [predictor.outputs(squares_NHWC[start : start + _BATCH]) for start in range(0, len(squares_NHWC), _BATCH)]
    print(f"{len(squares_NHWC):,} pictures seen", file=sys.stderr, flush=True)
    return Seen(np.concatenate([logits for logits, _ in batches]), np.concatenate([features for _, features in batches]))


def _unlikeness(seen: Mapping[str, Seen], embeddings: Embeddings) -> dict[str, dict[str, np.ndarray]]:
    """Contender -> pictures -> float N, larger for what is less like the training images."""
    axes = embeddings.axes
    if axes is None:
        raise SystemExit("The run was described by an older version. Describe it again: python -m cifar_tl describe RUN_ID")
    centres_CD, precision_DD = _class_centres(embeddings)
    ways = {
        OURS: lambda of: unlikeness(of.features_NF, axes),
        "max probability": lambda of: -_softmax(of.logits_NC).max(1),
        "max logit": lambda of: -of.logits_NC.max(1),
        "energy": lambda of: -_energy(of.logits_NC),
        "nearest": lambda of: -embeddings.nearest(axes.placed(of.features_NF), 1)[1].mean(1),
        "10 nearest": lambda of: -embeddings.nearest(axes.placed(of.features_NF), 10)[1].mean(1),
        "class centres": lambda of: _distances(axes.placed(of.features_NF), centres_CD, precision_DD),
    }
    return {contender: {name: way(of) for name, of in seen.items()} for contender, way in ways.items()}


def _softmax(logits_NC: np.ndarray) -> np.ndarray:
    exponentials_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    probabilities_NC: np.ndarray = exponentials_NC / exponentials_NC.sum(1, keepdims=True)
    return probabilities_NC


def _energy(logits_NC: np.ndarray) -> np.ndarray:
    highest_N = logits_NC.max(1)
    energies_N: np.ndarray = highest_N + np.log(np.exp(logits_NC - highest_N[:, None]).sum(1))
    return energies_N


def _class_centres(embeddings: Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the classes that have images, and the inverse of the scatter around them."""
    train = embeddings.splits["train"]
    centres_CD = embeddings.class_centres(int(train.labels_N.max()) + 1)
    around_ND = train.vectors_ND.astype(np.float32) - centres_CD[train.labels_N]
    scatter_DD = np.cov(around_ND.T) + _RIDGE * np.eye(around_ND.shape[1])
    return centres_CD[~np.isnan(centres_CD[:, 0])], np.linalg.inv(scatter_DD)


def _distances(vectors_ND: np.ndarray, centres_CD: np.ndarray, precision_DD: np.ndarray) -> np.ndarray:
    """Squared, to the nearest centre."""
    nearest_N = np.full(len(vectors_ND), np.inf)
    for centre_D in centres_CD:
        gaps_ND = vectors_ND - centre_D
        nearest_N = np.minimum(nearest_N, ((gaps_ND @ precision_DD) * gaps_ND).sum(1))
    return nearest_N


if __name__ == "__main__":
    sys.exit(main())
