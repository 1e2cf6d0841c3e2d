"""Evaluate a run again from its folder: best weights, the data it was trained on, one split. For the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from cifar_tl.data.batches import ImageBatches
from cifar_tl.data.corrections import corrections_of_run
from cifar_tl.data.sources import Progress, prepare
from cifar_tl.data.splits import RunSplits, SplitRows, run_splits
from cifar_tl.data.store import ImageStore
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import save_evaluation
from cifar_tl.evaluation.collect import Metrics, collect
from cifar_tl.inference import Predictor
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.paths import RunFolder
from cifar_tl.training.inputs import FrozenInputs, ImageInputs, cached_training_views
from cifar_tl.training.plan import plan_legs


@dataclass(frozen=True)
class Reopened:
    """A run that is asked again: its best weights, and the images it was trained and evaluated on."""

    predictor: Predictor
    store: ImageStore
    splits: RunSplits

    def inputs(self, rows: SplitRows) -> ImageInputs | FrozenInputs:
        """As the run evaluated them, so that the answers repeat."""
        batches = ImageBatches(self.store[rows.store_split], rows.rows, rows.labels, self.predictor.compute.device)
        manifest = self.predictor.manifest
        images = ImageInputs(batches, manifest.preprocessing, self.predictor.config, len(manifest.class_names))
        return FrozenInputs(images, self._prefix) if self._prefix else images

    @cached_property
    def _prefix(self) -> FrozenPrefix | None:
        """The frozen stages, where the run had cached what they give."""
        predictor = self.predictor
        boundary = plan_legs(predictor.config, predictor.classifier)[-1].boundary
        if not (boundary > 0 and cached_training_views(predictor.config) and predictor.classifier.can_split_at(boundary)):
            return None
        return FrozenPrefix(predictor.classifier, boundary, predictor.manifest.preprocessing, predictor.compute)


def reopen(folder: RunFolder, *, progress: Callable[[Progress], None]) -> Reopened:
    """Raises RunInvalid if the data has changed since training, or there are no weights."""
    predictor = Predictor.from_run(folder.path)
    config, manifest = predictor.config, predictor.manifest
    store = prepare(config.source, store_resolution=config.store_resolution, seed=config.seed, progress=progress)
    if store.info.fingerprint != manifest.data_fingerprint:
        raise RunInvalid(f"The data of run {folder.run_id} has changed since it was trained: {config.source} is not the same any more.")
    corrections = corrections_of_run(folder.corrections, store.info.fingerprint, version=manifest.corrections) if config.corrected else None
    splits = run_splits(store, classes=config.classes, images_per_class=config.images_per_class, seed=config.seed, corrections=corrections)
    return Reopened(predictor, store, splits)


def evaluate_run(folder: RunFolder, split: str, *, progress: Callable[[Progress], None]) -> Metrics:
    """Measure `split` ("dev" or "test") and store its arrays. Raises RunInvalid if the data has changed since training."""
    reopened = reopen(folder, progress=progress)
    rows = reopened.splits.dev if split == "dev" else reopened.splits.test
    counted = counted_images(progress, f"Evaluating {split}", len(rows))
    metrics, evaluation, _ = collect(
        reopened.predictor.classifier, reopened.inputs(rows), rows, reopened.predictor.compute, progress=counted
    )
    save_evaluation(folder.evaluation_of(split), evaluation)
    return metrics


def counted_images(progress: Callable[[Progress], None], phase: str, total: int) -> Callable[[int], None]:
    """A function to be told of n more images done."""
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress(Progress(phase, done, total, "images"))

    return count
