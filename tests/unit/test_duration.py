"""How long a run took: the time in which it worked, without waiting for a device and without what lay between an end and a resumption."""

import pytest

from cifar_tl.runs.events import Completed, Event, Phase, Record, Resumed, Step, Stopped
from cifar_tl.runs.history import RunHistory

QUEUED = Phase(name="queued", text="Waiting: the device is busy")
PREPARING = Phase(name="preparing_data", text="Preparing the data")
RESUMING = Phase(name="resuming", text="Going on from the last checkpoint")
STOPPED = Stopped(step=1, best_dev_accuracy=None, seconds=30.0)
COMPLETED = Completed(best_epoch=1, best_dev_accuracy=0.5, test_accuracy=0.5, test_top5=0.9, test_loss=1.0, seconds=77.0)
STEP = Step(step=1, epoch=0.1, loss=1.0, batch_accuracy=0.5, learning_rate=0.1, images_per_second=1.0, eta_seconds=None)


def seconds_after(*told: tuple[float, Event]) -> float | None:
    history = RunHistory()
    history.extend(Record(number, time, event) for number, (time, event) in enumerate(told))
    return history.seconds


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ([(0, PREPARING), (20, STEP)], 20),
        ([(0, QUEUED), (500, QUEUED)], None),
        ([(0, QUEUED), (500, PREPARING), (520, STEP)], 20),
        ([(0, PREPARING), (30, STOPPED)], 30),
        ([(0, PREPARING), (30, STOPPED), (9000, RESUMING)], 30),
        ([(0, PREPARING), (30, STOPPED), (9000, RESUMING), (9001, QUEUED), (9500, QUEUED)], 30),
        ([(0, PREPARING), (30, STOPPED), (9000, RESUMING), (9001, QUEUED), (9500, PREPARING), (9510, PREPARING)], 40),
        ([(0, PREPARING), (25, STEP), (9000, RESUMING), (9007, PREPARING)], 32),
        ([(0, PREPARING), (25, STEP), (9000, RESUMING), (9007, Resumed(step=0, epoch=0, seconds=5.0)), (9017, STEP)], 15),
        ([(0, PREPARING), (25, STEP), (9000, RESUMING), (9050, COMPLETED)], 77),
    ],
)
def test_only_the_time_in_which_it_worked_counts(told, seconds):
    assert seconds_after(*told) == seconds
