"""`scan`: a scan of 200 x 200 x 900 voxels against one of 200 x 200 x 300, and against whole-volume logits.

`tiny` with 32 classes, untrained, on two threads; the scan is read from a lake, finished slabs are written to a file.
Every run has a process of its own, whose peak memory is what the system saw.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.side_by_side import record
from catalog.lake import Lake
from datasets_registry.taxonomy import class_names
from imaging.bits import Bits, pack
from imaging.memory import peak_bytes
from imaging.volume import Volume
from models.infer import Predictor
from models.infer_windows import Box, WindowGrid, gaussian_weight
from models.sampling import window_hu
from models.settings import ModelSettings
from models.universal import UniversalModel, build_model

WIDTH, SHORT, LONG = 200, 300, 900
SETTINGS = ModelSettings(backbone="tiny")
REPEATS = 3


def main() -> None:
    """Measure in turn, `REPEATS` times, and record medians: memory in GiB, time in seconds for 300 planes."""
    with tempfile.TemporaryDirectory() as folder:
        rows = {planes: _store(Path(folder), planes) for planes in (SHORT, LONG)}
        runs: dict[tuple[str, int], list[dict[str, float]]] = {
            ("streamed", SHORT): [],
            ("streamed", LONG): [],
            ("whole_volume", SHORT): [],
        }
        for _ in range(REPEATS):
            for (form, planes), found in runs.items():
                found.append(_in_a_child(form, Path(folder), rows[planes]))

    def median(form: str, planes: int, what: str) -> float:
        return statistics.median(run[what] for run in runs[form, planes])

    record("scan memory", median("streamed", LONG, "gib"), median("streamed", SHORT, "gib"), "GiB")
    per_short = median("streamed", LONG, "seconds") * SHORT / LONG
    record("scan time", per_short, median("streamed", SHORT, "seconds"), "s")
    record("scan whole", median("streamed", SHORT, "gib"), median("whole_volume", SHORT, "gib"), "GiB")
    record("scan whole time", median("streamed", SHORT, "seconds"), median("whole_volume", SHORT, "seconds"), "s")


def _store(folder: Path, planes: int) -> dict[str, str]:
    """Write a scan of tissue all over, so that no window is air, into a lake; return its row."""
    random = np.random.default_rng(planes)
    coarse = random.integers(-100, 200, (WIDTH // 10, WIDTH // 10, planes // 10)).astype(np.int16)
    hu = coarse.repeat(10, axis=0).repeat(10, axis=1).repeat(10, axis=2)
    image = Volume(hu, np.diag([*SETTINGS.spacing_mm, 1.0]))
    stored = Lake(folder).write_case("bench", f"z{planes}", f"{planes:064d}", image, {})
    return {"case_id": f"bench/z{planes}", "path": stored.path, "manifest": stored.manifest.to_json()}


def _in_a_child(form: str, folder: Path, row: dict[str, str]) -> dict[str, float]:
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.scan", form, str(folder)],
        input=json.dumps(row),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(told.stdout)
    print(f"{form} {row['case_id']}: {found['seconds']:.1f} s, {found['gib']:.2f} GiB")
    return found


def streamed(model: UniversalModel, folder: Path, row: dict[str, Any]) -> None:
    """Predict a stored scan slab by slab; write each slab's bits to a file."""
    with (folder / "bits").open("wb") as stream:

        def write(_: Box, bits: Bits) -> None:
            stream.write(bits.tobytes())

        Predictor(model, SETTINGS).stream(Lake(folder).open_image(row), write)


@torch.inference_mode()
def whole_volume(model: UniversalModel, folder: Path, row: dict[str, Any]) -> None:
    """The usual form: sums of the logits of the whole scan, two windows a pass, then masks of all classes."""
    image = window_hu(np.ascontiguousarray(Lake(folder).open_image(row).read()), SETTINGS.hu_window)
    grid = WindowGrid((image.shape[0], image.shape[1], image.shape[2]), SETTINGS.patch, 0.5)
    total, weights = torch.zeros(len(SETTINGS.classes), *image.shape), torch.zeros(image.shape)
    weight = gaussian_weight(SETTINGS.patch)
    boxes = [(x, y, slice(start, start + SETTINGS.patch[2])) for start in grid.slab_starts for x, y, _ in grid.windows]
    for first in range(0, len(boxes), 2):
        pair = boxes[first : first + 2]
        for own, box in zip(model(torch.stack([image[box] for box in pair]).unsqueeze(1)), pair, strict=True):
            total[(slice(None), *box)] += own * weight
            weights[box] += weight
    masks = np.zeros((len(class_names()), *image.shape), dtype=bool)
    masks[list(SETTINGS.channels)] = ((total / weights).sigmoid() > 0.5).numpy()
    (folder / "bits").write_bytes(pack(masks).tobytes())


def child(form: Callable[[UniversalModel, Path, dict[str, Any]], None], folder: Path) -> None:
    """Run one form on the scan whose row comes in, and print seconds and the peak of this process."""
    row = json.load(sys.stdin)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    model = build_model(SETTINGS).eval()
    started = time.perf_counter()
    form(model, folder, row)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "gib": peak_bytes() / 2**30}))


if __name__ == "__main__":
    child({"streamed": streamed, "whole_volume": whole_volume}[sys.argv[1]], Path(sys.argv[2]))
