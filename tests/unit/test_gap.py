"""The note on the generalisation gap, on hand-made epochs."""

from cifar_tl.config import make_config
from cifar_tl.runs.events import Epoch
from cifar_tl.ui.gap import gap_note

PLAIN = make_config(trainable="everything")


def epochs(*pairs: tuple[float, float], measured: int = 5000) -> list[Epoch]:
    """Epochs 1, 2, ... of (train accuracy, dev accuracy)."""
    return [
        Epoch(
            epoch=number, step=number * 10, train_loss=1.0, train_accuracy=train, train_images_measured=measured, dev_loss=1.0,
            dev_accuracy=dev, dev_top5=1.0, dev_accuracy_per_class=[], is_best=False, images_per_second=1.0, epoch_seconds=1.0,
            eta_seconds=0.0, memory_bytes=0,
        )
        for number, (train, dev) in enumerate(pairs, 1)
    ]  # fmt: skip


def test_no_epoch_no_note() -> None:
    assert gap_note([], PLAIN, dev_images=5000) is None


def test_a_small_gap_is_not_worth_a_word() -> None:
    assert gap_note(epochs((0.72, 0.69)), PLAIN, dev_images=5000) is None


def test_dev_above_train_is_no_gap() -> None:
    assert gap_note(epochs((0.60, 0.75)), PLAIN, dev_images=5000) is None


def test_the_student_projects_gap_is_called_out_with_its_numbers() -> None:
    note = gap_note(epochs((0.51, 0.29)), PLAIN, dev_images=5000)
    assert note is not None
    assert "51.0 % on train, 29.0 % on dev, 22.0 points apart" in note.finding


def test_a_gap_within_the_chance_of_a_small_dev_split_is_not_called_out() -> None:
    pair = epochs((0.60, 0.50), measured=50)
    assert gap_note(pair, PLAIN, dev_images=50) is None
    assert gap_note(epochs((0.60, 0.50)), PLAIN, dev_images=5000) is not None


def test_a_growing_gap_says_so_with_the_gap_before() -> None:
    note = gap_note(epochs((0.60, 0.55), (0.75, 0.60)), PLAIN, dev_images=5000)
    assert note is not None
    assert "growing (it was 5.0 one epoch ago)" in note.finding


def test_a_closing_gap_says_so() -> None:
    note = gap_note(epochs((0.80, 0.60), (0.80, 0.70)), PLAIN, dev_images=5000)
    assert note is not None
    assert "closing" in note.finding


def test_while_dev_rises_an_open_gap_is_not_harmful() -> None:
    note = gap_note(epochs((0.70, 0.60), (0.80, 0.65), (0.85, 0.68)), PLAIN, dev_images=5000)
    assert note is not None
    assert not note.is_harmful
    assert "still rises" in note.finding
    assert "stop" not in note.advice


def test_a_run_that_is_over_is_not_told_to_go_on() -> None:
    over = PLAIN.model_copy(update={"epochs": 3})
    note = gap_note(epochs((0.70, 0.60), (0.80, 0.65), (0.85, 0.68)), over, dev_images=5000)
    assert note is not None
    assert "still rose at the end: training longer may help" in note.finding


def test_two_epochs_without_a_better_dev_accuracy_make_the_gap_harmful() -> None:
    note = gap_note(epochs((0.70, 0.65), (0.80, 0.64), (0.90, 0.63)), PLAIN, dev_images=5000)
    assert note is not None
    assert note.is_harmful
    assert "has not risen since epoch 1 (65.0 %)" in note.finding
    assert "You may stop here" in note.advice


def test_advice_names_only_what_is_not_already_on() -> None:
    armed = make_config(trainable="last_stages", trainable_stages=2, trivial_augment=True, mixup=0.2, dropout=0.4)
    note = gap_note(epochs((0.9, 0.6)), armed, dev_images=5000)
    assert note is not None
    assert note.advice == "For the next run: train fewer stages."


def test_when_everything_is_on_more_images_or_fewer_epochs_are_left() -> None:
    armed = make_config(trainable="head", trivial_augment=True, mixup=0.2, dropout=0.4)
    note = gap_note(epochs((0.9, 0.6)), armed, dev_images=5000)
    assert note is not None
    assert "more training images" in note.advice
