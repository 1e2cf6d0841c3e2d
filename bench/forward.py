"""The forward passes that evaluation and prediction are compared with: one batch that stays in memory, nothing loaded or kept.

    bare_forward           plain torch, channels_last, autocast, inference mode
    ready_forward          the same of this program's network, with its malloc settings: the limit of its own pipeline
    compiled_forward       torch.compile with inductor's freezing
    onnxruntime_forward    ONNX Runtime, float32, as its CPU kernels are
    openvino_forward       OpenVINO, in the precision that `bare_forward` has

The last two are measured where they are installed; this program does not need them.
"""

import importlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.common import rate
from bench.networks import (
    batch_in_memory,
    channels_last_network,
    engine_compute,
    num_classes_of,
    plain_compute,
    plain_network,
    ready_network,
    waiting_for,
)
from cifar_tl.devices import Compute
from cifar_tl.models.build import Classifier

CPU_ENGINES = {"onnxruntime_forward": ("onnx", "onnxscript", "onnxruntime"), "openvino_forward": ("openvino",)}

Measured = dict[str, Any]


def reason_not_to_measure(contender: str, device: str) -> str:
    """Why a contender cannot be measured here; '' if it can."""
    if contender not in CPU_ENGINES:
        return ""
    if plain_compute(device).device.type != "cpu":
        return "measured on CPUs only"
    missing = [name for name in CPU_ENGINES[contender] if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed" if missing else ""


def bare_forward(*, device: str, source: str, model: str, weights: str, image_size: int, batch: int, timing: dict[str, int]) -> Measured:
    compute, num_classes = plain_compute(device), num_classes_of(source)
    network = channels_last_network(model, weights, num_classes, image_size, compute)
    return _torch_rate(network.eval(), compute, batch, image_size, num_classes, timing)


def ready_forward(*, device: str, source: str, model: str, weights: str, image_size: int, batch: int, timing: dict[str, int]) -> Measured:
    compute, num_classes = engine_compute(device), num_classes_of(source)
    network = ready_network(model, weights, num_classes, image_size, compute)
    return _torch_rate(network.eval(), compute, batch, image_size, num_classes, timing)


@torch.inference_mode()
def _torch_rate(network: Classifier, compute: Compute, batch: int, image_size: int, num_classes: int, timing: dict[str, int]) -> Measured:
    images_BCHW, _ = batch_in_memory(batch, image_size, num_classes, compute.device)

    def forward() -> None:
        with compute.autocast():
            network(images_BCHW)

    return _rate(forward, batch, timing, compute.precision, waiting_for(compute.device))


def compiled_forward(
    *, device: str, source: str, model: str, weights: str, image_size: int, batch: int, timing: dict[str, int]
) -> Measured:
    import torch._inductor.config as inductor

    inductor.freezing = True
    compute, num_classes = plain_compute(device), num_classes_of(source)
    network = channels_last_network(model, weights, num_classes, image_size, compute).eval()
    compiled = torch.compile(network)
    images_BCHW, _ = batch_in_memory(batch, image_size, num_classes, compute.device)

    def forward() -> None:
        with torch.no_grad(), compute.autocast():  # freezing asks for no_grad, not for inference mode
            compiled(images_BCHW)

    return _rate(forward, batch, timing, compute.precision, waiting_for(compute.device))


def onnxruntime_forward(*, source: str, model: str, weights: str, image_size: int, batch: int, timing: dict[str, int]) -> Measured:
    onnxruntime: Any = importlib.import_module("onnxruntime")

    num_classes = num_classes_of(source)
    images_BCHW, _ = batch_in_memory(batch, image_size, num_classes, torch.device("cpu"))
    contiguous = images_BCHW.contiguous()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(plain_network(model, weights, num_classes, image_size).eval(), (contiguous,), file, dynamo=True)
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: contiguous.numpy()}
    return _rate(lambda: session.run(None, feed), batch, timing, "float32")


def openvino_forward(*, source: str, model: str, weights: str, image_size: int, batch: int, timing: dict[str, int]) -> Measured:
    openvino: Any = importlib.import_module("openvino")

    compute, num_classes = plain_compute("cpu"), num_classes_of(source)
    images_BCHW, _ = batch_in_memory(batch, image_size, num_classes, compute.device)
    contiguous = images_BCHW.contiguous()
    converted = openvino.convert_model(
        plain_network(model, weights, num_classes, image_size).eval(), example_input=contiguous, input=list(contiguous.shape)
    )
    precision = {"bf16": "bf16", "float32": "f32"}[compute.precision]
    compiled = openvino.compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    return _rate(lambda: compiled(contiguous.numpy()), batch, timing, compute.precision)


def _rate(
    forward: Callable[[], object], batch: int, timing: dict[str, int], precision: str, wait: Callable[[], object] = lambda: None
) -> Measured:
    def step() -> int:
        forward()
        return batch

    return rate(step, **timing, wait=wait) | {"precision": precision}
