"""Group: the processes that train one run together, by Hugging Face Accelerate over torch.distributed.

Each process has a device, a share of every batch and a share of what is evaluated; gradients are averaged, so that the weights are
the same in all of them. The first process writes the run folder and decides when to stop. A run of one process has a group too, `ALONE`.

Level 2. The launcher (`training.launch`, torchrun or Ray) sets the environment that `Group.join` reads: RANK, LOCAL_RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, broadcast_object_list, check_cuda_p2p_ib_support, gather, pad_across_processes, reduce

# How long a process waits for the others, which may be downloading or filling a cache. One that dies is noticed at once.
PATIENCE = timedelta(days=1)


# What tells a process that it belongs to a group: torchrun's, and those of the launchers that Accelerate knows.
_NAMES_OF_A_GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES_OF_A_GROUP = ("PMI_", "OMPI_COMM_", "MV2_COMM_", "MPI_LOCAL")


@contextmanager
def outside_any_group() -> Iterator[None]:
    """Within, the environment names no group. A run of one process may be started in a pod or job that is one of many, and would wait for them."""
    names = [name for name in os.environ if name in _NAMES_OF_A_GROUP or name.startswith(_PREFIXES_OF_A_GROUP)]
    kept = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(kept)


class Group:
    """`index` counts the processes of all machines from 0, of which there are `size`; `local_index` and `local_size` those of this machine."""

    def __init__(self, state: PartialState | None = None) -> None:
        self._state = state
        self.size: int = state.num_processes if state else 1
        self.index: int = state.process_index if state else 0
        self.local_index: int = state.local_process_index if state else 0
        self.local_size: int = int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if state else 1

    @classmethod
    def join(cls, device: str) -> "Group":
        """The group that the environment names; on CUDA this process takes the GPU of its local index. Blocks until all are there."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return ALONE
        if device == "cuda" and not check_cuda_p2p_ib_support():
            # GeForce RTX 40 cards with older drivers: NCCL must go without what they lack, as `accelerate launch` sees to.
            os.environ.setdefault("NCCL_P2P_DISABLE", "1")
            os.environ.setdefault("NCCL_IB_DISABLE", "1")
        return cls(PartialState(cpu=device != "cuda", timeout=PATIENCE))

    def leave(self) -> None:
        """Nothing is asked of the others after this."""
        if self._state:
            self._state.destroy_process_group()

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` things: all parts together are each of them once, and differ by one at most in size."""
        return _share(count, self.index, self.size)

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """One process of each machine does this before the others do: they find files that it leaves behind."""
        if self._state is None:
            yield
            return
        with self._state.local_main_process_first():
            yield

    def wait(self) -> None:
        """Until all are here."""
        if self._state:
            self._state.wait_for_everyone()

    def from_first(self, value: Any) -> Any:
        """What the first process gave, in all of them. Small things only."""
        return broadcast_object_list([value])[0] if self._state else value

    def same_as_first(self, tensors: Iterator[torch.Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self._state:
            for tensor in tensors:
                broadcast(tensor)

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Over all processes."""
        return reduce(tensor, "sum") if self._state else tensor

    def gather(self, rows: torch.Tensor, count: int) -> torch.Tensor:
        """All `count` rows in their order, on the processor of every process, from the ones in `share(count)` that each has."""
        if self._state is None:
            return rows
        padded = gather(pad_across_processes(rows.to(self._state.device).contiguous())).cpu()  # NCCL knows GPUs only
        longest = len(padded) // self.size
        parts = [_share(count, index, self.size) for index in range(self.size)]
        return torch.cat([padded[index * longest :][: part.stop - part.start] for index, part in enumerate(parts)])


def _share(count: int, index: int, size: int) -> slice:
    return slice(count * index // size, count * (index + 1) // size)


ALONE = Group()
