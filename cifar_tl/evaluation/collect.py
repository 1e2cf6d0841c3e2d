"""Run a classifier over a split and keep what it says: one pass gives metrics and the arrays that Explore reads."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from cifar_tl.data.batches import in_order
from cifar_tl.data.splits import SplitRows
from cifar_tl.devices import Compute
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.models.build import Classifier

_BATCH = 256
_TOP = 5


class EvaluationInputs(Protocol):
    """What `training.inputs` offers for evaluation."""

    boundary: int
    labels_N: torch.Tensor

    def __len__(self) -> int: ...

    def evaluation_views(self, positions: np.ndarray) -> list[torch.Tensor]: ...


@dataclass(frozen=True)
class Metrics:
    """Of one split: mean cross-entropy in nats, accuracies as fractions. Classes without images have accuracy None."""

    loss: float
    accuracy: float
    top5: float
    accuracy_per_class: list[float | None]


def collect(
    classifier: Classifier, inputs: EvaluationInputs, rows: SplitRows, compute: Compute, *, progress: Callable[[int], None] | None = None
) -> tuple[Metrics, Evaluation]:
    """Metrics and arrays of a whole split, every image exactly once. `progress(n)` hears of n more images done."""
    logits_chunks, embedding_chunks = [], []
    for logits, embeddings in _outputs(classifier, inputs, compute, np.arange(len(inputs)), progress):
        logits_chunks.append(logits.cpu())
        embedding_chunks.append(embeddings.to("cpu", torch.float16))
    logits_NC, labels_N = torch.cat(logits_chunks), inputs.labels_N.cpu()
    top_NK = logits_NC.topk(min(_TOP, logits_NC.shape[1]), dim=1).indices
    evaluation = Evaluation(
        labels_N=labels_N.numpy().astype(np.int32),
        top_classes_NK=top_NK.numpy().astype(np.int32),
        probabilities_NC=logits_NC.softmax(1).to(torch.float16).numpy(),
        embeddings_NF=torch.cat(embedding_chunks).numpy(),
        rows_N=rows.rows,
        store_split=rows.store_split,
    )
    return _metrics(logits_NC, labels_N, top_NK), evaluation


def measure(
    classifier: Classifier,
    inputs: EvaluationInputs,
    compute: Compute,
    positions: np.ndarray,
    *,
    progress: Callable[[int], None] | None = None,
) -> Metrics:
    """Metrics of the images at `positions`. `progress(n)` hears of n more images done."""
    logits_NC = torch.cat([logits.cpu() for logits, _ in _outputs(classifier, inputs, compute, positions, progress)])
    top_NK = logits_NC.topk(min(_TOP, logits_NC.shape[1]), dim=1).indices
    return _metrics(logits_NC, inputs.labels_N.cpu()[positions], top_NK)


@torch.inference_mode()
def _outputs(
    classifier: Classifier, inputs: EvaluationInputs, compute: Compute, positions: np.ndarray, progress: Callable[[int], None] | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """float32 logits and embeddings, batch by batch: means over the views (the image, with flip averaging also its mirror image)."""
    classifier.eval()
    for chunk in in_order(len(positions), _BATCH):
        views = inputs.evaluation_views(positions[chunk])
        with compute.autocast():
            embeddings_V = [classifier.suffix_features(view, inputs.boundary) for view in views]
            logits_V = [classifier.head(embeddings) for embeddings in embeddings_V]
        yield torch.stack(logits_V).float().mean(0), torch.stack(embeddings_V).float().mean(0)
        if progress:
            progress(len(chunk))


def _metrics(logits_NC: torch.Tensor, labels_N: torch.Tensor, top_NK: torch.Tensor) -> Metrics:
    is_right = (top_NK[:, 0] == labels_N).numpy()
    images = np.bincount(labels_N.numpy(), minlength=logits_NC.shape[1])
    right = np.bincount(labels_N.numpy(), weights=is_right, minlength=logits_NC.shape[1])
    return Metrics(
        loss=float(F.cross_entropy(logits_NC, labels_N)),
        accuracy=float(is_right.mean()),
        top5=float((top_NK == labels_N[:, None]).any(1).float().mean()),
        accuracy_per_class=[float(r / n) if n else None for r, n in zip(right, images, strict=True)],
    )
