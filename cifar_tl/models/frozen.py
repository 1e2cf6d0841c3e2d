"""FrozenPrefix: the stages that do not train, run over stored images as quickly as this machine can.

On a CPU that is OpenVINO, where it is installed and knows the network: about three times PyTorch's rate for EfficientNet-Lite0
(`python -m bench.evaluation`), because it keeps whole blocks of layers in the processor's cache. Its answer for the first batch is
compared with PyTorch's; if they differ by more than the precision explains, or anything else goes wrong, PyTorch does the work.

Shapes: images_BCHW uint8 at the stored resolution in, activations B x (shape at the boundary) out. Level 2.
"""

import importlib.util
import logging
import sys
import warnings
from typing import Any

import torch
from torch import nn

from cifar_tl.data.batches import resize_uint8, to_model_input
from cifar_tl.devices import Compute
from cifar_tl.models.build import Classifier
from cifar_tl.runs.store import Preprocessing

_LOG = logging.getLogger(__name__)
# Relative to the activations' own size. Two roundings to bfloat16 in every layer leave about 0.07 in the deepest one.
_TOLERANCE = {"float32": 1e-3, "bf16": 0.2}
_OPENVINO_PRECISION = {"float32": "f32", "bf16": "bf16"}


class FrozenPrefix:
    """Call it with stored images; it gives the activations at `boundary`, of the run's dtype. The classifier stays in evaluation mode."""

    def __init__(self, classifier: Classifier, boundary: int, preprocessing: Preprocessing, compute: Compute) -> None:
        self._classifier = classifier.eval()
        self.boundary = boundary
        self._preprocessing = preprocessing
        self._compute = compute
        self._may_compile = compute.device.type == "cpu" and importlib.util.find_spec("openvino") is not None
        self._compiled: Any = None

    @torch.inference_mode()
    def __call__(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        if self._may_compile:
            self._may_compile = False
            self._compile(images_BCHW, expected=self._run(images_BCHW))
        return self._run(images_BCHW) if self._compiled is None else self._run_compiled(images_BCHW)

    def _run(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        with self._compute.autocast():
            inputs = to_model_input(images_BCHW.to(self._compute.device), self._preprocessing)
            return self._classifier.forward_prefix(inputs, self.boundary).to(self._compute.dtype)

    def _compile(self, images_BCHW: torch.Tensor, expected: torch.Tensor) -> None:
        try:
            self._compiled = _compiled(self._classifier, self.boundary, self._preprocessing, self._compute)
            found = self._run_compiled(images_BCHW)
            error = float((found.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-6))
            if error > _TOLERANCE[self._compute.precision]:
                raise ValueError(f"activations differ by {error:.3f} of their size")
        except Exception as error:  # a converter meets networks of any kind, and PyTorch can do the work as well
            _LOG.warning("OpenVINO does not run the frozen stages, PyTorch does: %s", str(error).splitlines()[0] if str(error) else error)
            self._compiled = None

    def _run_compiled(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        pixels = resize_uint8(images_BCHW, self._preprocessing.image_size).permute(0, 2, 3, 1).contiguous()
        return torch.from_numpy(self._compiled(pixels.numpy())[0]).to(self._compute.dtype)


class _Prefix(nn.Module):
    def __init__(self, classifier: Classifier, boundary: int) -> None:
        super().__init__()
        self.classifier, self.boundary = classifier, boundary

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        return self.classifier.forward_prefix(inputs_BCHW, self.boundary)


def _compiled(classifier: Classifier, boundary: int, preprocessing: Preprocessing, compute: Compute) -> Any:
    """The prefix as an OpenVINO program for this CPU: uint8 pixels B x H x W x 3 of the network's size in, float32 activations out."""
    # Its converter would tell its maker about every conversion; without that package it cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    size = preprocessing.image_size
    example = torch.zeros(2, 3, size, size)
    prefix = _Prefix(classifier, boundary).eval()
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter traces with torch.jit, which is being retired
        prefix(example)  # so that absorbed batch norms are constants by now (models.fused)
        network = openvino.convert_model(torch.jit.trace(prefix, example, check_trace=False), input=[-1, 3, size, size])
    steps = openvino.preprocess.PrePostProcessor(network)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    normalised = steps.input().preprocess().convert_element_type(openvino.Type.f32)
    normalised.mean([255 * value for value in preprocessing.mean]).scale([255 * value for value in preprocessing.std])
    hint = {"INFERENCE_PRECISION_HINT": _OPENVINO_PRECISION[compute.precision]}
    return openvino.compile_model(steps.build(), "CPU", hint)
