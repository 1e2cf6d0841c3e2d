"""The learning-rate schedule is a pure function of the step."""

import pytest

from cifar_tl.config import make_config
from cifar_tl.training.optim import learning_rate_factor
from cifar_tl.training.plan import Leg
from cifar_tl.training.trainer import Progress, Trainer


def factors(total: int, schedule: str = "one_cycle", warmup: float = 0.1) -> list[float]:
    return [learning_rate_factor(step, total, schedule=schedule, warmup_fraction=warmup) for step in range(total)]


def test_one_cycle_rises_to_one_and_falls_to_nearly_zero():
    values = factors(100)
    peak = values.index(max(values))
    assert peak == 10
    assert values[peak] == pytest.approx(1)
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    assert values[-1] < 0.01


def test_constant_stays_at_one_after_warm_up():
    assert set(factors(100, "constant")[10:]) == {1.0}


@pytest.mark.parametrize("total", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 0.9])
def test_the_shortest_runs_never_have_a_learning_rate_of_zero_or_above_one(total, warmup):
    assert all(0 < value <= 1 for value in factors(total, warmup=warmup))


def trainer_of(config, epochs_of_leg: tuple[int, int], steps_per_epoch: int = 10) -> Trainer:
    """As much of a Trainer as its estimate needs."""
    trainer = Trainer.__new__(Trainer)
    trainer.config, trainer.leg, trainer.steps_per_epoch = config, Leg(0, *epochs_of_leg), steps_per_epoch
    return trainer


def test_the_time_left_counts_larger_images_as_their_area():
    config = make_config(trainable="everything", epochs=3, image_size=128, first_image_size=64)  # 64, 96, 128 px
    trainer = trainer_of(config, (0, 3))
    assert trainer.eta(Progress(step=5), 1.0) == pytest.approx(5 + 10 * (96 / 64) ** 2 + 10 * 4)
    assert trainer.eta(Progress(step=10, epoch=1, measuring_seconds=7), 1.0) == pytest.approx(10 * (96 / 64) ** 2 + 10 * 4 + 2 * 7)
    assert trainer.eta(Progress(step=25, epoch=2), 4.0) == pytest.approx(5 * 4)
    assert trainer.eta(Progress(step=30, epoch=3), 4.0) == 0


def test_no_time_is_promised_before_it_can_be_known():
    config = make_config(trainable="head_then_everything", epochs=4, head_epochs=1)
    assert trainer_of(config, (0, 1)).eta(Progress(step=5), 0.01) is None
    assert trainer_of(config, (1, 4)).eta(Progress(step=15, epoch=1), 2.0) == pytest.approx(25 * 2)
    assert trainer_of(make_config(epochs=4), (0, 4)).eta(Progress(step=1), 3.0) is None
