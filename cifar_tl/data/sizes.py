"""How many images a run will have, before its data is prepared: for the estimate of its time. Level 1.

Exact for a prepared store and for the published data sets; for an image folder not yet prepared, files are counted.
"""

from dataclasses import dataclass
from pathlib import Path

from cifar_tl.config import RunConfig
from cifar_tl.data import sources
from cifar_tl.data.splits import DEV_FRACTION
from cifar_tl.errors import SourceInvalid

_PUBLISHED = {"cifar100": (50_000, 10_000, 100, 32), "cifar10": (50_000, 10_000, 10, 32), "shapes": (4_000, 1_000, 20, 32)}
_TEST_SHARE_OF_A_PLAIN_FOLDER = 0.2


@dataclass(frozen=True)
class ExpectedSizes:
    """Images per split of the run, number of classes, stored resolution in pixels."""

    train: int
    dev: int
    test: int
    num_classes: int
    resolution: int


def expected_sizes(config: RunConfig) -> ExpectedSizes:
    """Raises SourceInvalid for a source that is no data set."""
    status = sources.describe(config.source)
    if status.state == "invalid":
        raise SourceInvalid(status.message)
    own_dev = 0
    if status.info is not None:
        sizes = status.info.split_sizes
        train, test, own_dev = sizes["train"], sizes["test"], sizes.get("dev", 0)
        num_classes, resolution = status.info.num_classes, status.info.resolution
    elif config.source in _PUBLISHED:
        train, test, num_classes, resolution = _PUBLISHED[config.source]
    else:
        train, test, num_classes = _count_folder(Path(config.source.removeprefix("folder:")))
        resolution = config.store_resolution
    share = len(config.classes) / num_classes if config.classes else 1.0
    classes = len(config.classes) or num_classes
    dev = own_dev or round(train * DEV_FRACTION)
    train -= 0 if own_dev else dev
    train, dev, test = (round(count * share) for count in (train, dev, test))
    if config.images_per_class is not None:
        train = min(train, config.images_per_class * classes)
    return ExpectedSizes(max(train, 1), max(dev, 1), max(test, 1), classes, resolution)


def _count_folder(root: Path) -> tuple[int, int, int]:
    """(train, test, classes) of an image folder, from its listing alone."""
    train = root / "train"
    classes = [path for path in (train if train.is_dir() else root).iterdir() if path.is_dir()]
    counted = sum(_count_files(path) for path in classes)
    if (root / "test").is_dir():
        return counted, _count_files(root / "test"), len(classes)
    test = round(counted * _TEST_SHARE_OF_A_PLAIN_FOLDER)
    return counted - test, test, len(classes)


def _count_files(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
