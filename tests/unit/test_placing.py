"""Placing new pictures among embeddings: the file's own images come out where they are, and strangers are told from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cifar_tl.evaluation.embeddings import Embeddings, SplitVectors, load_embeddings, reduced, save_embeddings

FEATURES, COMPONENTS = 40, 8


def split(images: int, seed: int, scale_off: float = 0.05) -> SplitVectors:
    """Features that vary in a few directions, and hardly in the others."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(np.random.default_rng(7).normal(0, 1, (FEATURES, FEATURES)))[0]
    spread = np.where(np.arange(FEATURES) < COMPONENTS, 1.0, scale_off)
    vectors = 3 + (random.normal(0, 1, (images, FEATURES)) * spread) @ axes.T
    return SplitVectors(vectors.astype(np.float16), np.zeros(images, np.int32), np.arange(images), "train")


@pytest.fixture(scope="module")
def embeddings() -> Embeddings:
    return reduced({"train": split(400, 1), "dev": split(300, 2), "test": split(200, 3)}, COMPONENTS)


def test_known_images_are_placed_where_they_are(embeddings: Embeddings) -> None:
    assert embeddings.placing is not None
    placed = embeddings.placing.placed(split(200, 3).vectors_ND)
    assert placed == pytest.approx(embeddings.splits["test"].vectors_ND.astype(np.float32), abs=0.01)


def test_the_residual_is_what_a_least_squares_fit_leaves(embeddings: Embeddings) -> None:
    placing = embeddings.placing
    assert placing is not None
    features = split(20, 4, scale_off=1.0).vectors_ND.astype(np.float32) - placing.mean_F
    left = [np.linalg.norm(row - placing.axes_FD @ np.linalg.lstsq(placing.axes_FD, row, rcond=None)[0]) for row in features]
    expected = np.array(left) / np.linalg.norm(features, axis=1)
    assert placing.residuals(features + placing.mean_F) == pytest.approx(expected, abs=1e-3)


def test_familiarity_is_the_share_of_dev_images_at_least_as_unlike(embeddings: Embeddings) -> None:
    placing = embeddings.placing
    assert placing is not None
    of_dev = placing.residuals(split(300, 2).vectors_ND)
    known = placing.familiarities(split(200, 3).vectors_ND)
    assert known is not None
    expected = [(of_dev >= residual).mean() for residual in placing.residuals(split(200, 3).vectors_ND)]
    assert known == pytest.approx(expected, abs=0.01)


def test_pictures_off_the_axes_are_familiar_to_nobody(embeddings: Embeddings) -> None:
    assert embeddings.placing is not None
    strangers = embeddings.placing.familiarities(split(50, 5, scale_off=1.0).vectors_ND)
    assert strangers is not None
    assert strangers.max() == 0


def test_a_handful_of_dev_images_is_nothing_to_compare_with() -> None:
    placing = reduced({"train": split(400, 1), "dev": split(20, 2), "test": split(20, 3)}, COMPONENTS).placing
    assert placing is not None
    assert placing.familiarities(split(5, 3).vectors_ND) is None


def test_axes_that_hold_everything_leave_nothing_to_tell_by() -> None:
    placing = reduced({"train": split(400, 1), "dev": split(300, 2), "test": split(20, 3)}, FEATURES).placing
    assert placing is not None
    assert placing.familiarities(split(5, 3).vectors_ND) is None


def test_placing_survives_the_disk_and_its_absence_does_too(embeddings: Embeddings, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "with.npz", embeddings)
    save_embeddings(tmp_path / "without.npz", replace(embeddings, placing=None))
    features = split(50, 3).vectors_ND
    again = load_embeddings(tmp_path / "with.npz").placing
    assert again is not None
    assert embeddings.placing is not None
    np.testing.assert_array_equal(again.familiarities(features), embeddings.placing.familiarities(features))
    np.testing.assert_array_equal(again.placed(features), embeddings.placing.placed(features))
    assert load_embeddings(tmp_path / "without.npz").placing is None
