"""The golden vectors of the published networks, the rule that fills a network for them, and the authors' file layout.

They lie in ../shared/data/upstream_parity, or where CTFACTORY_UPSTREAM_PARITY says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "upstream_parity"
VECTORS = Path(os.environ.get("CTFACTORY_UPSTREAM_PARITY", BESIDE))
needs_vectors = pytest.mark.skipif(not VECTORS.is_dir(), reason="golden vectors absent (CTFACTORY_UPSTREAM_PARITY)")


def filled(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the state with floating tensors by the vectors' rule: sorted keys, one generator."""
    generator = torch.Generator().manual_seed(seed)
    made = dict(state)
    for key in sorted(state):
        if not state[key].is_floating_point():
            continue
        r = torch.randn(state[key].shape, generator=generator, dtype=torch.float32)
        if key.endswith("running_var"):
            r = 1 + r.abs()
        elif r.dim() > 1:
            r = r / (r.numel() / r.shape[0]) ** 0.5
        else:
            r = (1 + 0.1 * r) if key.endswith("weight") else 0.1 * r
        made[key] = r
    return made


def authors_file(path: Path, state: Mapping[str, Tensor], **beside: object) -> Path:
    """Write a state as the authors do: `net` beside optimiser, scheduler and epoch, their names of the keys."""
    net = {}
    for key, value in state.items():
        swin = any(part in key for part in ("swinViT", "encoder", "decoder"))
        net["module." + (key.removeprefix("backbone.") if swin else key)] = value
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    scheduler = {"base_lrs": [1e-4], "last_epoch": 7}
    torch.save({"net": net, "optimizer": optimizer, "scheduler": scheduler, "epoch": 7, **beside}, path)
    return path
