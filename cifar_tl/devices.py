"""Which device and precision a run uses, and what the device says of itself.

Asks the libraries, assumes nothing: a processor may or may not multiply bfloat16, a GPU may or may not report its use.
Level 2: torch, but no model, no data.
"""

import ctypes
import os
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
import torch

from cifar_tl.errors import DeviceUnavailable

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Names and numbers of malloc.h: how many blocks malloc may ask of the system one by one; how much free memory it may keep.
_M_MMAP_MAX = -4
_M_TRIM_THRESHOLD = -1
# Data live on the GPU when they take at most this share of the memory that is free there.
_RESIDENT_SHARE_OF_FREE_MEMORY = 0.25


@dataclass(frozen=True)
class Compute:
    """Where and how numbers are multiplied. `precision` is float32, bf16 or fp16."""

    device: torch.device
    precision: str

    @property
    def dtype(self) -> torch.dtype:
        """dtype of matrix products under autocast, and of cached activations."""
        return _DTYPES[self.precision]

    def autocast(self, *, keeps_casts: bool = True) -> AbstractContextManager[object]:
        """Mixed precision for forward passes; does nothing in float32. `keeps_casts`: weights that are used twice are converted once."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype, cache_enabled=keeps_casts)


def available_devices() -> tuple[str, ...]:
    """Valid values of the device setting besides auto, best first."""
    devices = []
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return (*devices, "cpu")


def device_slots(device: str = "auto") -> tuple[str, ...]:
    """The devices of that kind, each of which one run has to itself. Raises DeviceUnavailable."""
    name = _resolve(device)
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) if name == "cuda" else (name,)


def processes_on(slots: Sequence[str], processes: int) -> int:
    """How many processes the setting asks for on these devices: 0 is one for each. Raises DeviceUnavailable for more processes than GPUs."""
    if slots[0].startswith("cuda") and processes > len(slots):
        raise DeviceUnavailable(
            f"{processes} processes need a GPU each, and this machine has {len(slots)}. Choose fewer processes, or 0 for all GPUs."
        )
    if slots[0] == "mps" and processes > 1:
        raise DeviceUnavailable("An Apple GPU trains with one process. Set processes to 1.")
    return processes or len(slots)


def _resolve(device: str) -> str:
    available = available_devices()
    name = available[0] if device == "auto" else device
    if name not in available:
        raise DeviceUnavailable(f"This machine has no {name} device (it has: {', '.join(available)}). Set the device to auto.")
    return name


def choose_compute(device: str = "auto", precision: str = "auto") -> Compute:
    """Resolve the settings `device` and `precision`; "cuda:1" names one of several. Raises DeviceUnavailable."""
    kind, _, index = device.partition(":")
    name = _resolve(kind)
    if precision == "auto":
        precision = "bf16" if has_native_bf16(name) else "float32"
    if precision == "fp16" and name == "cpu":
        raise DeviceUnavailable("float16 is not for training on a CPU. Set the precision to auto, bf16 or float32.")
    if name == "cpu":
        keep_freed_memory()
    elif name == "cuda" and index:
        # cuDNN's search for the quickest kernels stays off: without it the first step of EfficientNet-Lite0 takes 12 s on an H100, and a process of
        # 85 steps 35 s; with it that process had not ended after 40 s. What the search gives afterwards was not measured.
        torch.cuda.set_device(int(index))
    return Compute(torch.device(f"{name}:{index}" if index else name), precision)


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor.to(device)`, which on a GPU waits for nothing: from pinned memory the GPU fetches it when its turn comes."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """float32 numbers that lie on the device for good. Not to be changed in place."""
    with torch.inference_mode(False):
        return to_device(torch.tensor(values), device)


def fits_on_gpu(size_bytes: int, device: torch.device) -> bool:
    """Whether so much data may live on the device beside training: False unless it is a CUDA GPU with plenty of free memory."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return size_bytes <= free * _RESIDENT_SHARE_OF_FREE_MEMORY


def keep_freed_memory() -> None:
    """Tell the C library (glibc) to keep the memory that one step frees for the next, instead of handing it back to the system.

    Activations are freed and asked for again a thousand times a minute; each return trip costs a page fault for every 4 KiB.
    Measured for EfficientNet-Lite0 at 128 px on two cores: 46 -> 55 trained images a second. Does nothing elsewhere.
    """
    with suppress(OSError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_MMAP_MAX, 0)
        c_library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def has_native_bf16(device: str) -> bool:
    """True where the hardware multiplies bfloat16 itself; elsewhere it is emulated and slower than float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu":
        features = torch.cpu.get_capabilities()
        # x86: AVX512-BF16 or AMX; Arm: the BF16 extension.
        return any(bool(features.get(name)) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def device_name(device: torch.device) -> str:
    """The device's name as its maker gives it, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    return f"{_processor_name()}, {cpu_count()} cores"


def _processor_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_count() -> int:
    """Cores this process may use (fewer than the machine has, in a container)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Usage:
    """Bytes of the process, and of the GPU where there is one. `gpu_use` is a fraction, temperature in degrees Celsius."""

    memory_bytes: int
    gpu_memory_bytes: int | None = None
    gpu_use: float | None = None
    gpu_temperature: float | None = None


def usage(device: torch.device) -> Usage:
    """What the run takes right now. Values a device does not tell are None."""
    memory = int(psutil.Process().memory_info().rss)
    if device.type != "cuda":
        return Usage(memory)
    use = temperature = None
    # NVML is not everywhere (containers, Jetson): then these two stay unknown.
    with suppress(Exception):
        use = torch.cuda.utilization(device) / 100
        temperature = float(torch.cuda.temperature(device))
    return Usage(memory, int(torch.cuda.max_memory_reserved(device)), use, temperature)
