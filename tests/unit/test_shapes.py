"""The drawn data set: the same bytes everywhere, balanced, and safe to mirror."""

import hashlib

import numpy as np
import pytest

from cifar_tl.data import shapes

TRAIN_SHA256 = "abe2c0824a9e313256fecc5c6083420eb9b5e8ef38d72382ca19313afb639a3b"
TEST_SHA256 = "c98d38f499326d53598c3a9a8a61960757d198d50aacf06460e519df35cdfc67"


@pytest.fixture(scope="module")
def drawn():
    """split -> (images, labels)"""
    return {split: [np.concatenate(part) for part in zip(*shapes.draw(split), strict=True)] for split in shapes.SPLIT_SIZES}


def test_every_machine_draws_the_same_bytes(drawn):
    assert hashlib.sha256(drawn["train"][0].tobytes()).hexdigest() == TRAIN_SHA256
    assert hashlib.sha256(drawn["test"][0].tobytes()).hexdigest() == TEST_SHA256


@pytest.mark.parametrize(("split", "per_class"), [("train", 200), ("test", 50)])
def test_every_class_has_equally_many_images(drawn, split, per_class):
    images, labels = drawn[split]
    assert images.shape == (20 * per_class, 32, 32, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), per_class)


def test_no_image_occurs_twice(drawn):
    everything = np.concatenate([drawn["train"][0], drawn["test"][0]])
    assert len({image.tobytes() for image in everything}) == len(everything)


def test_another_seed_draws_other_images():
    assert not np.array_equal(next(shapes.draw("test", seed=1))[0], next(shapes.draw("test", seed=2))[0])


def test_twenty_classes_lie_in_five_superclasses_of_four():
    assert len(set(shapes.CLASS_NAMES)) == 20
    assert np.bincount(shapes.SUPERCLASS_OF_CLASS).tolist() == [4] * 5
    assert shapes.SUPERCLASS_NAMES[shapes.SUPERCLASS_OF_CLASS[shapes.CLASS_NAMES.index("star_6")]] == "stars"


def test_every_shape_is_its_own_mirror_image():
    for name, template in zip(shapes.CLASS_NAMES, shapes._templates(), strict=True):
        differing = (template ^ template[:, ::-1]).mean()
        assert differing < 0.001, name


def test_no_two_shapes_are_the_same():
    templates = shapes._templates()
    for a in range(20):
        for b in range(a):
            assert (templates[a] ^ templates[b]).mean() > 0.01, (shapes.CLASS_NAMES[a], shapes.CLASS_NAMES[b])


def test_shapes_keep_clear_of_the_border_of_their_templates():
    for name, template in zip(shapes.CLASS_NAMES, shapes._templates(), strict=True):
        border = np.concatenate([template[0], template[-1], template[:, 0], template[:, -1]])
        assert template.any(), name
        assert not border.any(), name


def test_a_circle_covers_the_area_of_a_circle():
    template = shapes._templates()[shapes.CLASS_NAMES.index("circle")]
    assert template.mean() * 2.4**2 == pytest.approx(np.pi, rel=0.002)
