"""Predictor: a finished (or still training) run's best weights, ready to answer for pictures.

The same preprocessing as in training: decode, square at the stored resolution, then `to_model_input`. A CIFAR model sees an
upload through the same 32 pixels it learned from. Threads decode the next pictures while the network looks at the present ones.
Used by the command line and, in the prediction process, by the page.

B images, C classes, H x W x 3 pixels of the stored resolution, F features of the network, D components of its embeddings.
"""

import io
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from threadpoolctl import ThreadpoolController

from cifar_tl.answers import Answer, Asked, Framing, RankedClass, RankedSuperclass
from cifar_tl.config import RunConfig
from cifar_tl.data.batches import to_model_input
from cifar_tl.data.bottleneck import closest_square
from cifar_tl.data.decode import to_square, use_picture
from cifar_tl.devices import Compute, choose_compute, cpu_count
from cifar_tl.errors import ImageUnreadable, RunInvalid
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.calibration import fit_temperature
from cifar_tl.evaluation.embeddings import Embeddings, load_embeddings
from cifar_tl.evaluation.familiarity import familiarity, unlikeness
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunManifest, read_config, read_manifest
from cifar_tl.training.checkpoint import load_weights

_BATCH = 32  # pictures the network looks at together
_BATCHES_AHEAD = 2  # that are decoded while an accelerator computes: with the present one, all that is in memory
_MOST_THREADS = 4  # each may have a picture of a million pixels in memory
_PREVIEW_PIXELS = 256
_PIXELS_PER_PIXEL = 16  # of a picture, along a side, for one of the stored resolution
_PREVIEW_QUALITY = 85
_EXACT_PIXELS = 64
_AS_USUAL = Asked()


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


@dataclass(frozen=True)
class _Opened:
    """A file on its way to its answer: what the model is to see and what the person is, or why there is neither."""

    square_HWC: np.ndarray | None = None
    preview: bytes = b""
    error: str = ""


class Predictor:
    """Answers for pictures. `classifier` sits on `compute.device` in evaluation mode; `folder`, where there is one, says how sure to be."""

    def __init__(self, config: RunConfig, manifest: RunManifest, classifier: Classifier, folder: RunFolder | None = None) -> None:
        self.config = config
        self.manifest = manifest
        self.compute = compute_for(config)
        self.classifier = classifier.ready(self.compute.device, config.image_size)
        self._folder = folder

    @classmethod
    def from_run(cls, path: Path) -> Self:
        """Raises RunInvalid if the run has no usable weights."""
        folder = RunFolder(path)
        return cls(*load_classifier(folder), folder)

    @cached_property
    def temperature(self) -> float:
        """What logits are divided by, so that confidence on dev is exact on average; 1 where dev answers are absent or damaged."""
        try:
            return fit_temperature(load_evaluation(self._folder.evaluation_of("dev"))) if self._folder else 1.0
        except (FileNotFoundError, RunInvalid):
            return 1.0

    @cached_property
    def _embeddings(self) -> Embeddings | None:
        """Of the run's images, where they say how a new picture is placed among them."""
        try:
            found = load_embeddings(self._folder.embeddings) if self._folder else None
        except (FileNotFoundError, RunInvalid):
            return None
        is_of_this_network = found and found.axes and len(found.axes.mean_F) == self.classifier.feature_dim
        return found if is_of_this_network else None

    def probabilities(self, squares_BHWC: np.ndarray, *, average_flips: bool | None = None) -> np.ndarray:
        """uint8 squares at the stored resolution -> float32 B x C, after temperature scaling. `average_flips` None: as the run was evaluated."""
        return self._calibrated(self.outputs(squares_BHWC, average_flips)[0])

    def embedded(self, squares_BHWC: np.ndarray) -> np.ndarray:
        """uint8 squares -> float32 B x D, in the coordinates of the run's embeddings. Raises RunInvalid if it has none to compare with."""
        if self._embeddings is None or self._embeddings.axes is None:
            raise RunInvalid("The run has no embeddings that pictures can be compared with. Prepare them in Explore, under Embedding map.")
        return self._embeddings.axes.placed(self.outputs(squares_BHWC, None)[1])

    def square(self, data: bytes | Path, framing: Framing = Framing.CENTER) -> np.ndarray:
        """uint8 H x W x 3: what the model sees of a picture. Raises ImageUnreadable."""
        return use_picture(data, lambda picture: self._square(picture, framing), enough=self._enough)

    @property
    def _sees_files(self) -> bool:
        """True if the model was trained on files that this program made small; other data sets came small."""
        return self.config.source.startswith("folder:")

    @property
    def _enough(self) -> int | None:
        """Pixels of a picture's short side from which nobody sees more; None where an upload is to be what the same file is in the store."""
        return None if self._sees_files else max(_PREVIEW_PIXELS, _PIXELS_PER_PIXEL * self.manifest.preprocessing.store_resolution)

    def _square(self, picture: Image.Image, framing: Framing) -> np.ndarray:
        make = to_square if self._sees_files else closest_square
        return make(picture, self.manifest.preprocessing.store_resolution, framing)

    @torch.inference_mode()
    def outputs(self, squares_BHWC: np.ndarray, average_flips: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(float32 logits B x C, float32 pooled features B x F), the mean over the image and its mirror image where that is asked for."""
        images = torch.from_numpy(squares_BHWC).to(self.compute.device).permute(0, 3, 1, 2)
        mirrored = self.config.average_flips if average_flips is None else average_flips
        views = [images, images.flip(-1)] if mirrored else [images]
        with self.compute.autocast():
            features_V = [self.classifier.features(to_model_input(view, self.manifest.preprocessing)) for view in views]
            logits_V = [self.classifier.head(features) for features in features_V]
        logits, features = (torch.stack(of_views).float().mean(0).cpu().numpy() for of_views in (logits_V, features_V))
        return logits, features

    def _calibrated(self, logits_BC: np.ndarray) -> np.ndarray:
        probabilities_BC: np.ndarray = (torch.from_numpy(logits_BC) / self.temperature).softmax(1).numpy()
        return probabilities_BC

    def answer(self, files: Sequence[tuple[str, bytes | Path]], asked: Asked = _AS_USUAL) -> Iterator[Answer]:
        """One answer per file, in order; a file that is no picture answers with its error. Memory is bounded by the batch."""
        batches = [files[start : start + _BATCH] for start in range(0, len(files), _BATCH)]
        if len(files) == 1:  # nothing to do meanwhile
            began = time.perf_counter()
            yield from self._answered(files, [self._open(files[0][1], asked.framing)], asked, began)
            return
        pool = ThreadPoolExecutor(min(_MOST_THREADS, cpu_count()), thread_name_prefix="decode")
        # On processors alone both want all cores, and the threads of one product that wait for one another are then slower than in turn.
        ahead = 0 if self.compute.device.type == "cpu" else _BATCHES_AHEAD
        opening: deque[list[Future[_Opened]]] = deque()
        try:
            began = time.perf_counter()
            for number, batch in enumerate(batches):
                for later in batches[number + len(opening) : number + 1 + ahead]:
                    opening.append([pool.submit(self._open, data, asked.framing) for _, data in later])
                opened = [future.result() for future in opening.popleft()]
                yield from self._answered(batch, opened, asked, began)
                began = time.perf_counter()
        finally:  # also when nobody wants the rest
            pool.shutdown(cancel_futures=True)

    def _open(self, data: bytes | Path, framing: Framing) -> _Opened:
        """In a thread of its own. The picture itself is given back here: what goes on is small."""
        try:
            return use_picture(data, lambda picture: _Opened(self._square(picture, framing), _preview(picture)), enough=self._enough)
        except ImageUnreadable as error:
            return _Opened(error=str(error))

    def _answered(self, files: Sequence[tuple[str, bytes | Path]], opened: list[_Opened], asked: Asked, began: float) -> Iterator[Answer]:
        squares = [item.square_HWC for item in opened if item.square_HWC is not None]
        answers: Iterator[Answer] = iter(self._ranked(np.stack(squares), asked) if squares else [])
        seconds = (time.perf_counter() - began) / len(files)
        for (name, _), item in zip(files, opened, strict=True):
            if item.square_HWC is None:
                yield Answer(name, error=item.error, seconds=seconds)
            else:
                seen = _png(Image.fromarray(item.square_HWC))
                yield replace(next(answers), name=name, preview=item.preview, seen_png=seen, seconds=seconds)

    def _ranked(self, squares_BHWC: np.ndarray, asked: Asked) -> list[Answer]:
        """Without what is known of the file."""
        logits_BC, features_BF = self.outputs(squares_BHWC, asked.average_flips)
        return [
            Answer("", self._classes(row, asked.top_k), superclasses=self._superclasses(row, asked.top_k), familiarity=share)
            for row, share in zip(self._calibrated(logits_BC), self._familiarity(features_BF), strict=True)
        ]

    def _familiarity(self, features_BF: np.ndarray) -> list[float | None]:
        known = self._embeddings
        if known is None or known.axes is None or known.dev_unlikeness_N is None:
            return [None] * len(features_BF)
        # BLAS threads wait for more work by spinning, on the cores that the network's next batch is computed with: half the rate.
        with _blas().limit(limits=1, user_api="blas"):
            shares_B = familiarity(unlikeness(features_BF, known.axes), known.dev_unlikeness_N)
        return shares_B.tolist()

    def _classes(self, probabilities_C: np.ndarray, top_k: int) -> tuple[RankedClass, ...]:
        names, superclasses = self.manifest.class_names, self.manifest.superclass_names
        best = np.argsort(-probabilities_C, kind="stable")[:top_k]
        return tuple(
            RankedClass(names[i], superclasses[self.manifest.superclass_of_class[i]] if superclasses else None, float(probabilities_C[i]))
            for i in best
        )

    def _superclasses(self, probabilities_C: np.ndarray, top_k: int) -> tuple[RankedSuperclass, ...]:
        names = self.manifest.superclass_names
        if not names:
            return ()
        sums_S = np.bincount(self.manifest.superclass_of_class, weights=probabilities_C, minlength=len(names))
        best = np.argsort(-sums_S, kind="stable")[:top_k]
        return tuple(RankedSuperclass(names[i], min(1.0, float(sums_S[i]))) for i in best)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all loaded libraries: once


def _preview(picture: Image.Image) -> bytes:
    """A JPEG file, for its few bytes and in a third of the time of a PNG; small pictures, whose every pixel is seen, stay exact."""
    longest = max(picture.size)
    if longest <= _EXACT_PIXELS:
        return _png(picture)
    width, height = (max(1, round(side * min(1, _PREVIEW_PIXELS / longest))) for side in picture.size)
    buffer = io.BytesIO()
    # 1.0: by a whole factor first, which for most pictures is nearly all of the way and costs a tenth.
    picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=1.0).save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return buffer.getvalue()


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@lru_cache(maxsize=2)
def _cached_predictor(path: Path, changed: tuple[int, ...]) -> Predictor:  # noqa: ARG001  part of the key: see `predictor_of`
    return Predictor.from_run(path)


def predictor_of(path: Path) -> Predictor:
    """The predictor of the run in folder `path`; the last two stay loaded. Raises RunInvalid.

    A run that still trains gets better weights, and one that has ended is evaluated and described later: each makes a new predictor.
    """
    folder = RunFolder(path)
    if not folder.best_weights.is_file():
        raise RunInvalid(f"Run {path.name} has no weights yet: it has not finished an epoch.")
    files = (folder.best_weights, folder.evaluation_of("dev"), folder.embeddings)
    return _cached_predictor(path, tuple(_changed(file) for file in files))


def _changed(file: Path) -> int:
    """When, in nanoseconds; 0 if it is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def predict_files(run_path: str, files: list[tuple[str, bytes]], asked: Asked = _AS_USUAL) -> list[Answer]:
    """For the prediction process: answers of the run in `run_path`. Raises RunInvalid."""
    return list(predictor_of(Path(run_path)).answer(files, asked))
