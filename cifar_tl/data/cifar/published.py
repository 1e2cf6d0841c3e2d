"""What is published of CIFAR: addresses, checksums, names, and what things are called inside the files. No code but `parquet_file`.

Addresses, file names and MD5s are those of torchvision.datasets.CIFAR10 and CIFAR100 (a test compares them) and of the
Hugging Face data sets uoft-cs/cifar10 and uoft-cs/cifar100.
"""

from dataclasses import dataclass
from pathlib import Path

ARCHIVE_BASE = "https://www.cs.toronto.edu/~kriz"
PARQUET_BASE = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class PublishedFile:
    """A file name and its published MD5."""

    name: str
    md5: str


@dataclass(frozen=True)
class CifarFormat:
    """One data set of the family: names, checksums, and what things are called inside. `None` where there are no superclasses."""

    title: str
    archive: PublishedFile
    archive_bytes: int
    folder: str
    pickles: dict[str, tuple[PublishedFile, ...]]
    meta: PublishedFile
    names_key: str
    superclass_names_key: str | None
    labels_key: str
    superclass_labels_key: str | None
    parquet_folder: str
    parquet_path: str  # below PARQUET_BASE
    labels_column: str
    superclass_labels_column: str | None
    class_names: tuple[str, ...]
    superclass_names: tuple[str, ...]

    @property
    def all_pickles(self) -> tuple[PublishedFile, ...]:
        return (self.meta, *self.pickles["train"], *self.pickles["test"])

    def parquet_file(self, root: Path, split: str) -> Path:
        return root / self.parquet_folder / f"{split}-00000-of-00001.parquet"


# In the order of their labels, which is alphabetical.
_CIFAR100_CLASSES = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle caterpillar
cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster
house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree
orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose
sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"""
_CIFAR100_SUPERCLASSES = """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture insects
large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores medium_mammals
non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2"""
_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

CIFAR100 = CifarFormat(
    title="CIFAR-100",
    archive=PublishedFile("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),
    archive_bytes=169_001_437,
    folder="cifar-100-python",
    pickles={
        "train": (PublishedFile("train", "16019d7e3df5f24257cddd939b257f8d"),),
        "test": (PublishedFile("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
    },
    meta=PublishedFile("meta", "7973b15100ade9c7d40fb424638fde48"),
    names_key="fine_label_names",
    superclass_names_key="coarse_label_names",
    labels_key="fine_labels",
    superclass_labels_key="coarse_labels",
    parquet_folder="cifar100",
    parquet_path="uoft-cs/cifar100/resolve/main/cifar100",
    labels_column="fine_label",
    superclass_labels_column="coarse_label",
    class_names=tuple(_CIFAR100_CLASSES.split()),
    superclass_names=tuple(_CIFAR100_SUPERCLASSES.split()),
)
CIFAR10 = CifarFormat(
    title="CIFAR-10",
    archive=PublishedFile("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),
    archive_bytes=170_498_071,
    folder="cifar-10-batches-py",
    pickles={
        "train": (
            PublishedFile("data_batch_1", "c99cafc152244af753f735de768cd75f"),
            PublishedFile("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            PublishedFile("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            PublishedFile("data_batch_4", "634d18415352ddfa80567beed471001a"),
            PublishedFile("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ),
        "test": (PublishedFile("test_batch", "40351d587109b95175f43aff81a1287e"),),
    },
    meta=PublishedFile("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
    names_key="label_names",
    superclass_names_key=None,
    labels_key="labels",
    superclass_labels_key=None,
    parquet_folder="cifar10",
    parquet_path="uoft-cs/cifar10/resolve/main/plain_text",
    labels_column="label",
    superclass_labels_column=None,
    class_names=tuple(_CIFAR10_CLASSES.split()),
    superclass_names=(),
)
FORMATS = {"cifar100": CIFAR100, "cifar10": CIFAR10}
