"""What advice says, as plain data and in words: no torch, for the command line and the pages."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

RANGE_STEPS = 90  # of a learning-rate range test that nothing ends early


@dataclass(frozen=True)
class BackboneAdvice:
    """What to expect of one backbone. Accuracies are fractions: `expected`, between `low` and `high` in 19 of 20 cases, is the dev accuracy of a
    new head trained on all training images; `neighbours` that of a vote of the nearest images, of the subset as it is.

    `epoch_seconds`, `run_seconds` and `memory_bytes` are of a run with the settings asked for. `error` is set instead of numbers.
    """

    backbone: str
    expected: float = math.nan
    low: float = math.nan
    high: float = math.nan
    neighbours: float = math.nan
    images: int = 0
    epoch_seconds: float = math.nan
    run_seconds: float = math.nan
    memory_bytes: int = 0
    error: str = ""


@dataclass(frozen=True)
class RateRange:
    """A learning-rate range test: the rate of each step, the smoothed loss after it, and the rate that is suggested (None: none can be told).

    Fewer than `RANGE_STEPS` rates: it ended early, because the loss ran away.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None
    lowest_at: float | None


def sentence(found: Sequence[BackboneAdvice]) -> str:
    """Advice in a sentence or two."""
    known = [item for item in found if not item.error]
    if not known:
        return "None of these backbones could be measured."
    best = max(known, key=lambda item: item.expected)
    if len(known) == 1:
        return f"{best.backbone}: {interval_in_words(best)} on dev with a new head, {_seconds(best.epoch_seconds)} an epoch with these settings."
    rivals = [item for item in known if item.high >= best.expected]
    quickest = min(rivals, key=lambda item: item.epoch_seconds)
    if quickest is best:
        others = sorted((item for item in rivals if item is not best), key=lambda item: -item.expected)
        also = f" {others[0].backbone} may do as well, and is slower." if others else ""
        return f"Take {best.backbone}: the highest expected accuracy ({interval_in_words(best)}), {_seconds(best.epoch_seconds)} an epoch.{also}"
    times = best.epoch_seconds / quickest.epoch_seconds
    return (
        f"{best.backbone} has the highest expected accuracy ({interval_in_words(best)}). {quickest.backbone} may do as well ({interval_in_words(quickest)}) "
        f"and is {times:.1f} times as fast: begin with it."
    )


def to_json(value: BackboneAdvice | RateRange) -> str:
    """One line; what is no number becomes null."""
    plain = {name: None if isinstance(item, float) and math.isnan(item) else item for name, item in asdict(value).items()}
    return json.dumps(plain, ensure_ascii=False)


def backbone_from_json(text: str) -> BackboneAdvice:
    filled: dict[str, Any] = {name: math.nan if value is None else value for name, value in json.loads(text).items()}
    return BackboneAdvice(**filled)


def rates_from_json(text: str) -> RateRange:
    raw = json.loads(text)
    return RateRange(tuple(raw["rates"]), tuple(raw["losses"]), raw["suggestion"], raw["lowest_at"])


def suggest(rates: Sequence[float], losses: Sequence[float]) -> RateRange:
    """A tenth of the rate at which the smoothed loss was lowest, to two digits. None if the loss never fell by more than a fiftieth."""
    if not losses or min(losses) > 0.98 * losses[0]:
        return RateRange(tuple(rates), tuple(losses), None, None)
    lowest_at = rates[min(range(len(losses)), key=losses.__getitem__)]
    return RateRange(tuple(rates), tuple(losses), float(f"{lowest_at / 10:.2g}"), lowest_at)


def rates_in_words(found: RateRange, now: float) -> str:
    """`now` is the learning rate of the settings."""
    early = f" Stopped after {len(found.rates)} of {RANGE_STEPS} steps: the loss ran away." if len(found.rates) < RANGE_STEPS else ""
    if found.suggestion is None or found.lowest_at is None:
        return f"The loss never fell, whatever the learning rate: look at the other settings first.{early}"
    if found.suggestion == now:
        compared = "It is the one you have."
    elif 0.5 <= found.suggestion / now <= 2:
        compared = f"Yours, {plain_number(now)}, is as good."
    else:
        compared = f"Yours, {plain_number(now)}, is {'lower' if now < found.suggestion else 'higher'}."
    return (
        f"Suggested: **{plain_number(found.suggestion)}**, a tenth of the rate at which the loss was lowest "
        f"({plain_number(found.lowest_at, 2)}), where it is still falling and far from diverging. {compared}{early}"
    )


def plain_number(value: float, digits: int = 6) -> str:
    """As the form and the chart's axis write it, to so many digits: 0.00001, where Python has 1e-05."""
    return format(Decimal(f"{value:.{digits}g}"), "f")


def interval_in_words(item: BackboneAdvice) -> str:
    """Such as: 63 to 76 %."""
    return f"{100 * item.low:.0f} to {100 * item.high:.0f} %"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
