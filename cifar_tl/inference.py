"""Predictor: a finished (or still training) run's best weights, ready to answer for pictures.

The same preprocessing as in training: decode, square at the stored resolution, then `to_model_input`. A CIFAR model sees an
upload through the same 32 pixels it learned from. Used by the command line and, in the prediction process, by the page.
"""

import io
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image

from cifar_tl.answers import AS_EVALUATED, Answer, Asked, Framing, RankedClass, RankedSuperclass
from cifar_tl.config import RunConfig
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.decode import decode_image, on_white_square, to_square
from cifar_tl.devices import Compute, choose_compute
from cifar_tl.errors import CifarTLError, ImageUnreadable, RunInvalid
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.calibration import fit_temperature
from cifar_tl.evaluation.embeddings import load_embeddings
from cifar_tl.evaluation.placing import Placing
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunManifest, read_config, read_manifest
from cifar_tl.training.checkpoint import load_weights

_BATCH = 32  # images decoded and held at once
_DECODERS = min(8, os.cpu_count() or 1)  # threads
_PREVIEW_PIXELS = 256
_PREVIEW_QUALITY = 85


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
    """Answers for pictures. `classifier` sits on `compute.device` in evaluation mode.

    `temperature` divides the logits, so that probabilities say how often they are right; 1 without dev answers to fit it on. `placing`
    tells how unlike the training images a picture is; None for runs that were not described.
    """

    def __init__(
        self, config: RunConfig, manifest: RunManifest, classifier: Classifier, temperature: float = 1.0, placing: Placing | None = None
    ) -> None:
        self.config = config
        self.manifest = manifest
        self.temperature = temperature
        self.placing = placing
        self.compute = compute_for(config)
        self.classifier = classifier.ready(self.compute.device, config.image_size)
        self._superclasses_SC = _members(manifest)

    @classmethod
    def from_run(cls, path: Path) -> Self:
        """Raises RunInvalid if the run has no usable weights. What else is missing or damaged, the answers are without."""
        folder = RunFolder(path)
        return cls(*load_classifier(folder), _temperature(folder), _placing(folder))

    @torch.inference_mode()
    def outputs(self, squares_BHWC: np.ndarray, *, average_flips: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(probabilities B x C, pooled features B x F), float32, of uint8 squares at the stored resolution."""
        images = torch.from_numpy(squares_BHWC).to(self.compute.device).permute(0, 3, 1, 2)
        is_averaged = self.config.average_flips if average_flips is None else average_flips  # else as the run was evaluated
        views = [images, images.flip(-1)] if is_averaged else [images]
        with self.compute.autocast():
            features_V = [self.classifier.features(to_model_input(view, self.manifest.preprocessing)) for view in views]
            logits_V = [self.classifier.head(features) for features in features_V]
        logits_BC = torch.stack(logits_V).float().mean(0) / self.temperature
        return logits_BC.softmax(1).cpu().numpy(), torch.stack(features_V).float().mean(0).cpu().numpy()

    def probabilities(self, squares_BHWC: np.ndarray, *, average_flips: bool | None = None) -> np.ndarray:
        """uint8 squares at the stored resolution -> float32 B x C."""
        return self.outputs(squares_BHWC, average_flips=average_flips)[0]

    def square(self, data: bytes | Path, framing: Framing = Framing.CENTER) -> np.ndarray:
        """uint8 H x W x 3: what the network sees of a picture, before it is enlarged to its input. Raises ImageUnreadable."""
        return self._square(decode_image(data), framing)

    def _square(self, picture: Image.Image, framing: Framing) -> np.ndarray:
        framed = on_white_square(picture) if framing is Framing.WHOLE else picture
        return to_square(framed, self.manifest.preprocessing.store_resolution)

    def answer(self, files: Sequence[tuple[str, bytes | Path]], asked: Asked = AS_EVALUATED) -> Iterator[Answer]:
        """One answer per file, in order; a file that is no picture answers with its error. Memory is bounded by two batches.

        Threads decode the next batch while the network runs on this one.
        """
        batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
        began = time.perf_counter()
        with ThreadPoolExecutor(_DECODERS) as pool:
            opening = [pool.submit(self._open, data, asked.framing) for _, data in batches[0]] if batches else []
            for number, batch in enumerate(batches):
                coming = batches[number + 1] if number + 1 < len(batches) else []
                opened = [future.result() for future in opening]
                opening = [pool.submit(self._open, data, asked.framing) for _, data in coming]
                answers = self._answered([name for name, _ in batch], opened, asked)
                seconds, began = (time.perf_counter() - began) / len(batch), time.perf_counter()
                yield from (replace(answer, seconds=seconds) for answer in answers)

    def _open(self, data: bytes | Path, framing: Framing) -> "_Opened | str":
        """What is needed of a picture, or why there is none. The picture itself, which may be large, goes at once."""
        try:
            picture = decode_image(data)
        except ImageUnreadable as error:
            return str(error)
        return _Opened(self._square(picture, framing), _preview(picture))

    def _answered(self, names: Sequence[str], opened: Sequence["_Opened | str"], asked: Asked) -> list[Answer]:
        readable = [item for item in opened if isinstance(item, _Opened)]
        if not readable:
            return [Answer(name, error=str(item)) for name, item in zip(names, opened, strict=True)]
        probabilities_BC, features_BF = self.outputs(np.stack([item.square_HWC for item in readable]), average_flips=asked.average_flips)
        familiar_B = self.placing.familiarities(features_BF) if self.placing else None
        row, answers = 0, []
        for name, item in zip(names, opened, strict=True):
            if isinstance(item, str):
                answers.append(Answer(name, error=item))
                continue
            answers.append(
                Answer(
                    name,
                    self._ranked(probabilities_BC[row], asked.top_k),
                    preview=item.preview,
                    superclasses=self._ranked_superclasses(probabilities_BC[row], asked.top_k),
                    seen_png=_png(item.square_HWC),
                    familiarity=None if familiar_B is None else float(familiar_B[row]),
                )
            )
            row += 1
        return answers

    def _ranked(self, probabilities_C: np.ndarray, top_k: int) -> tuple[RankedClass, ...]:
        names, superclasses = self.manifest.class_names, self.manifest.superclass_names
        best = np.argsort(-probabilities_C, kind="stable")[:top_k]
        return tuple(
            RankedClass(names[i], superclasses[self.manifest.superclass_of_class[i]] if superclasses else None, float(probabilities_C[i]))
            for i in best
        )

    def _ranked_superclasses(self, probabilities_C: np.ndarray, top_k: int) -> tuple[RankedSuperclass, ...]:
        probabilities_S = self._superclasses_SC @ probabilities_C
        best = np.argsort(-probabilities_S, kind="stable")[:top_k]
        return tuple(RankedSuperclass(self.manifest.superclass_names[i], min(1.0, float(probabilities_S[i]))) for i in best)


@dataclass(frozen=True)
class _Opened:
    """A decoded picture: what the network gets of it, and the preview."""

    square_HWC: np.ndarray
    preview: bytes


def _members(manifest: RunManifest) -> np.ndarray:
    """float32 S x C: 1 where the class is one of the superclass."""
    return (np.arange(len(manifest.superclass_names))[:, None] == np.array(manifest.superclass_of_class, np.int64)[None]).astype(np.float32)


def _temperature(folder: RunFolder) -> float:
    try:
        return fit_temperature(load_evaluation(folder.evaluation_of("dev")))
    except (CifarTLError, FileNotFoundError):
        return 1.0


def _placing(folder: RunFolder) -> Placing | None:
    try:
        return load_embeddings(folder.embeddings).placing
    except (CifarTLError, FileNotFoundError):
        return None


def _preview(picture: Image.Image) -> bytes:
    small = picture.copy() if max(picture.size) <= _PREVIEW_PIXELS else picture
    small.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return buffer.getvalue()


def _png(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG", compress_level=1)
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


def predict_files(run_path: str, files: list[tuple[str, bytes]], asked: Asked = AS_EVALUATED) -> list[Answer]:
    """For the prediction process: answers of the run in `run_path`. Raises RunInvalid."""
    return list(predictor_of(Path(run_path)).answer(files, asked))
