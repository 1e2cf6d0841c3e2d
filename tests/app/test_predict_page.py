"""The Predict page in every state, with a prediction process that answers when the test says so."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cifar_tl.answers import Answer, Asked, Framing, RankedClass, RankedSuperclass
from cifar_tl.data.archive import Refusal
from cifar_tl.data.shapes import ShapesSource
from cifar_tl.data.store import ImageStore
from cifar_tl.errors import CifarTLError, PredictionProcessDied
from cifar_tl.paths import PROJECT_ROOT, RunFolder, stores_root
from cifar_tl.ui.predict.gallery import PAGE_SIZE
from cifar_tl.ui.predict.verdicts import Order
from cifar_tl.ui.prediction_batch import FIRST_REQUEST, LATER_REQUESTS, MAX_REQUESTS
from tests.app.conftest import NotingPredictor
from tests.made_audits import DOUBTED_TRAIN, make_audit
from tests.made_runs import class_names, describe_made_run, hold_lock, made_labels, make_run, make_store

PAGE = str(PROJECT_ROOT / "cifar_tl/ui/pages/predict.py")
PREDICT = "cifar_tl.inference:predict_files"
UNZIP = "cifar_tl.data.archive:pictures_in_zip"
HEAT, PHOTO, EMBEDDING = (f"cifar_tl.explain:{name}" for name in ("photo_heat_map", "photo_jpeg", "photo_embedding"))
FIRST, SECOND = "red circle", "green circle"  # two of the made classes
ZIP = b"PK\x03\x04 stands for an archive"


def png(colour: str = "teal") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def answer(name: str, *classes: str, confidence: float = 0.9, familiarity: float | None = 0.5) -> Answer:
    first, second = classes or (FIRST, SECOND)
    ranked = (RankedClass(first, "circle", confidence), RankedClass(second, "circle", (1 - confidence) / 2))
    return Answer(
        name, ranked, "", png(), 0.02, superclasses=(RankedSuperclass("circle", 0.96),), seen_png=png("navy"), familiarity=familiarity
    )


def open_page(run_id: str = "") -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    if run_id:
        page.query_params["run"] = run_id
    return page.run()


def drop(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.get("file_uploader")[0].set_value([(name, data, "image/png") for name, data in files])
    return page.run()


def answered(run_id: str, predictor: NotingPredictor, *answers: Answer) -> AppTest:
    """A page to which these pictures were dropped and these answers have come."""
    page = drop(open_page(run_id), *((each.name, png()) for each in answers))
    give(predictor, page, *answers)
    return page


def give(predictor: NotingPredictor, page: AppTest, *answers: Answer) -> AppTest:
    """Answer every request that waits, each file by the answer of its name; again for those that follow."""
    by_name = {each.name: each for each in answers}
    while waiting := [(arguments, future) for arguments, future in predictor.of(PREDICT) if not future.done()]:
        for (_, files, _), future in waiting:
            future.set_result([by_name[name] for name, _ in files])
        page.run()
    return page


def shown(page: AppTest) -> str:
    """All text of the page, as it is read."""
    assert not page.exception, page.exception
    kinds = ("markdown", "caption", "info", "error", "warning", "title")
    text = "\n".join(element.value for kind in kinds for element in page.get(kind))
    return "\n".join([text, *(element.proto.text for element in page.get("progress"))]).replace("\\", "")


def component(page: AppTest, name: str) -> dict[str, Any]:
    (found,) = [element for element in page.get("bidi_component") if element.proto.component_name == f"cifar_tl_{name}"]
    data: dict[str, Any] = json.loads(found.proto.json)
    return data


def cards(page: AppTest) -> list[dict[str, Any]]:
    shown_cards: list[dict[str, Any]] = component(page, "answer_grid")["cards"]
    return shown_cards


def names(page: AppTest) -> list[str]:
    return [card["name"] for card in cards(page)]


def labelled(elements: Any, label: str) -> Any:
    return next(element for element in elements if element.label == label)


def second_run(checkpoints: Path, run_id: str = "other") -> RunFolder:
    folder = make_run(checkpoints, run_id=run_id, name="Other")
    folder.best_weights.write_bytes(b"made")
    return folder


@pytest.fixture
def store() -> ImageStore:
    return make_store(stores_root() / ShapesSource().store_name)


@pytest.fixture
def run_id(checkpoints: Path) -> str:
    folder = make_run(checkpoints, run_id="with-weights", name="First")
    folder.best_weights.write_bytes(b"made")
    return folder.run_id


def test_without_runs_the_page_says_how_to_get_one() -> None:
    page = open_page()
    assert "There is no run yet" in shown(page)
    assert page.button[0].label == "Train a model"


def test_runs_without_weights_are_explained(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="failed", status="failed")
    assert "None of the runs has weights" in shown(open_page())


def test_a_run_in_its_first_epoch_is_worth_waiting_for(checkpoints: Path) -> None:
    with hold_lock(make_run(checkpoints, run_id="young", status="empty")):
        assert "No run has finished its first epoch yet" in shown(open_page())


def test_only_runs_with_weights_are_offered(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    make_run(checkpoints, run_id="without-weights", status="failed")
    page = open_page()
    assert len(labelled(page.selectbox, "Run").options) == 1


def test_a_run_that_still_trains_answers_with_its_best_so_far(checkpoints: Path, predictor: NotingPredictor) -> None:
    folder = make_run(checkpoints, run_id="training", status="running")
    folder.best_weights.write_bytes(b"made")
    with hold_lock(folder):
        assert "still trains" in shown(open_page("training"))


def test_dropped_pictures_go_to_the_chosen_run(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    drop(open_page(run_id), ("tree.png", png()))
    ((arguments, _),) = predictor.of(PREDICT)
    assert arguments == (str(checkpoints / run_id), [("tree.png", png())], Asked(5))


def test_while_the_process_works_the_page_says_so_and_shows_no_answer(run_id: str, predictor: NotingPredictor) -> None:
    text = shown(drop(open_page(run_id), ("tree.png", png())))
    assert "Predicting… 1 to go" in text
    assert "answered" not in text


def test_a_card_shows_the_picture_what_the_model_sees_the_classes_and_the_superclass(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    assert "1 answered" in shown(page)
    (card,) = cards(page)
    (said,) = card["answers"]
    assert card["preview"] != card["seen"]
    assert all(card[part] for part in ("preview", "seen"))
    assert said["bars"][0] == {"name": FIRST, "percent": 90.0, "text": "90.0 %"}
    assert said["superclass"] == "circle 96.0 %"


def test_one_unreadable_picture_does_not_stop_the_others(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("good.png"), Answer("bad.png", error="This is no picture that can be read."))
    assert "1 answered" in shown(page)
    assert "1 could not be" in shown(page)
    assert "This is no picture that can be read" in shown(page)
    assert names(page) == ["good.png"]


def test_a_process_that_died_is_told_once_and_can_be_asked_again(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("a.png", png()), ("b.png", png()))
    predictor.of(PREDICT)[0][1].set_exception(PredictionProcessDied("The prediction process ended."))
    page.run()
    assert len(page.error) == 1
    assert "a.png, b.png" in shown(page)
    labelled(page.button, "Ask again").click().run()
    give(predictor, page, answer("a.png"), answer("b.png"))
    assert not page.error
    assert names(page) == ["a.png", "b.png"]


def test_many_pictures_go_in_groups_few_at_a_time(run_id: str, predictor: NotingPredictor) -> None:
    count = FIRST_REQUEST + MAX_REQUESTS * LATER_REQUESTS
    page = drop(open_page(run_id), *((f"{number:03}.png", png()) for number in range(count)))
    sizes = [len(files) for (_, files, _), _ in predictor.of(PREDICT)]
    assert sizes == [FIRST_REQUEST, LATER_REQUESTS]
    assert f"Predicting… {count} to go" in shown(page)
    give(predictor, page, *(answer(f"{number:03}.png") for number in range(count)))
    assert f"{count} answered" in shown(page)


def test_hundreds_of_answers_come_page_by_page(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, *(answer(f"{number:03}.png") for number in range(3 * PAGE_SIZE)))
    assert names(page) == [f"{number:03}.png" for number in range(PAGE_SIZE)]


def test_answers_are_in_the_order_of_the_files_whichever_comes_first(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), *((f"{number:02}.png", png()) for number in range(FIRST_REQUEST + 1)))
    first, second = (future for _, future in predictor.of(PREDICT))
    second.set_result([answer("08.png")])
    page.run()
    first.set_result([answer(f"{number:02}.png") for number in range(FIRST_REQUEST)])
    assert names(page.run()) == [f"{number:02}.png" for number in range(FIRST_REQUEST + 1)]


def test_clear_empties_the_page(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    labelled(page.button, "Clear").click().run()
    assert "1 answered" not in shown(page)
    assert page.get("file_uploader")[0].value == []


def test_a_file_is_asked_for_once_however_often_the_page_runs(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    page.run().run()
    assert len(predictor.of(PREDICT)) == 1
    assert "1 answered" in shown(page)


def test_a_file_taken_out_of_the_uploader_leaves_the_answers(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    page.get("file_uploader")[0].set_value([])
    assert "1 answered" not in shown(page.run())


def test_pictures_stay_when_another_source_is_chosen(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    source = labelled(page.get("button_group"), "Where pictures come from")
    source.set_value("Test images").run()
    labelled(page.get("button_group"), "Where pictures come from").set_value("Files").run()
    assert names(page) == ["tree.png"]


def test_an_archive_is_unpacked_by_the_process_and_its_pictures_are_asked_for(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("many.zip", ZIP))
    assert "Unpacking many.zip" in shown(page)
    ((arguments, future),) = predictor.of(UNZIP)
    assert arguments == (ZIP, "many.zip")
    future.set_result(([("many.zip/a.png", png())], [Refusal("many.zip/b.exe", "Too large.")]))
    give(predictor, page.run(), answer("many.zip/a.png"))
    assert names(page) == ["many.zip/a.png"]
    assert "many.zip/b.exe: Too large." in shown(page).replace("*", "")


def test_an_archive_that_cannot_be_read_says_why(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("many.zip", ZIP))
    predictor.of(UNZIP)[0][1].set_exception(CifarTLError("The archive is cut off or damaged."))
    assert "The archive is cut off or damaged." in shown(page.run())


def test_another_run_is_asked_about_the_pictures_that_are_here(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    second_run(checkpoints)
    page = answered(run_id, predictor, answer("tree.png"))
    labelled(page.selectbox, "Run").set_value("other").run()
    assert predictor.of(PREDICT)[1][0][:2] == (str(checkpoints / "other"), [("tree.png", png())])
    give(predictor, page, answer("tree.png", SECOND, FIRST))
    assert cards(page)[0]["answers"][0]["bars"][0]["name"] == SECOND


def test_going_back_to_a_run_shows_its_answers_without_asking_again(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    second_run(checkpoints)
    page = answered(run_id, predictor, answer("tree.png"))
    labelled(page.selectbox, "Run").set_value("other").run()
    give(predictor, page, answer("tree.png"))
    labelled(page.selectbox, "Run").set_value(run_id).run()
    assert len(predictor.of(PREDICT)) == 2


def two_runs(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> AppTest:
    """Two runs that agree on same.png and not on other.png, of which the second is less sure than the first."""
    second_run(checkpoints)
    page = drop(open_page(run_id), ("same.png", png()), ("other.png", png()))
    give(predictor, page, answer("same.png"), answer("other.png", confidence=0.5))
    labelled(page.selectbox, "Beside it").set_value("other").run()
    return give(predictor, page, answer("same.png"), answer("other.png", SECOND, FIRST, confidence=0.6))


def test_two_runs_answer_side_by_side(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    page = two_runs(checkpoints, run_id, predictor)
    same, other = cards(page)
    assert [said["run"] for said in same["answers"]] == ["First", "Other"]
    assert [said["bars"][0]["name"] for said in other["answers"]] == [FIRST, SECOND]
    assert (same["badge"], other["badge"]) == ("", "the runs disagree")
    assert "the runs disagree on 1" in shown(page)


def test_disagreement_comes_first_where_it_is_asked_for(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    page = two_runs(checkpoints, run_id, predictor)
    assert names(page) == ["same.png", "other.png"]
    labelled(page.selectbox, "Sort").set_value(Order.DISAGREEING).run()
    assert names(page) == ["other.png", "same.png"]


def test_answers_are_sorted_by_confidence(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("a.png", confidence=0.5), answer("b.png", confidence=0.9), answer("c.png", confidence=0.7))
    labelled(page.selectbox, "Sort").set_value(Order.LEAST_SURE).run()
    assert names(page) == ["a.png", "c.png", "b.png"]
    labelled(page.selectbox, "Sort").set_value(Order.MOST_SURE).run()
    assert names(page) == ["b.png", "c.png", "a.png"]


def test_an_answer_below_the_threshold_is_shown_as_unsure(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("a.png", confidence=0.5))
    labelled(page.slider, "Unsure below").set_value(50).run()
    assert cards(page)[0]["answers"][0]["verdict"] == ""
    labelled(page.slider, "Unsure below").set_value(51).run()
    assert cards(page)[0]["answers"][0]["verdict"] == "unsure"
    assert "1 unsure" in shown(page)


def test_a_picture_unlike_the_training_images_is_none_of_the_classes_and_the_page_says_why(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("odd.png", confidence=0.99, familiarity=0.004))
    (said,) = cards(page)[0]["answers"]
    assert said["verdict"] == "none of these"
    assert said["note"] == "Only 0.4 % of dev images are as unlike the training images."
    assert "1 none of these" in shown(page)


def test_framing_and_mirror_image_go_along_with_the_question(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    labelled(page.get("button_group"), "Part of the photo").set_value(Framing.WHOLE).run()
    labelled(page.selectbox, "Average with the mirror image").set_value("Yes").run()
    assert predictor.of(PREDICT)[-1][0][2] == Asked(5, Framing.WHOLE, True)


def test_questions_nobody_waits_for_any_more_are_withdrawn(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    labelled(page.get("button_group"), "Part of the photo").set_value(Framing.WHOLE).run()
    assert [future.cancelled() for _, future in predictor.of(PREDICT)] == [True, False]


def test_test_images_are_drawn_of_one_class_with_its_name(checkpoints: Path, store: ImageStore, predictor: NotingPredictor) -> None:
    folder = make_run(checkpoints, data_fingerprint=store.info.fingerprint)
    folder.best_weights.write_bytes(b"made")
    page = open_page()
    labelled(page.get("button_group"), "Where pictures come from").set_value("Test images").run()
    labelled(page.selectbox, "Class").set_value(SECOND).run()
    labelled(page.number_input, "Images").set_value(3).run()
    labelled(page.button, "Draw at random").click().run()
    ((_, files, _), _) = predictor.of(PREDICT)[0]
    rows = [int(name.removeprefix("test image ")) for name, _ in files]
    assert len(set(rows)) == 3
    assert {class_names(20)[made_labels(200, 20)[row]] for row in rows} == {SECOND}
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for _, data in files]
    assert all((image == store["test"].images_NHWC[row]).all() for image, row in zip(pixels, rows, strict=True))
    right, wrong, other = (name for name, _ in files)
    give(predictor, page, answer(right, SECOND, FIRST), answer(wrong), answer(other, SECOND, FIRST))
    assert [card["badge"] for card in cards(page)] == [f"✓ is {SECOND}", f"✗ is {SECOND}", f"✓ is {SECOND}"]
    assert "2 of 3 test images right" in shown(page)


def test_without_the_data_set_the_page_offers_to_get_it(run_id: str, predictor: NotingPredictor) -> None:
    page = open_page(run_id)
    labelled(page.get("button_group"), "Where pictures come from").set_value("Test images").run()
    assert "are not on this machine yet" in shown(page)
    assert labelled(page.button, "Get the images")


def test_the_camera_is_on_only_when_asked_for(run_id: str, predictor: NotingPredictor) -> None:
    page = open_page(run_id)
    assert not page.get("camera_input")
    labelled(page.get("button_group"), "Where pictures come from").set_value("Camera").run()
    assert len(page.get("camera_input")) == 1


def explain(page: AppTest, view: str) -> AppTest:
    labelled(page.get("button_group"), "Why").set_value(view)
    return page.run()


def test_the_chosen_answer_is_explained_by_a_heat_map_over_the_photo(run_id: str, predictor: NotingPredictor, checkpoints: Path) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    ((arguments, heat),) = predictor.of(HEAT)
    assert arguments == (str(checkpoints / run_id), png(), Framing.CENTER, class_names(20).index(FIRST), None)
    assert "Asking the model" in shown(page)
    heat.set_result(np.eye(4, dtype=np.float32))
    predictor.of(PHOTO)[0][1].set_result(jpeg(30, 20))
    data = component(page.run(), "photo")
    assert data["size"] == [30, 20]
    assert data["box"] == pytest.approx([5 / 30, 0, 20 / 30, 1])


def jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "olive").save(buffer, "JPEG")
    return buffer.getvalue()


def test_evidence_for_any_class_can_be_asked_for(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    box = labelled(page.selectbox, "Evidence for")
    assert box.options[:2] == [FIRST, SECOND]
    assert sorted(box.options) == sorted(class_names(20))
    box.set_value("blue star").run()
    assert predictor.of(HEAT)[-1][0][3:] == (class_names(20).index("blue star"), None)


def test_the_contrast_is_between_the_two_likeliest_classes_until_others_are_chosen(run_id: str, predictor: NotingPredictor) -> None:
    page = explain(answered(run_id, predictor, answer("tree.png")), "Why this, not that")
    assert predictor.of(HEAT)[-1][0][3:] == tuple(class_names(20).index(name) for name in (FIRST, SECOND))
    labelled(page.selectbox, "and not").set_value("blue star").run()
    assert predictor.of(HEAT)[-1][0][3:] == tuple(class_names(20).index(name) for name in (FIRST, "blue star"))


def test_nearest_training_images_come_with_labels_similarity_and_doubts(
    checkpoints: Path, store: ImageStore, predictor: NotingPredictor
) -> None:
    folder = make_run(checkpoints, data_fingerprint=store.info.fingerprint)
    folder.best_weights.write_bytes(b"made")
    describe_made_run(folder)
    make_audit(folder)
    page = explain(answered(folder.run_id, predictor, answer("tree.png")), "Nearest images")
    doubted = DOUBTED_TRAIN[0]
    with np.load(folder.embeddings) as file:
        vector_D = file["train.vectors_ND"][doubted].astype(np.float32)
    predictor.of(EMBEDDING)[0][1].set_result(vector_D)
    label = made_labels(200, 20)[doubted]
    first = component(page.run(), "thumbnails")["captions"][0]
    assert first == f"{class_names(20)[label]}\nalike 1.00\ndoubted: {class_names(20)[label + 1]}?"
    assert "doubted by the audit" in shown(page)


def test_a_run_that_has_nothing_to_compare_with_says_so(run_id: str, predictor: NotingPredictor) -> None:
    page = explain(answered(run_id, predictor, answer("tree.png")), "Nearest images")
    predictor.of(EMBEDDING)[0][1].set_exception(CifarTLError("The run has no embeddings."))
    assert "The run has no embeddings." in shown(page.run())


def test_a_heat_map_that_died_with_its_process_is_asked_for_again(run_id: str, predictor: NotingPredictor) -> None:
    page = answered(run_id, predictor, answer("tree.png"))
    predictor.of(PHOTO)[0][1].set_result(jpeg(30, 20))
    predictor.of(HEAT)[0][1].set_exception(PredictionProcessDied("The prediction process ended."))
    assert "The prediction process ended." in shown(page.run())
    page.run()
    assert len(predictor.of(HEAT)) == 2
