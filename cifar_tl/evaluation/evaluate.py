"""Evaluate a run again from its folder: best weights, the data it was trained on, one split. For the command line."""

from collections.abc import Callable

from cifar_tl.data.batches import ImageBatches
from cifar_tl.data.sources import Progress, prepare
from cifar_tl.data.splits import run_splits
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import save_evaluation
from cifar_tl.evaluation.collect import Metrics, collect
from cifar_tl.inference import Predictor
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.paths import RunFolder
from cifar_tl.training.inputs import FrozenInputs, ImageInputs, cached_training_views
from cifar_tl.training.plan import plan_legs


def evaluate_run(folder: RunFolder, split: str, *, progress: Callable[[Progress], None]) -> Metrics:
    """Measure `split` ("dev" or "test") and store its arrays. Raises RunInvalid if the data has changed since training."""
    predictor = Predictor.from_run(folder.path)
    config, manifest = predictor.config, predictor.manifest
    store = prepare(config.source, store_resolution=config.store_resolution, seed=config.seed, progress=progress)
    if store.info.fingerprint != manifest.data_fingerprint:
        raise RunInvalid(f"The data of run {folder.run_id} has changed since it was trained: {config.source} is not the same any more.")
    splits = run_splits(store, classes=config.classes, images_per_class=config.images_per_class, seed=config.seed)
    rows = splits.dev if split == "dev" else splits.test
    batches = ImageBatches(store[rows.store_split], rows.rows, rows.labels, predictor.compute.device)
    images = ImageInputs(batches, manifest.preprocessing, config, len(manifest.class_names))
    boundary = plan_legs(config, predictor.classifier)[-1].boundary
    is_as_cached = boundary > 0 and cached_training_views(config) and predictor.classifier.can_split_at(boundary)
    inputs = (
        FrozenInputs(images, FrozenPrefix(predictor.classifier, boundary, manifest.preprocessing, predictor.compute))
        if is_as_cached
        else images
    )
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress(Progress(f"Evaluating {split}", done, len(inputs), "images"))

    metrics, evaluation = collect(predictor.classifier, inputs, rows, predictor.compute, progress=count)
    save_evaluation(folder.evaluation_of(split), evaluation)
    return metrics
