"""`export`: masks brought back to the scan's own grid: what is lost by which form, and how long it takes.

`export form`: 1 - mean DSC against the full truth of miniatures on their own grid, of the lake's truth (6 mm, as in
the demo) interpolated as 0 and 1, against its nearest voxel. With CTFACTORY_BENCH_MODEL=FILE.safetensors also of that
model's masks (`export form, model`), and of its probabilities in place of its masks (`export form, probability`).
`export time`: 12 classes of 200 x 170 x 110 at 1.5 mm onto 400 x 400 x 80, against SimpleITK on each whole mask.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmarks.side_by_side import record, run_in_turn
from datasets_registry.miniatures.case_scans import patient_scan
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.scans import lesions_of
from datasets_registry.miniatures.styles import EXTERNAL_STYLE
from datasets_registry.taxonomy import class_info, class_names
from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.components import bounding_box, box_slices
from imaging.metrics import dice
from imaging.resample import Grid, grid_for, index_map, orient_ras, resample_bits, resample_image
from imaging.resample_masks import BoxedField, resample_masks
from models.checkpoint import load_model
from models.infer import Predictor
from models.infer_network import Query
from models.infer_scan import ArrayScan

LAKE_MM = (6.0, 6.0, 6.0)
OWN_MM = (EXTERNAL_STYLE.spacing_mm, (2.0, 2.0, 3.0))
PATIENTS = 3
CLASSES = 12
MODEL_VARIABLE = "CTFACTORY_BENCH_MODEL"


def main() -> None:
    _forms()
    if os.environ.get(MODEL_VARIABLE):
        _forms_of_model(Path(os.environ[MODEL_VARIABLE]))
    _time()


def _scans() -> Iterator[tuple[Scan, Grid, Grid]]:
    """Yield scans with full truth, the lake's grid and their own."""
    for spacing in OWN_MM:
        style = replace(EXTERNAL_STYLE, spacing_mm=spacing)
        for number in range(PATIENTS):
            scan = patient_scan(f"external/{number}", 11, style, lesions_of(number, style, None))
            yield scan, grid_for(orient_ras(scan.image), LAKE_MM), Grid.of(scan.image)


def _lost(scan: Scan, found: Bits, names: tuple[str, ...]) -> list[float]:
    """Return 1 - DSC of each class that the scan shows."""
    lost = []
    for name in names:
        truth = get_channel(scan.bits, class_info(name).channel)
        mask = get_channel(found, class_info(name).channel)
        box = bounding_box(truth | mask)
        if truth.any() and box is not None:
            lost.append(1 - dice(truth[box_slices(box)], mask[box_slices(box)]))
    return lost


def _forms() -> None:
    linear: list[float] = []
    nearest: list[float] = []
    for scan, lake, own in _scans():
        bits = resample_bits(scan.bits, scan.image.affine, lake)
        linear += _lost(scan, resample_masks(bits, lake.affine, own), class_names())
        nearest += _lost(scan, resample_bits(bits, lake.affine, own), class_names())
    record("export form", float(np.mean(linear)), float(np.mean(nearest)), "1-DSC")


def _forms_of_model(path: Path) -> None:
    model, metadata = load_model(path, "cpu")
    predictor, names = Predictor([model], metadata), metadata.model.classes
    lost: Mapping[str, list[float]] = {"nearest": [], "linear": [], "probability": []}
    for scan, lake, own in _scans():
        image = resample_image(orient_ras(scan.image), lake)
        prob = np.zeros((len(names), *lake.shape), dtype=np.float32)
        for slab in predictor.slabs(ArrayScan(image.array), Query(names, None)):
            prob[(slice(None), *slab.box)] = slab.logits.sigmoid().detach().numpy()
        bits = empty_bits(lake.shape, 32)
        fields = {}
        for name, field in zip(names, prob, strict=True):
            set_channel(bits, class_info(name).channel, field > 0.5)
            whole = (0, 0, 0, *lake.shape)
            fields[class_info(name).channel] = BoxedField(whole, np.rint(field * 255).astype(np.uint8))
        lost["nearest"].extend(_lost(scan, resample_bits(bits, lake.affine, own), names))
        lost["linear"].extend(_lost(scan, resample_masks(bits, lake.affine, own), names))
        found = resample_masks(bits, lake.affine, own, form="probability", probabilities=fields)
        lost["probability"].extend(_lost(scan, found, names))
    mean = {name: float(np.mean(values)) for name, values in lost.items()}
    record("export form, model", mean["linear"], mean["nearest"], "1-DSC")
    record("export form, probability", mean["probability"], mean["linear"], "1-DSC")


def _time() -> None:
    lake = Grid((200, 170, 110), np.diag([1.5, 1.5, 1.5, 1.0]))
    own = Grid((400, 400, 80), np.diag([0.74, 0.63, 2.0, 1.0]))
    bits = empty_bits(lake.shape, 32, order="F")
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in lake.shape], indexing="ij"), axis=-1).astype(np.float32)
    rng = np.random.default_rng(1)
    for channel in range(CLASSES):
        centre, radius = rng.uniform(30, 100, 3), rng.uniform(8, 40)
        set_channel(bits, channel, ((grid - centre) ** 2).sum(axis=-1) < radius**2)
    del grid
    matrix = index_map(lake.affine, own.affine)

    def peer() -> Bits:
        found = empty_bits(own.shape, 32, order="F")
        transform = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
        for channel in range(CLASSES):
            image = sitk.GetImageFromArray(get_channel(bits, channel).T.astype(np.float32))
            moved = sitk.Resample(image, list(own.shape), transform, sitk.sitkLinear, (0.0,) * 3, (1.0,) * 3)
            set_channel(found, channel, sitk.GetArrayFromImage(moved).T > 0.5)
        return found

    def ours() -> Bits:
        return resample_masks(bits, lake.affine, own)

    # at exactly a half the nearest voxel decides in ours
    unlike = np.bitwise_count(ours() ^ peer()).sum(dtype=np.int64) / np.bitwise_count(ours()).sum(dtype=np.int64)
    if unlike > 0.01:
        raise ValueError(f"export: {unlike:.2%} of the voxels differ from the peer's, expected only those at a half")
    run_in_turn("export time", ours, peer, repeats=3)
