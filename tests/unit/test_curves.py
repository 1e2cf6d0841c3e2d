"""RunHistory -> charts, on hand-made histories."""

import base64

import numpy as np

from cifar_tl.config import REFERENCE_DEV_ACCURACY
from cifar_tl.runs.events import Epoch, Started, Step
from cifar_tl.runs.history import RunHistory
from cifar_tl.ui.charts.curves import MAX_POINTS, Trace, accuracy_chart, latest_of_each_epoch, learning_rate_chart, loss_chart, shown_steps

STARTED = Started(
    device="cpu", device_name="CPU", precision="float32", train_images=100, dev_images=10, test_images=10, num_classes=2, parameters=1,
    trainable_parameters=1, epochs=4, steps_per_epoch=10, worker_pid=1,
)  # fmt: skip


def step(number: int, loss: float = 1.0) -> Step:
    return Step(
        step=number, epoch=number / 10, loss=loss, batch_accuracy=0.5, learning_rate=0.01 * number, images_per_second=1.0, eta_seconds=1.0
    )


def epoch(number: int, train: float = 0.8, dev: float = 0.6) -> Epoch:
    return Epoch(
        epoch=number, step=number * 10, train_loss=1 - train, train_accuracy=train, train_images_measured=10, dev_loss=1 - dev, dev_accuracy=dev,
        dev_top5=1.0, dev_accuracy_per_class=[], is_best=True, images_per_second=1.0, epoch_seconds=1.0, eta_seconds=1.0, memory_bytes=1,
    )  # fmt: skip


def unpacked(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


def named(traces: list[Trace], name: str) -> Trace:
    return next(trace for trace in traces if trace["name"] == name)


def test_a_short_run_shows_every_step() -> None:
    steps = [step(number) for number in range(1, 101)]
    assert shown_steps(steps) == steps


def test_a_long_run_shows_about_a_thousand_steps() -> None:
    shown = shown_steps([step(number) for number in range(1, 5001)])
    assert MAX_POINTS / 2 <= len(shown) <= MAX_POINTS + 1


def test_the_newest_step_is_always_shown() -> None:
    for count in range(990, 1100):
        assert shown_steps([step(number) for number in range(1, count + 1)])[-1].step == count


def test_points_that_are_shown_stay_while_the_run_grows() -> None:
    before = {s.step for s in shown_steps([step(number) for number in range(1, 1101)])[:-1]}
    after = {s.step for s in shown_steps([step(number) for number in range(1, 1201)])}
    assert before <= after


def test_steps_that_a_resumed_run_does_again_replace_the_first_ones() -> None:
    first = [step(number, loss=9.0) for number in (10, 20, 30, 40)]
    again = [step(number, loss=1.0) for number in (25, 35)]
    assert [(s.step, s.loss) for s in shown_steps(first + again)] == [(10, 9.0), (20, 9.0), (25, 1.0), (35, 1.0)]


def test_an_epoch_that_a_resumed_run_does_again_replaces_the_first() -> None:
    assert [e.dev_accuracy for e in latest_of_each_epoch([epoch(1), epoch(2, dev=0.5), epoch(2, dev=0.7)])] == [0.6, 0.7]


def test_accuracy_has_train_and_dev_by_epoch() -> None:
    traces = accuracy_chart(RunHistory(started=STARTED, epochs=[epoch(1, 0.7, 0.5), epoch(2, 0.9, 0.6)])).traces
    np.testing.assert_allclose(unpacked(named(traces, "Train")["y"]), [0.7, 0.9], rtol=1e-6)
    np.testing.assert_allclose(unpacked(named(traces, "Dev")["y"]), [0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(unpacked(named(traces, "Dev")["x"]), [1, 2])


def test_the_student_project_is_drawn_only_when_asked_for() -> None:
    history = RunHistory(started=STARTED, epochs=[epoch(1)])
    plain = {trace["name"] for trace in accuracy_chart(history).traces}
    traces = accuracy_chart(history, with_reference=True).traces
    assert {trace["name"] for trace in traces} - plain == {"Student project, train", "Student project, dev"}
    np.testing.assert_allclose(unpacked(named(traces, "Student project, dev")["y"]), REFERENCE_DEV_ACCURACY)


def test_the_x_axis_is_the_whole_run_from_the_first_step_on() -> None:
    early, late = RunHistory(started=STARTED, steps=[step(1)]), RunHistory(started=STARTED, steps=[step(n) for n in range(1, 40)])
    assert accuracy_chart(early).layout["xaxis"]["range"] == accuracy_chart(late).layout["xaxis"]["range"]
    assert accuracy_chart(early).layout["xaxis"]["range"][1] >= STARTED.epochs


def test_all_charts_of_one_history_share_their_x_axis() -> None:
    history = RunHistory(started=STARTED, steps=[step(1)])
    ranges = [chart(history).layout["xaxis"]["range"] for chart in (accuracy_chart, loss_chart, learning_rate_chart)]
    assert ranges[0] == ranges[1] == ranges[2]


def test_loss_and_learning_rate_follow_the_logged_steps() -> None:
    history = RunHistory(started=STARTED, steps=[step(1, loss=3.0), step(2, loss=2.0)])
    np.testing.assert_allclose(unpacked(named(loss_chart(history).traces, "Batches")["y"]), [3, 2])
    np.testing.assert_allclose(unpacked(learning_rate_chart(history).traces[0]["y"]), [0.01, 0.02], rtol=1e-6)


def test_an_empty_history_makes_empty_charts() -> None:
    for chart in (accuracy_chart, loss_chart, learning_rate_chart):
        assert all(len(unpacked(trace["y"])) == 0 for trace in chart(RunHistory()).traces)


def test_charts_describe_themselves_in_words() -> None:
    history = RunHistory(started=STARTED, steps=[step(1)], epochs=[epoch(1, 0.7, 0.5), epoch(2, 0.9, 0.6)])
    assert "train 90.0%, dev 60.0%; best dev 60.0% in epoch 2" in accuracy_chart(history).description
    assert "Latest epoch 2" in loss_chart(history).description
    assert "0.01 now" in learning_rate_chart(history).description
