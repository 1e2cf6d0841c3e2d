"""Augmentation: pure functions on a batch, compared with slow references and invariants."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cifar_tl.config import make_config
from cifar_tl.data import trivial_augment as ta
from cifar_tl.data.augment import augment, changes_each_image, mix, random_crop, random_erasing, random_flip, rectangles


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int = 64, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=generator(1))


def uint8_pictures(count: int = 64, size: int = 32) -> torch.Tensor:
    return (pictures(count, size) * 255).to(torch.uint8)


def test_flip_gives_each_image_or_its_mirror_and_both_occur():
    images = pictures()
    flipped = random_flip(images, generator())
    is_same = (flipped == images).flatten(1).all(1)
    is_mirror = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (is_same | is_mirror).all()
    assert 10 < int(is_mirror.sum()) < 54


def test_crop_equals_a_slow_pad_and_slice():
    images = pictures(16)
    cropped = random_crop(images, generator(3))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    for index in range(len(images)):
        windows = [padded[index, :, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
        assert any(torch.equal(cropped[index], window) for window in windows), index


def test_crop_shifts_differ_between_images():
    image = pictures(1).expand(40, -1, -1, -1)
    cropped = random_crop(image, generator())
    assert len({one.numpy().tobytes() for one in cropped}) > 20


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_erasing_touches_none_or_all_as_its_probability_says(probability):
    images = pictures()
    is_changed = (random_erasing(images, probability, generator()) != images).flatten(1).any(1)
    assert bool(is_changed.all()) == (probability == 1.0)
    assert bool(is_changed.any()) == (probability == 1.0)


def test_erased_area_stays_within_the_papers_bounds():
    images = pictures(200)
    area = (random_erasing(images, 1.0, generator()) != images).any(1).float().mean(dim=(1, 2))
    assert float(area.max()) < 0.40
    assert 0.05 < float(area.mean()) < 0.25


def test_rectangles_are_where_they_are_asked_to_be():
    mask = rectangles(torch.tensor([0.5]), torch.tensor([0.25]), torch.tensor([1.0]), torch.tensor([2.0]), 8, 8)[0, 0]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[3:5, 0:4] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("change", ta._CHANGES)
def test_every_trivial_augment_change_keeps_shape_and_range(change, monkeypatch):
    images = pictures(32)
    index = ta._CHANGES.index(change)
    monkeypatch.setattr(torch, "randint", lambda low, high, shape, **_: torch.full(shape, index if high > 2 else 1))
    changed = ta.trivial_augment(images, generator())
    assert changed.shape == images.shape
    assert float(changed.min()) >= -1e-5
    assert float(changed.max()) <= 1 + 1e-5
    assert torch.equal(changed, images) == (change == "identity")


def test_equalize_agrees_with_pillow_on_a_smooth_picture():
    ramp = (torch.linspace(40, 200, 32 * 32).round() / 255).view(1, 1, 32, 32).expand(1, 3, 32, 32)
    ours = ta._equalize(ramp, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))[0].permute(1, 2, 0).mul(255).round().numpy()
    picture = Image.fromarray((ramp[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    assert np.abs(ours - np.asarray(ImageOps.equalize(picture), np.float32)).max() <= 3


def test_solarize_and_posterize_at_no_strength_change_nothing_visible():
    images, none, sign = pictures(4), torch.zeros(4, 1, 1, 1), torch.ones(4, 1, 1, 1)
    images = images.mul(254).round() / 255
    assert torch.allclose(ta._solarize(images, none, sign), images)
    assert (ta._posterize(images, none, sign) - images).abs().max() < 1.5 / 255


def test_augment_with_everything_off_returns_the_batch_itself():
    images = uint8_pictures()
    config = make_config(flip=False, crop=False)
    assert augment(images, config, generator()) is images


def test_same_generator_state_gives_the_same_augmentation():
    config = make_config(flip=True, crop=True, trivial_augment=True, random_erasing=0.5)
    images = uint8_pictures()
    first, second = augment(images, config, generator(7)), augment(images, config, generator(7))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, config, generator(8)))
    assert first.dtype is torch.uint8


def test_mixup_targets_say_what_the_pixels_are():
    config = make_config(mixup=1.0)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    images[1] = 255
    for seed in range(20):
        mixed, targets = mix(images, torch.tensor([0, 1]), config, 2, generator(seed))
        assert torch.allclose(targets.sum(1), torch.ones(2))
        assert torch.allclose(mixed.float().mean(dim=(1, 2, 3)) / 255, targets[:, 1], atol=0.01)


def test_cutmix_targets_are_the_area_of_the_pixels():
    config = make_config(cutmix=1.0)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    images[1] = 255
    shares = []
    for seed in range(50):
        mixed, targets = mix(images, torch.tensor([0, 1]), config, 2, generator(seed))
        assert torch.allclose(mixed.float().mean(dim=(1, 2, 3)) / 255, targets[:, 1], atol=1e-5)
        shares.append(float(targets[0, 1]))
    assert len(set(shares)) > 10


def test_mix_without_either_leaves_hard_labels():
    images, labels = uint8_pictures(4), torch.arange(4)
    same_images, same_labels = mix(images, labels, make_config(), 4, generator())
    assert same_images is images
    assert same_labels is labels


@pytest.mark.parametrize("values", [{"crop": True}, {"trivial_augment": True}, {"random_erasing": 0.1}])
def test_a_flip_is_no_change_that_a_mirrored_copy_cannot_stand_in_for(values):
    assert not changes_each_image(make_config(flip=True))
    assert changes_each_image(make_config(**values))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_mixed_as_images_are(dtype):
    """Each map is constant, so that what was pasted or blended shows, and must agree with the targets."""
    labels = torch.arange(12)
    maps = labels.view(-1, 1, 1, 1).expand(-1, 5, 8, 8).to(dtype)
    for values in ({"mixup": 0.4}, {"cutmix": 1.0}):
        mixed, targets = mix(maps, labels, make_config(**values), 12, generator())
        assert mixed.dtype is dtype
        assert mixed.shape == maps.shape
        expected = (targets * torch.arange(12)).sum(1)
        assert torch.allclose(mixed.float().mean((1, 2, 3)), expected, rtol=0.02, atol=0.02)
        assert float(targets.max(1).values.min()) < 1


@pytest.mark.parametrize("shape", [(6, 40), (6, 17, 32), (6, 7, 7, 96)])
def test_what_is_no_map_is_never_pasted(shape):
    features, labels = torch.randn(shape), torch.arange(6)
    same, hard = mix(features, labels, make_config(cutmix=1.0), 6, generator())
    assert same is features
    assert hard is labels
    blended, soft = mix(features, labels, make_config(cutmix=1.0, mixup=0.2), 6, generator())
    assert blended.shape == features.shape
    assert torch.allclose(soft.sum(1), torch.ones(6))


def test_trivial_augment_changes_each_image_as_if_it_were_alone(monkeypatch):
    """Sorting images by their change must not mix them up."""
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = ta.trivial_augment(images, generator())
    for index, name in enumerate(ta._CHANGES):
        monkeypatch.setattr(ta, "integers", lambda random, low, high, *shape, index=index: _drawn(random, low, high, shape, index))
        alone = ta.trivial_augment(images, generator())
        monkeypatch.undo()
        is_this = torch.randint(0, len(ta._CHANGES), (64,), generator=generator()) == index
        assert is_this.any(), name
        assert torch.equal(found[is_this], alone[is_this]), name


def _drawn(random: torch.Generator, low: int, high: int, shape: tuple[int, ...], index: int) -> torch.Tensor:
    """The draws that `integers` would make, except that every image draws the change of that index."""
    drawn = torch.randint(low, high, shape, generator=random)
    return torch.full_like(drawn, index) if high == len(ta._CHANGES) else drawn
