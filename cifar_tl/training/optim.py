"""Optimizer, learning-rate schedule and weight averaging, from the settings."""

import copy
import math
from typing import Any

import torch

from cifar_tl.config import RunConfig
from cifar_tl.models.build import Classifier

_MOMENTUM = 0.9


def make_optimizer(classifier: Classifier, config: RunConfig) -> torch.optim.Optimizer:
    """Over the parameters that train now; each group remembers its highest learning rate as `peak_lr`."""
    groups: list[dict[str, Any]] = classifier.parameter_groups(
        learning_rate=config.learning_rate,
        head_learning_rate_factor=config.head_learning_rate_factor,
        stage_learning_rate_decay=config.stage_learning_rate_decay,
        weight_decay=config.weight_decay,
    )
    for group in groups:
        group["peak_lr"] = group["lr"]
    # Fused kernels exist where floats are; they halve the optimizer's time on GPUs and cost nothing elsewhere.
    is_fused = all(parameter.device.type in ("cuda", "cpu", "mps") for group in groups for parameter in group["params"])
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=is_fused)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=_MOMENTUM, nesterov=True, fused=is_fused)


def learning_rate_factor(step: int, total_steps: int, *, schedule: str, warmup_fraction: float) -> float:
    """Share of the peak learning rate at optimizer step 0 <= step < total_steps: a pure function, so a resumed run goes on exactly.

    Linear warm-up to 1, then a half cosine to 0 ("one_cycle", after Smith and Topin 2018) or 1 for good ("constant").
    """
    warmup_steps = warmup_fraction * total_steps
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(1.0, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


class WeightAverage:
    """Exponential moving average of all parameters and statistics of a classifier.

    The decay grows from 0 as (1 + n) / (10 + n) after n updates up to the asked one (Tan and Le 2019's code, timm's
    ModelEmaV3), so that the random first weights do not linger in short runs.
    """

    def __init__(self, classifier: Classifier, decay: float) -> None:
        self.classifier = copy.deepcopy(classifier).eval().requires_grad_(False)
        self._decay = decay
        self._updates = 0
        self._averaged = self.classifier.state_dict()  # by name; the tensors stay the same, only what is in them changes

    def state(self) -> dict[str, Any]:
        return {"weights": self.classifier.trained_state(), "updates": self._updates}

    def load_state(self, state: dict[str, Any]) -> None:
        self.classifier.load_trained_state(state["weights"])
        self._updates = state["updates"]

    @torch.no_grad()
    def update(self, classifier: Classifier) -> None:
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        averaged, current = self._averaged, classifier.state_dict()
        floats = [name for name, tensor in averaged.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - decay)
        for name in averaged.keys() - set(floats):
            averaged[name].copy_(current[name])
