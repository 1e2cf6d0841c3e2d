"""Which points of the embedding map belong together, and in which colour: by class, superclass or outcome, or all about one class."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from cifar_tl.ui.charts.map_points import UNKNOWN, MapPoints

# Apart for colour-blind eyes, readable on light and dark (as in `charts.curves`).
RIGHT_COLOUR, WRONG_COLOUR, TAKEN_COLOUR = "#3b8fd4", "#e8743b", "#b978b8"
_FAINT_COLOUR = "rgba(128, 138, 150, 0.25)"


class ColourBy(StrEnum):
    CLASS = "Class"
    SUPERCLASS = "Superclass"
    OUTCOME = "Right or wrong"
    CONFIDENCE = "Confidence"


@dataclass(frozen=True)
class Group:
    name: str
    colour: str
    is_in_N: np.ndarray
    opacity: float = 0.75


def kinds(
    points: MapPoints, class_names: Sequence[str], superclasses: tuple[Sequence[str], Sequence[int]], colour_by: ColourBy
) -> list[Group]:
    """One group for each class or superclass."""
    names, of_class = superclasses
    if colour_by is ColourBy.SUPERCLASS and names:
        groups_N = np.asarray(of_class)[points.labels_N]
        return [Group(name, colour, groups_N == i) for i, (name, colour) in enumerate(zip(names, hues(len(names)), strict=True))]
    colours = class_colours(len(class_names), of_class if names else None)
    return [Group(name, colour, points.labels_N == i) for i, (name, colour) in enumerate(zip(class_names, colours, strict=True))]


def outcomes(points: MapPoints) -> list[Group]:
    """Wrong ones last, so that they lie above."""
    is_wrong_N = points.is_wrong_N
    return [
        Group("Right", RIGHT_COLOUR, ~is_wrong_N & (points.predictions_N != UNKNOWN), 0.4),
        Group("Wrong", WRONG_COLOUR, is_wrong_N, 0.9),
    ]


def about_class(points: MapPoints, class_names: Sequence[str], index: int) -> list[Group]:
    name = class_names[index]
    is_class_N, is_taken_N = points.labels_N == index, points.predictions_N == index
    is_wrong_N = points.is_wrong_N
    groups = [
        Group("Other images", _FAINT_COLOUR, ~is_class_N & ~is_taken_N, 1.0),
        Group(f"{name}, recognised", RIGHT_COLOUR, is_class_N & is_taken_N, 0.9),
        Group(f"{name}, not answered", RIGHT_COLOUR, is_class_N & (points.predictions_N == UNKNOWN), 0.9),
        Group(f"{name}, taken for something else", WRONG_COLOUR, is_class_N & is_wrong_N, 0.95),
        Group(f"Taken for {name}", TAKEN_COLOUR, is_taken_N & ~is_class_N, 0.95),
    ]
    return [group for group in groups if group.is_in_N.any()]


def hues(count: int) -> list[str]:
    """Colours of one strength, as far apart as that many can be; neighbours in the list differ in lightness too."""
    return [_colour(i / max(1, count), (0.46, 0.6)[i % 2]) for i in range(count)]


def class_colours(count: int, superclass_of_class: Sequence[int] | None) -> list[str]:
    """A hue for each class or, where there are superclasses, for each of them, in as many shades as it has classes."""
    if superclass_of_class is None:
        return hues(count)
    of_class = np.asarray(superclass_of_class)
    num_superclasses = int(of_class.max()) + 1
    colours = [""] * count
    for superclass in range(num_superclasses):
        members = np.flatnonzero(of_class == superclass)
        for place, member in enumerate(members):
            share = (place + 0.5) / len(members)
            colours[member] = _colour(superclass / num_superclasses, 0.36 + 0.32 * share)
    return colours


def _colour(hue: float, lightness: float) -> str:
    """Of the middle range, which shows on light and on dark."""
    red, green, blue = (round(255 * value) for value in colorsys.hls_to_rgb(hue, lightness, 0.62))
    return f"#{red:02x}{green:02x}{blue:02x}"
