"""shrink_run: a copy of a finished run that is small enough to be handed on, and still explores and predicts.

    best.safetensors      float16 instead of float32: half the bytes, three more bits of mantissa than bfloat16 computes with
    evaluation/test.npz   compressed; embeddings projected onto their first principal components. Labels and probabilities as they are
    config.json, run.json, events.jsonl, annotations.json    as they are, under the new name

Left behind: what resuming needs, the dev arrays, the worker's log. Level 3.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import load_evaluation, save_evaluation
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import RunStatus, new_run_folder, read_manifest, write_manifest
from cifar_tl.runs.summary import summarize

_COMPONENTS = 32  # of the embeddings: 0.6 MB for 10,000 images
_LARGEST_FLOAT16 = 65504.0


def shrink_run(source: RunFolder, run_id: str, *, overwrite: bool = False) -> RunFolder:
    """Copy the completed run `source` to a new run folder named `run_id`, whole or not at all.

    Raises RunInvalid if it is not completed, or the name is taken (unless `overwrite`) or not a name for a run.
    """
    manifest = read_manifest(source)
    if manifest is None or summarize(source.run_id).status is not RunStatus.COMPLETED:
        raise RunInvalid(f"Run {source.run_id} is not completed; only a completed run can be handed on.")
    target = new_run_folder(run_id, may_exist=overwrite)
    temporary = RunFolder(target.path.with_name(f".{run_id}.writing"))
    shutil.rmtree(temporary.path, ignore_errors=True)
    temporary.path.mkdir(parents=True)
    try:
        for file in (source.config, source.events, source.annotations):
            if file.exists():
                shutil.copy(file, temporary.path / file.name)
        write_manifest(temporary, replace(manifest, run_id=run_id))
        _shrink_weights(source.best_weights, temporary.best_weights)
        _shrink_evaluation(source.evaluation_of("test"), temporary.evaluation_of("test"))
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


def _shrink_evaluation(source: Path, target: Path) -> None:
    evaluation = load_evaluation(source)
    small = replace(evaluation, embeddings_NF=principal_components(evaluation.embeddings_NF, _COMPONENTS))
    save_evaluation(target, small, compressed=True)


def principal_components(embeddings_NF: np.ndarray, count: int) -> np.ndarray:
    """float16 N x count: the embeddings, centred, along the directions in which they vary most. Distances stay nearly the same."""
    centred = embeddings_NF.astype(np.float32) - embeddings_NF.mean(0, dtype=np.float32)
    _, directions = np.linalg.eigh(centred.T @ centred)  # ascending
    return (centred @ directions[:, ::-1][:, :count]).astype(np.float16)
