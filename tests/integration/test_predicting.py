"""What the shipped run answers for pictures: calibrated, framed as asked, in order, with how unlike its training images they are."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_tl import explain
from cifar_tl.answers import Asked, Framing
from cifar_tl.errors import ImageUnreadable, RunInvalid
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.calibration import apply_temperature, fit_temperature
from cifar_tl.evaluation.embeddings import load_embeddings
from cifar_tl.inference import Predictor, predict_files, predictor_of
from tests.integration.test_demo import DEMO


def png(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def noise(count: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_of(DEMO.path)


def test_probabilities_are_those_of_the_network_after_the_temperature_of_dev(predictor: Predictor):
    assert predictor.temperature == pytest.approx(fit_temperature(load_evaluation(DEMO.evaluation_of("dev"))))
    assert predictor.temperature != 1
    images = noise(4)
    calibrated = predictor.probabilities(images)
    predictor.temperature, kept = 1.0, predictor.temperature
    try:
        plain = predictor.probabilities(images)
    finally:
        predictor.temperature = kept
    assert calibrated == pytest.approx(apply_temperature(plain, kept), abs=2e-3)


def test_a_superclass_is_as_probable_as_its_classes_together(predictor: Predictor):
    (answer,) = predictor.answer([("a.png", png(noise(1)[0]))], Asked(top_k=100))
    of_class: dict[str | None, float] = {}
    for ranked in answer.classes:
        of_class[ranked.superclass_name] = of_class.get(ranked.superclass_name, 0.0) + ranked.probability
    assert len(answer.superclasses) == 20
    assert {item.superclass_name: item.probability for item in answer.superclasses} == pytest.approx(of_class, abs=1e-5)


def test_noise_is_familiar_to_nobody_and_is_told_so(predictor: Predictor):
    answers = list(predictor.answer([(str(i), png(image)) for i, image in enumerate(noise(8))]))
    assert max(answer.familiarity or 0.0 for answer in answers) < 0.005


def test_answers_come_in_order_over_batches_with_one_line_for_what_is_no_picture(predictor: Predictor):
    images = noise(70)
    files = [(f"{i}.png", png(image)) for i, image in enumerate(images)]
    files[40] = ("40.png", b"no picture")
    answers = list(predictor.answer(files))
    assert [answer.name for answer in answers] == [name for name, _ in files]
    assert [bool(answer.error) for answer in answers] == [i == 40 for i in range(70)]
    (alone,) = predictor.answer([files[69]])
    assert alone.classes[0].class_name == answers[69].classes[0].class_name
    assert alone.classes[0].probability == pytest.approx(answers[69].classes[0].probability, abs=0.02)


def test_the_model_sees_the_middle_or_the_whole_as_asked(predictor: Predictor):
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, 40:80] = (200, 30, 30)
    seen = {framing: predictor.square(png(wide), framing) for framing in Framing}
    assert seen[Framing.CENTER][16, 16].tolist() == [200, 30, 30]
    assert seen[Framing.CENTER].std(axis=(0, 1)).max() < 2
    assert seen[Framing.WHOLE][2, 16].tolist() == [255, 255, 255]
    assert seen[Framing.WHOLE][16, 2].tolist() == [0, 0, 0]
    (answer,) = predictor.answer([("wide.png", png(wide))], Asked(framing=Framing.WHOLE))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.seen_png))), seen[Framing.WHOLE])


def test_averaging_flips_makes_a_picture_and_its_mirror_image_equal(predictor: Predictor):
    image = noise(1)
    same = [predictor.probabilities(views, average_flips=True) for views in (image, image[:, :, ::-1].copy())]
    assert same[0] == pytest.approx(same[1], abs=5e-3)
    apart = [predictor.probabilities(views, average_flips=False) for views in (image, image[:, :, ::-1].copy())]
    assert np.abs(apart[0] - apart[1]).max() > 5e-3


def test_what_is_no_picture_has_no_square(predictor: Predictor):
    with pytest.raises(ImageUnreadable):
        predictor.square(b"no picture")


def test_answers_of_the_prediction_process_are_the_same():
    files = [("a.png", png(noise(1)[0]))]
    (answer,) = predict_files(str(DEMO.path), files, Asked(top_k=3))
    assert len(answer.classes) == 3


def test_nearest_training_images_are_those_of_the_embeddings(predictor: Predictor):
    image = noise(1)[0]
    rows, labels, similarities, store_split = explain.nearest_training_images(str(DEMO.path), image, 8)
    train = load_embeddings(DEMO.embeddings).splits["train"]
    assert predictor.placing is not None
    placed = predictor.placing.placed(predictor.outputs(image[None])[1])[0]
    cosines = train.directions_ND @ (placed / np.linalg.norm(placed))
    best = np.argsort(-cosines, kind="stable")[:8]
    assert rows.tolist() == train.rows_N[best].tolist()
    assert labels.tolist() == train.labels_N[best].tolist()
    assert similarities == pytest.approx(cosines[best], abs=1e-3)
    assert store_split == "train"


def test_a_run_without_embeddings_says_how_to_get_them(tmp_path: Path):
    for file in (DEMO.config, DEMO.manifest, DEMO.best_weights):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(RunInvalid, match="describe"):
        explain.nearest_training_images(str(tmp_path), noise(1)[0], 3)
    (answer,) = predictor_of(tmp_path).answer([("a.png", png(noise(1)[0]))])
    assert answer.familiarity is None
    assert predictor_of(tmp_path).temperature == 1.0


def test_what_speaks_for_a_class_rather_than_another_differs_from_what_speaks_for_it(predictor: Predictor):
    image = noise(1)[0]
    alone = explain.class_heat_map(str(DEMO.path), image, 3)
    against = explain.class_heat_map(str(DEMO.path), image, 3, 4)
    assert alone.shape == against.shape
    assert np.abs(alone - against).max() > 0.01
    same = explain.class_heat_map(str(DEMO.path), image, 3, 3)
    assert same.max() == 0  # nothing tells a class from itself
