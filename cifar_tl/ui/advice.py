"""Advice in the form, before training: which backbone, which learning rate.

Asked of the command line in a process of its own (`advise`, `lr-range`), which tells its progress line by line: predictions of other
sessions do not wait for it, and it ends with its work whatever becomes of the page.

While it works, a fragment draws what has come so far. The finished answer is drawn by the page itself: its buttons fill the form, and
what a fragment's callback writes into the form's widgets never reaches the browser.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import streamlit as st

from cifar_tl.advice.answers import (
    BackboneAdvice,
    RateRange,
    backbone_from_json,
    interval_in_words,
    plain_number,
    rates_from_json,
    rates_in_words,
    sentence,
)
from cifar_tl.config import RunConfig
from cifar_tl.models import catalog
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.settings import settings
from cifar_tl.ui.charts.advice import accuracy_against_time, loss_against_rate
from cifar_tl.ui.estimate import estimate_key
from cifar_tl.ui.form_values import match_preset
from cifar_tl.ui.live_plot import live_plot
from cifar_tl.ui.setting_widgets import set_value
from cifar_tl.ui.widgets import PERCENT_FORMAT, format_bytes, format_duration, page_boundary, percent, plain

BACKBONES, RATE = "advise", "lr-range"
_ASKED = "train.advice"
_POLL_SECONDS = 1.0
_CHART_HEIGHT = 320
_ERROR_CHARACTERS = 300
_MOST_TO_USE = 4  # backbones with a button


@dataclass
class Asked:
    """One question and what has come back so far. `config` is what it was asked of."""

    what: str
    config: RunConfig
    process: subprocess.Popen[bytes]
    folder: Path
    read_bytes: int = 0
    text: str = "Starting"
    share: float = 0.0
    backbones: list[BackboneAdvice] = field(default_factory=list)
    rates: RateRange | None = None

    def read(self) -> bool:
        """Take in what is new; True while more is to come."""
        is_alive = self.process.poll() is None
        with (self.folder / "answers").open("rb") as file:
            file.seek(self.read_bytes)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.read_bytes += len(whole) + len(newline)
        for line in whole.splitlines():
            self._take(json.loads(line))
        return is_alive

    def _take(self, told: dict[str, Any]) -> None:
        if "backbone" in told:
            self.backbones.append(backbone_from_json(json.dumps(told)))
        elif "rates" in told:
            self.rates = rates_from_json(json.dumps(told))
        else:
            self.text, self.share = str(told["text"]), min(1.0, told["done"] / max(1, told["total"]))

    @property
    def problem(self) -> str:
        """Why there is no answer, once the process has ended; '' if there is one."""
        if self.backbones or self.rates:
            return ""
        lines = (self.folder / "errors").read_text("utf-8", "replace").strip().splitlines()
        return (lines[-1].removeprefix("error: ") if lines else "It ended without a word.")[-_ERROR_CHARACTERS:]


def advice(config: RunConfig | None) -> None:
    """The two questions, and below them the answer to the last one. `config`: the form, if it can be trained."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption("Not sure?", width="content")
        why_not = None if config else "First mend what is wrong with the settings."
        if st.button(
            "Advise me",
            icon=":material/lightbulb:",
            type="tertiary",
            disabled=config is None,
            help=why_not or "Which backbone: expected accuracy and time of those whose weights are here.",
        ):
            assert config is not None
            _ask(BACKBONES, config)
        if st.button(
            "Find a learning rate",
            icon=":material/show_chart:",
            type="tertiary",
            disabled=config is None,
            help=why_not or "A range test: real steps at rising rates, less than a hundred.",
        ):
            assert config is not None
            _ask(RATE, config)
    asked = st.session_state.get(_ASKED)
    if not isinstance(asked, Asked):
        return
    if asked.read():
        st.fragment(_progress, run_every=_POLL_SECONDS)(asked)
    else:
        _answer(asked, config)


def _ask(what: str, config: RunConfig) -> None:
    _forget()
    folder = Path(tempfile.mkdtemp(prefix="cifar_tl-advice-"))
    answers, errors = folder / "answers", folder / "errors"
    arguments = [sys.executable, "-m", "cifar_tl", what, "--progress", *_as_options(config)]
    with answers.open("wb") as written, errors.open("wb") as told:
        process = subprocess.Popen(arguments, cwd=PROJECT_ROOT, stdin=subprocess.DEVNULL, stdout=written, stderr=told)
    asked = st.session_state[_ASKED] = Asked(what, config, process, folder)
    weakref.finalize(asked, _end, process, folder)  # with the session, at the latest


def _as_options(config: RunConfig) -> list[str]:
    options = []
    for setting in settings():
        value, name = getattr(config, setting.name), setting.name.replace("_", "-")
        if value == setting.default or value is None:
            continue
        if setting.kind is bool:
            options.append(f"--{name}" if value else f"--no-{name}")
        elif setting.kind is tuple:
            options += [f"--{name}", *value]
        else:
            options.append(f"--{name}={value}")
    return options


def _forget() -> None:
    asked = st.session_state.pop(_ASKED, None)
    if isinstance(asked, Asked):
        _end(asked.process, asked.folder)


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    process.terminate()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _progress(asked: Asked) -> None:
    # A fragment is rerun with what it was first called with: by its own Cancel button too, whose callback has just removed the folder.
    if st.session_state.get(_ASKED) is not asked or not asked.read():
        st.rerun()  # the whole page, once: ends the refreshing
    with st.container(border=True):
        _headline(asked, "Cancel")
        st.progress(asked.share, text=plain(asked.text))
        if asked.backbones:
            _show_backbones(asked.backbones)


def _answer(asked: Asked, config: RunConfig | None) -> None:
    with st.container(border=True):
        _headline(asked, "Close")
        if asked.problem:
            st.error(plain(asked.problem), icon=":material/error:")
        if config is not None and _matters(asked) != _matters(asked, config):
            st.caption(":material/history: The settings have been changed since this was asked.")
        if asked.backbones:
            st.markdown(plain(sentence(asked.backbones)))
            _show_backbones(asked.backbones)
            _finish_backbones(asked.backbones)
        if asked.rates:
            _show_rates(asked.rates, config or asked.config)


def _headline(asked: Asked, closing: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Which backbone?**" if asked.what == BACKBONES else "**Which learning rate?**", width="stretch")
        st.button(closing, icon=":material/close:", type="tertiary", on_click=_forget, key="advice.close")


def _matters(asked: Asked, config: RunConfig | None = None) -> str:
    """What the answer depends on."""
    values = config or asked.config
    if asked.what == BACKBONES:
        return estimate_key(values.model_copy(update={"backbone": "", "epochs": 1}))
    return estimate_key(values.model_copy(update={"epochs": 1})) + f" {values.weight_decay} {values.label_smoothing} {values.dropout}"


def _show_backbones(found: list[BackboneAdvice]) -> None:
    known = [item for item in found if not item.error]
    if known:
        chart = accuracy_against_time(found)
        live_plot(chart.traces, chart.layout, revision="advice", key="advice.chart", description=chart.description, height=_CHART_HEIGHT)
    config = st.column_config
    st.dataframe(
        {
            "Backbone": [item.backbone for item in found],
            "Expected dev": [percent(item.expected) for item in found],
            "95 % interval": ["" if item.error else interval_in_words(item) for item in found],
            "Nearest neighbours": [percent(item.neighbours) for item in found],
            "An epoch": ["" if item.error else _seconds(item.epoch_seconds) for item in found],
            "The run": ["" if item.error else format_duration(item.run_seconds) for item in found],
            "Memory": ["" if item.error else format_bytes(item.memory_bytes) for item in found],
        }
        | ({"Why not": [item.error for item in found]} if len(known) < len(found) else {}),
        hide_index=True,
        column_config={
            "Expected dev": config.NumberColumn(format=PERCENT_FORMAT, help="Of a new head that is trained on all training images."),
            "Nearest neighbours": config.NumberColumn(
                format=PERCENT_FORMAT, help=f"A vote of the nearest of {known[0].images:,} images." if known else None
            ),
            "Memory": config.TextColumn(help="What network, gradients and a batch take, beside what Python and its libraries do."),
        },
        key="advice.table",
    )


def _finish_backbones(found: list[BackboneAdvice]) -> None:
    """What follows the finished table: backbones to take over, and what the numbers are."""
    known = [item for item in found if not item.error]
    with st.container(horizontal=True):
        for item in sorted(known, key=lambda item: -item.expected)[:_MOST_TO_USE]:
            st.button(f"Use {item.backbone}", key=f"advice.use.{item.backbone}", on_click=_use, args=("backbone", item.backbone))
    others = sum(not catalog.weights_on_disk(entry.name) for entry in catalog.backbones())
    st.caption(
        "Told from about 2,000 training images and a few timed steps. The accuracy is that of a new head; training more of the network adds to it. "
        f"{others} more backbones would have to be downloaded first."
    )


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)


def _show_rates(found: RateRange, config: RunConfig) -> None:
    st.markdown(rates_in_words(found, config.learning_rate))
    if not found.rates:
        return
    chart = loss_against_rate(found)
    live_plot(chart.traces, chart.layout, revision="rates", key="advice.rates", description=chart.description, height=_CHART_HEIGHT)
    if found.suggestion is not None:
        st.button(f"Use {plain_number(found.suggestion)}", key="advice.use.rate", on_click=_use, args=("learning_rate", found.suggestion))
    st.caption(
        f"{len(found.rates)} real training steps with these settings, at rates from {plain_number(found.rates[0])} "
        f"to {plain_number(found.rates[-1], 2)}."
    )


def _use(name: str, value: Any) -> None:
    set_value(next(setting for setting in settings() if setting.name == name), value)
    match_preset()  # as after a change by hand
