"""How long a run would take here: measured in the prediction process while the form is open, shown when it is known.

Owns which settings change the time, when to measure (once a set of settings has rested for one refresh) and the sentence.
Never waits: the form's fragment asks and shows, and refreshes itself while `is_missing`.
"""

import json
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from cifar_tl.answers import EpochEstimate, Hardware
from cifar_tl.config import RunConfig
from cifar_tl.errors import CifarTLError
from cifar_tl.settings import CHOICE_LABELS
from cifar_tl.ui import cached
from cifar_tl.ui.predictor import result_of
from cifar_tl.ui.widgets import format_bytes, format_duration

# These change what is learned, not how long a step takes.
WITHOUT_EFFECT_ON_TIME = frozenset(
    {
        "name",
        "learning_rate",
        "head_learning_rate_factor",
        "stage_learning_rate_decay",
        "schedule",
        "warmup_fraction",
        "class_balance",
        "early_stopping_patience",
        "weights",
        "weight_decay",
        "label_smoothing",
        "dropout",
        "seed",
        "log_every_steps",
        "cache_limit",
    }
)
# From here on the time outside the epochs is told apart, or people multiply and wonder.
SHARE_WORTH_A_WORD = 0.25
# A machine that was idle then may be busy now: an older measurement says how old it is.
OLD_AFTER_SECONDS = 300
_PENDING = "train.pending_estimate"


@dataclass(frozen=True)
class Measured(EpochEstimate):
    """An estimate that is kept, with the time it was measured at (`time.time()`)."""

    at: float = 0.0


@dataclass
class PendingEstimate:
    """What this session wants measured (`wanted`) and what is being measured for it (`measuring`, with its future)."""

    wanted: str = ""
    measuring: str = ""
    future: Future[Any] | None = None


def estimate_key(config: RunConfig) -> str:
    """Equal for two sets of settings that take equally long."""
    values = config.model_dump(mode="json")
    return json.dumps({name: value for name, value in values.items() if name not in WITHOUT_EFFECT_ON_TIME}, sort_keys=True)


def is_missing(config: RunConfig) -> bool:
    """True while the estimate of these settings is not known."""
    return estimate_key(config) not in cached.epoch_estimates()


def request_estimate(config: RunConfig) -> None:
    """Bring the measurement of these settings one refresh further: collect a finished one, or begin one that is still wanted."""
    pending = _pending()
    if pending.future is not None and pending.future.done():
        _keep(pending)
    key = estimate_key(config)
    # Somebody who turns a knob five times wants the last value measured, not all five.
    has_rested, pending.wanted = pending.wanted == key, key
    if has_rested and pending.future is None and is_missing(config):
        pending.future = cached.predictor().submit("cifar_tl.probe:measure_epoch", config.model_dump(mode="json"))
        pending.measuring = key


def _pending() -> PendingEstimate:
    value = st.session_state.setdefault(_PENDING, PendingEstimate())
    assert isinstance(value, PendingEstimate)
    return value


def _keep(pending: PendingEstimate) -> None:
    assert pending.future is not None
    try:
        estimate: EpochEstimate | CifarTLError = Measured(**asdict(result_of(pending.future)), at=time.time())
    except CifarTLError as error:
        estimate = error
    cached.remember_estimate(pending.measuring, estimate)
    pending.future, pending.measuring = None, ""


def forget_estimate(config: RunConfig) -> None:
    """Measure these settings again."""
    cached.epoch_estimates().pop(estimate_key(config), None)


def known_estimate(config: RunConfig) -> EpochEstimate | CifarTLError | None:
    """The measured estimate, why there is none, or None while it is not known."""
    return cached.epoch_estimates().get(estimate_key(config))


def age_in_words(estimate: EpochEstimate, now: float) -> str:
    """Such as " 12 min ago" for what was measured more than some minutes ago; '' for what is fresh."""
    age = now - estimate.at if isinstance(estimate, Measured) else 0.0
    if age < OLD_AFTER_SECONDS:
        return ""
    minutes, hours = int(age // 60), int(age // 3600)
    return f" {hours} h ago" if hours else f" {minutes} min ago"


def sentence_of(estimate: EpochEstimate, hardware: Hardware | None, config: RunConfig) -> str:
    """Such as: About 42 s per epoch, 3 min 30 s in all, on 2 CPU cores (bfloat16). And what a cache of activations takes."""
    precision = CHOICE_LABELS.get(estimate.precision, estimate.precision)
    where = device_in_words(estimate.device, hardware)
    # The time is that of the later epochs; those of the head alone are quicker, so the product is not the sum.
    which = " once everything trains" if _head_is_first(config) else ""
    in_all = f"{format_duration(estimate.run_seconds)} in all, on {where} ({precision})."
    sentences = [f"About **{format_duration(estimate.epoch_seconds)} per epoch**{which}, {in_all}", _time_spent_once(estimate, config)]
    if estimate.cache_bytes:
        sentences.append(_disk(estimate, config))
    return " ".join(sentence for sentence in sentences if sentence)


def _head_is_first(config: RunConfig) -> bool:
    return config.trainable == "head_then_everything"


def _time_spent_once(estimate: EpochEstimate, config: RunConfig) -> str:
    """What happens outside the epochs, with its time where that is a large share of the run; empty if it is not worth a word."""
    if estimate.cache_bytes and _head_is_first(config):
        return "Before the first epoch, the layers that are frozen at first run once over every image."
    once = estimate.run_seconds - config.epochs * estimate.epoch_seconds
    is_large = once > SHARE_WORTH_A_WORD * estimate.run_seconds
    spent = f"{format_duration(once)} of it are spent once: " if is_large else ""
    if estimate.cache_bytes:
        return f"{spent}{'the' if spent else 'The'} frozen layers run over every image before the first epoch."
    return f"{spent}the test images are measured at the end." if is_large and not _head_is_first(config) else ""


def _disk(estimate: EpochEstimate, config: RunConfig) -> str:
    """What the output of the frozen layers, of which the sentence before speaks, takes. A run over the limit drops views until it fits."""
    size = format_bytes(estimate.cache_bytes)
    if estimate.cache_bytes > config.cache_limit * 1e9:
        limit = f"{config.cache_limit:g} GB"
        return f"Their output would take {size} of disk, more than the cache limit of {limit}: the run keeps fewer views, or none."
    views = f", for up to {config.cached_views} views of each training image" if config.cached_views > 1 else ""
    return f"Their output takes {size} of disk{views}; a run that finds it there begins at once."


def device_in_words(device: str, hardware: Hardware | None) -> str:
    """'2 CPU cores', or the GPU's own name where it is known."""
    if device == "cpu":
        count = hardware.cpu_count if hardware else 0
        return f"{count} CPU core{'s' if count > 1 else ''}" if count else "the CPU"
    return hardware.device_name if hardware else f"the {CHOICE_LABELS.get(device, device)}"
