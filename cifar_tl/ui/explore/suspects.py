"""What an audit found, as lists that a person can go through: one row for each decision to make. Pure; `suspicious` draws them.

A row is about one image, the first of its places. A duplicate has a second place, the image that it repeats. Only images of the
store's train split are decided on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cifar_tl.data.corrections import About, Corrections
from cifar_tl.evaluation.suspicion.result import SPLITS, TRAIN, Duplicates, LabelIssues, Outliers, Suspicion
from cifar_tl.ui.explore.parts import Table
from cifar_tl.ui.widgets import format_percent

_NONE = -1
SPLIT_WORDS = ("training", "dev", "test")


class Kind(StrEnum):
    LABELS = "Label issues"
    DUPLICATES = "Duplicates"
    OUTLIERS = "Outliers"

    @property
    def about(self) -> About:
        return _ABOUT[self]


_ABOUT: dict[Kind, About] = {Kind.LABELS: "label", Kind.DUPLICATES: "duplicate", Kind.OUTLIERS: "outlier"}


class Shown(StrEnum):
    UNDECIDED = "To review"
    DECIDED = "Decided"
    ALL = "All"


@dataclass(frozen=True)
class Place:
    """One image: index into SPLITS, row of the store's split, given class."""

    split: int
    row: int
    label: int

    @property
    def name(self) -> str:
        return f"{SPLITS[self.split]}.{self.row}"


@dataclass(frozen=True)
class Suspect:
    """One row of a list. `suggested` is a class, or None; `why` says in a few words what is suspicious."""

    kind: Kind
    place: Place
    other: Place | None
    suggested: int | None
    why: str

    @property
    def can_be_decided(self) -> bool:
        return self.place.split == TRAIN


@dataclass(frozen=True)
class SuspectList:
    """All of one kind, the most suspicious first. `group_n` says among which images: an index into `groups`. `strength_n2` is of its kind."""

    kind: Kind
    groups: tuple[str, ...]
    group_n: np.ndarray
    split_n: np.ndarray
    row_n: np.ndarray
    label_n: np.ndarray
    other_n3: np.ndarray
    suggested_n: np.ndarray
    strength_n2: np.ndarray

    def __len__(self) -> int:
        return len(self.row_n)

    def at(self, index: int) -> Suspect:
        place = Place(int(self.split_n[index]), int(self.row_n[index]), int(self.label_n[index]))
        other = Place(*map(int, self.other_n3[index])) if self.other_n3[index, 0] != _NONE else None
        suggested = int(self.suggested_n[index])
        return Suspect(self.kind, place, other, suggested if suggested != _NONE else None, self._why(index))

    def _why(self, index: int) -> str:
        first, second = (float(value) for value in self.strength_n2[index])
        if self.kind is Kind.LABELS:
            return f"{format_percent(first)} given, {format_percent(second)} suggested"
        if self.kind is Kind.DUPLICATES:
            return "equal pixels" if second else f"pixels correlate by {first:.3f}"
        return f"{first:.1f} times as far from others as usual"

    def select(self, group: str, shown: Shown, corrections: Corrections) -> np.ndarray:
        """int64 indices of the rows to show, in order."""
        among = np.flatnonzero(self.group_n == self.groups.index(group))
        if shown is Shown.ALL:
            return among
        decided_rows = {row for row, about in corrections.latest if row in corrections.in_force or about == self.kind.about}
        is_decided = (self.split_n[among] == TRAIN) & np.isin(self.row_n[among], list(decided_rows))
        return among[is_decided == (shown is Shown.DECIDED)]

    def find(self, image: str) -> int | None:
        """The first row about the image of that name, as in "train.5217"; None if there is none."""
        split, _, row = image.partition(".")
        if split not in SPLITS or not row.isdecimal():
            return None
        found = np.flatnonzero((self.split_n == SPLITS.index(split)) & (self.row_n == int(row)))
        return int(found[0]) if len(found) else None

    def table(self, indices: np.ndarray, class_names: Sequence[str], corrections: Corrections) -> Table:
        """For a spreadsheet."""
        table: Table = {
            "rank": [],
            "split": [],
            "row": [],
            "given": [],
            "suggested": [],
            "other split": [],
            "other row": [],
            "why": [],
            "decision": [],
        }
        for rank, index in enumerate(indices.tolist(), 1):
            suspect = self.at(index)
            verdict = verdict_on(suspect, corrections)
            values = (
                rank,
                SPLITS[suspect.place.split],
                suspect.place.row,
                class_names[suspect.place.label],
                "" if suspect.suggested is None else class_names[suspect.suggested],
                "" if suspect.other is None else SPLITS[suspect.other.split],
                "" if suspect.other is None else suspect.other.row,
                suspect.why,
                verdict,
            )
            for column, value in zip(table.values(), values, strict=True):
                column.append(value)
        return table


def verdict_on(suspect: Suspect, corrections: Corrections) -> str:
    """What was decided, in a few words; '' if nothing was."""
    if not suspect.can_be_decided:
        return ""
    verdict = corrections.verdict(suspect.place.row, suspect.kind.about)
    if verdict == "relabel":
        return f"relabelled as {corrections.in_force[suspect.place.row].label}"
    return {"keep": "kept", "drop": "dropped"}.get(verdict or "", "")


def suspect_lists(found: Suspicion) -> dict[Kind, SuspectList]:
    return {
        Kind.LABELS: _labels(found.labels),
        Kind.DUPLICATES: _duplicates(found.duplicates),
        Kind.OUTLIERS: _outliers(found.outliers),
    }


def _labels(issues: LabelIssues) -> SuspectList:
    groups, group_n = _groups_of(issues.split_n)
    strength = np.stack([issues.given_probability_n, issues.suggested_probability_n], 1)
    nobody = np.full((len(issues), 3), _NONE)
    return SuspectList(Kind.LABELS, groups, group_n, issues.split_n, issues.row_n, issues.given_n, nobody, issues.suggested_n, strength)


def _outliers(outliers: Outliers) -> SuspectList:
    groups, group_n = _groups_of(outliers.split_n)
    strength = np.stack([outliers.strangeness_n, np.zeros(len(outliers))], 1)
    nobody = np.full((len(outliers), 3), _NONE)
    nothing = np.full(len(outliers), _NONE)
    return SuspectList(Kind.OUTLIERS, groups, group_n, outliers.split_n, outliers.row_n, outliers.label_n, nobody, nothing, strength)


def _duplicates(pairs: Duplicates) -> SuspectList:
    """The image to decide on is the one in train; of two in train the later one. A label that the other does not share is suggested."""
    is_train = pairs.split_n2 == TRAIN
    about = np.where(is_train[:, 1], 1, np.where(is_train[:, 0], 0, 1))
    every, other = np.arange(len(pairs)), 1 - about
    splits = np.sort(pairs.split_n2, 1)
    present = sorted({(int(a), int(b)) for a, b in splits}, key=lambda pair: (pair[0] == pair[1], pair))
    group_n = np.array([present.index((int(a), int(b))) for a, b in splits], np.int64)
    given, others = pairs.label_n2[every, about], pairs.label_n2[every, other]
    return SuspectList(
        Kind.DUPLICATES,
        tuple(_pair_words(a, b) for a, b in present),
        group_n,
        pairs.split_n2[every, about],
        pairs.row_n2[every, about],
        given,
        np.stack([pairs.split_n2[every, other], pairs.row_n2[every, other], others], 1).astype(np.int64),
        np.where(given == others, _NONE, others),
        np.stack([pairs.likeness_n, pairs.is_exact_n], 1).astype(np.float64),
    )


def _groups_of(split_n: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    present = np.unique(split_n)
    return tuple(SPLIT_WORDS[split].capitalize() for split in present), np.searchsorted(present, split_n)


def _pair_words(first: int, second: int) -> str:
    if first == second:
        return f"Within {SPLIT_WORDS[first]}"
    return f"{SPLIT_WORDS[second].capitalize()} in {SPLIT_WORDS[first]}"
