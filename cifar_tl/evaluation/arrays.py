"""Evaluation: what a trained model said about every image of a split, as arrays on disk.

Written by `evaluation.collect` in the worker, read by `evaluation.analysis` and the Explore page. One `.npz` per split.
What the images look like to the network is kept apart, in `evaluation.embeddings`.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cifar_tl.errors import RunInvalid


@dataclass(frozen=True)
class Evaluation:
    """N images, C classes, K = min(5, C).

    labels_N            int32    true class
    top_classes_NK      int32    classes by falling probability, ranked before rounding; column 0 is the prediction
    probabilities_NC    float16  softmax; rounded to half precision (about 3 digits)
    rows_N              int64    row of each image in split `store_split` of the image store
    """

    labels_N: np.ndarray
    top_classes_NK: np.ndarray
    probabilities_NC: np.ndarray
    rows_N: np.ndarray
    store_split: str

    def __len__(self) -> int:
        return len(self.labels_N)

    @property
    def predictions_N(self) -> np.ndarray:
        return self.top_classes_NK[:, 0]

    @property
    def confidences_N(self) -> np.ndarray:
        """float32 probability of the predicted class."""
        return np.take_along_axis(self.probabilities_NC, self.top_classes_NK[:, :1].astype(np.int64), axis=1)[:, 0].astype(np.float32)

    @property
    def num_classes(self) -> int:
        return self.probabilities_NC.shape[1]


# Files of older versions hold embeddings_NF too, which are left where they lie.
_ARRAYS = ("labels_N", "top_classes_NK", "probabilities_NC", "rows_N")


def save_evaluation(path: Path, evaluation: Evaluation, *, compressed: bool = False) -> None:
    """Write whole or not at all."""
    arrays = {name: getattr(evaluation, name) for name in _ARRAYS}
    save_arrays(path, {"store_split": np.array(evaluation.store_split), **arrays}, compressed=compressed)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], *, compressed: bool = False) -> None:
    """An `.npz` file, written whole or not at all; makes its folder."""
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_evaluation(path: Path) -> Evaluation:
    """Raises FileNotFoundError if there is none, RunInvalid if it is damaged. No pickle is ever read."""
    try:
        # Opened here: given the path of a damaged file, numpy leaves it open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return Evaluation(**{name: file[name] for name in _ARRAYS}, store_split=str(file["store_split"]))
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds for a damaged file
        raise RunInvalid(f"The evaluation file {path} is damaged. Evaluate the run again: {how_to_evaluate(path)}") from error


def how_to_evaluate(path: Path) -> str:
    """The command that writes this evaluation file."""
    run_id = path.parent.parent.name
    if path.stem == "train":  # made together with what else describes a run
        return f"python -m cifar_tl describe {run_id}"
    return f"python -m cifar_tl evaluate {run_id} --split {path.stem}"
