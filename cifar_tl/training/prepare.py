"""From settings to everything a run trains with: data, splits, network, device, and cached activations where they serve.

Called once by `training.loop`. Says what it does through `emit`, writes run.json, trains nothing. `evaluation.audit` takes from it
what it looks at a data set with.
"""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import timm
import torch
import torchvision

from cifar_tl.config import RunConfig
from cifar_tl.data.augment import is_map
from cifar_tl.data.batches import ImageBatches, num_batches
from cifar_tl.data.corrections import Corrections, corrections_of_run, note_corrections
from cifar_tl.data.sources import Progress as SourceProgress
from cifar_tl.data.sources import prepare
from cifar_tl.data.splits import RunSplits, SplitRows, run_splits
from cifar_tl.data.store import ImageStore, UnreadableFile
from cifar_tl.devices import Compute, choose_compute, cpu_count
from cifar_tl.errors import SettingsError
from cifar_tl.group import ALONE, Group
from cifar_tl.models.build import Classifier, build_classifier
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.paths import RunFolder
from cifar_tl.runs.events import Event, Phase, Progress, Warned
from cifar_tl.runs.store import Preprocessing, RunManifest, write_manifest
from cifar_tl.training.inputs import CachedInputs, ImageInputs, Inputs, cached_evaluation_views, cached_training_views, fill_cache
from cifar_tl.training.prefix_cache import CHUNK, PrefixCache, PrefixKey, activation_bytes, hash_weights, make_room, reason_not_to_cache

Emit = Callable[[Event], object]
_PROGRESS_SECONDS = 0.5
_LISTED_FILES = 20


@dataclass(frozen=True)
class Prepared:
    """Everything a run trains with."""

    config: RunConfig
    store: ImageStore
    splits: RunSplits
    classifier: Classifier
    compute: Compute
    preprocessing: Preprocessing
    group: Group = ALONE

    @property
    def num_classes(self) -> int:
        return len(self.splits.class_names)

    def image_inputs(self, rows: SplitRows) -> ImageInputs:
        batches = ImageBatches(self.store[rows.store_split], rows.rows, rows.labels, self.compute.device)
        return ImageInputs(batches, self.preprocessing, self.config, self.num_classes)


@dataclass(frozen=True)
class SplitInputs:
    """The inputs of each split for one freeze boundary."""

    train: Inputs
    dev: Inputs
    test: Inputs


def prepare_run(config: RunConfig, folder: RunFolder, emit: Emit, device: str = "", group: Group = ALONE) -> Prepared:
    """Load data and network as the settings say and write run.json. `device`: the one of several that this process has.

    Raises DataError, BackboneError, TrainingError.
    """
    compute = choose_compute(device or config.device, config.precision)
    if config.compile and compute.device.type != "cuda":
        emit(Warned(message="The network is not compiled: that makes nothing faster without a CUDA GPU."))
    if compute.device.type == "cpu" and group.local_size > cpu_count():
        emit(Warned(message=f"{group.local_size} processes share the {cpu_count()} cores of this machine: fewer would be faster."))
    with group.first_on_each_machine():
        store = load_data(config, emit)
        if store.info.unreadable:
            emit(Warned(message=_left_out(store.info.unreadable)))
        corrections = _corrections(config, folder, store, emit)
        prepared = replace(load_network(config, store, compute, emit, corrections), group=group)
        _require_shares(prepared)
        if group.is_first:
            write_manifest(folder, _manifest(folder, prepared, corrections))
    return prepared


def _require_shares(prepared: Prepared) -> None:
    """Every process must have something of every batch and every split. Raises SettingsError."""
    splits, size = prepared.splits, prepared.group.size
    smallest_batch = len(splits.train.rows) // num_batches(len(splits.train.rows), prepared.config.batch_size)
    for count, what in ((smallest_batch, "batches"), (len(splits.dev.rows), "the dev split"), (len(splits.test.rows), "the test split")):
        if count < size:
            raise SettingsError(f"{size} processes cannot share {what} of {count} images. Choose fewer processes.")


def load_data(config: RunConfig, emit: Emit) -> ImageStore:
    """The data set of a run. Raises DataError."""
    emit(Phase(name="preparing_data", text=f"Preparing {config.source}"))
    return prepare(config.source, store_resolution=config.store_resolution, seed=config.seed, progress=_source_progress(emit))


def load_network(config: RunConfig, store: ImageStore, compute: Compute, emit: Emit, corrections: Corrections | None = None) -> Prepared:
    """The network of a run, ready on its device, with what the run sees of the data. Raises DataError, BackboneError."""
    splits = run_splits(store, classes=config.classes, images_per_class=config.images_per_class, seed=config.seed, corrections=corrections)
    emit(Phase(name="loading_weights", text=f"Loading {config.backbone}"))
    torch.manual_seed(config.seed)  # the new head's first weights
    classifier = build_classifier(
        config.backbone,
        weights=config.weights,
        num_classes=len(splits.class_names),
        image_size=config.image_size,
        dropout=config.dropout,
        progress=_download_progress(emit, config.backbone),
    )
    classifier.set_freeze_batch_norm(config.freeze_batch_norm)
    classifier.ready(compute.device, config.image_size)
    preprocessing = Preprocessing(store.info.resolution, config.image_size, classifier.mean, classifier.std)
    return Prepared(config, store, splits, classifier, compute, preprocessing)


def _corrections(config: RunConfig, folder: RunFolder, store: ImageStore, emit: Emit) -> Corrections:
    """What the run is to change in its data, noted in its folder. A run that goes on trains on what it began with."""
    if not config.corrected:
        return Corrections()
    corrections = corrections_of_run(folder.corrections, store.info.fingerprint)
    if not folder.corrections.exists():
        note_corrections(folder.corrections, corrections, title=store.info.title)
    if not corrections.version:
        emit(Warned(message=f"Nothing of {store.info.title} has been corrected: the run trains on the data as they are."))
    return corrections


def _left_out(unreadable: tuple[UnreadableFile, ...]) -> str:
    listed = "; ".join(f"{item.path}: {item.reason.rstrip('.')}" for item in unreadable[:_LISTED_FILES])
    more = f"; and {len(unreadable) - _LISTED_FILES:,} more, which the form lists" if len(unreadable) > _LISTED_FILES else ""
    return f"{len(unreadable):,} files could not be read and are left out. {listed}{more}."


def inputs_for(prepared: Prepared, boundary: int, emit: Emit) -> SplitInputs:
    """Cached activations where everything before `boundary` is frozen and images need not be fresh; images otherwise."""
    train, dev, test = prepared.splits.train, prepared.splits.dev, prepared.splits.test
    views, reason = _views_to_cache(prepared, boundary)
    if not views:
        if reason:
            emit(Warned(message=f"The frozen stages run again for every image and epoch: {reason}."))
        return SplitInputs(prepared.image_inputs(train), prepared.image_inputs(dev), prepared.image_inputs(test))
    if prepared.config.cutmix and not is_map(torch.empty(1, *_activation_shape(prepared, boundary))):
        emit(Warned(message="These stages train without CutMix: what the frozen ones give has no area to paste from."))
    evaluated = cached_evaluation_views(prepared.config)
    # A sample of train is measured each epoch, as dev and test are.
    wanted = ((train, tuple(dict.fromkeys((*views, *evaluated)))), (dev, evaluated), (test, evaluated))
    cache = open_cache(prepared, boundary)
    make_room(_bytes_of(prepared, boundary, views), prepared.config.cache_limit * 1e9)
    emit(Phase(name="caching_features", text=f"Running the frozen part of {prepared.config.backbone} once"))
    progress = counted_progress(emit, "Caching features", sum(len(rows.rows) * len(v) for rows, v in wanted))
    prefix, damaged = FrozenPrefix(prepared.classifier, boundary, prepared.preprocessing, prepared.compute), 0
    with prepared.group.first_on_each_machine():
        for rows, split_views in wanted:
            damaged += fill_cache(cache, prefix, prepared.store, rows, prepared.config, views=split_views, progress=progress)
    if damaged:
        emit(Warned(message=f"{damaged:,} cached activations were damaged on disk and were computed again."))

    def cached(rows: SplitRows, is_read_often: bool = True) -> CachedInputs:
        size = len(prepared.store[rows.store_split])
        return CachedInputs(
            cache,
            rows,
            size,
            boundary,
            prepared.compute,
            prepared.config,
            prepared.num_classes,
            training_views=views,
            evaluation_views=evaluated,
            is_read_often=is_read_often,
        )

    return SplitInputs(cached(train), cached(dev), cached(test, is_read_often=False))


def _views_to_cache(prepared: Prepared, boundary: int) -> tuple[tuple[str, ...], str]:
    """As many views of each training image as settings ask for and the limit allows; or none, and why."""
    if boundary == 0:
        return (), ""
    views = cached_training_views(prepared.config)
    if not views:
        return (), "cached views are set to 0"
    if not prepared.classifier.can_split_at(boundary):
        return (), "this backbone cannot be cut at that stage"
    reason = ""
    while views:
        reason = reason_not_to_cache(_bytes_of(prepared, boundary, views), prepared.config.cache_limit * 1e9)
        if not reason:
            return views, ""
        views = views[:-1]
    return (), f"activations are not cached, because {reason}"


def _bytes_of(prepared: Prepared, boundary: int, views: tuple[str, ...]) -> int:
    evaluated = cached_evaluation_views(prepared.config)
    splits = prepared.splits
    images = len(splits.train.rows) * len({*views, *evaluated}) + (len(splits.dev.rows) + len(splits.test.rows)) * len(evaluated)
    return images * activation_bytes(_activation_shape(prepared, boundary), prepared.compute.dtype)


def open_cache(prepared: Prepared, boundary: int) -> PrefixCache:
    """The cache of what the stages before `boundary` give of the run's images."""
    key = PrefixKey(
        data_fingerprint=prepared.store.info.fingerprint,
        backbone=prepared.config.backbone,
        frozen_weights=hash_weights(prepared.classifier.stages[:boundary]),
        boundary=boundary,
        image_size=prepared.config.image_size,
        precision=prepared.compute.precision,
    )
    return PrefixCache(key, _activation_shape(prepared, boundary), prepared.compute.dtype)


@torch.inference_mode()
def _activation_shape(prepared: Prepared, boundary: int) -> tuple[int, ...]:
    prepared.classifier.eval()
    # On a GPU a batch of the size that fills the cache: for every other size cuDNN would have to plan for seconds.
    count = CHUNK if prepared.compute.device.type == "cuda" else 1
    (blank, *_) = prepared.image_inputs(prepared.splits.train).evaluation_views(np.zeros(count, np.int64))
    with prepared.compute.autocast():
        return tuple(prepared.classifier.forward_prefix(blank, boundary).shape[1:])


def _manifest(folder: RunFolder, prepared: Prepared, corrections: Corrections) -> RunManifest:
    store, splits = prepared.store, prepared.splits
    return RunManifest(
        run_id=folder.run_id,
        created=time.time(),
        data_title=store.info.title,
        data_fingerprint=store.info.fingerprint,
        class_names=tuple(splits.class_names),
        superclass_names=tuple(splits.superclass_names),
        superclass_of_class=tuple(int(index) for index in splits.superclass_of_class),
        preprocessing=prepared.preprocessing,
        stage_names=tuple(prepared.classifier.stage_names),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
        },
        corrections=corrections.version,
    )


def _source_progress(emit: Emit) -> Callable[[SourceProgress], None]:
    last = 0.0

    def tell(progress: SourceProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PROGRESS_SECONDS or progress.done >= progress.total:
            last = now
            emit(Progress(text=progress.phase, done=progress.done, total=progress.total, unit=progress.unit))

    return tell


def _download_progress(emit: Emit, backbone: str) -> Callable[[int, int], None]:
    tell = _source_progress(emit)
    return lambda done, total: tell(SourceProgress(f"Downloading weights of {backbone}", done, total, "bytes"))


def counted_progress(emit: Emit, text: str, total: int) -> Callable[[int], None]:
    """A function to be told of n more images done; emits at most two events a second."""
    tell, done = _source_progress(emit), 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        tell(SourceProgress(text, done, total, "images"))

    return add
