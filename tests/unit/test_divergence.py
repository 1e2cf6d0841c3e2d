"""The note on a loss that runs away."""

from cifar_tl.runs.events import Step
from cifar_tl.ui.divergence import divergence_note


def steps(*losses: float) -> list[Step]:
    return [
        Step(step=n, epoch=n / 10, loss=loss, batch_accuracy=0.1, learning_rate=0.1, images_per_second=1.0, eta_seconds=1.0)
        for n, loss in enumerate(losses, 1)
    ]


def note(*losses: float) -> str | None:
    return divergence_note(steps(*losses), num_classes=20, learning_rate=0.03)


def test_a_falling_loss_needs_no_note() -> None:
    assert note(3.2, 2.5, 2.0, 1.5) is None


def test_a_new_head_that_starts_above_guessing_needs_no_note() -> None:
    assert note(4.0, 3.9, 3.8) is None


def test_one_bad_batch_needs_no_note() -> None:
    assert note(2.0, 1.9, 40.0) is None


def test_no_step_needs_no_note() -> None:
    assert note() is None


def test_a_loss_far_above_guessing_is_called_out_with_a_lower_learning_rate() -> None:
    text = note(2.9, 2.2, 13.9, 38.7, 60.5)
    assert text is not None
    assert "60.5 nats now, where guessing would cost 3.0" in text
    assert "such as 0.003 instead of 0.03" in text
