"""Runs the kernels of full-size maps in Triton's interpreter on a CPU, against PyTorch; see `triton_child.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.map_triton import convolve_first, join_maps

SHAPES = ((5, 4, 7), (1, 9, 3), (6, 2, 11))


def _first(shape: tuple[int, int, int], parts: int, outputs: int, width: int, biased: bool, voxels: int) -> None:
    x = torch.randn(2, parts, *shape)
    conv = nn.Conv3d(1, outputs, 3, padding=1, bias=biased)
    for value in (None, float("nan")):
        if value is not None:
            x[1, parts - 1, shape[0] // 2, shape[1] // 2, shape[2] // 2] = value
        found = convolve_first(x, conv.weight, conv.bias, width, voxels=voxels)
        assert found.shape == (2, width, *shape)
        assert found.is_contiguous(memory_format=torch.channels_last_3d)
        expected = conv(x.sum(1, keepdim=True))
        assert torch.allclose(found[:, :outputs], expected, atol=1e-5, equal_nan=True)
        assert expected.isnan().any() == (value is not None)
        assert (found[:, outputs:] == 0).all()


def _in_half() -> None:
    """Sums are in float32: each number is as near as its own rounding. The interpreter multiplies no bfloat16."""
    x, weight, bias = (torch.randn(shape).half() for shape in ((1, 2, 4, 5, 6), (48, 1, 3, 3, 3), (48,)))
    expected = functional.conv3d(x.float().sum(1, keepdim=True), weight.float(), bias.float(), padding=1)
    found = convolve_first(x, weight, bias, 64)
    assert found.dtype == torch.float16
    assert torch.allclose(found[:, :48].float(), expected, atol=1e-3, rtol=1e-3)


def _joined(shape: tuple[int, int, int], grown: int, skipped: int, width: int, pieces: int, dtype: torch.dtype) -> None:
    low, up = torch.randn(2, 5, *shape), nn.ConvTranspose3d(5, grown, 2, 2, bias=False)
    fine = functional.linear(low.permute(0, 2, 3, 4, 1), up.weight.permute(2, 3, 4, 1, 0).reshape(8 * grown, 5))
    skip = torch.randn(2, skipped, *(2 * side for side in shape)).contiguous(memory_format=torch.channels_last_3d)
    fine[1, 0, -1, 0, 3], skip[0, 1, -1, 0, 2] = float("nan"), float("-inf")
    found = join_maps(fine.to(dtype), skip.to(dtype), width, pieces=pieces)
    assert found.shape == (2, width, *skip.shape[2:])
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(found[:, grown : grown + skipped], skip.to(dtype))
    own, expected = found[:, :grown].float(), up(low)
    assert own.isnan().sum() == 1
    assert torch.allclose(torch.where(own.isnan(), expected, own), expected, atol=2e-2 if dtype.itemsize == 2 else 1e-5)
    assert own[1, 3, 0, -2, 0].isnan()
    assert (found[:, grown + skipped :] == 0).all()


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        for shape in SHAPES:
            for parts in (1, 2):
                _first(shape, parts, 12, 12, True, 128)
                _first(shape, parts, 20, 48, False, 64)
                _joined(shape, 8 * parts, 8, 16 + 8 * parts, 64, torch.float32)
        _first(SHAPES[0], 2, 48, 64, True, 16)
        _first((1, 1, 1), 2, 3, 4, True, 16)
        _in_half()
        _joined((3, 2, 4), 48, 48, 128, 512, torch.float16)
        _joined((2, 3, 3), 48, 48, 96, 128, torch.bfloat16)
        _joined((2, 1, 2), 64, 32, 96, 1024, torch.float32)
