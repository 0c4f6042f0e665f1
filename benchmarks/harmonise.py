"""`harmonise`: one 512 x 512 x 200 CT with labels from .nii.gz to committed rows, against MONAI and gzip h5."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from benchmarks.side_by_side import record, run_in_turn
from datasets_registry import label_map
from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, read, reader_for
from imaging.memory import keep_freed_memory, limit_memory
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks import ingest_case as ingest_case_module
from tasks.harmonise import HarmonisedCase, harmonise
from tasks.ingest_case import IngestRequest, ingest_case
from tasks.settings import Settings

KEYS = ["image", "label"]
MOST_GIB = 1.5
"""The bar that the peak of memory is compared with."""
SHAPE = (512, 512, 200)
AFFINE = np.array([[-0.8, 0, 0, 200], [0, -0.8, 0, 200], [0, 0, 2.0, -300], [0, 0, 0, 1.0]])
SPACING_MM = (1.5, 1.5, 1.5)
SAME_HU = 1


def _write_case(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    coarse = gaussian_filter(rng.normal(0, 1, (128, 128, 50)).astype(np.float32), 2) * 900 + 40
    hu = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2) + rng.normal(0, 12, SHAPE)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = ((x - 256) / 220) ** 2 + ((y - 256) / 160) ** 2 < 1
    image = np.where(body, hu, -1000).clip(-1024, 3071).astype(np.int16)
    label = np.zeros(SHAPE, dtype=np.uint8)
    for value in range(1, 14):
        # Right-sided organs lie on the low indices of this LPS grid.
        centre = (140 + 18 * (value if value not in (2, 12) else 0), 150 + 15 * value, 20 + 12 * value)
        label[((x - centre[0]) / 30) ** 2 + ((y - centre[1]) / 30) ** 2 + ((z - centre[2]) / 12) ** 2 < 1] = value
    paths = folder / "img0001.nii.gz", folder / "label0001.nii.gz"
    write_nifti(Volume(image, AFFINE), paths[0])
    write_nifti(Volume(label, AFFINE), paths[1])
    return paths


def main() -> None:
    """Compare time, the voxels, and the share of the time that checking takes; print the peak of memory."""
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image_path, label_path = _write_case(folder)
        ours = _Ingest(folder / "workspace", image_path, label_path)
        peer = _Peer(folder / "case.h5", {"image": str(image_path), "label": str(label_path)})
        case = read_and_harmonise(ours.files)
        _compare(case.image.array, np.asarray(peer.resampled()["image"][0]))
        del case
        _time_checks(ours)
        record("harmonise memory", _peak_gib(image_path, label_path, folder), MOST_GIB, "GiB")
        run_in_turn("harmonise", partial(_kept, ours), partial(_handed_back, peer), repeats=5)


def _kept(ours: Callable[[], None]) -> None:
    keep_freed_memory.cache_clear()
    ours()


def _handed_back(peer: Callable[[], None]) -> None:
    """Run the peer with the memory it has in a process of its own: glibc's limits at their largest by themselves."""
    limit_memory(own_pages=2**25, kept=2**26, ahead=2**17)
    peer()


class _Ingest:
    """The whole ingest step, a new case a call: raw bytes hashed, read, checked, harmonised, written, committed."""

    def __init__(self, workspace: Path, image_path: Path, label_path: Path) -> None:
        self.settings = Settings(workspace=workspace, spacing_mm=SPACING_MM)
        self.files = CaseFiles("btcv", "0000", (image_path,), (label_path,))
        self._numbers = count()

    def __call__(self) -> None:
        files = replace(self.files, native_id=f"{next(self._numbers):04d}")
        outcome = ingest_case(IngestRequest("btcv", files), self.settings)
        if outcome.outcome != "ingested":
            raise ValueError(f"harmonise: the case was {outcome.outcome}: {outcome.message}")


class _Peer:
    """MONAI's transforms of the reference, and its file: one gzip h5."""

    def __init__(self, target: Path, paths: dict[str, str]) -> None:
        from monai.transforms import CropForegroundd, EnsureChannelFirstd, LoadImaged, Orientationd, Spacingd

        self._target, self._paths = target, paths
        self._steps: list[Callable[[Any], Any]] = [
            LoadImaged(KEYS),
            EnsureChannelFirstd(KEYS),
            Orientationd(KEYS, axcodes="RAS", labels=None),
            Spacingd(KEYS, pixdim=SPACING_MM, mode=("bilinear", "nearest")),
        ]
        self._crop = CropForegroundd(KEYS, source_key="image", select_fn=lambda image: image > -900)

    def resampled(self) -> dict[str, Any]:
        made: Any = dict(self._paths)
        for step in self._steps:
            made = step(made)
        return dict(made)

    def __call__(self) -> None:
        made = self._crop(self.resampled())
        with h5py.File(self._target, "w") as stream:
            for key in KEYS:
                stream.create_dataset(key, data=made[key].numpy(), compression="gzip")


def read_and_harmonise(files: CaseFiles) -> HarmonisedCase:
    card = load_card("btcv")
    return harmonise(reader_for(card).read_case(files, card), card, SPACING_MM, files)


def _peak_gib(image_path: Path, label_path: Path, folder: Path) -> float:
    """Return how much the resident memory of a fresh process grows while it ingests the case."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from benchmarks.harmonise import _Ingest\n"
        "def kib(field): return int(Path('/proc/self/status').read_text().split(field + ':')[1].split()[0])\n"
        "ours = _Ingest(*map(Path, sys.argv[1:]))\n"
        "before = kib('VmRSS')\n"
        "ours()\n"
        "print((kib('VmHWM') - before) / 2**20)\n"
    )
    command = [sys.executable, "-c", code, str(folder / "fresh"), str(image_path), str(label_path)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _time_checks(ours: _Ingest) -> None:
    """Time the ingest with every check of values, grid and sides, and without; `peer` is the one without."""

    def unchecked() -> None:
        with ExitStack() as stack:
            for module, name, passing in (
                (read, "check_hu", lambda *_: None),
                (read, "check_label_values", lambda label, *_: label),
                (read, "clear_padding", lambda image: image),
                (label_map, "check_label_values", lambda label, *_: label),
                (label_map, "_refuse_mirrored", lambda *_: None),
                (ingest_case_module, "plausibility_flags", lambda *_: []),
            ):
                stack.enter_context(patch.object(module, name, passing))
            ours()

    run_in_turn("validation", ours, unchecked, repeats=15)


def _compare(ours: np.ndarray, peer: np.ndarray) -> None:
    if ours.shape != peer.shape or np.abs(ours - peer).max() > SAME_HU:
        raise ValueError(
            f"harmonise: shapes {ours.shape} and {peer.shape}, largest difference "
            f"{np.abs(ours - peer).max() if ours.shape == peer.shape else 'unknown'} HU, expected at most {SAME_HU}"
        )
