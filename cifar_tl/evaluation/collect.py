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
from cifar_tl.group import ALONE, Group
from cifar_tl.models.build import Classifier

_TOP = 5
_LARGEST_FLOAT16 = 65504.0


class EvaluationInputs(Protocol):
    """What `training.inputs` offers for evaluation."""

    boundary: int
    labels_N: torch.Tensor
    evaluated_at_once: int  # images

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
    classifier: Classifier,
    inputs: EvaluationInputs,
    rows: SplitRows,
    compute: Compute,
    *,
    positions: np.ndarray | None = None,
    keep_embeddings: bool = True,
    progress: Callable[[int], None] | None = None,
    group: Group = ALONE,
) -> tuple[Metrics, Evaluation, np.ndarray]:
    """Metrics, arrays and float16 embeddings_NF (pooled features before the head) of a split, every image exactly once.

    `positions`: only these images of it, in this order. Without `keep_embeddings` there are none: 0 x 0. `progress(n)` hears of n more
    images done. The processes of a `group` share the work, and each has the whole result.
    """
    positions = np.arange(len(inputs)) if positions is None else positions
    logits_chunks: list[torch.Tensor] = []
    embeddings_NF, done = np.empty((0, 0), np.float16), 0
    own = positions[group.share(len(positions))]
    for logits, embeddings_V in _outputs(classifier, inputs, compute, own, progress):
        logits_chunks.append(logits.cpu())
        if not keep_embeddings:
            continue
        embeddings = _mean(embeddings_V)
        if not done:  # one array from the start: chunks that are joined at the end would take twice the memory
            embeddings_NF = np.empty((len(own), embeddings.shape[1]), np.float16)
        embeddings_NF[done : done + len(embeddings)] = embeddings.clamp(-_LARGEST_FLOAT16, _LARGEST_FLOAT16).half().cpu().numpy()
        done += len(embeddings)
    logits_NC, labels_N = group.gather(torch.cat(logits_chunks), len(positions)), inputs.labels_N.cpu()[positions]
    if keep_embeddings and group.size > 1:
        embeddings_NF = group.gather(torch.from_numpy(embeddings_NF), len(positions)).numpy()
    top_NK = logits_NC.topk(min(_TOP, logits_NC.shape[1]), dim=1).indices
    evaluation = Evaluation(
        labels_N=labels_N.numpy().astype(np.int32),
        top_classes_NK=top_NK.numpy().astype(np.int32),
        probabilities_NC=logits_NC.softmax(1).to(torch.float16).numpy(),
        rows_N=rows.rows[positions],
        store_split=rows.store_split,
    )
    return _metrics(logits_NC, labels_N, top_NK), evaluation, embeddings_NF


def measure(
    classifier: Classifier,
    inputs: EvaluationInputs,
    compute: Compute,
    positions: np.ndarray,
    *,
    progress: Callable[[int], None] | None = None,
    group: Group = ALONE,
) -> Metrics:
    """Metrics of the images at `positions`, shared and whole as in `collect`. `progress(n)` hears of n more images done."""
    own = positions[group.share(len(positions))]
    logits_NC = group.gather(
        torch.cat([logits.cpu() for logits, _ in _outputs(classifier, inputs, compute, own, progress)]), len(positions)
    )
    top_NK = logits_NC.topk(min(_TOP, logits_NC.shape[1]), dim=1).indices
    return _metrics(logits_NC, inputs.labels_N.cpu()[positions], top_NK)


@torch.inference_mode()
def _outputs(
    classifier: Classifier, inputs: EvaluationInputs, compute: Compute, positions: np.ndarray, progress: Callable[[int], None] | None
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """float32 logits, the mean over the views (the image, with flip averaging also its mirror image), and each view's embeddings."""
    classifier.eval()
    for chunk in in_order(len(positions), inputs.evaluated_at_once):
        views = inputs.evaluation_views(_filled_up(positions[chunk], inputs.evaluated_at_once, compute))
        with compute.autocast():
            embeddings_V = [classifier.suffix_features(view, inputs.boundary)[: len(chunk)] for view in views]
            logits_V = [classifier.head(embeddings) for embeddings in embeddings_V]
        yield _mean(logits_V), embeddings_V
        if progress:
            progress(len(chunk))


def _filled_up(positions: np.ndarray, size: int, compute: Compute) -> np.ndarray:
    """On a GPU the last batch is as large as the others, with images that do not count: for every other size cuDNN plans for seconds."""
    return np.resize(positions, size) if compute.device.type == "cuda" else positions


def _mean(views: list[torch.Tensor]) -> torch.Tensor:
    """float32."""
    return views[0].float() if len(views) == 1 else torch.stack(views).float().mean(0)


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
