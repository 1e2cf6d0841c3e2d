"""Train / dev split, class selection, few-shot limits: stratified, seeded, and never a leak."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_tl.data.splits import limit_per_class, run_splits, select_classes, train_dev_split
from cifar_tl.data.store import ImageStore, StoreInfo, writing_store
from cifar_tl.errors import SettingsError, SourceInvalid

NAMES = ("ant", "bee", "cat", "dog")
LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=200).map(np.array)


def made_store(folder, *, dev=False, train_labels=None, test_labels=None):
    train = np.arange(80) % 4 if train_labels is None else np.asarray(train_labels)
    sizes = {"train": train, "test": np.arange(12) % 4 if test_labels is None else np.asarray(test_labels)}
    if dev:
        sizes["dev"] = np.arange(8) % 4
    with writing_store(folder) as writer:
        for split, labels in sizes.items():
            writer.write_split(split, labels, [np.zeros((len(labels), 2, 2, 3), np.uint8)], 2)
        writer.finish(StoreInfo("made", "Made", 2, NAMES, ("insects", "plants", "mammals"), (0, 0, 2, 2)))
    return ImageStore(folder)


@given(LABELS, st.integers(0, 2**31 - 1))
def test_train_and_dev_share_no_image_and_miss_none(labels, seed):
    train, dev = train_dev_split(labels, seed=seed)
    assert sorted([*train, *dev]) == list(range(len(labels)))


@given(LABELS, st.integers(0, 2**31 - 1))
def test_every_class_of_two_or_more_images_is_on_both_sides_and_single_images_train(labels, seed):
    train, dev = train_dev_split(labels, seed=seed)
    for name, size in zip(*np.unique(labels, return_counts=True), strict=True):
        assert (labels[train] == name).any()
        assert (labels[dev] == name).any() == (size >= 2)


def test_a_tenth_of_every_class_is_dev():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 500))
    train, dev = train_dev_split(labels, seed=3)
    np.testing.assert_array_equal(np.bincount(labels[dev]), 50)
    np.testing.assert_array_equal(np.bincount(labels[train]), 450)


def test_the_split_follows_the_seed_and_nothing_else():
    labels = np.arange(200) % 5
    first = train_dev_split(labels, seed=1)[1]
    np.testing.assert_array_equal(first, train_dev_split(labels, seed=1)[1])
    assert not np.array_equal(first, train_dev_split(labels, seed=2)[1])


def test_the_split_of_a_seed_is_the_same_on_every_machine_and_version():
    # Written down once: an old run's dev set must not change under it.
    assert train_dev_split(np.arange(40) % 2, seed=0)[1].tolist() == [2, 3, 11, 20]


@given(LABELS, st.integers(1, 50), st.integers(0, 1000))
def test_limits_keep_at_most_that_many_of_each_class_and_all_of_smaller_ones(labels, limit, seed):
    kept = limit_per_class(labels, np.arange(len(labels)), limit, seed=seed)
    np.testing.assert_array_equal(np.bincount(labels[kept], minlength=7), np.minimum(np.bincount(labels, minlength=7), limit))


def test_a_smaller_limit_keeps_a_subset_of_a_larger_one():
    labels = np.arange(300) % 3
    few, many = (set(limit_per_class(labels, np.arange(300), limit, seed=5)) for limit in (5, 20))
    assert few < many


def test_a_limit_chooses_among_the_given_indices_only():
    labels = np.arange(100) % 2
    allowed = np.arange(50, 100)
    assert set(limit_per_class(labels, allowed, 3, seed=0)) <= set(allowed)


def test_classes_come_in_the_order_of_the_store_however_they_were_named():
    assert select_classes(NAMES, ["dog", "bee"]).tolist() == [1, 3]
    assert select_classes(NAMES, []).tolist() == [0, 1, 2, 3]


def test_an_unknown_class_is_named_with_the_likely_one():
    with pytest.raises(SettingsError, match=r"'catt' \(did you mean 'cat'\?\).*ant, bee, cat, dog"):
        select_classes(NAMES, ["ant", "catt"])


def test_a_run_sees_train_dev_and_test_of_all_classes(tmp_path):
    splits = run_splits(made_store(tmp_path / "s"), classes=(), images_per_class=None, seed=0)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (72, 8, 12)
    assert (splits.train.store_split, splits.dev.store_split, splits.test.store_split) == ("train", "train", "test")
    assert not set(splits.train.rows) & set(splits.dev.rows)
    assert splits.class_names == NAMES
    assert (splits.superclass_names, splits.superclass_of_class) == (("insects", "mammals"), (0, 0, 1, 1))


def test_rows_ascend_and_labels_are_those_of_the_rows(tmp_path):
    store = made_store(tmp_path / "s")
    splits = run_splits(store, classes=(), images_per_class=None, seed=0)
    for rows in (splits.train, splits.dev, splits.test):
        assert rows.rows.dtype == rows.labels.dtype == np.int64
        assert (np.diff(rows.rows) > 0).all()
        np.testing.assert_array_equal(store[rows.store_split].labels_N[rows.rows], rows.labels)


def test_chosen_classes_get_labels_of_their_own_and_unused_superclasses_go(tmp_path):
    store = made_store(tmp_path / "s")
    splits = run_splits(store, classes=("dog", "cat"), images_per_class=None, seed=0)
    assert (splits.class_names, splits.superclass_names, splits.superclass_of_class) == (("cat", "dog"), ("mammals",), (0, 0))
    np.testing.assert_array_equal(store["train"].labels_N[splits.train.rows], splits.train.labels + 2)


def test_the_dev_images_of_a_class_are_the_same_whatever_else_is_chosen(tmp_path):
    store = made_store(tmp_path / "s")
    everything = run_splits(store, classes=(), images_per_class=None, seed=7)
    some = run_splits(store, classes=("cat", "dog"), images_per_class=3, seed=7)
    assert set(some.dev.rows) == set(everything.dev.rows[everything.dev.labels >= 2])


def test_a_limit_per_class_leaves_dev_and_test_alone(tmp_path):
    splits = run_splits(made_store(tmp_path / "s"), classes=(), images_per_class=3, seed=0)
    np.testing.assert_array_equal(np.bincount(splits.train.labels), 3)
    assert (len(splits.dev), len(splits.test)) == (8, 12)


def test_a_dev_split_of_the_store_is_used_and_all_of_train_trains(tmp_path):
    splits = run_splits(made_store(tmp_path / "s", dev=True), classes=(), images_per_class=None, seed=0)
    assert (splits.dev.store_split, len(splits.dev), len(splits.train)) == ("dev", 8, 80)


def test_classes_without_test_images_cannot_make_a_run(tmp_path):
    store = made_store(tmp_path / "s", test_labels=[0, 1, 2])
    with pytest.raises(SourceInvalid, match="no test images"):
        run_splits(store, classes=("dog",), images_per_class=None, seed=0)
