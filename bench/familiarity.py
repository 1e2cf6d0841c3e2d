"""Which number tells best that a picture is of no class at all: AUROC of a run's test images against pictures that are none of its classes.

    python -m bench.familiarity [--run demo-efficientnet_lite0-cifar100] [--images 1000] [--json]

The strangers are `shapes` (the program's own data set), noise (uniform, and normal around a colour) and scikit-learn's handwritten digits,
all at 32 px. `familiarity` is what Predict shows. An AUROC of 1 means that every stranger is told from every test image, 0.5 that
nothing is. `caught` is the share of strangers beyond what one dev image in twenty reaches, `refused` the share of test images beyond it.
"""

import sys
from typing import Any

import numpy as np

from bench.common import Column, Row, make_parser, report
from cifar_tl.data.sources import prepare
from cifar_tl.evaluation.embeddings import load_embeddings
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import find_run

_DEMO = "demo-efficientnet_lite0-cifar100"
_NEIGHBOURS = 10
_REFUSED = 0.05
_BATCH = 128
COLUMNS = (
    Column("number", "number"),
    Column("strangers", "strangers"),
    Column("images", "images", ",d"),
    Column("auroc", "AUROC", ".3f"),
    Column("caught", "caught", ".2f"),
    Column("refused", "refused", ".3f"),
)


def main() -> int:
    parser = make_parser(__doc__)
    parser.add_argument("--run", default=_DEMO, help=f"id of a run whose data are on this machine [{_DEMO}]")
    parser.add_argument("--images", type=int, default=1000, help="of shapes and of noise")
    options = parser.parse_args()
    report(measured(find_run(options.run), options.images), COLUMNS, as_json=options.json)
    return 0


def measured(folder: RunFolder, images: int) -> list[Row]:
    """A row for each number and each kind of strangers."""
    from sklearn.metrics import roc_auc_score

    from cifar_tl.inference import predictor_of

    predictor = predictor_of(folder.path)
    store = prepare(predictor.config.source)
    known = {name: _images_of(store, folder, name) for name in ("test", "dev")}
    sets = known | strangers(images, store.info.resolution)
    numbers = {name: _numbers(predictor, folder, of_set) for name, of_set in sets.items()}
    rows = []
    for number in numbers["test"]:
        test, limit = numbers["test"][number], np.quantile(numbers["dev"][number], _REFUSED)
        for name in sets.keys() - known.keys():
            values = numbers[name][number]
            is_known = np.concatenate([np.ones(len(test)), np.zeros(len(values))])
            rows.append(
                {
                    "number": number,
                    "strangers": name,
                    "images": len(values),
                    "auroc": float(roc_auc_score(is_known, np.concatenate([test, values]))),
                    "caught": float((values < limit).mean()),
                    "refused": float((test < limit).mean()),
                }
            )
    return sorted(rows, key=lambda row: (list(numbers["test"]).index(row["number"]), row["strangers"]))


def _images_of(store: Any, folder: RunFolder, split: str) -> np.ndarray:
    vectors = load_embeddings(folder.embeddings).splits.get(split)
    if vectors is not None:
        return np.asarray(store[vectors.store_split].images_NHWC[vectors.rows_N])
    from cifar_tl.evaluation.arrays import load_evaluation

    evaluation = load_evaluation(folder.evaluation_of(split))
    return np.asarray(store[evaluation.store_split].images_NHWC[evaluation.rows_N])


def strangers(images: int, resolution: int) -> dict[str, np.ndarray]:
    """uint8 n x H x W x 3 of each kind."""
    from PIL import Image
    from sklearn.datasets import load_digits

    random, half = np.random.default_rng(0), images // 2
    size = (resolution, resolution, 3)
    colours, spreads = random.uniform(60, 200, (images - half, 1, 1, 3)), random.uniform(10, 60, (images - half, 1, 1, 1))
    around = np.clip(random.normal(colours, spreads, (images - half, *size)), 0, 255).astype(np.uint8)
    digits = [Image.fromarray((digit * 255 / 16).astype(np.uint8)) for digit in load_digits().images]
    enlarged = [np.asarray(digit.resize((resolution, resolution), Image.Resampling.BICUBIC).convert("RGB")) for digit in digits]
    return {
        "shapes": np.asarray(prepare("shapes")["test"].images_NHWC[:images]),
        "noise": np.concatenate([random.integers(0, 256, (half, *size), np.uint8), around]),
        "digits": np.stack(enlarged),
    }


def _numbers(predictor: Any, folder: RunFolder, images_NHWC: np.ndarray) -> dict[str, np.ndarray]:
    """Of each image, the larger the more it is like the training images."""
    import torch

    chunks = [predictor.outputs(images_NHWC[start : start + _BATCH]) for start in range(0, len(images_NHWC), _BATCH)]
    probabilities_NC, features_NF = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    with torch.inference_mode():
        features = torch.from_numpy(features_NF).to(predictor.compute.device)
        energy = torch.logsumexp(predictor.classifier.head(features).float(), 1).cpu().numpy()
    embeddings, placing = load_embeddings(folder.embeddings), predictor.placing
    _, similarities = embeddings.nearest(placing.placed(features_NF), _NEIGHBOURS)
    return {
        "familiarity": -placing.residuals(features_NF),
        "largest probability": probabilities_NC.max(1),
        "energy": energy,
        f"nearest {_NEIGHBOURS} of {len(embeddings.splits['train']):,}": similarities.mean(1),
    }


if __name__ == "__main__":
    sys.exit(main())
