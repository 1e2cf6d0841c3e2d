"""Predictor: pictures in, answers out. The network here tells red from green from blue, so that every answer can be worked out by hand."""

import gc
import io
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cifar_tl import inference
from cifar_tl.answers import Asked, Framing
from cifar_tl.config import make_config
from cifar_tl.data.bottleneck import closest_square
from cifar_tl.data.decode import decode_image
from cifar_tl.errors import ImageUnreadable, RunInvalid
from cifar_tl.evaluation.arrays import Evaluation, save_evaluation
from cifar_tl.evaluation.calibration import fit_temperature
from cifar_tl.evaluation.embeddings import Axes, Embeddings, SplitVectors, load_embeddings, save_embeddings
from cifar_tl.evaluation.familiarity import familiarity, unlikeness
from cifar_tl.inference import Predictor, predictor_of
from cifar_tl.models.build import Classifier
from cifar_tl.models.stages import Stages
from cifar_tl.paths import RunFolder
from cifar_tl.runs.store import Preprocessing, RunManifest

SIZE = 16
CLASSES = ("crimson", "ruby", "lime", "navy")
SUPERCLASSES, OF_CLASS = ("red", "not red"), (0, 0, 1, 1)


class MeanColour(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


class LeftHalf(nn.Module):
    """Sees the left half only, so that mirror images differ."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[..., : SIZE // 2].mean((2, 3))


def made_predictor(folder: Path | None = None, *, see: nn.Module | None = None, **settings: object) -> Predictor:
    """Features are mean red, green and blue in [0, 1]; of the two reds, the first gets four fifths of the logit."""
    network = Classifier(Stages(("colour",), (see or MeanColour(),), 3), len(CLASSES), 0.0, (0.0,) * 3, (1.0,) * 3)
    with torch.no_grad():
        network.head[1].weight.copy_(torch.tensor([[4.0, 0, 0], [5.0, 0, 0], [0, 5.0, 0], [0, 0, 5.0]]))
        network.head[1].bias.zero_()
    manifest = RunManifest(
        run_id="made",
        created=0.0,
        data_title="Made",
        data_fingerprint="made",
        class_names=CLASSES,
        superclass_names=SUPERCLASSES,
        superclass_of_class=OF_CLASS,
        preprocessing=Preprocessing(SIZE, SIZE, (0.0,) * 3, (1.0,) * 3),
        stage_names=("colour",),
        versions={},
    )
    config = make_config(source="shapes", image_size=32, precision="float32", **settings)
    return Predictor(config, manifest, network.eval(), RunFolder(folder) if folder else None)


def png(colour: str | tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> bytes:
    return png_of(np.asarray(Image.new("RGB", size, colour)))


def png_of(pixels_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def softmax(*logits: float) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_classes_come_most_probable_first_with_what_the_softmax_says():
    (answer,) = made_predictor().answer([("red.png", png("red"))])
    assert [item.class_name for item in answer.classes] == ["ruby", "crimson", "lime", "navy"]
    expected = np.sort(softmax(4, 5, 0, 0))[::-1]
    assert [item.probability for item in answer.classes] == pytest.approx(expected, abs=1e-5)
    assert [item.superclass_name for item in answer.classes] == ["red", "red", "not red", "not red"]


def test_superclasses_are_the_sums_of_all_their_classes():
    (answer,) = made_predictor().answer([("red.png", png("red"))], Asked(top_k=1))
    assert len(answer.classes) == 1
    (best,) = answer.superclasses
    assert best.superclass_name == "red"
    assert best.probability == pytest.approx(softmax(4, 5, 0, 0)[:2].sum(), abs=1e-5)


def test_a_file_that_cannot_be_read_answers_with_why_and_the_others_as_if_alone():
    files = [("red.png", png("red")), ("broken.png", b"nothing"), ("blue.png", png("blue"))]
    first, second, third = made_predictor().answer(files)
    assert (first.classes[0].class_name, third.classes[0].class_name) == ("ruby", "navy")
    assert "not a picture" in second.error
    assert not second.classes + second.superclasses
    assert [answer.name for answer in (first, second, third)] == [name for name, _ in files]


def test_only_unreadable_files_are_answered_too():
    assert [bool(answer.error) for answer in made_predictor().answer([("a", b""), ("b", b"x")])] == [True, True]
    assert list(made_predictor().answer([])) == []


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 200])
def test_every_file_has_its_answer_in_order_whatever_the_batch(count):
    colours = [(number % 256, 255 - number % 256, 7) for number in range(count)]
    answers = list(made_predictor().answer([(str(number), png(colour, (8, 8))) for number, colour in enumerate(colours)]))
    assert [answer.name for answer in answers] == [str(number) for number in range(count)]
    assert [tuple(pixels(answer.seen_png)[0, 0]) for answer in answers] == colours


def test_pictures_in_memory_are_those_of_three_batches(monkeypatch):
    alive, most, lock = weakref.WeakSet(), [0], threading.Lock()

    class Watched(np.ndarray):
        pass

    def watched_square(picture, resolution, framing):
        square = closest_square(picture, resolution, framing).view(Watched)
        with lock:
            alive.add(square)
            most[0] = max(most[0], len(alive))
        return square

    Watched.__hash__ = object.__hash__
    Watched.__eq__ = object.__eq__
    monkeypatch.setattr(inference, "closest_square", watched_square)
    for number, _ in enumerate(made_predictor().answer([(str(number), png("red", (8, 8))) for number in range(400)])):
        if number % 32 == 0:
            gc.collect()
    assert 32 < most[0] <= 4 * 32  # three, and the one whose answers are being handed out


def test_who_wants_no_more_answers_waits_for_no_more_pictures(monkeypatch):
    opened = []
    monkeypatch.setattr(inference, "closest_square", lambda *arguments: opened.append(1) or closest_square(*arguments))
    answers = made_predictor().answer([(str(number), png("red", (8, 8))) for number in range(1000)])
    next(answers)
    answers.close()
    assert len(opened) <= 3 * 32


def test_confidence_is_softened_by_the_temperature_of_the_runs_dev_answers(tmp_path):
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 2000)
    logits = random.normal(0, 1, (2000, 4)) + 2 * np.eye(4)[labels]
    sharpened = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    dev = Evaluation(
        labels.astype(np.int32), np.argsort(-logits, 1).astype(np.int32), sharpened.astype(np.float16), np.arange(2000), "train"
    )
    save_evaluation(RunFolder(tmp_path).evaluation_of("dev"), dev)
    predictor = made_predictor(tmp_path)
    assert predictor.temperature == pytest.approx(fit_temperature(dev))
    assert predictor.temperature > 1.3
    found = predictor.probabilities(np.stack([pixels(png("red", (SIZE, SIZE)))]))[0]
    assert found == pytest.approx(softmax(*(np.array([4, 5, 0, 0]) / predictor.temperature)), abs=1e-5)
    (answer,) = predictor.answer([("red", png("red"))])
    assert answer.classes[0].probability == pytest.approx(found.max())


def test_without_dev_answers_or_with_damaged_ones_the_temperature_is_one(tmp_path):
    assert made_predictor().temperature == made_predictor(tmp_path).temperature == 1.0
    path = RunFolder(tmp_path).evaluation_of("dev")
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    assert made_predictor(tmp_path).temperature == 1.0


@pytest.mark.parametrize(
    ("as_evaluated", "asked", "sees_both"), [(True, None, True), (False, None, False), (False, True, True), (True, False, False)]
)
def test_mirror_images_count_as_the_run_was_evaluated_unless_asked_otherwise(as_evaluated, asked, sees_both):
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    picture[:, : SIZE // 2, 0], picture[:, SIZE // 2 :, 1] = 255, 255  # red left, green right
    predictor = made_predictor(see=LeftHalf(), average_flips=as_evaluated)
    (answer,) = predictor.answer([("both", png_of(picture))], Asked(average_flips=asked))
    expected = softmax(2, 2.5, 2.5, 0) if sees_both else softmax(4, 5, 0, 0)
    assert sorted(item.probability for item in answer.classes) == pytest.approx(sorted(expected), abs=1e-5)
    assert predictor.probabilities(picture[None], average_flips=asked)[0] == pytest.approx(expected, abs=1e-5)


def test_the_middle_or_the_whole_of_a_wide_picture_is_seen():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[..., 2] = 255
    wide[:, 20:40] = (255, 0, 0)
    middle, whole = (next(made_predictor().answer([("wide", png_of(wide))], Asked(framing=framing))) for framing in Framing)
    assert (middle.classes[0].class_name, whole.classes[0].class_name) == ("ruby", "navy")
    seen = pixels(whole.seen_png)
    assert seen.shape == (SIZE, SIZE, 3)
    assert np.array_equal(seen, made_predictor().square(png_of(wide), Framing.WHOLE))


def test_what_the_model_sees_is_what_a_stored_image_of_the_same_file_would_be():
    noise = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
    data = png_of(noise)
    (answer,) = made_predictor().answer([("noise", data)])
    assert np.array_equal(pixels(answer.seen_png), closest_square(decode_image(data), SIZE))


def test_the_preview_is_small_and_keeps_its_shape():
    answers = list(
        made_predictor().answer([("large", png("red", (1000, 500))), ("small", png("red", (9, 5))), ("thin", png("red", (3000, 1)))])
    )
    assert [pixels(answer.preview).shape for answer in answers] == [(128, 256, 3), (5, 9, 3), (1, 256, 3)]


def test_the_preview_of_a_large_picture_is_a_fraction_of_its_bytes_and_that_of_a_small_one_is_exact():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    large, small = made_predictor().answer([("large", png_of(noise)), ("small", png_of(noise[:64, :64]))])
    assert len(large.preview) < noise.nbytes / 2
    assert np.array_equal(pixels(small.preview), noise[:64, :64])


def described(folder: Path, dev_unlikeness: np.ndarray | None, features: int = 3) -> None:
    """A run whose one axis is from grey towards red, half of a unit long."""
    test = SplitVectors(np.zeros((1, 1), np.float16), np.zeros(1, np.int32), np.zeros(1, np.int64), "test")
    axes = Axes(np.full(features, 0.5, np.float32), np.eye(features, 1, dtype=np.float16), 0.5)
    save_embeddings(RunFolder(folder).embeddings, Embeddings({"test": test}, 1.0, axes, dev_unlikeness))


def test_a_new_picture_is_placed_by_the_axes_of_the_run(tmp_path):
    described(tmp_path, None)
    squares = np.stack([np.full((SIZE, SIZE, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 9, 9))])
    assert made_predictor(tmp_path).embedded(squares) == pytest.approx(np.array([[1.0], [-1.0]]), abs=1e-3)


def test_a_run_without_axes_says_what_to_do(tmp_path):
    with pytest.raises(RunInvalid, match="Prepare them in Explore"):
        made_predictor(tmp_path).embedded(np.zeros((1, SIZE, SIZE, 3), np.uint8))


def test_familiarity_is_the_share_of_dev_images_that_are_as_unlike(tmp_path):
    described(tmp_path, np.array([0.9, 0.1, 0.5, 0.7], np.float32))
    files = [("on the axis", png((255, 128, 128))), ("a corner", png((255, 0, 128))), ("off it", png((128, 255, 0)))]
    on, corner, off = made_predictor(tmp_path).answer(files)
    assert on.familiarity == 1.0
    assert corner.familiarity == 0.25  # its unlikeness is the root of a half, 0.707
    assert off.familiarity == 0.0


@pytest.mark.parametrize("features", [3, 5])
def test_a_run_that_has_nothing_to_compare_with_leaves_familiarity_open(features, tmp_path):
    described(tmp_path, None if features == 3 else np.ones(4, np.float32), features)
    (answer,) = made_predictor(tmp_path).answer([("red", png("red"))])
    assert answer.familiarity is None


def test_a_run_that_is_described_later_is_loaded_anew(tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(Predictor, "from_run", lambda path: loaded.append(path) or object())
    RunFolder(tmp_path).best_weights.write_bytes(b"")
    assert predictor_of(tmp_path) is predictor_of(tmp_path)
    described(tmp_path, None)
    predictor_of(tmp_path)
    assert len(loaded) == 2


def test_a_run_without_weights_is_one_line(tmp_path):
    with pytest.raises(RunInvalid, match="no weights yet"):
        predictor_of(tmp_path)


def test_square_of_what_is_no_picture_says_so():
    with pytest.raises(ImageUnreadable, match="not a picture"):
        made_predictor().square(b"nothing")


def test_unlikeness_is_the_sine_of_the_angle_to_the_axes():
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(20, 20)))[0]
    axes = Axes(random.normal(size=20).astype(np.float32), basis[:, :5].astype(np.float16), 3.0)
    vectors = random.normal(size=(50, 20))
    inside = vectors @ basis[:, :5]
    expected = np.sqrt(1 - (inside**2).sum(1) / (vectors**2).sum(1))
    assert unlikeness(vectors + axes.mean_F, axes) == pytest.approx(expected, abs=2e-3)


def test_a_picture_whose_features_are_all_average_is_like_the_others():
    axes = Axes(np.ones(4, np.float32), np.eye(4, 2, dtype=np.float16), 1.0)
    assert np.isfinite(unlikeness(np.ones((1, 4)), axes)).all()


def test_familiarity_counts_equals_and_is_never_outside_0_and_1():
    assert familiarity(np.array([0.0, 0.2, 0.3, 1.0]), np.array([0.3, 0.2, 0.2, 0.1])).tolist() == [1.0, 0.75, 0.25, 0.0]


def test_axes_come_back_from_the_file_and_files_without_them_still_load(tmp_path):
    described(tmp_path, np.array([0.5], np.float32))
    path = RunFolder(tmp_path).embeddings
    found = load_embeddings(path)
    assert found.axes
    assert found.axes.spread == 0.5
    assert found.axes.mean_F.tolist() == [0.5] * 3
    assert found.dev_unlikeness_N.tolist() == [0.5]
    save_embeddings(path, replace(found, axes=None, dev_unlikeness_N=None))
    older = load_embeddings(path)
    assert older.axes is older.dev_unlikeness_N is None


def test_axes_that_are_not_of_the_embeddings_are_damage(tmp_path):
    described(tmp_path, None)
    path = RunFolder(tmp_path).embeddings
    found = load_embeddings(path)
    save_embeddings(path, replace(found, axes=replace(found.axes, axes_FD=np.eye(3, 2, dtype=np.float16))))
    with pytest.raises(RunInvalid, match="damaged"):
        load_embeddings(path)
