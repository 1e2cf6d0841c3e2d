"""The built-in data set: 20 kinds of shapes in 5 groups, drawn by the program, so that everything works with no network.

Owns the drawing and ShapesSource. Look-alikes are meant to be confused (circle and ellipse, hexagon and octagon, star_5 and
star_6). No class is the left-right mirror of another, since training mirrors images.

The same seed gives the same bytes on every machine: random numbers are raw PCG64 words, pixels are made with integers and
single IEEE operations, and tables of sines are rounded far above the last bit, in which mathematical libraries differ.
Drawing the whole set takes about 2.5 s on one core. A linear head on frozen ImageNet features (EfficientNet-Lite0, 96 px)
gets 76 % of the test images right.

Shapes of arrays: B images, S x S samples per image (3 x 3 per pixel), H = W = 32 pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from cifar_tl.data.progress import Availability, Progress, Tell
from cifar_tl.data.store import StoreInfo, StoreWriter

RESOLUTION = 32
SPLIT_SIZES = {"train": 4000, "test": 1000}
GROUPS = {
    "round": ("circle", "ellipse", "ring", "crescent"),
    "quadrilaterals": ("square", "rectangle", "rhombus", "trapezoid"),
    "polygons": ("triangle", "pentagon", "hexagon", "octagon"),
    "stars": ("star_4", "star_5", "star_6", "star_8"),
    "signs": ("plus", "cross", "arrow_up", "arrow_down"),
}
CLASS_NAMES = tuple(name for names in GROUPS.values() for name in names)
SUPERCLASS_NAMES = tuple(GROUPS)
SUPERCLASS_OF_CLASS = tuple(index for index, names in enumerate(GROUPS.values()) for _ in names)

_CHUNK = 250  # images drawn at once; part of what the seed means
_SAMPLES = 3  # per pixel and axis
_CELLS, _CELL = 4, 8  # texture: 4 x 4 cells of 8 pixels
_TEMPLATE = 240  # samples across a template
_REACH = 1.2  # templates cover -1.2..1.2; a shape of radius 1 fits with room to spare
_EXACT = 6  # decimals kept of sines and cosines
_ANGLES = 4096

_RADIUS = (9.0, 13.0)  # pixels
_SHIFT = 3.0  # pixels from the centre, at most, either way
_TURN = 12  # degrees, at most, either way: a square stays a square and no rhombus
_STRETCH = 0.1  # of the width and of the height, each
_CONTRAST = (40, 127)  # levels between shape and background, per channel
_NOISE = 32  # levels, peak to peak, per pixel and channel


def draw(split: str, *, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of uint8 images n x 32 x 32 x 3 and int64 labels, `SPLIT_SIZES[split]` in all, every class equally often."""
    random = _Random(seed, list(SPLIT_SIZES).index(split))
    for start in range(0, SPLIT_SIZES[split], _CHUNK):
        labels = np.arange(start, min(start + _CHUNK, SPLIT_SIZES[split])) % len(CLASS_NAMES)
        yield _draw_images(labels, random), labels


@dataclass(frozen=True)
class ShapesSource:
    """Always the data of seed 0: runs that differ in their seed are still compared on the same test images."""

    source: str = "shapes"
    title: str = "Shapes"
    store_name: str = "shapes-v1"

    def availability(self) -> tuple[Availability, str]:
        """State and sentence."""
        return "on_disk", f"Drawn by the program in a few seconds: {sum(SPLIT_SIZES.values()):,} images of {len(CLASS_NAMES)} shapes."

    def write(self, writer: StoreWriter, tell: Tell) -> StoreInfo:
        """Draw both splits."""
        for split, size in SPLIT_SIZES.items():
            writer.write_labelled(split, _told(draw(split), split, size, tell), RESOLUTION)
        return StoreInfo(self.source, self.title, RESOLUTION, CLASS_NAMES, SUPERCLASS_NAMES, SUPERCLASS_OF_CLASS)


def _told(chunks: Iterator[tuple[np.ndarray, np.ndarray]], split: str, total: int, tell: Tell) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    done = 0
    for images, labels in chunks:
        yield images, labels
        done += len(labels)
        tell(Progress(f"Drawing {split} images", done, total, "images"))


class _Random:
    """Numbers from raw PCG64 words: numpy promises those, but not the streams of Generator's methods, across its versions."""

    def __init__(self, *seed: int) -> None:
        self._words = np.random.PCG64(np.random.SeedSequence(seed))

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        """float64 in [low, high)."""
        words = self._words.random_raw(math.prod(shape)) >> np.uint64(11)
        return (words.astype(np.float64) * 2.0**-53 * (high - low) + low).reshape(shape)

    def integers(self, low: int, high: int, *shape: int) -> np.ndarray:
        """int64 in low..high, both included."""
        return np.floor(self.uniform(low, high + 1, *shape)).astype(np.int64)

    def bytes(self, *shape: int) -> np.ndarray:
        """int16 in 0..255."""
        count = math.prod(shape)
        return self._words.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count].astype(np.int16).reshape(shape)


def _draw_images(labels_B: np.ndarray, random: _Random) -> np.ndarray:
    """Shape over background, each of two colours mixed by a texture, then noise. Integers throughout."""
    count = len(labels_B)
    coverage = _coverage(labels_B, random)[..., None]  # 0..9
    shape_colour = random.integers(0, 255, count, 1, 1, 3)
    step = random.integers(*_CONTRAST, count, 1, 1, 3) * (2 * random.integers(0, 1, count, 1, 1, 3) - 1)
    back_colour = shape_colour + step
    back_colour = np.where((back_colour < 0) | (back_colour > 255), shape_colour - step, back_colour)
    shape = shape_colour + (_texture(count, random) - 128) // 8
    back = back_colour + (_texture(count, random) - 128) * random.integers(8, 64, count, 1, 1, 3) // 256
    full = _SAMPLES**2
    pixels = (shape * coverage + back * (full - coverage) + full // 2) // full
    noise = random.bytes(count, RESOLUTION, RESOLUTION, 3) * _NOISE // 256 - _NOISE // 2
    return np.clip(pixels + noise, 0, 255).astype(np.uint8)


def _coverage(labels_B: np.ndarray, random: _Random) -> np.ndarray:
    """int64 B x H x W: how many of a pixel's samples lie inside the shape."""
    count, side = len(labels_B), RESOLUTION * _SAMPLES
    table = _cosines()
    turn = random.integers(-_ANGLES * _TURN // 360, _ANGLES * _TURN // 360, count, 1, 1)
    cos, sin = table[turn % _ANGLES], table[(turn - _ANGLES // 4) % _ANGLES]
    radius = random.uniform(*_RADIUS, count, 1, 1)
    samples = (np.arange(side) + 0.5) / _SAMPLES - RESOLUTION / 2
    across = samples[None, None, :] - random.uniform(-_SHIFT, _SHIFT, count, 1, 1)
    down = samples[None, :, None] - random.uniform(-_SHIFT, _SHIFT, count, 1, 1)
    x = _template_index((cos * across + sin * down) / (radius * random.uniform(1 - _STRETCH, 1 + _STRETCH, count, 1, 1)))
    y = _template_index((cos * down - sin * across) / (radius * random.uniform(1 - _STRETCH, 1 + _STRETCH, count, 1, 1)))
    inside = _templates()[labels_B[:, None, None], y, x]
    return inside.reshape(count, RESOLUTION, _SAMPLES, RESOLUTION, _SAMPLES).sum(axis=(2, 4), dtype=np.int64)


def _template_index(coordinates: np.ndarray) -> np.ndarray:
    scaled = (coordinates + _REACH) * (_TEMPLATE / (2 * _REACH))
    return np.clip(np.floor(scaled), 0, _TEMPLATE - 1).astype(np.int64)


def _texture(count: int, random: _Random) -> np.ndarray:
    """int64 B x H x W x 1 in 0..255: smooth blotches, stripes, or half of each."""
    corners = random.integers(0, 255, count, _CELLS + 1, _CELLS + 1)
    near = np.tile(2 * np.arange(_CELL) + 1, _CELLS)  # sixteenths of the way to the next corner
    cell = np.repeat(np.arange(_CELLS), _CELL)
    rows = corners[:, cell] * (16 - near)[None, :, None] + corners[:, cell + 1] * near[None, :, None]
    blotches = (rows[:, :, cell] * (16 - near) + rows[:, :, cell + 1] * near) // 256
    axis = np.arange(RESOLUTION)
    slope = random.integers(-3, 3, 2, count, 1, 1)
    phase = slope[0] * axis[None, None, :] + slope[1] * axis[None, :, None] + random.integers(0, 63, count, 1, 1)
    stripes = phase // random.integers(4, 16, count, 1, 1) % 2 * 255
    kind = random.integers(0, 2, count, 1, 1)
    return np.where(kind == 0, blotches, np.where(kind == 1, stripes, (blotches + stripes) // 2))[..., None]


@cache
def _cosines() -> np.ndarray:
    return np.array([round(math.cos(2 * math.pi * step / _ANGLES), _EXACT) for step in range(_ANGLES)])


@cache
def _templates() -> np.ndarray:
    """bool C x T x T (down, across): every class at radius 1, facing up, sampled at the centres of a fine grid."""
    axis = (np.arange(_TEMPLATE) + 0.5) * (2 * _REACH / _TEMPLATE) - _REACH
    x, y = axis[None, :], axis[:, None]
    squared = x * x + y * y
    round_ones = {
        "circle": squared < 1,
        "ellipse": x * x + y * y / 0.45 < 1,
        "ring": (squared < 1) & (squared > 0.3),
        "crescent": (squared < 1) & (x * x + (y + 0.5) * (y + 0.5) > 0.7),
    }
    return np.stack([round_ones[name] if name in round_ones else _polygon(_corners(name), x, y) for name in CLASS_NAMES])


def _polygon(corners: list[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Inside by the even-odd rule: count the edges to the right of each point."""
    inside = np.zeros((y.shape[0], x.shape[1]), bool)
    for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y1 != y2:
            inside ^= ((y1 > y) != (y2 > y)) & (x < (y - y1) * ((x2 - x1) / (y2 - y1)) + x1)
    return inside


def _corners(name: str) -> list[tuple[float, float]]:
    """(across, down) of each corner, at most 1 from the centre."""
    if name in _REGULAR:
        sides, turn = _REGULAR[name]
        return [_on_circle(turn + 360 * i / sides) for i in range(sides)]
    if name.startswith("star_"):
        points = int(name.removeprefix("star_"))
        return [_on_circle(180 * i / points, 1 if i % 2 == 0 else _STAR_WAIST) for i in range(2 * points)]
    if name == "cross":
        half = round(math.sqrt(0.5), _EXACT)
        return [((a - b) * half, (a + b) * half) for a, b in _FREEHAND["plus"]]
    return _FREEHAND[name]


def _on_circle(degrees: float, radius: float = 1) -> tuple[float, float]:
    """Clockwise from the top."""
    angle = math.radians(degrees)
    return round(radius * math.sin(angle), _EXACT), round(-radius * math.cos(angle), _EXACT)


_STAR_WAIST = 0.5
_REGULAR = {"square": (4, 45.0), "triangle": (3, 0.0), "pentagon": (5, 0.0), "hexagon": (6, 0.0), "octagon": (8, 22.5)}
_ARROW_UP = [(0.0, -1.0), (0.75, -0.1), (0.3, -0.1), (0.3, 0.95), (-0.3, 0.95), (-0.3, -0.1), (-0.75, -0.1)]
_ARM = 0.28
_FREEHAND = {
    "rectangle": [(-0.9, -0.5), (0.9, -0.5), (0.9, 0.5), (-0.9, 0.5)],
    "rhombus": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
    "trapezoid": [(-0.45, -0.65), (0.45, -0.65), (0.9, 0.65), (-0.9, 0.65)],
    "plus": [
        (-_ARM, -1.0),
        (_ARM, -1.0),
        (_ARM, -_ARM),
        (1.0, -_ARM),
        (1.0, _ARM),
        (_ARM, _ARM),
        (_ARM, 1.0),
        (-_ARM, 1.0),
        (-_ARM, _ARM),
        (-1.0, _ARM),
        (-1.0, -_ARM),
        (-_ARM, -_ARM),
    ],
    "arrow_up": _ARROW_UP,
    "arrow_down": [(x, -y) for x, y in _ARROW_UP],
}
