"""The Trust view of a run, in a page of its own, and what it keeps between reruns."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from cifar_tl.evaluation.arrays import load_evaluation, save_evaluation
from cifar_tl.evaluation.calibration import fit_temperature, scores
from cifar_tl.paths import RunFolder
from cifar_tl.ui import cached_trust
from cifar_tl.ui.cached_evaluation import explored
from cifar_tl.ui.explore.coverage import coverage_table
from cifar_tl.ui.explore.trust import reliability_table
from tests.made_runs import make_run


def script() -> None:
    import numpy as np
    import streamlit as st

    from cifar_tl.ui.cached_evaluation import explored
    from cifar_tl.ui.explore.trust import show_trust
    from cifar_tl.ui.widgets import page_boundary

    with page_boundary():
        asked = st.query_params.to_dict()
        without = np.arange(int(asked["without"])) if "without" in asked else None
        show_trust(explored(asked.get("run", "a"), asked.get("split", "test")), without)


def opened(**query: str) -> AppTest:
    page = AppTest.from_function(script, default_timeout=30)
    for name, value in query.items():
        page.query_params[name] = value
    return page.run()


def shown(page: AppTest) -> str:
    assert not page.exception, page.exception
    assert not page.error, page.error
    kinds = ("subheader", "markdown", "caption", "info", "warning", "code")
    return "\n".join(str(element.value) for kind in kinds for element in page.get(kind)).replace("\\", "")


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def charts(page: AppTest) -> list[dict[str, Any]]:
    return [json.loads(element.proto.json) for element in page.get("bidi_component")]


def calibrated_confidences(folder: RunFolder, split: str) -> np.ndarray:
    """As Predict shows them."""
    temperature = fit_temperature(load_evaluation(folder.evaluation_of("dev")))
    return scores(load_evaluation(folder.evaluation_of(split)), temperature).confidences_N


def names_of_curves(page: AppTest) -> list[str]:
    return [trace["name"] for trace in charts(page)[0]["traces"]]


def changed(folder: RunFolder, split: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Store other probabilities, as if the run had answered so."""
    evaluation = load_evaluation(folder.evaluation_of(split))
    probabilities_NC = change(evaluation.probabilities_NC.astype(np.float32))
    save_evaluation(folder.evaluation_of(split), replace(evaluation, probabilities_NC=probabilities_NC.astype(np.float16)))


def surer(probabilities_NC: np.ndarray) -> np.ndarray:
    powers_NC = probabilities_NC**3
    return powers_NC / powers_NC.sum(1, keepdims=True)


def test_the_headline_has_accuracy_and_the_error_before_and_after_scaling_with_intervals(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    page = opened()
    shown(page)
    assert list(metrics(page)) == ["Not sure enough by", "Calibration error", "After temperature scaling"]
    assert all(metric.delta.startswith("95 % interval: ") for metric in page.metric)
    assert len(charts(page)) == 2


def test_a_run_that_is_too_sure_is_told_so_in_points_with_its_temperature(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=1000)
    for split in ("test", "dev"):
        changed(folder, split, surer)
    page = opened()
    test = load_evaluation(folder.evaluation_of("test"))
    excess = test.confidences_N.mean() - (test.predictions_N == test.labels_N).mean()
    temperature = fit_temperature(load_evaluation(folder.evaluation_of("dev")))
    assert metrics(page)["Too sure by"] == f"{100 * excess:.1f} points"
    assert temperature > 1
    assert f"Temperature {temperature:.2f}, fitted on dev, never on test" in shown(page)
    assert "less sure" in shown(page)


def test_a_run_that_is_not_sure_enough_is_told_so(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=1000)
    for split in ("test", "dev"):
        changed(folder, split, lambda p: 0.5 * p + 0.5 / p.shape[1])
    page = opened()
    low, high = (float(end) for end in page.metric[0].delta.removeprefix("95 % interval: ").split(" to "))
    assert 0 < low < float(metrics(page)["Not sure enough by"].removesuffix(" points")) < high
    assert "more sure" in shown(page)


def test_the_temperature_is_fitted_on_dev_also_when_test_is_shown(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=1000)
    changed(folder, "dev", surer)
    trust = cached_trust.trust_of(explored("a", "test"))
    assert trust.temperature == fit_temperature(load_evaluation(folder.evaluation_of("dev")))
    assert trust.temperature != fit_temperature(load_evaluation(folder.evaluation_of("test")))


def test_the_temperature_is_fitted_once_and_again_when_dev_is_evaluated_again(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(checkpoints, run_id="a")
    fits: list[float] = []
    monkeypatch.setattr(cached_trust, "fit_temperature", lambda dev: fits.append(fit_temperature(dev)) or fits[-1])
    page = opened()
    page.run()
    cached_trust.trust_of(explored("a", "dev"))
    assert len(fits) == 1
    changed(folder, "dev", surer)
    assert cached_trust.trust_of(explored("a", "test")).temperature == fits[-1]
    assert len(fits) == 2


def test_on_dev_it_says_that_the_temperature_was_fitted_there(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    assert "the dev images it was fitted on" in shown(opened(split="dev"))
    assert "the dev images it was fitted on" not in shown(opened(split="test"))


def test_without_an_evaluation_of_dev_the_rest_is_shown(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a").evaluation_of("dev").unlink()
    page = opened()
    text = shown(page)
    assert "this run has no evaluation of its dev images" in text
    assert "python -m cifar_tl evaluate a --split dev" in text
    assert list(metrics(page)) == ["Not sure enough by", "Calibration error"]
    assert "After temperature scaling" not in names_of_curves(page)
    assert len(charts(page)) == 2


def test_a_damaged_evaluation_of_dev_counts_as_none(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a").evaluation_of("dev").write_bytes(b"not an archive")
    assert "no evaluation of its dev images" in shown(opened())


def test_duplicates_get_a_card_of_their_own(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=200)
    evaluation = load_evaluation(folder.evaluation_of("test"))
    left = (evaluation.predictions_N == evaluation.labels_N)[50:]
    page = opened(without="50")
    assert metrics(page)["Accuracy without duplicates"] == f"{100 * left.mean():.1f} %"
    assert "50 images nearly the same" in page.metric[3].help


def test_no_duplicates_found_is_a_card_too(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    page = opened(without="0")
    assert page.metric[3].help.startswith(f"{metrics(page)['Accuracy without duplicates']} with them.")


def test_the_slider_tells_how_many_images_are_answered_and_how_right(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=200)
    evaluation = load_evaluation(folder.evaluation_of("test"))
    confidences_N = calibrated_confidences(folder, "test")
    page = opened()
    for threshold in (0, 60, 90):
        page.slider[0].set_value(threshold).run()
        answered = confidences_N >= threshold / 100
        right = evaluation.predictions_N[answered] == evaluation.labels_N[answered]
        assert f"It answers **{answered.sum()} of 200 images**" in shown(page)
        assert f"right in **{100 * right.mean():.1f} %**" in shown(page)


def test_a_threshold_that_nothing_reaches_answers_none(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=200)
    changed(folder, "test", lambda p: 0.5 * p + 0.5 / p.shape[1])
    page = opened()
    page.slider[0].set_value(100).run()
    assert "none of 200 images" in shown(page)


def test_thresholds_for_wished_accuracies_are_chosen_on_dev(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=1000)
    table = opened().dataframe[0].value
    dev = load_evaluation(folder.evaluation_of("dev"))
    for wished, threshold in zip(table["To be right in"], table["Be at least this sure"], strict=True):
        answered = calibrated_confidences(folder, "dev") >= threshold / 100 - 0.0005  # the table is rounded
        assert (dev.predictions_N == dev.labels_N)[answered].mean() >= wished / 100 - 0.01
    assert "chosen on dev and then tried on test" in shown(opened())
    assert "flatters them" in shown(opened(split="dev"))


def test_both_figures_can_be_had_as_csv(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    keys = [button.key for button in opened().get("download_button")]
    assert keys == ["a-test-reliability.csv", "a-test-coverage.csv"]


def test_the_csv_of_the_diagram_has_every_bin_before_and_after(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", test_images=200)
    table = reliability_table(cached_trust.trust_of(explored("a", "test")))
    assert len(table["Images"]) == 30
    assert sum(table["Images"]) == 400
    assert len(set(table["Temperature"])) == 2


def test_the_csv_of_the_curve_has_every_threshold(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=200)
    table = coverage_table(cached_trust.trust_of(explored("a", "test")))
    assert len(table["Right"]) == len(np.unique(calibrated_confidences(folder, "test")))
    assert table["Images answered"][-1] == 200


def test_a_run_alone_on_its_data_has_no_note_on_picking(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    make_run(checkpoints, run_id="other-data", data_fingerprint="other")
    make_run(checkpoints, run_id="other-classes", num_classes=10)
    make_run(checkpoints, run_id="not-tested", status="stopped")
    assert "have been tested" not in shown(opened())


def test_several_tested_runs_on_the_same_data_get_a_note(checkpoints: Path) -> None:
    for run_id in "abc":
        make_run(checkpoints, run_id=run_id)
    page = opened()
    assert "3 runs have been tested on these 200 images" in page.info[0].value
    assert not page.warning


def test_the_note_comes_first_where_it_concerns_the_run_that_is_shown(checkpoints: Path) -> None:
    by_accuracy = sorted((accuracy_on_test(make_run(checkpoints, run_id=f"seed{seed}", seed=seed)), f"seed{seed}") for seed in (1, 2))
    for (_, run_id), is_first in zip(by_accuracy, (False, True), strict=True):
        kinds = [element.type for element in opened(run=run_id).main]
        assert (kinds.index("info") < kinds.index("slider")) is is_first


def test_the_note_is_about_test_only(checkpoints: Path) -> None:
    for run_id in "ab":
        make_run(checkpoints, run_id=run_id)
    assert "have been tested" not in shown(opened(split="dev"))


def test_a_run_that_only_test_speaks_for_is_warned_of(checkpoints: Path) -> None:
    # Of made runs, dev accuracy rises with the epochs, and test accuracy comes with the seed.
    tested = {seed: accuracy_on_test(make_run(checkpoints, run_id=f"seed{seed}", seed=seed, epochs=2)) for seed in (1, 2)}
    best = max(tested, key=lambda seed: tested[seed])
    make_run(checkpoints, run_id="long", seed=min(tested, key=lambda seed: tested[seed]), epochs=5)
    assert tested[1] != tested[2]
    warned = opened(run=f"seed{best}")
    assert "but by dev **long**" in warned.warning[0].value
    assert not opened(run="long").warning


def accuracy_on_test(folder: RunFolder) -> float:
    evaluation = load_evaluation(folder.evaluation_of("test"))
    return float((evaluation.predictions_N == evaluation.labels_N).mean())


def test_a_deleted_run_is_no_contender_any_more(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a")
    second = make_run(checkpoints, run_id="b")
    loaded = explored("a", "test")
    assert [run.run_id for run in cached_trust.contenders(loaded)] == ["b", "a"]
    second.config.unlink()
    assert [run.run_id for run in cached_trust.contenders(loaded)] == ["a"]


def test_a_run_that_is_always_right_can_be_shown(checkpoints: Path) -> None:
    folder = make_run(checkpoints, run_id="a", test_images=100)
    for split in ("test", "dev"):
        evaluation = load_evaluation(folder.evaluation_of(split))
        save_evaluation(folder.evaluation_of(split), replace(evaluation, labels_N=evaluation.predictions_N.copy()))
    page = opened()
    assert "the end of the range" in shown(page)
    assert "Not sure enough by" in metrics(page)
    assert not page.dataframe


def test_a_thousand_classes_can_be_shown(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", num_classes=1000, test_images=2000)
    page = opened()
    shown(page)
    assert len(metrics(page)) == 3


def test_a_single_image_can_be_shown(checkpoints: Path) -> None:
    make_run(checkpoints, run_id="a", num_classes=2, test_images=1)
    page = opened()
    assert "of 1 image**" in shown(page)
