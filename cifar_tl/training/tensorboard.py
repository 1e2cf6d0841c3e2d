"""A run's curves as TensorBoard event files too, by torch's own SummaryWriter: `tensorboard --logdir checkpoints`."""

from pathlib import Path
from typing import Any

from cifar_tl.errors import SettingsError
from cifar_tl.runs.events import Completed, Epoch, Event, Resumed, Step

_OF_STEP = {
    "batch/loss": "loss",
    "batch/accuracy": "batch_accuracy",
    "batch/learning rate": "learning_rate",
    "speed/images per second": "images_per_second",
}
_OF_EPOCH = {
    "loss/train": "train_loss",
    "loss/dev": "dev_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/dev": "dev_accuracy",
    "accuracy/dev top-5": "dev_top5",
}
_OF_TEST = {"accuracy/test": "test_accuracy", "accuracy/test top-5": "test_top5", "loss/test": "test_loss"}


class TensorBoardLog:
    """Give it every event; it writes those that are curves. The x axis is the optimizer step."""

    def __init__(self, folder: Path) -> None:
        """Raises SettingsError if TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingsError("TensorBoard is not installed: pip install tensorboard, or switch 'TensorBoard files' off.") from error
        self._make: Any = SummaryWriter
        self._folder = folder
        self._writer: Any = None
        self._step = 0

    def write(self, event: Event) -> None:
        if isinstance(event, Resumed):
            self.close()
            # What was drawn after the checkpoint is taken back, as it is in the run's own log.
            self._writer = self._make(str(self._folder), purge_step=event.step + 1)
        elif isinstance(event, Step):
            self._step = event.step
            self._add(event, _OF_STEP)
        elif isinstance(event, Epoch):
            self._step = event.step
            self._add(event, _OF_EPOCH)
        elif isinstance(event, Completed) and event.test_accuracy is not None:
            self._add(event, _OF_TEST)

    def _add(self, event: Event, fields: dict[str, str]) -> None:
        self._writer = self._writer or self._make(str(self._folder))
        for tag, name in fields.items():
            self._writer.add_scalar(tag, getattr(event, name), self._step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
