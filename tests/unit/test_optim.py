"""The learning-rate schedule is a pure function of the step."""

import pytest

from cifar_tl.training.optim import learning_rate_factor


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
