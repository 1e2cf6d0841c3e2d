"""The random numbers of a training step, as a function of the run's seed and the step's number: nothing of them needs to be stored.

Called by `training.trainer`. Level 4: torch.
"""

import torch

_64_BITS = 2**64 - 1


def seed_step(seed: int, step: int, device: torch.device, process: int = 0) -> torch.Generator:
    """The generator of one step, the same in all processes; dropout, which takes none, draws from torch's own, each process for its share."""
    step_seed = _scrambled(seed, step)
    own_seed = _scrambled(step_seed, process) if process else step_seed
    # Not torch.manual_seed: where CUDA is not in use it keeps every call for later, traceback and all (0.6 ms a step).
    torch.default_generator.manual_seed(own_seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(own_seed)
    elif device.type == "mps":
        torch.mps.manual_seed(own_seed)
    return torch.Generator(device).manual_seed(step_seed)


def _scrambled(seed: int, step: int) -> int:
    """63 bits in which neighbouring seeds and steps have nothing in common: SplitMix64 (Steele, Lea and Flood 2014) of both."""
    state = (_splitmix64(seed) + step) & _64_BITS
    return _splitmix64(state) >> 1


def _splitmix64(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) & _64_BITS
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _64_BITS
    return state ^ (state >> 31)
