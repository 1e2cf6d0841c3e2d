"""The embedding map: which images are on it, where PCA puts them at once, and where t-SNE moves them in a minute or so.

PCA comes with the embeddings themselves (`evaluation.describe`). t-SNE takes the place of the worker process, which by then has
nothing left to do: `become_map_drawer` starts the program anew in the same process. So the device is free and the memory of the network
given back while the map is drawn; whoever kills the process or asks it to stop does not wait for scikit-learn; and the run's lock
goes on being held by the one process that writes into its folder. What is killed leaves the map by PCA.

    python -m cifar_tl worker RUN_DIR --lock-file N --draw-map

Level 3, no torch: a fresh process is drawing after a second.
"""

import os
import sys
import threading
import time
import traceback
from typing import NoReturn

import numpy as np

from cifar_tl.data.splits import train_dev_split
from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation.embeddings import (
    LEAST_FOR_TSNE,
    PCA,
    TSNE,
    EmbeddingMap,
    Embeddings,
    SplitVectors,
    load_embeddings,
    load_map,
    save_map,
)
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import read_config

MOST_TEST_IMAGES = 10_000
TRAIN_IMAGES = 2_000
# The usual number of neighbours that count (van der Maaten and Hinton, Visualizing data using t-SNE, JMLR 9, 2008), where there are enough.
_PERPLEXITY = 30.0
_START_SPREAD = 1e-4  # of the first coordinate; from larger ones t-SNE finds worse maps (scikit-learn starts from PCA so, too)
_LOOK_AGAIN_SECONDS = 0.2
_NICENESS = 15  # the next run may have the processor before us


def first_map(embeddings: Embeddings, *, seed: int) -> EmbeddingMap:
    """Test images and a sample of train, stratified and seeded, on the first two principal components."""
    chosen = {
        "test": _stratified(embeddings.splits["test"], MOST_TEST_IMAGES, seed),
        "train": _stratified(embeddings.splits["train"], TRAIN_IMAGES, seed),
    }
    return EmbeddingMap(PCA, {name: _at(split, _first_two(split.vectors_ND)) for name, split in chosen.items()})


def _stratified(split: SplitVectors, count: int, seed: int) -> SplitVectors:
    if len(split) <= count:
        return split
    _, sample = train_dev_split(split.labels_N, seed=seed, dev_fraction=count / len(split))
    return split.taken(sample)


def _at(split: SplitVectors, points_N2: np.ndarray) -> SplitVectors:
    return SplitVectors(points_N2, split.labels_N, split.rows_N, split.store_split)


def _first_two(vectors_ND: np.ndarray) -> np.ndarray:
    """float32 N x 2, with zeros for what there is not."""
    points_N2 = np.zeros((len(vectors_ND), 2), np.float32)
    points_N2[:, : vectors_ND.shape[1]] = vectors_ND[:, :2]
    return points_N2


def wants_tsne(folder: RunFolder) -> bool:
    """True if there is a map by PCA, of enough images for a better one."""
    try:
        drawn = load_map(folder.embedding_map)
    except (FileNotFoundError, RunInvalid):
        return False
    return drawn.method == PCA and len(drawn) >= LEAST_FOR_TSNE


def draw_tsne(folder: RunFolder) -> None:
    """Move the points of the map to where t-SNE puts them. Raises RunInvalid, FileNotFoundError for files that are not there whole."""
    embeddings, drawn = load_embeddings(folder.embeddings), load_map(folder.embedding_map)
    directions = [embeddings.splits[name].directions_ND[_places(embeddings.splits[name], split)] for name, split in drawn.splits.items()]
    start_N2 = np.concatenate([split.vectors_ND for split in drawn.splits.values()])
    points_N2 = tsne(np.concatenate(directions), start_N2, seed=read_config(folder).seed)
    ends = np.cumsum([len(split) for split in drawn.splits.values()])[:-1]
    parts = zip(drawn.splits.items(), np.split(points_N2, ends), strict=True)
    save_map(folder.embedding_map, EmbeddingMap(TSNE, {name: _at(split, points) for (name, split), points in parts}))


def _places(embedded: SplitVectors, on_map: SplitVectors) -> np.ndarray:
    places = embedded.positions_of(on_map.rows_N)
    if (places < 0).any():
        raise RunInvalid("The embedding map holds images that the embeddings do not. Delete map.npz and describe the run again.")
    return places


def tsne(directions_ND: np.ndarray, start_N2: np.ndarray, *, seed: int) -> np.ndarray:
    """float32 N x 2. Vectors of length 1 are as far apart as the angle between them says."""
    # Read when scikit-learn's threads come to be: they sleep while they wait. Those that spin take 17 s for 320 points beside a training,
    # instead of one, and take it from the training.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from sklearn.manifold import TSNE as SklearnTSNE

    spread = max(float(start_N2[:, 0].std()), 1e-12)
    perplexity = min(_PERPLEXITY, (len(directions_ND) - 1) / 3)
    drawer = SklearnTSNE(init=start_N2 / spread * _START_SPREAD, perplexity=perplexity, random_state=seed, n_jobs=-1)
    points_N2: np.ndarray = drawer.fit_transform(directions_ND)
    return points_N2.astype(np.float32)


def become_map_drawer(folder: RunFolder, lock: int) -> NoReturn:
    """Go on as a new program in this process, which draws the map and ends. The lock stays held; all else is given back."""
    os.set_inheritable(lock, True)
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", "cifar_tl", "worker", str(folder.path), "--lock-file", str(lock), "--draw-map"]
    os.execv(sys.executable, command)


def run_map_drawer(folder: RunFolder, lock: int) -> int:
    """What that program does. The run it belongs to is long complete: a problem is for the worker's log, and no failure."""
    os.set_inheritable(lock, False)
    os.nice(_NICENESS)
    end_when_asked(folder, 0)
    try:
        draw_tsne(folder)
    except Exception:
        traceback.print_exc()
    return 0


def end_when_asked(folder: RunFolder, exit_code: int) -> None:
    """From now on this process ends as soon as the run is asked to stop, whatever it does: files are written whole or not at all."""

    def watch() -> None:
        while not folder.stop_request.exists():
            time.sleep(_LOOK_AGAIN_SECONDS)
        os._exit(exit_code)

    threading.Thread(target=watch, name="end-when-asked", daemon=True).start()
