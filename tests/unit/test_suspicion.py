"""What is found suspicious: judged by models that have not seen the image, repeatable, and compared with scikit-learn and made cases."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from bench.label_noise import counts, flip_labels
from cifar_tl.config import make_config
from cifar_tl.data.progress import Progress, tell_nobody
from cifar_tl.data.splits import stratified_folds
from cifar_tl.errors import DataError
from cifar_tl.evaluation.suspicion.cross_validation import best_temperature, cross_entropy, cross_validate, softmax
from cifar_tl.evaluation.suspicion.duplicates import find_duplicates, pixel_likeness
from cifar_tl.evaluation.suspicion.labels import doubted_labels, label_issues
from cifar_tl.evaluation.suspicion.linear import FOLDS, discriminant, sum_of, sums_by_fold
from cifar_tl.evaluation.suspicion.neighbours import Neighbours, nearest_neighbours, strangest
from cifar_tl.evaluation.suspicion.result import (
    TEST,
    TRAIN,
    Duplicates,
    Facts,
    LabelIssues,
    Outliers,
    Suspicion,
    audit_key,
    audit_settings,
    load_suspicion,
    save_suspicion,
)
from cifar_tl.evaluation.suspicion.search import SplitData, search
from cifar_tl.evaluation.suspicion.state import AuditStatus, audit_state, failed, working
from cifar_tl.paths import AuditFolder
from tests.made_runs import hold_lock

CLASSES = 5


def blobs(images: int = 600, seed: int = 0, spread: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    features, labels = make_blobs(images, n_features=20, centers=CLASSES, cluster_std=spread, random_state=seed)
    return features.astype(np.float32), labels.astype(np.int64)


def folds_of(labels: np.ndarray) -> np.ndarray:
    return stratified_folds(labels, FOLDS, seed=0)


# Folds and the linear model


def test_folds_spread_every_class_evenly_and_follow_the_seed():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    folds = folds_of(labels)
    per_class = np.array([np.bincount(folds[labels == c], minlength=FOLDS) for c in range(7)])
    assert (per_class.max(1) - per_class.min(1)).max() <= 1
    assert not np.array_equal(folds, stratified_folds(labels, FOLDS, seed=1))


def test_small_classes_do_not_all_fall_into_the_first_fold():
    folds = folds_of(np.arange(100))
    np.testing.assert_array_equal(np.bincount(folds), 20)


def test_the_closed_form_is_scikit_learns_linear_discriminant_analysis():
    features, labels = blobs()
    sums = sum_of(sums_by_fold(features, labels, folds_of(labels), CLASSES, lambda _: None))
    model = discriminant(sums, sums.mean_F, 0.2)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(features.astype(np.float64), labels)
    np.testing.assert_allclose(softmax(model.logits(features)), theirs.predict_proba(features), atol=2e-4)


def test_sums_without_a_fold_are_those_of_the_other_images():
    features, labels = blobs()
    folds = folds_of(labels)
    parts = sums_by_fold(features, labels, folds, CLASSES, lambda _: None)
    others = sum_of(parts).minus(parts[2])
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(features[folds != 2].astype(np.float64), labels[folds != 2])
    ours = discriminant(others, others.mean_F)
    np.testing.assert_allclose(softmax(ours.logits(features)), theirs.predict_proba(features), atol=2e-4)


def test_large_means_cost_no_digits():
    features, labels = blobs()
    near = cross_validate(features, labels, folds_of(labels), CLASSES).probabilities_NC
    far = cross_validate(features + np.float32(100), labels, folds_of(labels), CLASSES).probabilities_NC
    np.testing.assert_allclose(near, far, atol=5e-3)


def test_cross_validated_probabilities_are_about_as_good_as_scikit_learns_logistic_regression():
    features, labels = blobs(spread=6.0)
    folds = folds_of(labels)
    ours = cross_validate(features, labels, folds, CLASSES).probabilities_NC
    theirs = np.empty_like(ours)
    for fold in range(FOLDS):
        model = LogisticRegression(C=0.1, max_iter=1000).fit(features[folds != fold], labels[folds != fold])
        theirs[folds == fold] = model.predict_proba(features[folds == fold])
    assert log_loss(labels, ours) < log_loss(labels, theirs) + 0.02


def test_no_model_has_seen_the_images_it_judges():
    """Features that say nothing: whoever is judged by a model that knows the label would be recognised better than by chance."""
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(400, 300)).astype(np.float32), np.arange(400) % 2
    judged = cross_validate(features, labels, folds_of(labels), 2)
    assert (judged.probabilities_NC.argmax(1) == labels).mean() < 0.6
    assert (judged.predict(features).argmax(1) == labels).mean() > 0.8


def test_the_order_of_the_images_does_not_matter():
    features, labels = blobs()
    order, folds = np.random.default_rng(1).permutation(len(labels)), folds_of(labels)
    straight = cross_validate(features, labels, folds, CLASSES).probabilities_NC
    shuffled = cross_validate(features[order], labels[order], folds[order], CLASSES).probabilities_NC
    np.testing.assert_allclose(straight[order], shuffled, atol=5e-3)


def test_fewer_images_than_features_are_enough():
    features, labels = make_blobs(60, n_features=500, centers=3, cluster_std=5.0, random_state=0)
    judged = cross_validate(features.astype(np.float32), labels, folds_of(labels), 3)
    assert (judged.probabilities_NC.argmax(1) == labels).mean() > 0.9


def test_classes_that_are_far_apart_do_not_make_the_descent_overshoot():
    features, labels = blobs(spread=0.1)
    probabilities = cross_validate(features, labels, folds_of(labels), CLASSES).probabilities_NC
    assert np.isfinite(probabilities).all()
    assert (probabilities.argmax(1) == labels).all()


def test_a_class_without_images_gets_no_probability():
    features, labels = blobs()
    judged = cross_validate(features, labels, folds_of(labels), CLASSES + 1)
    assert judged.probabilities_NC[:, CLASSES].max() == 0
    assert judged.predict(features)[:, CLASSES].max() == 0


def test_the_best_temperature_is_that_of_a_fine_grid():
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 2000)
    logits = (random.normal(size=(2000, 4)) * 3 + 6 * (np.arange(4) == labels[:, None])).astype(np.float32) * 5
    grid = np.exp(np.linspace(np.log(0.05), np.log(100), 3000))
    losses = [cross_entropy(logits / np.float32(temperature), labels) for temperature in grid]
    assert best_temperature(logits, labels) == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)


# Labels


def test_flipped_labels_come_first_with_the_true_one_suggested():
    features, labels = blobs(1000)
    noisy, is_flipped = flip_labels(labels, 0.05, CLASSES, seed=0)
    probabilities = cross_validate(features, noisy, folds_of(noisy), CLASSES).probabilities_NC
    ranked = doubted_labels(noisy, probabilities, np.ones(CLASSES, bool))
    assert is_flipped[ranked[:40]].all()
    issues = label_issues(TRAIN, np.arange(1000), noisy, probabilities, ranked[:40])
    np.testing.assert_array_equal(issues.suggested_n, labels[ranked[:40]])
    np.testing.assert_array_equal(issues.given_n, noisy[ranked[:40]])
    assert (issues.given_probability_n < issues.suggested_probability_n).all()


def test_doubted_labels_come_with_the_least_self_confidence_first():
    features, labels = blobs(1000, spread=14.0)
    probabilities = cross_validate(features, labels, folds_of(labels), CLASSES).probabilities_NC
    ranked = doubted_labels(labels, probabilities, np.ones(CLASSES, bool))
    confidence = probabilities[ranked, labels[ranked]]
    assert len(ranked) > 10
    assert (np.diff(confidence) >= 0).all()


def test_the_only_image_of_a_class_is_not_doubted():
    features, labels = blobs(200)
    labels = np.append(labels, CLASSES)
    features = np.vstack([features, features[:1]])
    probabilities = cross_validate(features, labels, folds_of(labels), CLASSES + 1).probabilities_NC
    assert 200 in doubted_labels(labels, probabilities, np.ones(CLASSES + 1, bool))
    assert 200 not in doubted_labels(labels, probabilities, np.bincount(labels) > 1)


def test_one_class_alone_has_no_doubted_labels():
    assert len(doubted_labels(np.zeros(5, np.int64), np.ones((5, 1), np.float32), np.ones(1, bool))) == 0


def test_flipping_changes_exactly_the_share_that_was_asked_for():
    labels = np.arange(1000) % 10
    noisy, is_flipped = flip_labels(labels, 0.05, 10, seed=3)
    assert is_flipped.sum() == 50
    np.testing.assert_array_equal(noisy != labels, is_flipped)
    assert 0 <= noisy.min() <= noisy.max() < 10


def test_the_counts_of_the_benchmark_are_those_of_a_list_counted_by_hand():
    row = counts(np.array([True, True, False, True, False, False, False, True]), 8)
    assert row["recall_of_list"] == row["precision_of_list"] == 0.5
    assert (row["list_at_half"], row["recall_at_half"]) == (8, 0.5)
    row = counts(np.array([True, False, False, False]), 4)
    assert (row["list_at_half"], row["recall_at_half"], row["precision_at_flipped"]) == (2, 0.25, 0.25)


# Neighbours, outliers, duplicates


def directions_of(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_nearest_neighbours_are_those_of_all_distances():
    points = directions_of(300)
    found = nearest_neighbours(points, lambda _: None, 4)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_array_equal(found.positions_Nk, np.argsort(distances, 1)[:, :4])
    np.testing.assert_allclose(found.distances_Nk, np.sort(distances, 1)[:, :4], atol=1e-3)


def test_an_image_is_never_its_own_neighbour_even_among_many_copies():
    points = np.repeat(directions_of(3), 20, axis=0)
    found = nearest_neighbours(points, lambda _: None, 5)
    assert not (found.positions_Nk == np.arange(60)[:, None]).any()
    assert (found.positions_Nk // 20 == np.arange(60)[:, None] // 20).all()


def test_a_handful_of_images_has_fewer_neighbours():
    assert nearest_neighbours(directions_of(3), lambda _: None).positions_Nk.shape == (3, 2)


def test_the_image_far_from_all_others_is_the_strangest():
    distances = np.full((500, 3), 0.5, np.float32)
    distances[123] = 1.5
    order, strangeness = strangest(Neighbours(distances, np.zeros((500, 3), np.int64)))
    assert (order[0], strangeness[0], len(order)) == (123, pytest.approx(3.0), 5)


def pictures(count: int = 12, side: int = 32, seed: int = 0) -> np.ndarray:
    """Different scenes: random blotches of a few sizes."""
    random = np.random.default_rng(seed)
    coarse = random.uniform(0, 255, (count, side // 4, side // 4, 3)).repeat(4, 1).repeat(4, 2)
    fine = random.uniform(-40, 40, (count, side // 2, side // 2, 3)).repeat(2, 1).repeat(2, 2)
    return np.clip(coarse + fine, 0, 255).astype(np.uint8)


ALIKE = {
    "equal": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "brighter": lambda image: np.clip(image * 0.7 + 50, 0, 255).astype(np.uint8),
    "shifted": lambda image: np.roll(image, (2, -3), (0, 1)),
    "noisy": lambda image: np.clip(image + np.random.default_rng(0).normal(0, 6, image.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", ALIKE)
def test_copies_that_were_changed_a_little_are_alike(change: str):
    image = pictures(1)[0]
    assert pixel_likeness(image[None], ALIKE[change](image)[None])[0] > 0.9


def test_copies_that_were_enlarged_are_alike():
    image = Image.fromarray(pictures(1)[0]).resize((64, 64), Image.Resampling.BICUBIC)
    whole, inner = image.resize((32, 32), Image.Resampling.BOX), image.resize((32, 32), Image.Resampling.BICUBIC, box=(4, 4, 60, 60))
    assert pixel_likeness(np.asarray(whole)[None], np.asarray(inner)[None])[0] > 0.7
    assert pixel_likeness(np.asarray(inner)[None], np.asarray(whole)[None])[0] > 0.7


def test_large_images_are_compared_too():
    image = pictures(1, side=160)
    assert pixel_likeness(image, image[:, :, ::-1])[0] > 0.95


def test_different_scenes_are_not_alike():
    images = pictures(12)
    assert pixel_likeness(images[:6], images[6:]).max() < 0.5


def test_two_horizons_are_not_alike():
    """A bright sky over dark land: the same edge, and nothing else."""
    random = np.random.default_rng(0)
    scenes = np.full((2, 32, 32, 3), 200.0)
    scenes[:, 15:] = 60
    scenes = (scenes + random.normal(0, 4, scenes.shape)).astype(np.uint8)
    assert pixel_likeness(scenes[:1], scenes[1:])[0] < 0.5


def test_flat_pictures_are_alike_to_nothing():
    flat = np.full((2, 32, 32, 3), (100, 120, 140), np.uint8)
    assert pixel_likeness(flat[:1], flat[1:] + 1)[0] < 0.5


def neighbours_of(pairs: list[tuple[int, int, float]], count: int) -> Neighbours:
    """Each image near those it is paired with, and far from the rest."""
    most = max(sum(a in pair[:2] for pair in pairs) for a in range(count))
    distances, positions = np.full((count, most), 2.0, np.float32), np.zeros((count, most), np.int64)
    filled = [0] * count
    for a, b, distance in pairs:
        for one, other in ((a, b), (b, a)):
            distances[one, filled[one]], positions[one, filled[one]] = distance, other
            filled[one] += 1
    return Neighbours(distances, positions)


def test_exact_pairs_come_first_then_near_ones_and_different_pictures_are_left_out():
    images = pictures(6)
    images[3] = images[0]
    images[4] = images[1][:, ::-1]
    found = find_duplicates(neighbours_of([(0, 3, 0.0), (1, 4, 0.3), (2, 5, 0.4)], 6), lambda positions: images[positions])
    assert found.positions_n2.tolist() == [[0, 3], [1, 4]]
    assert found.is_exact_n.tolist() == [True, False]
    assert found.likeness_n[0] == 1
    assert found.likeness_n[1] > 0.95


def test_copies_are_each_paired_with_the_first_of_them():
    images = np.repeat(pictures(1), 4, axis=0)
    everyone = [(a, b, 0.0) for a in range(4) for b in range(a + 1, 4)]
    found = find_duplicates(neighbours_of(everyone, 4), lambda positions: images[positions])
    assert found.positions_n2.tolist() == [[0, 1], [0, 2], [0, 3]]


def test_a_near_copy_of_an_image_that_is_there_twice_makes_one_pair():
    images = np.repeat(pictures(1), 3, axis=0)
    images[2] = images[0][:, ::-1]
    found = find_duplicates(neighbours_of([(0, 1, 0.0), (1, 2, 0.3), (0, 2, 0.3)], 3), lambda positions: images[positions])
    assert found.positions_n2.tolist() == [[0, 1], [0, 2]]


def test_images_that_are_far_apart_in_the_features_are_not_compared():
    images = np.repeat(pictures(1), 2, axis=0)
    found = find_duplicates(neighbours_of([(0, 1, 1.2)], 2), lambda positions: images[positions])
    assert len(found.positions_n2) == 0


# All together, and on disk


def made_splits(seed: int = 0) -> list[SplitData]:
    """Blobs with pictures; test image 7 is train image 11, and train image 5 has a wrong label."""
    features, labels = blobs(260, seed)
    images, rows = pictures(260), np.arange(260)
    features[207], images[207], labels[207] = features[11], images[11], labels[11]
    labels[5] = (labels[5] + 1) % CLASSES
    train = SplitData(TRAIN, 200, rows[:200], labels[:200], features[:200], lambda wanted: images[wanted])
    return [train, SplitData(TEST, 60, rows[:60], labels[200:], features[200:], lambda wanted: images[200 + wanted])]


def made_suspicion() -> Suspicion:
    return search(made_splits(), make_config(), CLASSES, tell_nobody)


def test_a_search_finds_the_wrong_label_and_the_test_image_that_is_in_train():
    found = made_suspicion()
    assert 5 in found.labels.row_n[found.labels.split_n == TRAIN][:3]
    assert (found.duplicates.split_n2.tolist(), found.duplicates.row_n2.tolist()) == ([[TRAIN, TEST]], [[11, 7]])
    assert found.test_rows_seen_in_training.tolist() == [7]
    assert found.is_new_to_training(np.array([6, 7, 8])).tolist() == [True, False, True]
    assert found.facts.images == (200, 0, 60)
    assert found.facts.train_accuracy > 0.9


def test_a_search_says_how_far_it_is_and_never_more_than_all():
    told: list[Progress] = []
    search(made_splits(), make_config(), CLASSES, told.append)
    assert list(dict.fromkeys(progress.phase for progress in told)) == [
        "Learning what the classes look like",
        "Doubting labels",
        "Comparing images with each other",
        "Comparing pixels",
    ]
    assert all(progress.done <= progress.total for progress in told)


def test_what_was_found_survives_the_disk(tmp_path: Path):
    found = made_suspicion()
    save_suspicion(tmp_path / "found.npz", found)
    loaded = load_suspicion(tmp_path / "found.npz")
    assert loaded.facts == found.facts
    for part in ("labels", "duplicates", "outliers"):
        for name, values in vars(getattr(found, part)).items():
            np.testing.assert_array_equal(getattr(getattr(loaded, part), name), values)


def test_a_damaged_result_is_told(tmp_path: Path):
    save_suspicion(tmp_path / "found.npz", made_suspicion())
    whole = (tmp_path / "found.npz").read_bytes()
    (tmp_path / "found.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"Delete .*found.npz and look again"):
        load_suspicion(tmp_path / "found.npz")


@pytest.mark.parametrize("row", [-1, 60])
def test_a_result_that_names_images_that_are_not_there_is_refused(tmp_path: Path, row: int):
    nothing = np.empty(0, np.int64)
    outliers = Outliers(np.array([TEST]), np.array([row]), np.array([0]), np.ones(1))
    issues = LabelIssues(nothing, nothing, nothing, nothing, nothing, nothing)
    pairs = Duplicates(nothing.reshape(0, 2), nothing.reshape(0, 2), nothing.reshape(0, 2), nothing, nothing.astype(bool))
    facts = Facts("b", "default", 32, 2, (10, 0, 60), (10, 0, 60), 0.5, 0.5, 1.0)
    save_suspicion(tmp_path / "found.npz", Suspicion(issues, pairs, outliers, facts))
    with pytest.raises(DataError, match="images that are not there"):
        load_suspicion(tmp_path / "found.npz")


def test_runs_that_differ_in_training_alone_share_an_audit():
    one = make_config(source="shapes", epochs=3, learning_rate=0.1, trainable="everything", flip=False, corrected=True)
    two = make_config(source="shapes", images_per_class=5, seed=4)
    assert audit_key(one, "data") == audit_key(two, "data")


@pytest.mark.parametrize("change", [{"backbone": "resnet18"}, {"image_size": 64}, {"classes": ("a", "b")}, {"weights": "IMAGENET1K_V1"}])
def test_another_look_at_the_data_is_another_audit(change: dict[str, object]):
    assert audit_key(make_config(**change), "data") != audit_key(make_config(), "data")
    assert audit_key(make_config(), "other data") != audit_key(make_config(), "data")


def test_an_audit_takes_all_images_as_they_came_through_frozen_stages():
    settings = audit_settings(
        make_config(trainable="everything", images_per_class=3, corrected=True, crop=True, mixup=0.2, average_flips=True)
    )
    assert (settings.trainable, settings.images_per_class, settings.corrected, settings.crop) == ("head", None, False, False)
    assert (settings.mixup, settings.average_flips, settings.flip) == (0.0, False, False)


def test_data_of_a_run_from_scratch_are_looked_at_through_the_bundled_network():
    scratch = make_config(backbone="resnet18", weights="none", trainable="everything", freeze_batch_norm=False)
    assert (audit_settings(scratch).backbone, audit_settings(scratch).weights) == ("efficientnet_lite0", "default")


# How an audit goes


@pytest.fixture
def files(tmp_path: Path) -> AuditFolder:
    return AuditFolder(tmp_path)


def test_an_audit_that_nobody_has_begun_is_absent(files: AuditFolder):
    assert audit_state(files).status is AuditStatus.ABSENT


def test_a_held_lock_means_work_and_its_progress_is_told(files: AuditFolder):
    files.state.write_text(json.dumps(working(Progress("Comparing", 3, 10, "images"))))
    with hold_lock(files):
        state = audit_state(files)
    assert (state.status, state.progress) == (AuditStatus.WORKING, Progress("Comparing", 3, 10, "images"))


def test_work_that_has_just_begun_again_does_not_show_why_it_failed_before(files: AuditFolder):
    files.state.write_text(json.dumps(failed("no network")))
    with hold_lock(files):
        state = audit_state(files)
    assert state.status is AuditStatus.WORKING
    assert state.progress is not None


def test_a_failed_audit_says_why(files: AuditFolder):
    files.state.write_text(json.dumps(failed("no network")))
    assert audit_state(files).reason == "no network"


@pytest.mark.parametrize("text", [json.dumps(working(Progress("Comparing", 3, 10, "images"))), "{torn", "[]"])
def test_an_audit_whose_process_is_gone_has_failed(files: AuditFolder, text: str):
    files.state.write_text(text)
    state = audit_state(files)
    assert state.status is AuditStatus.FAILED
    assert "ended without a word" in state.reason


def test_a_result_is_done_whatever_the_last_word_was(files: AuditFolder):
    files.state.write_text(json.dumps(working(Progress("Comparing", 3, 10, "images"))))
    files.result.touch()
    assert audit_state(files).status is AuditStatus.DONE
