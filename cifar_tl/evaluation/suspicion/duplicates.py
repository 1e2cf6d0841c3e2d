"""Images that are there twice: pairs that are near each other in the features, then compared pixel by pixel.

Equal pixels make an exact pair. In a near one the fine structure is the same: what is left of each picture when its blurred self and
the means of its rows are taken away correlates, at the best of all shifts by up to a tenth of the width, mirrored or not, one of the two
enlarged by a seventh or not. That does not see brightness, colour of the light and contrast, so copies that were cropped a little,
mirrored, brightened or compressed again are found. Pictures of the same kind of thing are not: two seas, or two oranges on
white, are as alike as copies before blur and rows are taken away, and unlike after.

Looked at by eye, a hundred each, of CIFAR-100's pairs with a likeness of 0.8 and more nearly all show the same scene, with 0.7 to 0.8
four in five, with 0.6 to 0.7 three in five. Most of the others are of one series: the same bottle, or clock, with another print.

Shapes: n pairs, N images in all; images_nHWC uint8; s is the side at which images are compared.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cifar_tl.evaluation.suspicion.neighbours import Neighbours

SIDE = 32  # images are compared at this size; CIFAR's own
NEAREST = 0.75  # pairs further apart in the features are not compared; of CIFAR-100's near duplicates that leaves out one in fifty
LIKENESS = 0.7  # of a near duplicate, at least
_SAME = 0.1  # equal images are at most this far apart: nothing but rounding is between them
_GLANCE = 8  # side of the thumbnails that are compared first,
_LOOKS_ALIKE = 0.7  # and how they must correlate; leaves out one in fifty near duplicates, and six in seven of the other pairs
_BLUR = 1.0  # standard deviation, in pixels
_FLAT = 2.0  # grey levels; a picture with less structure counts as having none
_LOWEST_WITHOUT_ZOOM = 0.2  # of pairs that are less alike than this, enlarging finds one in twenty of those that it finds at all
_BLOCK = 512

ReadImages = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pairs:
    """int64 positions n x 2, the first the smaller; float32 likeness; bool whether every pixel is equal. Most alike first."""

    positions_n2: np.ndarray
    likeness_n: np.ndarray
    is_exact_n: np.ndarray


def find_duplicates(neighbours: Neighbours, images: ReadImages, heard: Callable[[int], object] = lambda _: None) -> Pairs:
    """`images(positions)` gives uint8 pixels n x H x W x 3. `heard(n)` is told of n more pairs that were glanced at.

    Of images that are equal, each is paired with the first of them: a hundred copies make 99 pairs.
    """
    first_N = _first_equal(neighbours, images)
    copies = np.flatnonzero(first_N != np.arange(len(first_N)))
    # Equal images are as alike to others as the first of them is.
    candidates = np.unique(np.sort(first_N[candidate_pairs(neighbours)], 1), axis=0)
    candidates = candidates[candidates[:, 0] != candidates[:, 1]]
    glances = _Glances(images, len(first_N))
    near, likeness = [], []
    for start in range(0, len(candidates), _BLOCK):
        block = candidates[start : start + _BLOCK]
        block = block[glances.correlation(block) >= _LOOKS_ALIKE]
        alike = pixel_likeness(images(block[:, 0]), images(block[:, 1]))
        near.append(block[alike >= LIKENESS])
        likeness.append(alike[alike >= LIKENESS])
        heard(min(_BLOCK, len(candidates) - start))
    found, values = np.concatenate([np.empty((0, 2), np.int64), *near]), np.concatenate([np.empty(0, np.float32), *likeness])
    order = np.argsort(-values, kind="stable")
    return Pairs(
        np.concatenate([np.stack([first_N[copies], copies], 1), found[order]]).astype(np.int64),
        np.concatenate([np.ones(len(copies), np.float32), values[order]]),
        np.arange(len(copies) + len(found)) < len(copies),
    )


def candidate_pairs(neighbours: Neighbours) -> np.ndarray:
    """int64 n x 2: pairs of neighbours that are near enough, each once."""
    first, rank = np.nonzero(neighbours.distances_Nk <= NEAREST)
    return np.unique(np.sort(np.stack([first, neighbours.positions_Nk[first, rank]], 1), axis=1), axis=0)


def _first_equal(neighbours: Neighbours, images: ReadImages) -> np.ndarray:
    """int64 N: for each image the first one with the same pixels, which mostly is itself."""
    by_pixels: dict[bytes, int] = {}
    first_N = np.arange(len(neighbours.distances_Nk))
    has_twin = np.flatnonzero((neighbours.distances_Nk <= _SAME).any(1))
    for start in range(0, len(has_twin), _BLOCK):
        chunk = has_twin[start : start + _BLOCK]
        for position, image in zip(chunk.tolist(), images(chunk), strict=True):
            first_N[position] = by_pixels.setdefault(hashlib.sha256(image.tobytes()).digest(), position)
    return first_N


class _Glances:
    """Thumbnails of a few pixels, made when they are first asked for: most pairs are told apart at a glance."""

    def __init__(self, images: ReadImages, count: int) -> None:
        self._images = images
        self._is_made = np.zeros(count, bool)
        self._thumbnails = np.zeros((count, _GLANCE, _GLANCE, 3), np.uint8)

    def correlation(self, pairs_n2: np.ndarray) -> np.ndarray:
        """float32 n: of the two thumbnails, the second also mirrored."""
        missing = np.unique(pairs_n2)
        missing = missing[~self._is_made[missing]]
        for start in range(0, len(missing), _BLOCK):
            chunk = missing[start : start + _BLOCK]
            self._thumbnails[chunk] = _reduced(self._images(chunk), _GLANCE)
        self._is_made[missing] = True
        a, b = (self._thumbnails[pairs_n2[:, side]] for side in (0, 1))
        return np.maximum(_correlation(a, b), _correlation(a, b[:, :, ::-1]))


def _correlation(a_nHWC: np.ndarray, b_nHWC: np.ndarray) -> np.ndarray:
    a, b = (values.reshape(len(values), -1).astype(np.float32) for values in (a_nHWC, b_nHWC))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-6)


def _reduced(images_nHWC: np.ndarray, side: int) -> np.ndarray:
    """uint8 n x side x side x 3: averaged down; as they are where they are no larger."""
    if images_nHWC.shape[1] <= side or not len(images_nHWC):
        return images_nHWC
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)) for image in images_nHWC])


def pixel_likeness(a_nHWC: np.ndarray, b_nHWC: np.ndarray) -> np.ndarray:
    """float32 n in [-1, 1]: the greatest correlation of the fine structure in the middle of a with any part of b.

    b is also mirrored; where that leaves a doubt, either of the two is also enlarged.
    """
    if not len(a_nHWC):
        return np.empty(0, np.float32)
    a, b = _reduced(a_nHWC, SIDE), _reduced(b_nHWC, SIDE)
    likeness = _either_way_round(a, b)
    unsure = np.flatnonzero((likeness > _LOWEST_WITHOUT_ZOOM) & (likeness < LIKENESS))
    if len(unsure):
        enlarged = [_either_way_round(_enlarged(a[unsure]), b[unsure]), _either_way_round(a[unsure], _enlarged(b[unsure]))]
        likeness[unsure] = np.maximum(likeness[unsure], np.max(enlarged, 0))
    return likeness


def _either_way_round(a_nHWC: np.ndarray, b_nHWC: np.ndarray) -> np.ndarray:
    a, b = _fine_structure(a_nHWC), _fine_structure(b_nHWC)
    return np.maximum(_best_correlation(a, b), _best_correlation(a, b[:, :, ::-1]))


def _enlarged(images_nHWC: np.ndarray) -> np.ndarray:
    """uint8: the middle seven eighths of each picture, as large as the whole was."""
    side = images_nHWC.shape[1]
    box = (side / 16, side / 16, side - side / 16, side - side / 16)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box)) for image in images_nHWC])


def _fine_structure(images_nHWC: np.ndarray) -> np.ndarray:
    """float32 n x s x s x 3, grey levels: each picture less its blurred self, and less the means of rows, which are all of a horizon."""
    from scipy.ndimage import gaussian_filter

    values = images_nHWC.astype(np.float32)
    values -= gaussian_filter(values, (0, _BLUR, _BLUR, 0), mode="nearest")
    return values - values.mean(2, keepdims=True)


def _best_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over all shifts at once, through Fourier transforms: the correlation of a's middle with each window of b."""
    from scipy.fft import irfft2, rfft2

    side = a.shape[1]
    margin = side // 10
    window = side - 2 * margin
    middle = a[:, margin : side - margin, margin : side - margin]
    middle = middle - middle.mean((1, 2, 3), keepdims=True)
    spectrum = np.conj(rfft2(middle, (side, side), axes=(1, 2))) * rfft2(b, axes=(1, 2))
    shifts = slice(0, 2 * margin + 1)
    products = irfft2(spectrum.sum(3), (side, side), axes=(1, 2))[:, shifts, shifts]
    pixels = window * window * 3
    mean = _window_sums(b.sum(3), window) / pixels
    power = np.maximum(_window_sums((b * b).sum(3), window) - pixels * mean * mean, pixels * _FLAT**2)
    own_power = np.maximum((middle * middle).sum((1, 2, 3)), pixels * _FLAT**2)
    correlation = products / np.sqrt(power * own_power[:, None, None])
    return correlation.reshape(len(a), -1).max(1).astype(np.float32)


def _window_sums(values_nHW: np.ndarray, window: int) -> np.ndarray:
    """float64: the sum of each window x window square, by sums from the corner."""
    corner = np.zeros((len(values_nHW), values_nHW.shape[1] + 1, values_nHW.shape[2] + 1))
    corner[:, 1:, 1:] = values_nHW.astype(np.float64).cumsum(1).cumsum(2)
    w = window
    return corner[:, w:, w:] - corner[:, :-w, w:] - corner[:, w:, :-w] + corner[:, :-w, :-w]
