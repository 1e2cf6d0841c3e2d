"""Corrections: what people decided about single training images. The data set itself is never changed.

One small JSON file for each data set, named by its fingerprint, under `paths.corrections_root()`:

    {"version": 1, "data": "CIFAR-100", "decisions": [
     {"split": "train", "row": 5217, "about": "label", "decision": "relabel", "label": "wolf", "at": 1767225600.1},
     {"split": "train", "row": 88, "about": "duplicate", "decision": "drop", "label": "", "at": 1767225611.9}]}

A decision is added at the end, and undo takes the last one. The latest decision about the same thing (a label, a duplicate, an
outlier) of the same image counts, and an image that is dropped for any of them is dropped. A run that trains on the corrected
data keeps, as corrections.json in its own folder, what was in force when it began: resumed later, it trains on the same data.

Relabel and drop act on the store's train split, of which dev is a part unless the data set brings its own. Test is never touched, so that
results stay comparable. Level 1.
"""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cifar_tl.errors import DataError, SettingsError, SourceInvalid
from cifar_tl.paths import corrections_file
from cifar_tl.runs.store import write_json

About = Literal["label", "duplicate", "outlier"]
Verdict = Literal["keep", "relabel", "drop"]
CORRECTED_SPLIT = "train"
_VERSION = 1


@dataclass(frozen=True)
class Decision:
    """One line of the file. `label` is the name of the class to relabel to, "" otherwise; `at` is Unix time in seconds."""

    row: int
    about: About
    decision: Verdict
    label: str = ""
    at: float = 0.0
    split: str = CORRECTED_SPLIT


@dataclass(frozen=True)
class Corrections:
    """All decisions about a data set, oldest first, and what they come to."""

    decisions: tuple[Decision, ...] = ()

    @cached_property
    def latest(self) -> dict[tuple[int, About], Decision]:
        """The decision that counts, by row and what it is about, in the order in which they were made."""
        found: dict[tuple[int, About], Decision] = {}
        for decision in self.decisions:
            found.pop((decision.row, decision.about), None)
            found[decision.row, decision.about] = decision
        return found

    @cached_property
    def in_force(self) -> dict[int, Decision]:
        """By row, the decision that changes what becomes of it: a drop before all, else the latest relabel."""
        found: dict[int, Decision] = {}
        for decision in self.latest.values():
            is_dropped = decision.row in found and found[decision.row].decision == "drop"
            if decision.decision != "keep" and not is_dropped:
                found[decision.row] = decision
        return found

    @property
    def dropped(self) -> list[int]:
        """Rows that are left out, ascending."""
        return sorted(row for row, decision in self.in_force.items() if decision.decision == "drop")

    @property
    def relabelled(self) -> dict[int, str]:
        """Rows that get another label, ascending, with the name of the class."""
        return {row: decision.label for row, decision in sorted(self.in_force.items()) if decision.decision == "relabel"}

    @property
    def version(self) -> str:
        """Names what is trained on: equal for equal corrections, in whichever order they were decided; '' if nothing is changed."""
        effect = [*self.relabelled.items(), *((row, None) for row in self.dropped)]
        return hashlib.sha256(json.dumps(effect).encode()).hexdigest()[:12] if effect else ""

    def verdict(self, row: int, about: About) -> Verdict | None:
        """What was decided about an image: a change whatever it was about, a keep only where it was about this."""
        if row in self.in_force:
            return self.in_force[row].decision
        return "keep" if (row, about) in self.latest else None

    def effective(self) -> "Corrections":
        """Only what changes the data, each image once."""
        return Corrections(tuple(self.in_force.values()))

    def apply(self, labels_N: np.ndarray, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(labels_N, is_kept_N) of the store's train split. Raises SourceInvalid for rows or classes that it has not."""
        relabelled, dropped = self.relabelled, np.array(self.dropped, np.int64)
        unknown = sorted(set(relabelled.values()) - set(class_names))
        beyond = [row for row in self.in_force if row >= len(labels_N)]
        if unknown or beyond:
            what = f"the class {unknown[0]!r}" if unknown else f"image {beyond[0]}"
            raise SourceInvalid(f"The corrections name {what}, which these data do not have: they were made for other data.")
        index = {name: number for number, name in enumerate(class_names)}
        corrected_N, is_kept_N = np.array(labels_N), np.ones(len(labels_N), bool)
        corrected_N[np.array(list(relabelled), np.int64)] = [index[name] for name in relabelled.values()]
        is_kept_N[dropped] = False
        return corrected_N, is_kept_N


def read_corrections(fingerprint: str) -> Corrections:
    """The decisions about a data set; none where there is no file. Raises SourceInvalid for a damaged one."""
    return _read(corrections_file(fingerprint)) or Corrections()


def decide(fingerprint: str, decision: Decision, *, title: str) -> Corrections:
    """Add a decision; returns all of them. `title` tells a person who opens the file which data it is about.

    Raises SettingsError for images that are not corrected, SourceInvalid, DataError where nothing can be written.
    """
    if decision.split != CORRECTED_SPLIT:
        raise SettingsError(f"Only training images are corrected, not those of {decision.split}: results must stay comparable.")
    if (decision.decision == "relabel") != bool(decision.label):
        raise SettingsError("To relabel an image takes the name of a class, and nothing else does.")
    with _locked(fingerprint) as path:
        now = (*(_read(path) or Corrections()).decisions, replace(decision, at=round(time.time(), 3)))
        _write(path, Corrections(now), title)
        return Corrections(now)


def undo(fingerprint: str, *, title: str) -> Decision | None:
    """Take back the last decision, whoever made it, and return it; None if there is none. Raises SourceInvalid, DataError."""
    with _locked(fingerprint) as path:
        before = (_read(path) or Corrections()).decisions
        if not before:
            return None
        _write(path, Corrections(before[:-1]), title)
        return before[-1]


def corrections_of_run(own_file: Path, fingerprint: str, *, version: str | None = None) -> Corrections:
    """What a run on corrected data trains on: what it noted in its folder when it began, else what is in force now.

    `version`: the one it must be, where that is known. Raises SourceInvalid.
    """
    corrections = _read(own_file)
    if corrections is None:
        corrections = read_corrections(fingerprint).effective()
    if version is not None and corrections.version != version:
        raise SourceInvalid(
            f"The run was trained on version {version or 'none'} of the corrections, which is not here any more: {own_file} is missing."
        )
    return corrections


def note_corrections(own_file: Path, corrections: Corrections, *, title: str) -> None:
    """Write into a run's folder what it trains on. Raises OSError."""
    _write(own_file, corrections.effective(), title)


def _read(path: Path) -> Corrections | None:
    """None if there is no such file."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if raw["version"] != _VERSION:
            raise ValueError(f"version {raw['version']}, known is {_VERSION}")
        return Corrections(tuple(_decision(item) for item in raw["decisions"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceInvalid(f"The corrections in {path} cannot be read ({error}). Mend the file, or move it away to begin anew.") from error


def _decision(item: dict[str, Any]) -> Decision:
    known = Decision(int(item["row"]), item["about"], item["decision"], str(item["label"]), float(item["at"]), str(item["split"]))
    is_sound = known.about in get_args(About) and known.decision in get_args(Verdict) and known.split == CORRECTED_SPLIT
    if not is_sound or known.row < 0 or (known.decision == "relabel") != bool(known.label):
        raise ValueError(f"no decision: {item}")
    return known


def _write(path: Path, corrections: Corrections, title: str) -> None:
    write_json(path, {"version": _VERSION, "data": title, "decisions": [asdict(decision) for decision in corrections.decisions]})


@contextmanager
def _locked(fingerprint: str) -> Iterator[Path]:
    """The data set's file, with no one else changing it: two pages that decide at once both keep their decision."""
    path = corrections_file(fingerprint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f".{path.name}.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
    except OSError as error:
        raise DataError(
            f"Decisions cannot be kept in {path.parent} ({error.strerror or error}). Let CIFAR_TL_CORRECTIONS name a folder that can be written."
        ) from error
