"""How much memory training with some settings takes on this machine: real steps at the full batch size, in a process of their own.

A process that has worked before tells nothing. On a CPU the C library keeps what was freed (`devices.keep_freed_memory`), so the next network
finds its memory there; on a GPU torch does the same. `peak_bytes` is asked by `advice.backbones`; this module run as a program is that process:

    python -m cifar_tl.advice.memory SETTINGS      SETTINGS: a RunConfig as JSON; prints {"bytes": 1440000000} or {"error": "..."}
"""

import json
import os
import re
import resource
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch

from cifar_tl.config import RunConfig, make_config
from cifar_tl.data.augment import mix
from cifar_tl.data.draws import Random
from cifar_tl.data.splits import SplitRows
from cifar_tl.devices import Compute, choose_compute, fits_on_gpu, to_device
from cifar_tl.errors import TrainingError
from cifar_tl.models.frozen import FrozenPrefix
from cifar_tl.paths import PROJECT_ROOT
from cifar_tl.training.inputs import CachedInputs, Inputs, cached_evaluation_views, cached_training_views
from cifar_tl.training.plan import Leg, plan_legs
from cifar_tl.training.prefix_cache import CHUNK
from cifar_tl.training.prepare import Prepared, load_data, load_network
from cifar_tl.training.trainer import Progress, Trainer

_FIRST_BATCH = 8  # makes what the optimizer keeps, before the batch that counts
_STEPS = {"cuda": 5}  # the trainer records its passes after three (`training.recorded`); elsewhere one tells all


def peak_bytes(config: RunConfig) -> int:
    """What network, gradients, optimizer and a batch take at most. Takes as long as a step or two. Raises TrainingError where they do not work."""
    arguments = [sys.executable, "-m", "cifar_tl.advice.memory", config.model_dump_json()]
    # Its standard input stays open for as long as this process lives: that is how it notices the end.
    with subprocess.Popen(
        arguments, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        lines = process.stdout.read().splitlines()
    told = json.loads(lines[-1]) if lines else {}
    if "bytes" not in told:
        why = told.get("error", "The process that trained a batch to measure its memory was ended: the machine may have too little of it.")
        raise TrainingError(f"{why}")
    return int(told["bytes"])


def main() -> None:
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    try:
        told: dict[str, object] = {"bytes": _measured(make_config(**json.loads(sys.argv[1])))}
    except Exception as error:  # of the many kinds that a network may raise, people are told the first line
        told = {"error": (str(error) or type(error).__name__).splitlines()[0]}
    sys.stdout.write(json.dumps(told) + "\n")


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing ever comes; not sys.stdin, whose lock Python wants back when it ends
    os._exit(1)


def _measured(config: RunConfig) -> int:
    compute = choose_compute(config.device, config.precision)
    store = load_data(config, lambda _event: None)
    before = psutil.Process().memory_info().rss
    prepared = load_network(config, store, compute, lambda _event: None)
    for leg in plan_legs(config, prepared.classifier):
        _train(prepared, leg)
    if compute.device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(compute.device))
    return _peak_of_process() - before


def _train(prepared: Prepared, leg: Leg) -> None:
    """A few steps of a leg, from images or from what its frozen stages give of a batch of them, as in a run."""
    classifier, compute = prepared.classifier, prepared.compute
    classifier.freeze_before(leg.boundary)
    rows = prepared.splits.train
    is_cached = leg.boundary > 0 and bool(cached_training_views(prepared.config)) and classifier.can_split_at(leg.boundary)
    inputs: Inputs = _Repeated(prepared, leg.boundary) if is_cached else prepared.image_inputs(rows)
    trainer = Trainer(prepared, leg, inputs)
    classifier.train()
    batch_size, progress = min(prepared.config.batch_size, len(rows)), Progress()
    for count in (min(_FIRST_BATCH, batch_size), *[batch_size] * _STEPS.get(compute.device.type, 1)):
        trainer.step(np.arange(count), progress)


class _Repeated(CachedInputs):
    """What the frozen stages give of one batch of images, again at each step: runs them as a run does, and reads and writes no cache."""

    def __init__(self, prepared: Prepared, boundary: int) -> None:
        train = prepared.splits.train
        self.boundary = boundary
        self.labels_N = torch.from_numpy(train.labels).to(prepared.compute.device)
        self._config, self._num_classes = prepared.config, prepared.num_classes
        prefix = FrozenPrefix(prepared.classifier, boundary, prepared.preprocessing, prepared.compute)
        images = replace(prepared, compute=Compute(torch.device("cpu"), "float32")).image_inputs(_first(train, CHUNK))
        given = prefix(images.evaluation_images(np.arange(min(CHUNK, len(train))))[0])
        repeats = -(-min(prepared.config.batch_size, len(train)) // len(given))
        self._activations = to_device(given.cpu(), prepared.compute.device).repeat(repeats, *[1] * (given.ndim - 1))
        views = {*cached_training_views(prepared.config), *cached_evaluation_views(prepared.config)}
        size = given[0].numel() * given.element_size() * len(train) * len(views)
        # Where a GPU has room for all of them, a run keeps them there.
        self._all = (
            torch.empty(size, dtype=torch.uint8, device=prepared.compute.device) if fits_on_gpu(size, prepared.compute.device) else None
        )

    def training_batch(self, positions: np.ndarray, generator: Random) -> tuple[torch.Tensor, torch.Tensor]:
        labels = self.labels_N[: len(positions)]
        return mix(self._activations[: len(positions)], labels, self._config, self._num_classes, generator)


def _first(rows: SplitRows, count: int) -> SplitRows:
    return replace(rows, rows=rows.rows[:count], labels=rows.labels[:count])


def _peak_of_process() -> int:
    """The most memory this process has had. From /proc where there is one: what Linux says of a child elsewhere counts its parent's."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return 1024 * int(found[1])
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes, on a Mac


if __name__ == "__main__":
    main()
