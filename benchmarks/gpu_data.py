"""What the `gpu` benchmark works on: how large it is, and the patients it draws."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader import LakeSource
from catalog.lake import Lake
from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.taxonomy import all_classes, class_names
from imaging.bits import Bits, get_channel
from models.plan import TrainCase


@dataclass(frozen=True)
class Scale:
    """How large everything is. steps: of the training. classes: that are learnt."""

    device: str
    backbone: str
    patch: int
    scan: int
    cases: int
    batch: int
    windows: int
    steps: int
    readers: int
    spacing_mm: float
    classes: tuple[str, ...] = class_names()

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"


FULL = Scale(
    "cuda", "swinunetr", patch=96, scan=300, cases=4, batch=6, windows=18, steps=400, readers=8, spacing_mm=1.5
)
SMALL = Scale("cpu", "unet", patch=16, scan=24, cases=2, batch=2, windows=2, steps=2, readers=1, spacing_mm=16.0)


def phantoms(scale: Scale, folder: Path) -> LakeSource:
    """Return a lake of patients that a network can learn, all classes annotated; drawn in as many processes."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(scale.cases, mp_context=context) as pool:
        made = list(pool.map(_phantom, range(scale.cases), repeat(scale), repeat(folder / "lake")))
    return LakeSource(Lake(folder / "lake"), dict(row for row, _ in made), [case for _, case in made])


def _phantom(number: int, scale: Scale, lake: Path) -> tuple[tuple[str, dict[str, str]], TrainCase]:
    """Write one patient into the lake; return its case id and row, and its case."""
    scan, bits = render(make_anatomy(number), (scale.scan,) * 3, _affine(scale), seed=number)
    annotated = tuple(info.channel for info in all_classes())
    found = {channel: np.argwhere(get_channel(bits, channel)) for channel in annotated}
    foreground = {channel: voxels[:: max(1, len(voxels) // 64)] for channel, voxels in found.items() if len(voxels)}
    stored = Lake(lake).write_case("bench", str(number), f"{number:064d}", scan, {}, {"human": bits})
    case_id = f"bench/{number}"
    row = {"case_id": case_id, "path": stored.path, "manifest": stored.manifest.to_json()}
    return (case_id, row), TrainCase(case_id, annotated, scan.shape, foreground, "bench")


def _affine(scale: Scale) -> NDArray[np.float64]:
    affine = np.diag([scale.spacing_mm] * 3 + [1.0])
    affine[:3, 3] = -scale.scan * scale.spacing_mm / 2
    return affine


def one_more(scale: Scale) -> tuple[NDArray[np.int16], Bits]:
    """Return a patient that the lake does not have: (X, Y, Z) HU, X fastest as the lake has it, and true bits."""
    scan, bits = render(make_anatomy(scale.cases), (scale.scan,) * 3, _affine(scale), seed=99)
    return np.asfortranarray(scan.array), bits
