"""The quick backward pass gives the gradients of the plain one: as near to float32's as bfloat16 lets any of them be."""

import pytest
import torch
import torch.nn.functional as F

from cifar_tl.models.depthwise import depthwise_conv2d, has_fast_backward

# kernel, stride, padding, height, width: odd and even sizes, rows that the stride leaves unseen, no padding and more than half a kernel.
CASES = [
    (3, 1, 1, 8, 8),
    (3, 1, 0, 9, 6),
    (3, 2, 0, 17, 16),
    (3, 2, 1, 8, 11),
    (5, 1, 2, 8, 8),
    (5, 1, 4, 5, 7),
    (5, 2, 0, 35, 11),
    (5, 2, 2, 16, 13),
    (5, 3, 1, 14, 15),
    (3, 4, 0, 16, 19),
]


def gradients(function, x, weight, bias, direction):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, weight, bias)]
    output = function(*leaves)
    output.backward(direction.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize(("kernel", "stride", "padding", "height", "width"), CASES)
def test_output_and_gradients_are_those_of_the_plain_convolution(kernel, stride, padding, height, width):
    channels = 24
    generator = torch.Generator().manual_seed(kernel * 100 + stride)
    x = torch.randn(6, channels, height, width, generator=generator).to(torch.bfloat16, memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator).bfloat16()
    bias = torch.randn(channels, generator=generator).bfloat16()

    def plain(x, weight, bias):
        return F.conv2d(x, weight, bias, stride, padding, groups=channels)

    direction = torch.randn(plain(x, weight, bias).shape, generator=generator).bfloat16()
    exact = gradients(plain, x.float(), weight.float(), bias.float(), direction)
    found = gradients(lambda *tensors: depthwise_conv2d(*tensors, stride, padding), x, weight, bias, direction)
    for ours, reference in zip(found, exact, strict=True):
        assert ours.shape == reference.shape
        assert relative_error(ours, reference) < 0.01


def test_what_needs_no_gradient_gets_none():
    x = torch.randn(2, 8, 6, 6).bfloat16()
    weight = torch.randn(8, 1, 3, 3).bfloat16().requires_grad_()
    depthwise_conv2d(x, weight, None, 1, 1).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize(
    ("changes", "is_fast"),
    [
        ({}, True),
        ({"kernel_size": 5}, True),
        ({"kernel_size": 7}, False),
        ({"kernel_size": (3, 5)}, False),
        ({"groups": 1}, False),
        ({"out_channels": 32}, False),
        ({"dilation": 2}, False),
        ({"stride": (1, 2)}, False),
        ({"padding_mode": "reflect"}, False),
    ],
)
def test_it_serves_plain_depthwise_convolutions_only(changes, is_fast):
    conv = torch.nn.Conv2d(**{"in_channels": 16, "out_channels": 16, "kernel_size": 3, "groups": 16, "padding": 1} | changes)
    assert has_fast_backward(torch.zeros(1, 16, 8, 8, dtype=torch.bfloat16), conv) is is_fast
    assert not has_fast_backward(torch.zeros(1, 16, 8, 8), conv)
