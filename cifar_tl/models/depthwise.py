"""depthwise_conv2d: depthwise convolution whose backward pass is as quick as its forward pass on CPUs, in bfloat16.

Same numbers as `F.conv2d(..., groups=channels)`; only which kernels the gradients are made from differs. For bfloat16 in
channels_last memory, oneDNN's forward kernel and its 3x3 weight gradient are fast, its other gradients fall back to a
reference loop: 128 activations of 672 x 8 x 8 with a 5x5 kernel take 2 ms forward and 118 ms for the weight gradient.
(`python -m bench.throughput` shows what this gives; the fast kernels are used as follows.)

    input gradient     stride 1: the forward kernel on the mirrored weights
                       stride s: the same for each of the s x s phases of the input (each phase meets every s-th weight)
    weight gradient    3x3: as it is; larger: assembled from overlapping 3x3 windows

Shapes: x_BCHW, weight_C1KK, gradient of the output g_BCHW. Level 2: torch only.
"""

from typing import Any

import torch
import torch.nn.functional as F

_FAST_KERNEL = 3


def has_fast_backward(x_BCHW: torch.Tensor, conv: torch.nn.Conv2d) -> bool:
    """True where `depthwise_conv2d` serves: a plain depthwise convolution with an odd square kernel, on a CPU, in bfloat16."""
    size = conv.kernel_size[0]
    return (
        x_BCHW.device.type == "cpu"
        and x_BCHW.dtype is torch.bfloat16
        and 1 < conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (size, size)
        and size in (3, 5)
        and conv.stride[0] == conv.stride[1]
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
    )


def depthwise_conv2d(
    x_BCHW: torch.Tensor, weight_C1KK: torch.Tensor, bias_C: torch.Tensor | None, stride: int, padding: int
) -> torch.Tensor:
    """`F.conv2d` with as many groups as channels. All tensors of one dtype."""
    return _DepthwiseConv2d.apply(x_BCHW, weight_C1KK, bias_C, stride, padding)


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: int, padding: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (g,) = gradients
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        g = g.contiguous(memory_format=torch.channels_last)
        return (
            _input_gradient(g, weight, x.shape, ctx.stride, ctx.padding) if wants_x else None,
            _weight_gradient(g, x, weight, ctx.stride, ctx.padding) if wants_weight else None,
            g.sum((0, 2, 3)) if wants_bias else None,
            None,
            None,
        )


def _input_gradient(g: torch.Tensor, weight: torch.Tensor, x_shape: torch.Size, stride: int, padding: int) -> torch.Tensor:
    channels, size = len(weight), weight.shape[-1]
    if stride == 1:
        return F.conv2d(g, weight.flip(2, 3), padding=size - 1 - padding, groups=channels)
    height, width = x_shape[2] + 2 * padding, x_shape[3] + 2 * padding
    padded = torch.empty((x_shape[0], channels, height, width), dtype=g.dtype, memory_format=torch.channels_last).zero_()
    for row in range(stride):
        for column in range(stride):
            met = weight[:, :, row::stride, column::stride]
            if met.numel() == 0:
                continue
            phase = F.conv2d(g, met.flip(2, 3).contiguous(), padding=(met.shape[2] - 1, met.shape[3] - 1), groups=channels)
            target = padded[:, :, row::stride, column::stride]
            height_met, width_met = min(phase.shape[2], target.shape[2]), min(phase.shape[3], target.shape[3])
            target[:, :, :height_met, :width_met] = phase[:, :, :height_met, :width_met]
    return padded[:, :, padding : height - padding, padding : width - padding]


def _weight_gradient(g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    channels, size = len(weight), weight.shape[-1]
    if size <= _FAST_KERNEL:
        return _weight_gradient_of_window(g, x, weight, stride, padding)
    if padding:
        x = F.pad(x, (padding, padding, padding, padding))
    gradient = torch.empty_like(weight)
    rows, columns = ((length - 1) * stride + _FAST_KERNEL for length in g.shape[2:])
    starts = (0, size - _FAST_KERNEL)  # two windows cover up to 2 x 3 weights
    for row in starts:
        for column in starts:
            seen = x[:, :, row : row + rows, column : column + columns].contiguous(memory_format=torch.channels_last)
            window = weight.new_empty((channels, 1, _FAST_KERNEL, _FAST_KERNEL))
            part = _weight_gradient_of_window(g, seen, window, stride, 0)
            gradient[:, :, row : row + _FAST_KERNEL, column : column + _FAST_KERNEL] = part
    return gradient


def _weight_gradient_of_window(g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
    """`weight` gives the shape only."""
    mask = [False, True, False]
    arguments = ([0], [stride, stride], [padding, padding], [1, 1], False, [0, 0], len(weight), mask)
    return torch.ops.aten.convolution_backward(g, x, weight, *arguments)[1]
