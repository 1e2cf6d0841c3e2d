"""What `sweep` and `sweeps` of the command line do. Grammar and exit codes are in `cifar_tl.__main__`."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from cifar_tl.config import RunConfig
from cifar_tl.errors import RunError, RunInvalid, SettingsError
from cifar_tl.sweeps import launcher, store
from cifar_tl.sweeps.space import parse_dimension, without_effect
from cifar_tl.sweeps.store import Pruner, Sweep, SweepStatus
from cifar_tl.sweeps.study import TrialRow, best_of, load_study, rows_of

_POLL_SECONDS = 0.5
_UNREADABLE = "unreadable"


def sweep(options: argparse.Namespace, config: RunConfig) -> int:
    """Start or continue one, or ask it to stop; follow it to its end unless asked not to. `config`: what does not vary."""
    if options.stop:
        if not store.request_stop(options.stop):
            raise RunInvalid(f"The sweep {options.stop} is not running.")
        return 0
    if options.resume:
        launcher.continue_sweep(options.resume)
        sweep_id = options.resume
    else:
        sweep_id = launcher.start_sweep(_asked(options, config))
    print(f"sweep {sweep_id} in {store.find_sweep(sweep_id).path}", file=sys.stderr)
    return 0 if options.detach else _follow(sweep_id, options.json)


def sweeps(options: argparse.Namespace) -> int:
    """All of them, newest first. One that cannot be read is a line that says why."""
    listed: list[dict[str, Any]] = []
    for sweep_id in store.sweep_ids():
        try:
            told, line = _listed(sweep_id)
        except RunError as error:
            told, line = {"sweep_id": sweep_id, "status": _UNREADABLE, "message": str(error)}, " ".join(str(error).split())
        listed.append(told)
        if not options.json:
            print(f"{sweep_id:44} {told['status']:10} {line}")
    if options.json:
        print(json.dumps(listed, ensure_ascii=False))
    return 0


def _listed(sweep_id: str) -> tuple[dict[str, Any], str]:
    """What is told of a sweep, and a line of it. Raises RunError."""
    folder = store.find_sweep(sweep_id)
    asked, (status, message) = store.read_sweep(folder), store.status_of(folder)
    rows = _rows(sweep_id)
    best = best_of(rows)
    ended = sum(row.has_ended for row in rows)
    accuracy = f"{best.accuracy:.1%}" if best and best.accuracy is not None else "-"
    told = {"sweep_id": sweep_id, "name": asked.name, "status": status.value, "message": message} | _result(rows, best)
    return told, f"{ended:>4} of {asked.trials:<5} best dev {accuracy}  {asked.name}"


def _asked(options: argparse.Namespace, config: RunConfig) -> Sweep:
    if not options.vary:
        raise SettingsError("Say what the sweep is to vary, such as --vary learning_rate=0.001..0.1:log --vary trainable=head,last_stages.")
    space = tuple(parse_dimension(text) for text in options.vary)
    if problems := without_effect(config.model_dump(), space):
        raise SettingsError(" ".join(problems))
    for name in ("processes", "tensorboard"):
        if getattr(config, name) != store.LEFT_TO_THE_SWEEP[name]:
            print(f"--{name} is left aside: trials of a sweep train in one process each and write no TensorBoard files.", file=sys.stderr)
    return store.new_sweep(
        config,
        space,
        name=config.name,
        trials=options.trials,
        minutes=options.minutes,
        pruner=Pruner(options.pruner),
        at_once=options.at_once,
        storage=options.storage,
        study=options.study,
    )


def _follow(sweep_id: str, as_json: bool) -> int:
    """Tell each trial that ends until the sweep does. Ctrl-C asks it to stop and goes on following until it has."""
    folder = store.find_sweep(sweep_id)
    told: set[int] = set()
    while True:
        try:
            status, message = store.status_of(folder)
            rows = _rows(sweep_id)
            tell_ended(rows, told)
            if status is not SweepStatus.RUNNING:
                break
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            if store.request_stop(sweep_id):
                print(f"Stopping. Go on with: python -m cifar_tl sweep --continue {sweep_id}", file=sys.stderr, flush=True)
    best = best_of(rows)
    if message:
        print(message, file=sys.stderr)
    if best is not None and not as_json:
        print(f"best: trial {best.number + 1}, {best.accuracy:.1%} on dev, run {best.run_id}")
    if as_json:
        print(json.dumps({"sweep_id": sweep_id, "status": status.value, "message": message} | _result(rows, best), ensure_ascii=False))
    return 1 if status in (SweepStatus.FAILED, SweepStatus.LOST) else 0


def tell_ended(rows: list[TrialRow], told: set[int]) -> None:
    """A line for each trial that has ended since; they end in any order. `told`: the numbers of those before, to which these are added."""
    for row in rows:
        if row.has_ended and row.number not in told:
            told.add(row.number)
            print(_in_words(row), file=sys.stderr, flush=True)


def _in_words(row: TrialRow) -> str:
    state = {"pruned": f"given up: {row.reason}", "fail": f"failed: {row.reason}"}.get(row.state, row.state)
    accuracy = "" if row.accuracy is None else f" {row.accuracy:.1%} on dev after {row.epochs} epoch{'s' * (row.epochs != 1)}"
    values = ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.values.items())
    return f"trial {row.number + 1}: {state}{accuracy} ({values})"


def _rows(sweep_id: str) -> list[TrialRow]:
    folder = store.find_sweep(sweep_id)
    study = load_study(folder, store.read_sweep(folder))
    return rows_of(study) if study else []


def _result(rows: list[TrialRow], best: TrialRow | None) -> dict[str, Any]:
    states = [row.state for row in rows]
    return {
        "trials": len(rows),
        "complete": states.count("complete"),
        "given_up": states.count("pruned"),
        "failed": states.count("fail"),
        "best": asdict(best) if best else None,
    }
