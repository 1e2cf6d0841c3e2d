"""torchvision's references/classification/train.py as a class: its data set, transforms, loader, step and logged metrics.

With its own flags it is the contender `reference` of `bench.peers`, with the best ones `tuned`. Written after the scripts of torchvision
0.29; what they do on one machine with one process, nothing left out of a step.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode

from bench.networks import plain_compute
from cifar_tl.data.store import Split
from cifar_tl.devices import Compute
from cifar_tl.models.build import Channels, Classifier

_PRINTED_WINDOW = 20  # of torchvision's SmoothedValue


@dataclass(frozen=True)
class Flags:
    """Flags of torchvision's train.py; the defaults are its own. The last three it does not have, and it keeps the crop's default."""

    batch_size: int = 32
    workers: int = 16
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    amp: bool = False
    crop_scale: float = 0.08  # the smallest share of an image that RandomResizedCrop keeps
    channels_last: bool = False
    persistent_workers: bool = False
    one_cycle: bool = False


def tuned_flags(batch_size: int, workers: int, crop_scale: float = Flags.crop_scale) -> Flags:
    """The best a person who knows the loop would set."""
    best = Flags(amp=True, channels_last=True, persistent_workers=True, one_cycle=True, lr=0.05, label_smoothing=0.1)
    return replace(best, batch_size=batch_size, workers=workers, crop_scale=crop_scale)


class StoreImages(Dataset[tuple[torch.Tensor, int]]):
    """A split as torchvision's ImageFolder gives one: a PIL image, transformed, and its class."""

    def __init__(self, split: Split, transform: T.Compose) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.split.images_NHWC[index])), int(self.split.labels_N[index])


def train_transform(image_size: int, flags: Flags, classifier: Classifier) -> T.Compose:
    """presets.ClassificationPresetTrain, backend "pil"."""
    crop = T.RandomResizedCrop(image_size, scale=(flags.crop_scale, 1.0), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return T.Compose([crop, T.RandomHorizontalFlip(0.5), *_to_input(classifier.mean, classifier.std)])


def test_transform(image_size: int, classifier: Classifier) -> T.Compose:
    """presets.ClassificationPresetEval without its centre crop, which would cut the border off pictures that are all subject."""
    resize = T.Resize((image_size, image_size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    return T.Compose([resize, *_to_input(classifier.mean, classifier.std)])


def _to_input(mean: Channels, std: Channels) -> list[Any]:
    return [T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(mean, std)]


def train_loader(dataset: StoreImages, flags: Flags, device: str) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=flags.batch_size,
        sampler=RandomSampler(dataset),
        num_workers=flags.workers,
        pin_memory=plain_compute(device).device.type == "cuda",
        persistent_workers=flags.persistent_workers and flags.workers > 0,
        prefetch_factor=4 if flags.persistent_workers and flags.workers > 0 else None,
    )


class TorchvisionLoop:
    """`train_one_epoch` of references/classification/train.py, one step at a time, with the metrics that it logs at each."""

    def __init__(self, classifier: Classifier, flags: Flags, compute: Compute, total_steps: int | None = None) -> None:
        self.flags, self.compute = flags, compute
        self.classifier = classifier.to(memory_format=self._memory_format).to(compute.device).train()
        self.criterion = nn.CrossEntropyLoss(label_smoothing=flags.label_smoothing)
        self.optimizer = torch.optim.SGD(
            classifier.parameters(), lr=flags.lr, momentum=flags.momentum, weight_decay=flags.weight_decay, nesterov=False
        )
        self.schedule = (
            torch.optim.lr_scheduler.OneCycleLR(self.optimizer, flags.lr, total_steps=total_steps)
            if flags.one_cycle and total_steps
            else None
        )
        self.logged: deque[tuple[float, ...]] = deque(maxlen=_PRINTED_WINDOW)
        torch.backends.cudnn.benchmark = True

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.flags.channels_last else torch.contiguous_format

    def _autocast(self) -> Any:
        return torch.autocast(self.compute.device.type, self.compute.dtype, enabled=self.flags.amp and self.compute.precision != "float32")

    def step(self, image: torch.Tensor, target: torch.Tensor) -> int:
        image = image.to(self.compute.device, non_blocking=True, memory_format=self._memory_format)
        target = target.to(self.compute.device, non_blocking=True)
        with self._autocast():
            output = self.classifier(image)
        loss = self.criterion(output.float(), target)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.schedule:
            self.schedule.step()
        acc1, acc5 = top_accuracies(output, target, (1, 5))
        self.logged.append((loss.item(), acc1.item(), acc5.item()))
        return len(target)

    @torch.inference_mode()
    def accuracy_on(self, loader: DataLoader[Any]) -> float:
        self.classifier.eval()
        right = images = 0
        for image, target in loader:
            with self._autocast():
                output = self.classifier(image.to(self.compute.device, memory_format=self._memory_format))
            right += int((output.argmax(1).cpu() == target).sum())
            images += len(target)
        return right / images


@torch.inference_mode()
def top_accuracies(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]) -> list[torch.Tensor]:
    """`utils.accuracy` of the same scripts: per cent of the batch whose class is among the k highest."""
    _, predicted = output.topk(max(topk), 1, True, True)
    correct = predicted.t().eq(target[None])
    return [correct[:k].flatten().sum(dtype=torch.float32) * (100.0 / len(target)) for k in topk]
