"""RecordedPasses: on a CUDA GPU, the forward and backward pass of a training step, recorded once per batch shape and replayed.

A step of a small network asks a GPU for a thousand small pieces of work, one by one; asking takes the processor several times as long as
doing them takes the GPU. A CUDA graph asks once for all of them. Same kernels, same numbers, same random numbers.

    first steps with a shape       run as ever: most shapes of a short run never pay for a recording
    then                           recorded by torch.cuda.make_graphed_callables, and replayed from then on
    it does not work               a network that looks at values on its way, or too little memory: every step runs as ever

Not for a group (its gradients travel during the backward pass), nor for a compiled network (which does the same itself).
Called by `training.trainer`. Level 4: torch.
"""

import logging
from collections import Counter

import torch
from torch import nn

from cifar_tl.devices import Compute
from cifar_tl.models.build import Classifier

_LOG = logging.getLogger(__name__)
_PLAIN_STEPS = 3  # with each shape, before it is recorded
# A recording holds on to the memory of a whole pass, beside what evaluation needs.
_MOST_OF_MEMORY = 0.4

Shape = tuple[int, ...]


class RecordedPasses:
    """Call it with a batch of a shape that `records`; it gives logits like `Classifier.forward_suffix`, through which `backward()` passes."""

    def __init__(self, classifier: Classifier, boundary: int, compute: Compute, *, plain_steps: int = _PLAIN_STEPS) -> None:
        self._classifier, self._boundary, self._compute, self._plain_steps = classifier, boundary, compute, plain_steps
        self._pool = torch.cuda.graph_pool_handle()  # one for all: only one pass is under way at a time
        self._passes: dict[Shape, _Pass] = {}
        self._seen: Counter[Shape] = Counter()
        self._works = True

    def records(self, batch: torch.Tensor) -> bool:
        """Whether batches of this shape are replayed."""
        return tuple(batch.shape) in self._passes

    def record_when_due(self, batch: torch.Tensor) -> bool:
        """Record the pass of this batch's shape if that is due. True if it was tried: torch's random numbers have moved on then."""
        shape = tuple(batch.shape)
        self._seen[shape] += 1
        if not self._works or shape in self._passes or self._seen[shape] <= self._plain_steps or self._is_memory_short():
            return False
        kept = [buffer.clone() for buffer in self._classifier.buffers()]  # trial passes move the statistics of batch norms
        # It is meant: gradients are recorded on a stream of their own, and torch waits for it.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        try:
            recorded = _Pass(self._classifier, self._boundary, self._compute)
            torch.cuda.make_graphed_callables(recorded, (batch.clone(),), allow_unused_input=True, pool=self._pool)  # changes its forward
            self._passes[shape] = recorded
        except RuntimeError as error:  # also torch.OutOfMemoryError
            _LOG.warning("Steps are not recorded: %s", str(error).splitlines()[0])
            self._works = False
            self._passes.clear()
            _end_failed_recording(self._compute.device)
        for buffer, value in zip(self._classifier.buffers(), kept, strict=True):
            buffer.copy_(value)
        return True

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._passes[tuple(batch.shape)](batch)
        return logits

    def _is_memory_short(self) -> bool:
        _, total = torch.cuda.mem_get_info(self._compute.device)
        return torch.cuda.max_memory_allocated(self._compute.device) > total * _MOST_OF_MEMORY


class _Pass(nn.Module):
    """What is recorded; one for each shape, since recording changes its `forward`."""

    def __init__(self, classifier: Classifier, boundary: int, compute: Compute) -> None:
        super().__init__()
        self.classifier, self._boundary, self._compute = classifier, boundary, compute

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        with self._compute.autocast(keeps_casts=False):
            return self.classifier.forward_suffix(activations, self._boundary)


def _end_failed_recording(device: torch.device) -> None:
    """torch's random numbers for the device still count as those of the recording, and refuse to be drawn: they get a new state."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())
