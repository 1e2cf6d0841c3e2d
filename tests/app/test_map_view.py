"""The Map view of Explore in every state, through Streamlit's AppTest; and its chart, which is plain data."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from cifar_tl.data.shapes import ShapesSource
from cifar_tl.evaluation.arrays import load_evaluation
from cifar_tl.evaluation.embeddings import PCA, TSNE, load_map
from cifar_tl.paths import RunFolder, stores_root
from cifar_tl.runs import launcher
from cifar_tl.ui.charts.embedding_map import densest_place, map_chart
from cifar_tl.ui.charts.map_groups import ColourBy, class_colours, hues
from cifar_tl.ui.charts.map_points import UNKNOWN, MapPoints, card_texts, map_points
from cifar_tl.ui.picture_sheet import make_sheet
from tests.made_runs import class_names, describe_made_run, hold_lock, make_run, make_store, superclasses

SCRIPT = """
import streamlit as st
from cifar_tl.ui.cached_evaluation import explored
from cifar_tl.ui.explore.embedding_map import show_map

show_map(explored("{run_id}", "{split}"))
"""


@pytest.fixture
def run(checkpoints: Path) -> RunFolder:
    store = make_store(stores_root() / ShapesSource().store_name)
    return make_run(checkpoints, run_id="r", data_fingerprint=store.info.fingerprint)


def opened(folder: RunFolder, split: str = "test") -> AppTest:
    return AppTest.from_string(SCRIPT.format(run_id=folder.run_id, split=split), default_timeout=20).run()


def texts(at: AppTest) -> str:
    return "\n".join(e.value for kind in (at.markdown, at.caption, at.error, at.warning, at.info) for e in kind).replace("\\", "")


def plot(at: AppTest) -> dict[str, Any]:
    """What the chart component was sent."""
    (data,) = [json.loads(e.proto.json) for e in at.get("bidi_component") if e.proto.component_name == "cifar_tl_live_plot"]
    return data


def galleries(at: AppTest) -> list[list[str]]:
    return [json.loads(e.proto.json)["captions"] for e in at.get("bidi_component") if e.proto.component_name == "cifar_tl_thumbnails"]


def numbers(packed: dict[str, str]) -> list[float]:
    return np.frombuffer(base64.b64decode(packed["bdata"]), np.dtype("<" + packed["dtype"])).tolist()


def points_drawn(at: AppTest) -> list[int]:
    return sorted(int(number) for trace in plot(at)["traces"] if "customdata" in trace for number in numbers(trace["customdata"]))


def select(at: AppTest, folder: RunFolder, selected: list[int], method: str = TSNE) -> AppTest:
    """As the browser tells a lasso."""
    at.session_state[f"map.{folder.run_id}.{method}"] = {"selected": selected, "clicked": None}
    return at.run()


def test_map_shows_every_test_image_once(run: RunFolder):
    describe_made_run(run)
    at = opened(run)
    assert not at.exception
    assert points_drawn(at) == list(range(200))
    assert "t-SNE of 200 test and 100 training images" in texts(at)
    assert plot(at)["is_map"] is True


def test_training_images_are_shown_where_the_page_is_about_them(run: RunFolder):
    describe_made_run(run)
    at = opened(run, "train")
    assert not at.exception
    assert points_drawn(at) == list(range(200, 300))
    assert {trace["marker"]["symbol"] for trace in plot(at)["traces"]} == {"circle-open"}


def test_both_can_be_shown(run: RunFolder):
    describe_made_run(run)
    at = opened(run)
    at.session_state["map.images.test"] = ["test", "train"]
    at.run()
    assert not at.exception
    assert points_drawn(at) == list(range(300))


@pytest.mark.parametrize("colour", list(ColourBy))
def test_every_way_to_colour_draws_all_images(run: RunFolder, colour: ColourBy):
    describe_made_run(run)
    at = opened(run)
    at.session_state["map.colour"] = colour
    at.run()
    assert not at.exception
    assert points_drawn(at) == list(range(200))


def test_selected_points_are_shown_as_their_images_and_told_in_words(run: RunFolder):
    describe_made_run(run)
    evaluation = load_evaluation(run.evaluation_of("test"))
    chosen = [3, 23, 43, 7]
    at = select(opened(run), run, chosen)
    assert not at.exception
    order = sorted(chosen, key=lambda i: -evaluation.confidences_N[i])
    names = class_names(20)
    assert [[caption.split("\n")[0] for caption in gallery] for gallery in galleries(at)] == [
        [names[evaluation.labels_N[i]] for i in order]
    ]
    wrong = int((evaluation.predictions_N[chosen] != evaluation.labels_N[chosen]).sum())
    assert f"**4 images**, {wrong} of them taken for something else: {names[3]} (3), {names[7]} (1)" in texts(at)


def test_test_and_training_images_of_a_selection_are_shown_apart(run: RunFolder):
    describe_made_run(run)
    at = opened(run)
    at.session_state["map.images.test"] = ["test", "train"]
    at = select(at, run, [0, 1, 250])
    assert [len(gallery) for gallery in galleries(at)] == [2, 1]
    assert "Test images\n" in texts(at)


def test_images_that_are_selected_but_not_shown_any_more_are_left_out(run: RunFolder):
    describe_made_run(run)
    at = select(opened(run), run, [0, 1, 250])
    assert [len(gallery) for gallery in galleries(at)] == [2]
    at.session_state["map.images.test"] = []
    at.run()
    assert not at.exception
    assert galleries(at) == []


def test_dev_images_are_said_not_to_be_on_the_map(run: RunFolder):
    describe_made_run(run)
    at = opened(run, "dev")
    assert not at.exception
    assert "Dev images are not on the map" in texts(at)
    assert points_drawn(at) == list(range(200))


def test_a_single_selected_point_is_ringed(run: RunFolder):
    describe_made_run(run)
    at = select(opened(run), run, [42])
    place = load_map(run.embedding_map).splits["test"].vectors_ND[42]
    (ring,) = [trace for trace in plot(at)["traces"] if "customdata" not in trace]
    assert [ring["x"][0], ring["y"][0]] == pytest.approx(place.tolist())


@pytest.mark.parametrize("told", [[10_000], [-1], ["x"], "all", [[1, 2]]])
def test_what_is_no_point_of_the_map_is_not_believed(run: RunFolder, told: Any):
    describe_made_run(run)
    at = select(opened(run), run, told)
    assert not at.exception
    assert galleries(at) == []


def test_a_highlighted_class_shows_its_images_without_a_lasso(run: RunFolder):
    describe_made_run(run)
    at = opened(run)
    name = class_names(20)[5]
    at.selectbox(key="map.class").set_value(name).run()
    assert not at.exception
    assert [{caption.split("\n")[0] for caption in gallery} for gallery in galleries(at)] == [{name}]
    assert any(name in trace.get("name", "") for trace in plot(at)["traces"])
    assert points_drawn(at) == list(range(200))


def test_hovering_finds_a_text_and_a_picture_for_every_point(run: RunFolder):
    describe_made_run(run)
    cards = plot(opened(run))["cards"]
    assert len(cards["texts"]) == 300
    assert cards["columns"] * cards["rows"] >= 300
    assert cards["sheet"]
    assert cards["texts"][299].endswith("train")


def test_without_the_images_hovering_still_tells_the_labels(checkpoints: Path):
    folder = make_run(checkpoints, run_id="r")
    describe_made_run(folder)
    at = opened(folder)
    assert not at.exception
    assert plot(at)["cards"]["sheet"] == ""
    assert class_names(20)[0] in plot(at)["cards"]["texts"][0]


def test_training_images_without_answers_are_drawn_and_said_to_have_none(run: RunFolder):
    describe_made_run(run)
    run.evaluation_of("train").unlink()
    at = opened(run)
    at.session_state["map.images.test"] = ["test", "train"]
    at = select(at, run, [0, 210, 220])
    assert not at.exception
    assert [len(gallery) for gallery in galleries(at)] == [1]
    assert "2 of them have no answer" in texts(at)
    assert plot(at)["cards"]["texts"][210].endswith("no answer · train")


def test_damaged_answers_for_train_do_not_take_the_map_away(run: RunFolder):
    describe_made_run(run)
    run.evaluation_of("train").write_bytes(b"no archive")
    at = opened(run)
    assert not at.exception
    assert points_drawn(at) == list(range(200))


def test_a_map_by_pca_that_is_being_improved_says_so(run: RunFolder):
    describe_made_run(run, method=PCA)
    with hold_lock(run):
        at = opened(run)
    assert not at.exception
    assert "t-SNE is being computed, and replaces this map by itself" in texts(at)
    assert len(at.button) == 0
    assert points_drawn(at) == list(range(200))


def test_a_map_by_pca_that_nobody_improves_can_be_asked_to_be(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    describe_made_run(run, method=PCA)
    run.best_weights.touch()
    started: list[str] = []
    monkeypatch.setattr(launcher, "start_description", started.append)
    at = opened(run)
    assert [button.label for button in at.button] == ["Draw it by t-SNE"]
    at.button[0].click().run()
    assert started == ["r"]


def test_a_run_without_a_map_offers_to_prepare_it(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    run.best_weights.touch()
    started: list[str] = []
    monkeypatch.setattr(launcher, "start_description", started.append)
    at = opened(run)
    assert not at.exception
    assert "No map yet" in texts(at)
    assert [code.value for code in at.code] == ["python -m cifar_tl describe r"]
    at.button[0].click().run()
    assert started == ["r"]
    run.worker_log.write_text("something before\nerror: The images are *not* here.\n")
    at.run()
    assert "It could not be prepared: The images are *not* here." in texts(at)


def test_a_run_without_weights_tells_why_it_cannot_have_a_map(run: RunFolder):
    at = opened(run)
    assert at.button[0].disabled
    assert "no weights" in at.button[0].help


def test_a_map_that_is_being_prepared_is_waited_for(run: RunFolder):
    with hold_lock(run):
        at = opened(run)
    assert not at.exception
    assert "appears here by itself" in texts(at)
    assert len(at.button) == 0


@pytest.mark.parametrize("damage", ["torn", "of other classes"])
def test_a_map_that_cannot_be_used_is_told_with_what_to_do(run: RunFolder, checkpoints: Path, damage: str):
    describe_made_run(run)
    if damage == "torn":
        run.embedding_map.write_bytes(run.embedding_map.read_bytes()[:200])
    else:
        other = make_run(checkpoints, run_id="other", num_classes=30)
        describe_made_run(other, num_classes=30)
        run.embedding_map.write_bytes(other.embedding_map.read_bytes())
    at = opened(run)
    assert not at.exception
    assert len(at.error) == 1
    assert "python -m cifar_tl describe r" in at.error[0].value.replace("\\", "")


# ---- the chart


def made_points() -> MapPoints:
    """Six images of three classes; of the last, which is of train, no answer is known."""
    return MapPoints(
        xy_N2=np.array([[0, 0], [1, 0], [2, 0], [3, 1], [4, 1], [5, 1]], np.float32),
        labels_N=np.array([0, 0, 1, 1, 2, 2]),
        predictions_N=np.array([0, 1, 1, 1, 0, UNKNOWN]),
        confidences_N=np.array([0.9, 0.5, 0.8, 0.7, 0.4, np.nan], np.float32),
        positions_N=np.array([0, 1, 2, 3, 4, UNKNOWN]),
        is_train_N=np.array([False] * 5 + [True]),
    )


def chart_of(points: MapPoints, **options: Any) -> tuple[dict[str, list[int]], dict[str, Any]]:
    """(members by name of the trace, layout)"""
    chart = map_chart(
        points,
        ("a", "b", "c"),
        (("s", "t"), (0, 0, 1)),
        **{"colour_by": ColourBy.CLASS, "is_shown_N": np.full(len(points), True)} | options,
    )
    members: dict[str, list[int]] = {}
    for trace in chart.traces:
        if "customdata" in trace:
            members[trace.get("name", "")] = members.get(trace.get("name", ""), []) + [int(i) for i in numbers(trace["customdata"])]
    return members, chart.layout


def test_images_are_grouped_by_what_colours_them():
    assert chart_of(made_points())[0] == {"a": [0, 1], "b": [2, 3], "c": [4, 5]}
    assert chart_of(made_points(), colour_by=ColourBy.SUPERCLASS)[0] == {"s": [0, 1, 2, 3], "t": [4, 5]}
    assert chart_of(made_points(), colour_by=ColourBy.OUTCOME)[0] == {"Right": [0, 2, 3], "Wrong": [1, 4]}
    assert chart_of(made_points(), colour_by=ColourBy.CONFIDENCE)[0] == {"": [0, 1, 2, 3, 4]}
    assert chart_of(made_points(), highlighted=0)[0] == {
        "Other images": [2, 3, 5],
        "a, recognised": [0],
        "a, taken for something else": [1],
        "Taken for a": [4],
    }


def test_groups_are_named_on_the_map_where_most_of_each_lies():
    points = made_points()
    many = MapPoints(*(np.repeat(getattr(points, name), 4, axis=0) for name in MapPoints.__dataclass_fields__))
    _, layout = chart_of(many)
    assert [(label["text"], label["x"]) for label in layout["annotations"]] == [("a", 0), ("b", 2), ("c", 4)]
    names = tuple(f"class {i}" for i in range(30))
    crowded = map_chart(many, names, ((), ()), colour_by=ColourBy.CLASS, is_shown_N=np.full(len(many), True))
    assert "annotations" not in crowded.layout


def test_a_class_name_is_text_and_no_markup():
    points = made_points()
    many = MapPoints(*(np.repeat(getattr(points, name), 9, axis=0) for name in MapPoints.__dataclass_fields__))
    chart = map_chart(many, ("<b>a</b>", "b", "c"), ((), ()), colour_by=ColourBy.CLASS, is_shown_N=np.full(len(many), True))
    assert chart.layout["annotations"][0]["text"] == chart.traces[0]["name"] == "&lt;b&gt;a&lt;/b&gt;"


def test_the_densest_place_is_among_the_points():
    ring = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 50)] + [[1.0, 0.0]] * 5)
    x, y = densest_place(ring)
    assert np.hypot(x, y) > 0.9
    assert densest_place(np.ones((3, 2))) == (1, 1)


def test_points_know_the_answers_of_their_rows_whatever_their_order(checkpoints: Path):
    folder = make_run(checkpoints, run_id="r")
    describe_made_run(folder)
    drawn, test = load_map(folder.embedding_map), load_evaluation(folder.evaluation_of("test"))
    shuffled = drawn.splits["test"].taken(np.random.default_rng(0).permutation(200))
    points = map_points(type(drawn)(TSNE, {"test": shuffled}), {"test": test})
    assert np.array_equal(test.labels_N[points.positions_N], points.labels_N)
    assert np.array_equal(test.predictions_N[points.positions_N], points.predictions_N)


def test_cards_say_what_an_image_is_and_was_taken_for():
    texts = card_texts(made_points(), ("a", "b", "c"))
    assert texts[0] == "a\nrecognised, 90.0 % · test"
    assert texts[1] == "a\ntaken for b, 50.0 % · test"
    assert texts[5] == "c\nno answer · train"


def test_classes_of_one_superclass_have_colours_of_one_hue_and_all_differ():
    _, of_class = superclasses(100)
    colours = class_colours(100, of_class)
    assert len(set(colours)) == 100
    assert len(set(hues(20))) == 20
    assert all(len(colour) == 7 for colour in colours)


# ---- the pictures


def test_pictures_lie_on_their_sheet_in_order():
    shades = np.arange(7, dtype=np.uint8) * 36
    images = np.broadcast_to(shades[:, None, None, None], (7, 32, 32, 3))
    sheet = make_sheet([(images, np.array([6, 0, 3])), (images, np.array([5, 1]))])
    assert (sheet.columns, sheet.rows, sheet.tile) == (3, 2, 32)
    pixels = np.asarray(Image.open(io.BytesIO(sheet.jpeg)))
    found = [int(pixels[i // 3 * 32 + 16, i % 3 * 32 + 16, 0]) for i in range(5)]
    assert found == pytest.approx([int(shades[i]) for i in (6, 0, 3, 5, 1)], abs=3)


def test_many_or_large_pictures_are_scaled_down_to_fit_on_one_sheet():
    images = np.zeros((1, 160, 160, 3), np.uint8)
    assert make_sheet([(images, np.zeros(10, np.int64))]).tile == 96
    crowd = make_sheet([(np.zeros((1, 48, 48, 3), np.uint8), np.zeros(12_000, np.int64))])
    assert crowd.tile == 32
    assert Image.open(io.BytesIO(crowd.jpeg)).size == (crowd.columns * 32, crowd.rows * 32)
