"""What each epoch's weights took the dev images for: small files, so that mistakes can be followed through a run and while it trains.

Written by `training.loop` after every epoch, read by Explore. Labels and rows are those of the dev evaluation, which every run has
from its first epoch on. N dev images, K = min(5, C) kept ranks.
"""

import os
import re
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.arrays import Evaluation
from cifar_tl.paths import RunFolder

_NAME = re.compile(r"(\d{4,})\.npz")


@dataclass(frozen=True)
class EpochAnswers:
    """int32 `top_classes_NK` by falling probability; float16 `top_probabilities_NK` of the same. 30 bytes an image."""

    top_classes_NK: np.ndarray
    top_probabilities_NK: np.ndarray


def answers_of(evaluation: Evaluation) -> EpochAnswers:
    top_NK = evaluation.top_classes_NK
    return EpochAnswers(top_NK, np.take_along_axis(evaluation.probabilities_NC, top_NK.astype(np.int64), axis=1))


def save_answers(path: Path, answers: EpochAnswers) -> None:
    """Write whole or not at all. Not flushed to the disk: after a power cut the resumed run writes it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(file, top_classes_NK=answers.top_classes_NK, top_probabilities_NK=answers.top_probabilities_NK)
    temporary.replace(path)


def answered_epochs(folder: RunFolder) -> list[int]:
    """Epochs, counted from 1, whose answers are there; ascending."""
    root = folder.dev_answers_of(1).parent
    if not root.is_dir():
        return []
    return sorted(int(match[1]) for path in root.iterdir() if (match := _NAME.fullmatch(path.name)))


def forget_after(folder: RunFolder, epoch: int) -> None:
    """Remove the answers of later epochs: those of a run that goes on from an earlier checkpoint."""
    for later in answered_epochs(folder):
        if later > epoch:
            folder.dev_answers_of(later).unlink(missing_ok=True)


def evaluation_of_epoch(path: Path, dev: Evaluation) -> Evaluation:
    """The dev evaluation as it was after that epoch; probabilities beyond the kept ranks are zero.

    Raises FileNotFoundError if there is none, RunInvalid if it is damaged or of other images.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            answers = EpochAnswers(file["top_classes_NK"], file["top_probabilities_NK"])
        top_NK = answers.top_classes_NK.astype(np.int64)
        if top_NK.shape != dev.top_classes_NK.shape or top_NK.min() < 0 or top_NK.max() >= dev.num_classes:
            raise ValueError("it is of other images")
        probabilities_NC = np.zeros_like(dev.probabilities_NC)
        np.put_along_axis(probabilities_NC, top_NK, answers.top_probabilities_NK, axis=1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunInvalid(f"The answers of epoch {int(path.stem)} cannot be read ({error}). The other epochs can.") from error
    return replace(dev, top_classes_NK=answers.top_classes_NK, probabilities_NC=probabilities_NC)
