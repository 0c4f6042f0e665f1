"""Runs the kernels of a Swin block in Triton's interpreter on a CPU, against PyTorch; see `triton_child.py`."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.swin_triton import after, before


def _layers(channels: int, dtype: torch.dtype) -> list[nn.Module]:
    """Two norms, and linear layers C -> 3 C, C -> C, C -> 4 C, 4 C -> C, all of random numbers."""
    made = [nn.LayerNorm(channels), nn.LayerNorm(channels)]
    for inputs, outputs in ((1, 3), (1, 1), (1, 4), (4, 1)):
        made.append(nn.Linear(inputs * channels, outputs * channels))
    for parameter in (p for layer in made for p in layer.parameters()):
        nn.init.normal_(parameter, std=0.3)
    return [layer.to(dtype) for layer in made]


def _block(channels: int, dtype: torch.dtype, near: float) -> None:
    one, two, thrice, mix, first, second = _layers(channels, dtype)
    x, attended = (torch.randn(2, n, channels).to(dtype) + 1 for n in (150, 170))
    index = torch.randint(-1, 150, (170,), dtype=torch.int32)
    normed = functional.layer_norm(x.float(), (channels,), one.weight.float(), one.bias.float())
    picked = torch.cat([normed, torch.zeros(2, 1, channels)], dim=1)[:, index.long()]
    for bias in (thrice.bias, None):
        thrice.bias = bias
        expected = functional.linear(picked, thrice.weight.float(), None if bias is None else bias.float())
        assert torch.allclose(before(x, index, one, thrice).float(), expected, atol=near, rtol=near)
    back = torch.randint(0, 170, (150,), dtype=torch.int32)
    total = x.float() + functional.linear(attended[:, back.long()].float(), mix.weight.float(), mix.bias.float())
    normed = functional.layer_norm(total, (channels,), two.weight.float(), two.bias.float())
    hidden = functional.gelu(functional.linear(normed, first.weight.float(), first.bias.float()))
    expected = total + functional.linear(hidden, second.weight.float(), second.bias.float())
    found = after(x, attended, back, mix, two, first, second)
    assert found.dtype == dtype
    assert torch.allclose(found.float(), expected, atol=near, rtol=near)


def _overflow(value: float) -> None:
    """A number that float16 does not have spoils its token, and no other."""
    one, two, thrice, mix, first, second = _layers(16, torch.float32)
    index = torch.arange(20, dtype=torch.int32)
    spoilt, plain = torch.randn(1, 20, 16), torch.randn(1, 20, 16)
    spoilt[0, 5, 3] = value
    made = before(spoilt, index, one, thrice), after(spoilt, plain, index, mix, two, first, second)
    for found in (*made, after(plain, spoilt, index, mix, two, first, second)):
        assert not found[0, 5].isfinite().any()
        assert found[0, :5].isfinite().all()
        assert found[0, 6:].isfinite().all()


if __name__ == "__main__":
    torch.manual_seed(0)
    with torch.no_grad():
        _block(48, torch.float32, 1e-4)
        _block(96, torch.float16, 0.1)
        _block(16, torch.float32, 1e-4)
        for value in (float("nan"), float("inf")):
            _overflow(value)
