"""Predictor: a finished (or still training) run's best weights, ready to answer for pictures.

The same preprocessing as in training: decode, square at the stored resolution, then `to_model_input`. A CIFAR model sees an
upload through the same 32 pixels it learned from. Used by the command line and, in the prediction process, by the page.
"""

import io
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image

from cifar_tl.answers import Answer, RankedClass
from cifar_tl.config import RunConfig
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.decode import decode_image, to_square
from cifar_tl.devices import Compute, choose_compute
from cifar_tl.errors import ImageUnreadable, RunInvalid
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunManifest, read_config, read_manifest
from cifar_tl.training.checkpoint import load_weights

_BATCH = 32  # images decoded and held at once
_PREVIEW_PIXELS = 256


def load_classifier(folder: RunFolder) -> tuple[RunConfig, RunManifest, Classifier]:
    """The run's network with its best weights, on the CPU, in evaluation mode. Raises RunInvalid."""
    config, manifest = read_config(folder), read_manifest(folder)
    if manifest is None:
        raise RunInvalid(f"Run {folder.run_id} has not come as far as having a model.")
    classifier = build_classifier(
        config.backbone, weights="none", num_classes=len(manifest.class_names), image_size=config.image_size, dropout=config.dropout
    )
    load_weights(folder.best_weights, classifier)
    return config, manifest, classifier.eval()


def compute_for(config: RunConfig) -> Compute:
    """The best device here, at the run's precision where that device has it."""
    compute = choose_compute("auto", "auto")
    if config.precision in ("auto", compute.precision) or (config.precision == "fp16" and compute.device.type == "cpu"):
        return compute
    return Compute(compute.device, config.precision)


class Predictor:
    """Answers for pictures. `classifier` sits on `compute.device` in evaluation mode."""

    def __init__(self, config: RunConfig, manifest: RunManifest, classifier: Classifier) -> None:
        self.config = config
        self.manifest = manifest
        self.compute = compute_for(config)
        self.classifier = classifier.ready(self.compute.device, config.image_size)

    @classmethod
    def from_run(cls, path: Path) -> Self:
        """Raises RunInvalid if the run has no usable weights."""
        return cls(*load_classifier(RunFolder(path)))

    @torch.inference_mode()
    def probabilities(self, squares_BHWC: np.ndarray) -> np.ndarray:
        """uint8 squares at the stored resolution -> float32 B x num_classes."""
        images = torch.from_numpy(squares_BHWC).to(self.compute.device).permute(0, 3, 1, 2)
        views = [images, images.flip(-1)] if self.config.average_flips else [images]  # as the run was evaluated
        with self.compute.autocast():
            logits_V = [self.classifier(to_model_input(view, self.manifest.preprocessing)) for view in views]
        return torch.stack(logits_V).float().mean(0).softmax(1).cpu().numpy()

    def predict(self, pictures: Sequence[Image.Image], top_k: int = 5) -> list[tuple[RankedClass, ...]]:
        """The `top_k` classes of each RGB picture, most probable first."""
        resolution = self.manifest.preprocessing.store_resolution
        probabilities = self.probabilities(np.stack([to_square(picture, resolution) for picture in pictures]))
        return [self._ranked(row, top_k) for row in probabilities]

    def _ranked(self, probabilities_C: np.ndarray, top_k: int) -> tuple[RankedClass, ...]:
        names, superclasses = self.manifest.class_names, self.manifest.superclass_names
        best = np.argsort(-probabilities_C, kind="stable")[:top_k]
        return tuple(
            RankedClass(names[i], superclasses[self.manifest.superclass_of_class[i]] if superclasses else None, float(probabilities_C[i]))
            for i in best
        )

    def answer(self, files: Sequence[tuple[str, bytes | Path]], top_k: int = 5) -> Iterator[Answer]:
        """One answer per file, in order; a file that is no picture answers with its error. Memory is bounded by the batch."""
        for start in range(0, len(files), _BATCH):
            began = time.perf_counter()
            names = [name for name, _ in files[start : start + _BATCH]]
            opened = [_open(data) for _, data in files[start : start + _BATCH]]
            pictures = [picture for picture in opened if isinstance(picture, Image.Image)]
            ranked = iter(self.predict(pictures, top_k) if pictures else [])
            seconds = (time.perf_counter() - began) / len(names)
            for name, picture in zip(names, opened, strict=True):
                if isinstance(picture, str):
                    yield Answer(name, error=picture, seconds=seconds)
                else:
                    yield Answer(name, next(ranked), preview_png=_preview(picture), seconds=seconds)


def _open(data: bytes | Path) -> Image.Image | str:
    """The picture, or why there is none."""
    try:
        return decode_image(data)
    except ImageUnreadable as error:
        return str(error)


def _preview(picture: Image.Image) -> bytes:
    small = picture.copy()
    small.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()


@lru_cache(maxsize=2)
def _cached_predictor(path: Path, weights_changed: int) -> Predictor:  # noqa: ARG001  part of the key: a running run gets better weights
    return Predictor.from_run(path)


def predictor_of(path: Path) -> Predictor:
    """The predictor of the run in folder `path`; the last two stay loaded. Raises RunInvalid."""
    weights = RunFolder(path).best_weights
    if not weights.is_file():
        raise RunInvalid(f"Run {path.name} has no weights yet: it has not finished an epoch.")
    return _cached_predictor(path, weights.stat().st_mtime_ns)


def predict_files(run_path: str, files: list[tuple[str, bytes]], top_k: int = 5) -> list[Answer]:
    """For the prediction process: answers of the run in `run_path`. Raises RunInvalid."""
    return list(predictor_of(Path(run_path)).answer(files, top_k))
