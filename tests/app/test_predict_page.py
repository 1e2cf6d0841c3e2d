"""The Predict page in every state, with a prediction process that answers when the test says so."""

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cifar_tl.answers import AS_EVALUATED, Answer, Asked, Framing, RankedClass, RankedSuperclass
from cifar_tl.data.shapes import ShapesSource
from cifar_tl.errors import PredictionProcessDied
from cifar_tl.paths import PROJECT_ROOT, stores_root
from cifar_tl.ui.explore.parts import as_csv
from cifar_tl.ui.predict import batch as pictures
from cifar_tl.ui.predict.cards import CARDS_A_PAGE
from cifar_tl.ui.predict.closer import lit_photo
from cifar_tl.ui.predict.verdicts import Limits, Order, Verdict, ordered, table, unlikeness_in_words, verdict
from cifar_tl.ui.state import Picture, Predictions
from tests.app.conftest import NotingPredictor
from tests.made_runs import hold_lock, make_run, make_store

PAGE = str(PROJECT_ROOT / "cifar_tl/ui/pages/predict.py")
PREDICT = "cifar_tl.inference:predict_files"


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def answer(name: str, best: str = "maple_tree", probability: float = 0.9, familiarity: float | None = 0.5) -> Answer:
    classes = (RankedClass(best, "trees", probability), RankedClass("oak_tree", "trees", 0.06))
    superclasses = (RankedSuperclass("trees", min(1.0, probability + 0.06)),)
    return Answer(name, classes, preview=png(), seconds=0.02, superclasses=superclasses, seen_png=png(), familiarity=familiarity)


def open_page(run_id: str = "") -> AppTest:
    page = AppTest.from_file(PAGE, default_timeout=30)
    if run_id:
        page.query_params["run"] = run_id
    return page.run()


def drop(page: AppTest, *files: tuple[str, bytes]) -> AppTest:
    page.get("file_uploader")[0].set_value([(name, data, "image/png") for name, data in files])
    return page.run()


def shown(page: AppTest) -> str:
    """All text of the page."""
    assert not page.exception, page.exception
    kinds = ("markdown", "caption", "info", "error", "warning", "title")
    return "\n".join(element.value for kind in kinds for element in page.get(kind)) + "\n".join(
        element.proto.text for element in page.get("progress")
    )


@pytest.fixture
def run_id(checkpoints: Path) -> str:
    folder = make_run(checkpoints, run_id="with-weights")
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
    assert len(page.selectbox[0].options) == 1


def test_a_run_that_still_trains_answers_with_its_best_so_far(checkpoints: Path, predictor: NotingPredictor) -> None:
    folder = make_run(checkpoints, run_id="training", status="running")
    folder.best_weights.write_bytes(b"made")
    with hold_lock(folder):
        assert "still trains" in shown(open_page("training"))


def respond(predictor: NotingPredictor, *answers: Answer, request: int = -1) -> None:
    predictor.of(PREDICT)[request][1].set_result(list(answers))


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def test_dropped_pictures_go_to_the_chosen_run(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    drop(open_page(run_id), ("tree.png", png()))
    ((arguments, _),) = predictor.of(PREDICT)
    assert arguments == (str(checkpoints / run_id), [("tree.png", png())], AS_EVALUATED)


def test_while_the_process_works_the_page_says_so_and_shows_no_answer(run_id: str, predictor: NotingPredictor) -> None:
    text = shown(drop(open_page(run_id), ("tree.png", png())))
    assert "Predicting… 1 to go" in text
    assert "answered" not in text


def test_an_answer_shows_its_picture_what_the_model_sees_and_its_classes(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    respond(predictor, answer("tree.png"))
    text = shown(page.run())
    assert "1 answered" in text
    assert "maple\\_tree" in text
    assert "90.0 %" in text
    assert "Superclass: **trees** 96.0 %" in text
    assert "What the model sees" in text
    assert len(page.get("image")) == 2


def test_one_unreadable_picture_does_not_stop_the_others(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("good.png", png()), ("bad.png", b"not a picture"))
    respond(predictor, answer("good.png"), Answer("bad.png", error="This is no picture that can be read."))
    text = shown(page.run())
    assert "1 answered" in text
    assert "This is no picture that can be read" in text.replace("\\", "")
    assert not [button for button in page.button if button.label == "Ask again"]


def test_a_process_that_died_is_told_once_and_can_be_asked_again(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("a.png", png()), ("b.png", png()))
    predictor.of(PREDICT)[0][1].set_exception(PredictionProcessDied("The prediction process ended."))
    page.run()
    assert len(page.error) == 1
    assert "a.png, b.png" in page.error[0].value.replace("\\", "")
    page = press(page, "Ask again")
    respond(predictor, answer("a.png"), answer("b.png"))
    assert "2 answered" in shown(page.run())
    assert not page.error


def test_many_pictures_are_asked_for_in_groups_and_keep_their_order(run_id: str, predictor: NotingPredictor) -> None:
    count = pictures.FEW_PER_REQUEST + 1
    page = drop(open_page(run_id), *((f"{number:02}.png", png()) for number in range(count)))
    assert len(predictor.of(PREDICT)) == 2
    respond(predictor, answer("08.png"), request=1)
    assert f"Predicting… {count - 1} to go" in shown(page.run())
    respond(predictor, *(answer(f"{number:02}.png") for number in range(count - 1)), request=0)
    text = shown(page.run()).replace("\\", "")
    assert f"{count} answered" in text
    assert text.index("00.png") < text.index("07.png") < text.index("08.png")


def test_a_page_of_cards_at_a_time(run_id: str, predictor: NotingPredictor) -> None:
    count = CARDS_A_PAGE + 3
    page = drop(open_page(run_id), *((f"{number:02}.png", png()) for number in range(count)))
    for request, (arguments, _) in enumerate(predictor.of(PREDICT)):
        respond(predictor, *(answer(name) for name, _ in arguments[1]), request=request)
    text = shown(page.run()).replace("\\", "")
    assert "Page 1 of 2" in text
    assert "11.png" in text
    assert "12.png" not in text
    assert "12.png" in shown(press(page, "Next")).replace("\\", "")


def test_clear_empties_the_page(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    respond(predictor, answer("tree.png"))
    assert "1 answered" not in shown(press(page.run(), "Clear"))


def test_a_file_is_asked_for_once_and_its_answer_stays(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    respond(predictor, answer("tree.png"))
    assert "1 answered" in shown(page.run().run())
    assert len(predictor.of(PREDICT)) == 1


def test_another_run_is_asked_about_the_same_pictures(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    make_run(checkpoints, run_id="other").best_weights.write_bytes(b"made")
    page = drop(open_page(run_id), ("tree.png", png()))
    respond(predictor, answer("tree.png"))
    page.run().selectbox[0].set_value("other")
    page.run()
    assert predictor.of(PREDICT)[1][0] == (str(checkpoints / "other"), [("tree.png", png())], AS_EVALUATED)
    respond(predictor, answer("tree.png", "rose"))
    assert "**rose** 90.0 %" in shown(page.run())
    page.selectbox[0].set_value(run_id)
    assert "maple" in shown(page.run())
    assert len(predictor.of(PREDICT)) == 2


def test_two_runs_answer_side_by_side_and_disagreements_can_come_first(checkpoints: Path, run_id: str, predictor: NotingPredictor) -> None:
    make_run(checkpoints, run_id="other").best_weights.write_bytes(b"made")
    page = open_page(run_id)
    next(box for box in page.selectbox if box.label == "Beside").set_value("other")
    page = drop(page.run(), ("same.png", png()), ("apart.png", png()))
    respond(predictor, answer("same.png"), answer("apart.png"), request=0)
    respond(predictor, answer("same.png"), answer("apart.png", "rose"), request=1)
    text = shown(page.run()).replace("\\", "")
    assert text.index("same.png") < text.index("apart.png")
    next(box for box in page.selectbox if box.label == "Sort by").set_value(Order.DISAGREEING_FIRST)
    text = shown(page.run()).replace("\\", "")
    assert text.index("apart.png") < text.index("same.png")


def test_other_framing_asks_anew(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("tree.png", png()))
    respond(predictor, answer("tree.png"))
    page.run().button_group(key="predict.framing").set_value(Framing.WHOLE)
    assert "Predicting… 1 to go" in shown(page.run())
    assert predictor.of(PREDICT)[1][0][2] == Asked(framing=Framing.WHOLE)


def test_pictures_of_an_archive_are_answered_and_what_is_none_is_told(run_id: str, predictor: NotingPredictor) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.png", png())
        archive.writestr("deep/b.png", png())
        archive.writestr("empty.png", b"")
    page = drop(open_page(run_id), ("p.zip", buffer.getvalue()))
    ((arguments, _),) = predictor.of(PREDICT)
    assert [name for name, _ in arguments[1]] == ["p.zip/a.png", "p.zip/deep/b.png"]
    assert "p.zip/empty.png" in page.error[0].value.replace("\\", "")


def test_test_images_come_with_their_true_class(checkpoints: Path, predictor: NotingPredictor) -> None:
    store = make_store(stores_root() / ShapesSource().store_name)
    make_run(checkpoints, run_id="r", data_fingerprint=store.info.fingerprint).best_weights.write_bytes(b"made")
    page = open_page("r")
    next(box for box in page.selectbox if box.label == "Class").set_value("red star")
    page = press(page.run(), "Draw 12 at random")
    ((arguments, _), *_) = predictor.of(PREDICT)
    index = store.info.class_names.index("red star")
    drawn = {int(name.removeprefix("test image ")) for arguments, _ in predictor.of(PREDICT) for name, _ in arguments[1]}
    assert drawn <= set(np.flatnonzero(store["test"].labels_N == index).tolist())
    assert len(drawn) == 10
    for request, (arguments, _) in enumerate(predictor.of(PREDICT)):
        respond(predictor, *(answer(name) for name, _ in arguments[1]), request=request)
    assert "True class: **red star**" in shown(page.run())


def test_an_answer_below_the_limit_is_unsure_and_a_strange_picture_is_none_of_these(run_id: str, predictor: NotingPredictor) -> None:
    page = drop(open_page(run_id), ("a.png", png()), ("b.png", png()), ("c.png", png()))
    respond(predictor, answer("a.png"), answer("b.png", probability=0.3), answer("c.png", familiarity=0.001))
    text = shown(page.run())
    assert [word for word in ("Sure", "Unsure", "None of these?") if word in text] == ["Sure", "Unsure", "None of these?"]
    assert "Only 0.1 % of dev images are as unlike the training images" in text


# Bounds


def test_files_beyond_the_number_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PICTURES", 3)
    batch = Predictions()
    pictures.add(batch, [(f"{n}.png", b"x") for n in range(5)])
    assert [picture.name for picture in batch.pictures if picture.error] == ["3.png", "4.png"]
    pictures.add(batch, [("later.png", b"x")])
    assert "at most 3 pictures" in batch.pictures[0].error


def test_a_file_that_is_too_large_is_refused_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_FILE_MIB", 0)
    batch = Predictions()
    pictures.add(batch, [("large.png", b"xx"), ("empty.png", b"")])
    assert "MiB" in batch.pictures[0].error
    assert "empty" in batch.pictures[1].error
    assert not batch.pictures[0].data


def test_all_files_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_BATCH_MIB", 1)
    batch = Predictions()
    pictures.add(batch, [(name, bytes(700_000)) for name in ("a", "b")])
    assert [bool(picture.error) for picture in batch.pictures] == [False, True]
    assert "together" in batch.pictures[1].error


# What answers come to


@pytest.mark.parametrize(
    ("probability", "familiarity", "expected"),
    [
        (0.5, 0.02, Verdict.SURE),
        (0.49, 0.02, Verdict.UNSURE),
        (0.9, 0.019, Verdict.NONE_OF_THESE),
        (0.9, None, Verdict.SURE),
    ],
)
def test_verdicts_at_their_limits(probability: float, familiarity: float | None, expected: Verdict) -> None:
    assert verdict(answer("a", probability=probability, familiarity=familiarity), Limits(0.5, 0.02)) is expected


def test_what_no_dev_image_reaches_is_said_so() -> None:
    assert unlikeness_in_words(0.0) == "More unlike the training images than any dev image"


def test_orders() -> None:
    made = [Picture(name, answers={"r": answer(name, probability=p)}) for name, p in (("a", 0.5), ("b", 0.9), ("c", 0.1))]
    names = {order: "".join(picture.name for picture in ordered(made, ["r"], order)) for order in Order}
    assert names == {
        Order.AS_DROPPED: "abc",
        Order.UNSURE_FIRST: "cab",
        Order.SURE_FIRST: "bac",
        Order.DISAGREEING_FIRST: "abc",
    }


def test_the_file_has_a_row_for_each_picture_and_run() -> None:
    made = [
        Picture("a.png", true_class="rose", answers={"r": answer("a.png"), "s": answer("a.png", "rose", 0.4)}),
        Picture("b.png", error="The file is empty."),
    ]
    rows = list(csv.DictReader(io.StringIO(as_csv(table(made, ["r", "s"], Limits(0.5, 0.02))))))
    assert [(row["file"], row["run"], row["verdict"], row["class 1"], row["problem"]) for row in rows] == [
        ("a.png", "r", "Sure", "maple_tree", ""),
        ("a.png", "s", "Unsure", "rose", ""),
        ("b.png", "r", "", "", "The file is empty."),
        ("b.png", "s", "", "", "The file is empty."),
    ]
    assert rows[0]["true class"] == "rose"
    assert float(rows[1]["probability 1"]) == 0.4


def test_heat_lies_on_the_middle_of_a_wide_photo_and_the_rest_is_dark() -> None:
    photo = Image.new("RGB", (600, 300), (200, 200, 200))
    heat = np.zeros((2, 2), np.float32)
    heat[:, 0] = 1
    lit = lit_photo(photo, heat, Framing.CENTER, 1.0)
    assert lit.shape == (300, 600, 3)
    assert lit[:, :140].max() == 0  # beyond the square
    assert lit[100:200, 160:200].min() > 150
    assert lit[100:200, 420:].max() < 60


def test_heat_of_a_whole_photo_covers_it() -> None:
    photo = Image.new("RGB", (600, 300), (200, 200, 200))
    assert lit_photo(photo, np.ones((4, 4), np.float32), Framing.WHOLE, 1.0).min() == 200
