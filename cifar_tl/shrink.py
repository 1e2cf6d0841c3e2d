"""shrink_run: a copy of a finished run that is small enough to be handed on, and still explores and predicts.

    best.safetensors          float16 instead of float32: half the bytes, three more bits of mantissa than bfloat16 computes with
    evaluation/test.npz       compressed, and so is dev.npz, which says how sure the model may be
    evaluation/map.npz        compressed, rounded; with fewer training images
    evaluation/embeddings.npz compressed, rounded, of test and the training images on the map
    evaluation/train.npz      compressed, of the same training images
    config.json, run.json, events.jsonl, annotations.json    as they are, under the new name

Left behind: what resuming needs, what each epoch answered, the worker's log. Level 3.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cifar_tl.data.splits import train_dev_split
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import Evaluation, load_evaluation, save_evaluation
from cifar_tl.evaluation.embeddings import (
    is_described,
    load_embeddings,
    load_map,
    save_embeddings,
    save_map,
)
from cifar_tl.paths import RunFolder
from cifar_tl.runs.hold import held
from cifar_tl.runs.store import RunStatus, new_run_folder, read_manifest, write_manifest
from cifar_tl.runs.summary import summarize

# Embeddings, whose average length is 1, are rounded to sixteenths: compressed they take a quarter of the bytes, and of the ten nearest
# training images of CIFAR-100's test images as many are of the same class (76 %).
_STEPS = 16
_TRAIN_IMAGES = 1500
_LARGEST_FLOAT16 = 65504.0
_SECONDS_TO_DESCRIBE = 3600.0


def shrink_run(source: RunFolder, run_id: str, *, overwrite: bool = False) -> RunFolder:
    """Copy the completed run `source` to a new run folder named `run_id`, whole or not at all.

    Waits for a worker that still describes it. Raises RunInvalid if it is not completed, or the name is taken (unless `overwrite`) or
    not a name for a run.
    """
    manifest = read_manifest(source)
    if manifest is None or summarize(source.run_id).status is not RunStatus.COMPLETED:
        raise RunInvalid(f"Run {source.run_id} is not completed; only a completed run can be handed on.")
    target = new_run_folder(run_id, may_exist=overwrite)
    temporary = RunFolder(target.path.with_name(f".{run_id}.writing"))
    shutil.rmtree(temporary.path, ignore_errors=True)
    temporary.path.mkdir(parents=True)
    try:
        with held(source, patience=_SECONDS_TO_DESCRIBE, asks_to_leave=False):
            for file in (source.config, source.events, source.annotations):
                if file.exists():
                    shutil.copy(file, temporary.path / file.name)
            write_manifest(temporary, replace(manifest, run_id=run_id))
            _shrink_weights(source.best_weights, temporary.best_weights)
            for split in ("test", "dev"):
                if source.evaluation_of(split).exists():
                    save_evaluation(temporary.evaluation_of(split), load_evaluation(source.evaluation_of(split)), compressed=True)
            if is_described(source):
                _shrink_description(source, temporary)
        shutil.rmtree(target.path, ignore_errors=True)
        temporary.path.rename(target.path)
    finally:
        shutil.rmtree(temporary.path, ignore_errors=True)
    return target


def _shrink_weights(source: Path, target: Path) -> None:
    save_file({name: _halved(tensor) for name, tensor in load_file(source).items()}, target)


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    fits = tensor.is_floating_point() and float(tensor.abs().max()) <= _LARGEST_FLOAT16
    return tensor.half() if fits else tensor


def _shrink_description(source: RunFolder, target: RunFolder) -> None:
    drawn, embeddings = load_map(source.embedding_map), load_embeddings(source.embeddings)
    on_map = {name: replace(split, vectors_ND=split.vectors_ND.astype(np.float16)) for name, split in drawn.splits.items()}
    on_map["train"] = on_map["train"].taken(_sample(on_map["train"].labels_N))
    rows, train = on_map["train"].rows_N, embeddings.splits["train"]
    kept = {"train": train.taken(train.positions_of(rows)), "test": embeddings.splits["test"]}
    small = {name: replace(split, vectors_ND=_rounded(split.vectors_ND)) for name, split in kept.items()}
    save_embeddings(target.embeddings, replace(embeddings, splits=small), compressed=True)
    save_evaluation(target.evaluation_of("train"), _of_rows(load_evaluation(source.evaluation_of("train")), rows), compressed=True)
    save_map(target.embedding_map, replace(drawn, splits=on_map), compressed=True)


def _sample(labels_N: np.ndarray) -> np.ndarray:
    if len(labels_N) <= _TRAIN_IMAGES:
        return np.arange(len(labels_N))
    return train_dev_split(labels_N, seed=0, dev_fraction=_TRAIN_IMAGES / len(labels_N))[1]


def _rounded(vectors_ND: np.ndarray) -> np.ndarray:
    return (np.round(vectors_ND.astype(np.float32) * _STEPS) / _STEPS).astype(np.float16)


def _of_rows(evaluation: Evaluation, rows: np.ndarray) -> Evaluation:
    chosen = np.flatnonzero(np.isin(evaluation.rows_N, rows))
    return Evaluation(
        labels_N=evaluation.labels_N[chosen],
        top_classes_NK=evaluation.top_classes_NK[chosen],
        probabilities_NC=evaluation.probabilities_NC[chosen],
        rows_N=evaluation.rows_N[chosen],
        store_split=evaluation.store_split,
    )
