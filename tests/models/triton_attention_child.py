"""Runs the attention kernel in Triton's interpreter on a CPU, against PyTorch. A process, as `triton_child.py` is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models import attention_triton
from models.attention_triton import attend
from models.window_attention import FAR

TILES = {"queries": 32, "keys": 32}
"""Small ones, so that there are several."""


def _plain(qkv: Tensor, bias: Tensor, regions: Tensor | None, heads: int, scale: float) -> Tensor:
    windows, n, columns = qkv.shape
    q, k, v = qkv.float().view(windows, n, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (w, H, n, d)
    scores = scale * q @ k.mT + bias.float()
    if regions is not None:
        rows = regions[torch.arange(windows) % len(regions)]
        scores = scores + FAR * (rows[:, None, :, None] != rows[:, None, None, :])
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(windows, n, columns // 3)


def _case(windows: int, n: int, heads: int, depth: int, dtype: torch.dtype, of: int | None, **tiles: int) -> None:
    """of: how many windows have regions of their own; the first has only one."""
    qkv = (torch.randn(windows, n, 3 * heads * depth) * 2).to(dtype)
    bias = torch.randn(heads, n, -(-n // 8) * 8).to(dtype)[..., :n]
    regions = None
    if of is not None:
        regions = torch.randint(0, 4, (of, n), dtype=torch.int32)
        regions[0] = 3
    found = attend(qkv, bias, regions, heads, depth**-0.5, FAR, **tiles)
    assert found.dtype == dtype
    near = {torch.float16: 4e-3, torch.float32: 1e-5}[dtype]
    expected = _plain(qkv, bias, regions, heads, depth**-0.5)
    assert torch.allclose(found.float(), expected, atol=near, rtol=near), (found.float() - expected).abs().max()


def _overflow(value: float) -> None:
    """What float16 makes of a number too large has to come out, or nobody would notice."""
    bias = torch.randn(2, 40, 40).half()
    for part in range(3):
        qkv = torch.randn(3, 40, 96).half()
        qkv[1, 35, 32 * part + 5] = value  # of the first head, in the second tile
        found = attend(qkv, bias, None, 2, 0.25, FAR, **TILES)
        spoiled = ~_plain(qkv, bias, None, 2, 0.25).isfinite()
        assert spoiled[1, :, :16].any()
        assert torch.equal(found.isfinite(), ~spoiled)
        assert not spoiled[[0, 2]].any()
        assert not spoiled[..., 16:].any()
    bias[1, 3, 4] = value
    found = attend(torch.randn(1, 40, 96).half(), bias, None, 2, 0.25, FAR, **TILES)
    assert found[0, 3, 16:].isnan().all()
    assert found[0, 3, :16].isfinite().all()


def _refused() -> None:
    for columns in (3 * 2 * 8, 3 * 2 * 24, 100):
        with pytest.raises(ValueError, match=str(columns)):
            attend(torch.zeros(1, 8, columns), torch.zeros(2, 8, 8), None, 2, 1.0, FAR)


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        for of in (None, 3, 5):
            _case(5, 27, 2, 16, torch.float32, of, **TILES)
            _case(5, 27, 2, 16, torch.float16, of)
        _case(3, 70, 3, 16, torch.float16, 2, **TILES)
        _case(2, 70, 1, 32, torch.float32, 2, queries=16, keys=64)
        attention_triton.CACHED = 5000  # bytes, of three windows of the next
        _case(10, 8, 1, 16, torch.float32, 4, queries=16, keys=16)
        for value in (float("nan"), float("inf")):
            _overflow(value)
        _refused()
