"""What trains when, and at which image size."""

import pytest
from torch import nn

from cifar_tl.config import make_config
from cifar_tl.errors import SettingsError
from cifar_tl.models.build import Classifier
from cifar_tl.models.stages import Stages
from cifar_tl.training.inputs import cached_training_views
from cifar_tl.training.plan import Leg, image_sizes, plan_legs


@pytest.fixture
def classifier() -> Classifier:
    stages = Stages(("a", "b", "c"), (nn.Identity(), nn.Identity(), nn.Identity()), 4)
    return Classifier(stages, 2, 0.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("values", "legs"),
    [
        ({"trainable": "head"}, [Leg(3, 0, 6)]),
        ({"trainable": "last_stages", "trainable_stages": 2}, [Leg(1, 0, 6)]),
        ({"trainable": "everything"}, [Leg(0, 0, 6)]),
        ({"trainable": "head_then_everything", "head_epochs": 2}, [Leg(3, 0, 2), Leg(0, 2, 6)]),
    ],
)
def test_legs_follow_what_trains(classifier, values, legs):
    assert plan_legs(make_config(epochs=6, **values), classifier) == legs


@pytest.mark.parametrize(
    ("epochs", "sizes"),
    [(1, [128]), (2, [64, 128]), (3, [64, 96, 128]), (6, [64, 64, 96, 96, 128, 128]), (9, [64, 64, 64, 96, 96, 96, 128, 128, 128])],
)
def test_progressive_resizing_grows_to_the_full_size_and_stays_there(epochs, sizes):
    config = make_config(trainable="everything", epochs=epochs, image_size=128, first_image_size=64)
    found = image_sizes(config, Leg(0, 0, epochs))
    assert found == sizes
    assert found == sorted(found)


def test_frozen_stages_see_one_size_only():
    config = make_config(trainable="head_then_everything", epochs=4, head_epochs=1, image_size=128, first_image_size=64)
    assert image_sizes(config, Leg(3, 0, 1)) == [128]
    assert image_sizes(make_config(), Leg(0, 0, 2)) == [128, 128]


@pytest.mark.parametrize("values", [{"first_image_size": 160, "trainable": "everything"}, {"first_image_size": 64, "trainable": "head"}])
def test_sizes_that_make_no_sense_are_refused(values):
    with pytest.raises(SettingsError, match="irst image size"):
        make_config(image_size=128, **values)


@pytest.mark.parametrize(
    ("values", "views"),
    [
        ({}, ("plain", "mirrored")),
        ({"cached_views": 1}, ("plain",)),
        ({"cached_views": 9}, ("plain", "mirrored")),
        ({"flip": False}, ("plain",)),
        ({"cached_views": 0}, ()),
        ({"mixup": 0.2, "cutmix": 1.0}, ("plain", "mirrored")),
        ({"crop": True, "cached_views": 3}, ("flip+crop.0", "flip+crop.1", "flip+crop.2")),
        (
            {"trivial_augment": True, "flip": False, "random_erasing": 0.25},
            ("trivial_augment+random_erasing_0.25.0", "trivial_augment+random_erasing_0.25.1"),
        ),
    ],
)
def test_cached_views_follow_the_augmentation(values, views):
    assert cached_training_views(make_config(**values)) == views
