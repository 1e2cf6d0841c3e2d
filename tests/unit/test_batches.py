"""Batches: every image once, in an order that seed and epoch decide; one preprocessing for all."""

import numpy as np
import pytest
import torch
from PIL import Image

from cifar_tl.data.batches import ImageBatches, epoch_batches, in_order, num_batches, resize_in_floats, resize_uint8, to_model_input
from cifar_tl.data.store import Split
from cifar_tl.runs.store import Preprocessing

PLAIN = Preprocessing(store_resolution=8, image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def pixels(count: int = 10, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (10, 10), (10, 100), (1, 1), (1000, 128)])
def test_an_epoch_sees_every_image_once_in_near_equal_batches(count, batch_size):
    batches = epoch_batches(np.zeros(count, np.int64), batch_size=batch_size, seed=0, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(count))
    assert len(batches) == num_batches(count, batch_size)
    assert max(map(len, batches)) <= batch_size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_the_order_depends_on_seed_and_epoch_alone():
    labels = np.zeros(100, np.int64)
    orders = [np.concatenate(epoch_batches(labels, batch_size=10, seed=s, epoch=e)).tolist() for s, e in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]
    assert orders[0] != orders[3]


def test_balanced_sampling_draws_a_rare_class_as_often_as_a_common_one():
    labels = np.array([0] * 950 + [1] * 50)
    drawn = labels[np.concatenate(epoch_batches(labels, batch_size=100, seed=0, epoch=0, is_balanced=True))]
    assert 400 < (drawn == 1).sum() < 600


def test_evaluation_order_is_complete():
    assert np.concatenate(list(in_order(10, 4))).tolist() == list(range(10))


def test_model_input_is_the_normalised_pixels():
    images = torch.from_numpy(pixels()).permute(0, 3, 1, 2)
    preprocessing = Preprocessing(8, 8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    expected = (images.float() / 255 - mean) / std
    assert torch.allclose(to_model_input(images, preprocessing), expected, atol=1e-5)
    assert to_model_input(images, preprocessing).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [4, 16, 21])
def test_resizing_agrees_with_pillow_bicubic(size):
    stored = pixels(3)
    ours = to_model_input(torch.from_numpy(stored).permute(0, 3, 1, 2), Preprocessing(8, size, (0.0,) * 3, (1.0,) * 3))
    theirs = np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in stored])
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() * 255 - theirs).max() <= 1.01


def test_model_input_leaves_the_stored_pixels_as_they_are():
    stored = pixels()
    before = stored.copy()
    to_model_input(torch.from_numpy(stored).permute(0, 3, 1, 2), PLAIN)
    assert (stored == before).all()


def test_batches_gather_the_chosen_rows_with_their_labels():
    split = Split(pixels(), np.arange(10))
    batches = ImageBatches(split, np.array([7, 2, 5]), np.array([1, 0, 1]), torch.device("cpu"))
    assert len(batches) == 3
    assert (batches.images(np.array([2, 0])).permute(0, 2, 3, 1).numpy() == split.images_NHWC[[5, 7]]).all()
    assert batches.labels_N.tolist() == [1, 0, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_gpu_sees_the_pixels_a_cpu_sees():
    split = Split(pixels(20, 32), np.zeros(20, np.int64))
    big = Preprocessing(32, 64, (0.5,) * 3, (0.5,) * 3)
    rows, labels = np.arange(20), np.zeros(20, np.int64)
    on = [to_model_input(ImageBatches(split, rows, labels, torch.device(name)).images(rows), big).cpu() for name in ("cpu", "cuda")]
    differences = (on[0] - on[1]).abs() * 255 * 0.5  # in levels of 8 bits
    assert differences.max() <= 2.1
    assert (differences > 1.25).float().mean() < 1e-4
    assert (differences > 0.1).float().mean() < 0.01


@pytest.mark.parametrize("size", [20, 64, 128])
def test_resizing_in_floats_gives_what_the_8_bit_kernel_gives(size):
    images = torch.from_numpy(pixels(20, 32)).permute(0, 3, 1, 2)  # noise: the hardest case
    differences = (resize_in_floats(images, size).int() - resize_uint8(images, size).int()).abs()
    assert differences.max() <= 2
    assert (differences > 1).float().mean() < 1e-4
    assert (differences > 0).float().mean() < 0.01
