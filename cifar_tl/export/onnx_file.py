"""A run's model as an ONNX file, in float32 or int8, and what it answers by onnxruntime.

With preprocessing the file takes `pixels`, uint8 B x H x W x 3 at the stored resolution, and gives `probabilities`; without, it takes
`images`, float32 B x 3 x S x S normalised, and gives `logits`. B may be any number. One file, weights inside.
"""

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper

from cifar_tl.errors import CifarTLError
from cifar_tl.export.network import Exportable

OPSET = 18
PIXELS, PROBABILITIES, IMAGES, LOGITS = "pixels", "probabilities", "images", "logits"
_BATCH = 32
# With what bounds their outputs: a convolution's range is otherwise measured before its Clip, and most of the 256 steps lie beyond it. The
# shipped run then keeps 70 % of its classes instead of 96 %.
_QUANTIZED = ["Conv", "Gemm", "MatMul", "Clip", "Relu", "Add", "MaxPool", "GlobalAveragePool"]


def write_onnx(exportable: Exportable, target: Path, *, with_preprocessing: bool) -> None:
    """Raises CifarTLError for a network that ONNX cannot say."""
    preprocessing = exportable.manifest.preprocessing
    if with_preprocessing:
        side = preprocessing.store_resolution
        network: torch.nn.Module = exportable.portable()
        example, names = torch.zeros((2, side, side, 3), dtype=torch.uint8), (PIXELS, PROBABILITIES)
    else:
        side = preprocessing.image_size
        network, example, names = exportable.classifier, torch.zeros((2, 3, side, side)), (IMAGES, LOGITS)
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[names[0]],
                output_names=[names[1]],
                opset_version=OPSET,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            reason = str(error).strip().splitlines()[0]
            raise CifarTLError(f"{exportable.config.backbone} cannot be written as ONNX: {reason}") from error
    program.save(target)
    _describe(target, exportable, with_preprocessing=with_preprocessing)


def _describe(path: Path, exportable: Exportable, *, with_preprocessing: bool) -> None:
    """What whoever opens the file alone needs to know."""
    model = onnx.load(path)
    manifest = exportable.manifest
    facts = {"classes": "\n".join(manifest.class_names), "run": manifest.run_id, "backbone": exportable.config.backbone}
    if not with_preprocessing:
        facts |= {"mean": str(list(manifest.preprocessing.mean)), "std": str(list(manifest.preprocessing.std))}
    helper.set_model_props(model, facts)
    onnx.save(model, path)


def quantize(source: Path, target: Path, calibration: Iterator[np.ndarray]) -> None:
    """`source` in 8 bits, weights and activations, from its first convolution on: static, calibrated on batches of its input."""
    with _quiet():
        from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(calibration, None)
            return None if batch is None else {input_name: batch}

    prepared = target.with_suffix(".prepared.onnx")
    with _quiet():
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        input_name = model.graph.input[0].name
        quantize_static(
            prepared,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            # Unsigned like the activations: onnxruntime adds products of unsigned and signed bytes in 16 bits where a processor has AVX2 alone, which
            # overflow there, and the file is to answer alike wherever it goes. A head on shapes agreed on 92 % of classes, with signed weights on 69 %.
            weight_type=QuantType.QUInt8,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=_of_preprocessing(model),
            calibrate_method=CalibrationMethod.MinMax,
        )
    prepared.unlink()


def _of_preprocessing(model: Any) -> list[str]:
    """What comes before the first convolution: pixels are resized and normalised exactly."""
    return [node.name for node in takewhile(lambda node: node.op_type != "Conv", model.graph.node)]


class OnnxModel:
    """An ONNX file on this machine's processor. The thread count is onnxruntime's own choice."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        output: np.ndarray = self._session.run(None, {self._input: batch})[0]
        return output

    def of_all(self, inputs_N: np.ndarray) -> tuple[np.ndarray, float]:
        """(outputs N x C, images a second), after a first batch that is not counted."""
        self(inputs_N[:_BATCH])
        began = time.perf_counter()
        outputs = [self(inputs_N[start : start + _BATCH]) for start in range(0, len(inputs_N), _BATCH)]
        return np.concatenate(outputs), len(inputs_N) / (time.perf_counter() - began)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell at length how they get on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
