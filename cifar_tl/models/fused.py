"""fuse_batch_norm: convolutions absorb the batch norm that follows them, for as long as its statistics are frozen.

With frozen statistics a batch norm is y = scale * x + shift for each channel, which the convolution before it can do itself:

    conv(x, w), then batch norm      ==      conv(x, w * scale) + shift      scale = gamma / sqrt(var + eps), shift = beta - mean * scale

The result is the same network with the same parameters, buffers and names; gradients reach w, gamma and beta exactly as before,
through the product. What goes is a pass over every activation in each direction. A batch norm in training mode computes its own
statistics as ever. Where nothing asks for gradients, the product is computed once and kept until a parameter changes or `train()`
or `eval()` is called.

Convolutions of the kind that `models.depthwise` computes faster use it on the way. Level 2: torch, timm.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, pad_same
from torch import nn

from cifar_tl.models.depthwise import depthwise_conv2d, has_fast_backward

_TOLERANCE = 1e-3


class _Absorbing:
    """What a convolution that absorbs a batch norm has on top of its own class."""

    _norm: list[nn.BatchNorm2d]  # in a list: it belongs to another module and must not be registered here a second time
    _kept: tuple[Any, torch.Tensor, torch.Tensor] | None

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        assert isinstance(self, nn.Conv2d)
        (norm,) = self._norm
        weight, bias = (self.weight, self.bias) if norm.training else self._weight_and_shift(norm, x_BCHW.device.type)
        dtype = torch.get_autocast_dtype(x_BCHW.device.type) if torch.is_autocast_enabled(x_BCHW.device.type) else weight.dtype
        x_BCHW, weight = x_BCHW.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
        if isinstance(self, Conv2dSame):
            x_BCHW = pad_same(x_BCHW, list(self.kernel_size), list(self.stride), list(self.dilation))
        padding = (0, 0) if isinstance(self, Conv2dSame) else self.padding
        if padding[0] == padding[1] and torch.is_grad_enabled() and has_fast_backward(x_BCHW, self):
            return depthwise_conv2d(x_BCHW, weight, bias, self.stride[0], int(padding[0]))
        return F.conv2d(x_BCHW, weight, bias, self.stride, padding, self.dilation, self.groups)

    def train(self, mode: bool = True) -> Self:
        self._kept = None  # weights change between two calls of this; fused optimizers do not raise their version counter
        return super().train(mode)  # type: ignore[misc]

    def _weight_and_shift(self, norm: nn.BatchNorm2d, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        assert isinstance(self, nn.Conv2d)
        parts = [self.weight, *([] if self.bias is None else [self.bias]), *norm.parameters(), *norm.buffers()]
        # What is kept here may be dropped while a recorded pass (training.recorded) still reads it: that one computes its own.
        is_recorded = device == "cuda" and torch.cuda.is_current_stream_capturing()
        if is_recorded or (torch.is_grad_enabled() and any(part.requires_grad for part in parts)):
            return _absorb(self, norm)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.weight.dtype
        key = (dtype, self.weight.device, [(id(part), part._version) for part in parts])
        if self._kept is None or self._kept[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # or it could not take part in a backward pass later
                weight, shift = _absorb(self, norm)
                self._kept = (key, weight.to(dtype), shift.to(dtype))
        return self._kept[1:]


class _Absorbed:
    """What is left of a batch norm while a convolution does its work: the activation, if it has one."""

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        assert isinstance(self, nn.BatchNorm2d)
        if self.training:
            return super().forward(x_BCHW)  # type: ignore[misc]
        return self.act(self.drop(x_BCHW)) if isinstance(self, BatchNormAct2d) else x_BCHW


def _absorb(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var + norm.eps).rsqrt() * norm.weight
    shift = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    return conv.weight * scale.view(-1, 1, 1, 1), shift


@torch.no_grad()
def fuse_batch_norm(network: nn.Module, example: torch.Tensor) -> int:
    """Change `network` in place so that its convolutions absorb their batch norms; returns how many do.

    Which batch norm follows which convolution is seen by running `example` (a small batch of inputs) through it. If
    the fused network does not give the same output, nothing is changed.
    """
    was_training = network.training
    network.eval()
    expected, pairs = _trace(network, example)
    for conv, norm in pairs:
        _change(conv, _Absorbing, _norm=[norm], _kept=None)
        _change(norm, _Absorbed)
    if pairs and not _is_same(network(example), expected):
        for conv, norm in pairs:
            conv.__class__, norm.__class__ = type(conv).__mro__[2], type(norm).__mro__[2]
        pairs = []
    network.train(was_training)
    return len(pairs)


def _is_same(output: torch.Tensor, expected: torch.Tensor) -> bool:
    return bool((output - expected).abs().max() <= _TOLERANCE * expected.abs().max().clamp(min=1e-6))


def _change(module: nn.Module, mixin: type, **attributes: Any) -> None:
    """Give a module the methods of `mixin`. Its parameters, its names and what isinstance says of it stay."""
    module.__class__ = type(f"{mixin.__name__[1:]}{type(module).__name__}", (mixin, type(module)), {})
    for name, value in attributes.items():
        object.__setattr__(module, name, value)


def _trace(network: nn.Module, example: torch.Tensor) -> tuple[torch.Tensor, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """The network's output, and every batch norm whose input is, untouched, what a convolution has just given."""
    last: list[tuple[nn.Conv2d, torch.Tensor]] = []
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def after_convolution(module: nn.Module, _arguments: Any, output: torch.Tensor) -> None:
        last[:] = [(module, output)]  # type: ignore[list-item]

    def before_norm(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if last and last[0][1] is arguments[0]:
            pairs[last[0][0]] = module  # type: ignore[assignment]

    handles = []
    for module in network.modules():
        if type(module) in (nn.Conv2d, Conv2dSame) and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            handles.append(module.register_forward_hook(after_convolution))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.affine and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(before_norm))
    try:
        output = network(example)
    finally:
        for handle in handles:
            handle.remove()
    return output, list(pairs.items())
