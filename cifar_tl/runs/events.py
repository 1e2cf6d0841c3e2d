"""What a worker says while it runs: event types, schema version, one sample line each.

Events are the only thing that flows from engine to dashboard. They are written by `runs.log.EventWriter`, read by
`runs.log.EventReader` and folded into curves by `runs.history`. On disk each is one line of JSON in an envelope:

    {"v":1,"seq":7,"time":1767225600.12,"type":"step","step":20,"epoch":0.57,"loss":2.31,"learning_rate":0.012,...}

`v` is the schema version, `seq` counts from 0 without gaps, `time` is Unix time in seconds. Losses are mean
cross-entropy in nats; accuracies are fractions in [0, 1]; memory is in bytes; durations are in seconds.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `type` is the name on disk."""

    type: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """The run entered a new part of its work.

    {"type":"phase","name":"preparing_data","text":"Preparing CIFAR-100"}

    `name` is one of resuming, queued, preparing_data, loading_weights, caching_features, training, testing. After a terminal event it
    says that the run goes on.
    """

    type: ClassVar[str] = "phase"
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far the present phase is.

    {"type":"progress","text":"Downloading cifar-100-python.tar.gz","done":1048576,"total":169001437,"unit":"bytes"}
    """

    type: ClassVar[str] = "progress"
    text: str
    done: int
    total: int
    unit: str


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """Data and model are ready and training begins.

    {"type":"started","device":"cpu","device_name":"Xeon","precision":"bf16","train_images":45000,"dev_images":5000,
     "test_images":10000,"num_classes":100,"parameters":3499652,"trainable_parameters":128100,"epochs":5,
     "steps_per_epoch":351,"worker_pid":4711,"processes":1}
    """

    type: ClassVar[str] = "started"
    device: str
    device_name: str
    precision: str
    train_images: int
    dev_images: int
    test_images: int
    num_classes: int
    parameters: int
    trainable_parameters: int
    epochs: int
    steps_per_epoch: int
    worker_pid: int
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """The run goes on from a checkpoint. Steps and epochs that were logged after it are void: they come again.

    {"type":"resumed","step":700,"epoch":1,"seconds":431.0,"message":""}

    `step` and `epoch` count what is finished; `seconds` is how long the run had taken by then; `message` says what was wrong with
    a newer checkpoint, if there was one.
    """

    type: ClassVar[str] = "resumed"
    step: int
    epoch: int
    seconds: float
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """One logged optimizer step. `loss` and `batch_accuracy` are means over the steps since the last such event.

    {"type":"step","step":20,"epoch":0.57,"loss":2.31,"batch_accuracy":0.41,"learning_rate":0.012,
     "images_per_second":231.0,"eta_seconds":812.0}

    `step` counts finished optimizer steps; `epoch` is step / steps_per_epoch. `batch_accuracy` is measured on augmented
    images with moving weights: it tells that learning goes on, and is not comparable with dev accuracy.
    `eta_seconds` is null while it cannot be known: at the very first step, and until the last stages to train have begun to.
    """

    type: ClassVar[str] = "step"
    step: int
    epoch: float
    loss: float
    batch_accuracy: float
    learning_rate: float
    images_per_second: float
    eta_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Epoch(Event):
    """One finished epoch, measured.

    {"type":"epoch","epoch":1,"step":351,"train_loss":1.9,"train_accuracy":0.62,"train_images_measured":5000,
     "dev_loss":1.5,"dev_accuracy":0.60,"dev_top5":0.86,"dev_accuracy_per_class":[0.8,...],"is_best":true,
     "images_per_second":228.0,"epoch_seconds":215.0,"eta_seconds":860.0,"memory_bytes":1500000000,
     "gpu_memory_bytes":null,"gpu_use":null,"gpu_temperature":null}

    Train and dev are measured the same way (no augmentation, evaluation mode, same weights), train on a fixed
    stratified sample of `train_images_measured` images, so that their difference is the generalisation gap.
    `gpu_use` is a fraction, `gpu_temperature` degrees Celsius; null where there is no GPU that tells.
    """

    type: ClassVar[str] = "epoch"
    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    train_images_measured: int
    dev_loss: float
    dev_accuracy: float
    dev_top5: float
    dev_accuracy_per_class: list[float | None]
    is_best: bool
    images_per_second: float
    epoch_seconds: float
    eta_seconds: float | None
    memory_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_use: float | None = None
    gpu_temperature: float | None = None


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something the person should know; the run goes on.

    {"type":"warning","message":"bfloat16 is emulated on this processor and slower than float32."}
    """

    type: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class Completed(Event):
    """Terminal: all epochs done (or stopped early by patience), test evaluated once with the best checkpoint, or left alone where the settings say so.

    {"type":"completed","best_epoch":5,"best_dev_accuracy":0.69,"test_accuracy":0.689,"test_top5":0.91,"test_loss":1.2,"seconds":612.0}
    """

    type: ClassVar[str] = "completed"
    best_epoch: int
    best_dev_accuracy: float
    test_accuracy: float | None
    test_top5: float | None
    test_loss: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """Terminal: a person asked for it. Test has not been touched.

    {"type":"stopped","step":712,"best_dev_accuracy":0.64,"seconds":431.0}
    """

    type: ClassVar[str] = "stopped"
    step: int
    best_dev_accuracy: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """Terminal: the run cannot go on. The traceback is in worker.log.

    {"type":"failed","error":"WeightsUnavailable","message":"The weights of resnet50 are not on this machine ...","seconds":2.0}
    """

    type: ClassVar[str] = "failed"
    error: str
    message: str
    seconds: float


TERMINAL = (Completed, Stopped, Failed)
EVENT_TYPES: dict[str, type[Event]] = {cls.type: cls for cls in (Phase, Progress, Started, Resumed, Step, Epoch, Warned, *TERMINAL)}
_FIELD_NAMES = {name: frozenset(field.name for field in fields(cls)) for name, cls in EVENT_TYPES.items()}


@dataclass(frozen=True)
class Record:
    """An event with its envelope."""

    seq: int
    time: float
    event: Event


def parse_record(raw: dict[str, Any]) -> Record | None:
    """The record of one decoded line; None for a type this version does not know. Raises ValueError if it is malformed."""
    name = raw.get("type")
    if name not in EVENT_TYPES:
        if isinstance(name, str):
            return None
        raise ValueError("an event without a type")
    known = _FIELD_NAMES[name]
    try:
        event = EVENT_TYPES[name](**{key: value for key, value in raw.items() if key in known})
        return Record(int(raw["seq"]), float(raw["time"]), event)
    except (TypeError, KeyError) as error:
        raise ValueError(f"a malformed {name} event: {error}") from error
