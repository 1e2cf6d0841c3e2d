"""Embeddings against scikit-learn and cases small enough to work out by hand; their files; the map made of them."""

import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.neighbors import NearestNeighbors

from cifar_tl.errors import RunInvalid
from cifar_tl.evaluation import embeddings as module
from cifar_tl.evaluation.arrays import load_evaluation, save_evaluation
from cifar_tl.evaluation.embedding_map import draw_tsne, first_map, wants_tsne
from cifar_tl.evaluation.embeddings import (
    PCA,
    TSNE,
    EmbeddingMap,
    Embeddings,
    SplitVectors,
    forget_description,
    is_described,
    load_embeddings,
    load_map,
    reduced,
    save_embeddings,
    save_map,
)
from tests.made_runs import describe_made_run, made_evaluation, make_run

FEATURES = 40


def vectors(values, labels=None, rows=None, store_split: str = "train") -> SplitVectors:
    values = np.asarray(values)
    count = len(values)
    return SplitVectors(
        values,
        np.zeros(count, np.int32) if labels is None else np.asarray(labels, np.int32),
        np.arange(count) if rows is None else np.asarray(rows),
        store_split,
    )


@pytest.fixture
def features() -> dict[str, SplitVectors]:
    """Of ten classes, in which a few directions hold most of the variance."""
    random = np.random.default_rng(0)
    axes = np.linalg.qr(random.normal(size=(FEATURES, FEATURES)))[0] * np.linspace(3, 0.05, FEATURES)[:, None]
    centres = random.normal(size=(10, FEATURES))
    found = {}
    for name, count in (("train", 700), ("dev", 100), ("test", 300)):
        labels = np.arange(count) % 10
        values = (centres[labels] + 0.5 * random.normal(size=(count, FEATURES))) @ axes + 5
        found[name] = vectors(values.astype(np.float16), labels, store_split="test" if name == "test" else "train")
    return found


def test_components_are_those_of_scikit_learn_up_to_sign_and_unit(features, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 256)  # in several blocks, the last of them smaller
    found = reduced(features, 6)
    reference = SklearnPCA(6, svd_solver="full").fit(features["train"].vectors_ND.astype(np.float64))
    assert found.variance_kept == pytest.approx(reference.explained_variance_ratio_.sum(), rel=1e-4)
    for name, split in features.items():
        expected = reference.transform(split.vectors_ND.astype(np.float64))
        ratio = expected / found.splits[name].vectors_ND
        unit = np.median(ratio, axis=0)
        assert np.abs(unit) == pytest.approx(np.abs(unit[0]), rel=1e-3)
        assert found.splits[name].vectors_ND * unit == pytest.approx(expected, abs=0.02)


def test_training_embeddings_have_length_one_on_average(features):
    lengths = np.linalg.norm(reduced(features, FEATURES).splits["train"].vectors_ND.astype(np.float32), axis=1)
    assert np.mean(lengths**2) == pytest.approx(1, rel=1e-3)


def test_there_are_no_more_components_than_features_or_images(features):
    assert reduced(features).splits["test"].vectors_ND.shape == (300, FEATURES)
    few = features | {"train": features["train"].taken(np.arange(5))}
    assert reduced(few).splits["test"].vectors_ND.shape == (300, 5)


def test_images_that_all_look_the_same_are_reduced_without_a_complaint():
    same = reduced({"train": vectors(np.ones((6, 3), np.float16))})
    assert np.isfinite(same.splits["train"].vectors_ND).all()
    assert same.nearest(np.zeros((1, 3)), 2)[0].shape == (1, 2)


def test_nearest_images_are_those_of_scikit_learn(features):
    found = reduced(features, 8)
    train, test = (found.splits[name].vectors_ND.astype(np.float64) for name in ("train", "test"))
    distances, expected = NearestNeighbors(n_neighbors=7, metric="cosine").fit(train).kneighbors(test)
    positions, similarities = found.nearest(found.splits["test"].vectors_ND, 7)
    assert (positions == expected).mean() > 0.99  # near-equal ones may change places
    assert similarities == pytest.approx(1 - distances, abs=1e-4)
    assert np.array_equal(found.neighbours("test", np.array([4, 2]), 7)[0], positions[[4, 2]])


def test_no_image_is_its_own_neighbour(features):
    found = reduced(features, 8)
    positions, similarities = found.neighbours("train", np.arange(100), 5)
    assert not (positions == np.arange(100)[:, None]).any()
    assert (np.diff(similarities, axis=1) <= 0).all()
    assert similarities.max() < 1


def test_no_more_neighbours_are_named_than_there_are():
    found = Embeddings({"train": vectors([[1, 0], [0, 1], [1, 1]])}, 1.0)
    assert found.nearest(np.array([[1, 0]]), 10)[0].tolist() == [[0, 2, 1]]
    assert found.neighbours("train", np.array([0]), 10)[0].tolist() == [[2, 1]]
    assert found.neighbours("train", np.array([0]), 0)[0].shape == (1, 0)


def test_class_centres_are_means_over_train_and_a_class_without_images_has_none():
    found = Embeddings({"train": vectors([[1, 0], [3, 0], [0, 2]], labels=[0, 0, 2])}, 1.0)
    centres = found.class_centres(3)
    assert centres[[0, 2]].tolist() == [[2, 0], [0, 2]]
    assert np.isnan(centres[1]).all()


def test_nearest_classes_come_in_order_without_the_class_itself_and_those_without_images():
    found = Embeddings({"train": vectors([[1, 0], [1, 1], [-1, 0.1], [1, 0.2]], labels=[0, 1, 2, 4])}, 1.0)
    classes = found.nearest_classes(0, 5, 9)
    assert [index for index, _ in classes] == [4, 1, 2]
    assert classes[1][1] == pytest.approx(np.sqrt(0.5))
    assert found.nearest_classes(0, 5, 1) == classes[:1]
    assert found.nearest_classes(3, 5, 2) == []


def test_rows_are_found_whatever_their_order_and_missing_ones_told():
    split = vectors(np.zeros((3, 1)), rows=[30, 10, 20])
    assert split.positions_of(np.array([10, 30, 25, 99, 0])).tolist() == [1, 0, -1, -1, -1]
    assert vectors(np.zeros((0, 1)), rows=[]).positions_of(np.array([1])).tolist() == [-1]


def same(a: SplitVectors, b: SplitVectors) -> bool:
    arrays = ("vectors_ND", "labels_N", "rows_N")
    return a.store_split == b.store_split and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)


@pytest.mark.parametrize("compressed", [False, True])
def test_files_give_back_what_was_saved(features, tmp_path, compressed):
    found = reduced(features)
    save_embeddings(tmp_path / "e.npz", found, compressed=compressed)
    again = load_embeddings(tmp_path / "e.npz")
    assert again.variance_kept == found.variance_kept
    assert list(again.splits) == ["train", "dev", "test"]
    assert all(same(again.splits[name], found.splits[name]) for name in found.splits)
    drawn = first_map(found, seed=0)
    save_map(tmp_path / "m.npz", drawn, compressed=compressed)
    assert load_map(tmp_path / "m.npz").method == PCA
    assert same(load_map(tmp_path / "m.npz").splits["test"], drawn.splits["test"])


def test_files_that_are_not_there_or_damaged_are_told_apart(features, tmp_path):
    folder = tmp_path / "run-7" / "evaluation"
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        load_embeddings(folder / "embeddings.npz")
    save_embeddings(folder / "embeddings.npz", reduced(features))
    whole = (folder / "embeddings.npz").read_bytes()
    torn = reduced(features)
    torn = Embeddings(
        dict(torn.splits)
        | {"test": SplitVectors(torn.splits["test"].vectors_ND[:5], torn.splits["test"].labels_N, torn.splits["test"].rows_N, "test")},
        1,
    )
    save_embeddings(folder / "torn.npz", torn)
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], (folder / "torn.npz").read_bytes()):
        (folder / "embeddings.npz").write_bytes(damaged)
        with pytest.raises(RunInvalid, match="python -m cifar_tl describe run-7"):
            load_embeddings(folder / "embeddings.npz")


def test_the_first_map_is_of_all_test_images_and_a_stratified_sample_of_train(features, monkeypatch):
    monkeypatch.setattr("cifar_tl.evaluation.embedding_map.TRAIN_IMAGES", 70)
    found = reduced(features)
    drawn = first_map(found, seed=3)
    assert drawn.splits["test"].rows_N.tolist() == list(range(300))
    assert np.bincount(drawn.splits["train"].labels_N).tolist() == [7] * 10
    assert np.array_equal(drawn.splits["test"].vectors_ND, found.splits["test"].vectors_ND[:, :2].astype(np.float32))
    assert same(first_map(found, seed=3).splits["train"], drawn.splits["train"])
    assert not same(first_map(found, seed=4).splits["train"], drawn.splits["train"])


def test_a_large_test_set_is_sampled_too(features, monkeypatch):
    monkeypatch.setattr("cifar_tl.evaluation.embedding_map.MOST_TEST_IMAGES", 100)
    drawn = first_map(reduced(features), seed=0)
    assert np.bincount(drawn.splits["test"].labels_N).tolist() == [10] * 10


def test_embeddings_of_one_number_have_a_map_too():
    line = {"train": vectors([[1], [2], [4]]), "test": vectors([[3], [0]], store_split="test")}
    drawn = first_map(reduced(line), seed=0)
    assert drawn.splits["test"].vectors_ND.shape == (2, 2)


@pytest.fixture
def described(tmp_path):
    folder = make_run(tmp_path, run_id="r")
    describe_made_run(folder, method=PCA)
    return folder


def test_t_sne_moves_the_points_and_keeps_neighbours_together(described):
    before = load_map(described.embedding_map)
    assert wants_tsne(described)
    draw_tsne(described)
    after = load_map(described.embedding_map)
    assert not wants_tsne(described)
    assert after.method == TSNE
    points, labels = after.splits["test"].vectors_ND, after.splits["test"].labels_N
    assert same(SplitVectors(before.splits["test"].vectors_ND, labels, after.splits["test"].rows_N, "test"), before.splits["test"])
    assert not np.allclose(points, before.splits["test"].vectors_ND)
    nearest = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(points, return_distance=False)[:, 1]
    assert (labels[nearest] == labels).mean() > 0.95
    saved = described.embedding_map.read_bytes()
    save_map(described.embedding_map, before)
    draw_tsne(described)
    assert described.embedding_map.read_bytes() == saved  # seeded


def test_a_map_of_few_images_stays_as_it_is(tmp_path):
    folder = make_run(tmp_path, run_id="r", test_images=40)
    describe_made_run(folder, test_images=40, train_images=100, method=PCA)
    assert len(load_map(folder.embedding_map)) == 90
    assert not wants_tsne(folder)


def test_a_run_is_described_when_all_three_files_are_whole(described):
    assert is_described(described)
    for path in (described.evaluation_of("train"), described.embeddings, described.embedding_map):
        whole = path.read_bytes()
        path.write_bytes(whole[:100])
        assert not is_described(described)
        path.unlink()
        assert not is_described(described)
        path.write_bytes(whole)
    assert is_described(described)
    forget_description(described)
    assert not is_described(described)
    assert described.evaluation_of("test").is_file()
    forget_description(described)


def test_a_map_of_images_that_have_no_embedding_is_refused(described):
    drawn = load_map(described.embedding_map)
    test = drawn.splits["test"]
    moved = EmbeddingMap(PCA, dict(drawn.splits) | {"test": SplitVectors(test.vectors_ND, test.labels_N, test.rows_N + 1, "test")})
    save_map(described.embedding_map, moved)
    with pytest.raises(RunInvalid, match="describe the run again"):
        draw_tsne(described)


def test_an_evaluation_file_of_before_with_embeddings_in_it_still_loads(tmp_path):
    evaluation = made_evaluation(30, 5)
    save_evaluation(tmp_path / "new.npz", evaluation)
    with np.load(tmp_path / "new.npz") as file:
        np.savez(tmp_path / "old.npz", embeddings_NF=np.zeros((30, 16), np.float16), **file)
    assert np.array_equal(load_evaluation(tmp_path / "old.npz").probabilities_NC, evaluation.probabilities_NC)
    assert (tmp_path / "new.npz").stat().st_size < (tmp_path / "old.npz").stat().st_size
