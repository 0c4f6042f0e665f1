"""Write masks out in the geometry of the scan as it was read: one multi-label NIfTI and the names of its values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.nifti import write_nifti
from imaging.resample import Grid, resample_bits
from imaging.volume import Volume

FORMATS = ("nifti", "nifti_per_class", "dicom_seg", "rtstruct", "seg_nrrd", "abdomenatlas")


def original_grid(case: dict[str, Any]) -> Grid:
    """Return the voxel grid the scan of a `cases` row was read on."""
    shape = tuple(int(n) for n in case["original_shape"])
    return Grid((shape[0], shape[1], shape[2]), np.asarray(case["original_affine"], dtype=float).reshape(4, 4))


def multi_label(bits: NDArray[np.uint32], class_names: Sequence[str]) -> NDArray[np.uint8]:
    """Return one integer label per voxel, (X, Y, Z): the class index, 0 for none.

    Classes overlap in the bits; here organs are painted first, then vessels, then lesions, so that the most specific
    class is seen.
    """
    label = np.zeros(bits.shape[1:], dtype=np.uint8)
    rank = {"organ": 0, "vessel": 1, "cyst": 2, "tumour": 3}
    for info in sorted((class_info(name) for name in class_names), key=lambda item: (rank[item.kind], item.index)):
        label[get_channel(bits, info.channel)] = info.index
    return label


def export_case(
    case: dict[str, Any],
    bits: NDArray[np.uint32],
    class_names: Sequence[str],
    folder: Path,
    about: dict[str, Any],
    *,
    formats: Sequence[str] = ("nifti",),
    profile: str = "research",
    source_series: Path | None = None,
    probabilities: Mapping[str, Any] | None = None,
    image: Volume | None = None,
) -> list[Path]:
    """Write one case's masks into folder/<native id>/ in the scan's original geometry; return the files made.

    bits: (W, X, Y, Z) on the lake grid. formats: of `FORMATS`. profile: research, public or commercial; see
    `tasks.licences.check_profile`. source_series: folder of the DICOM series, for dicom_seg and rtstruct.
    image: the scan on the lake grid, HU, for mean HU and ct.nii.gz.
    """
    affine = np.asarray(case["affine"], dtype=float).reshape(4, 4)
    target = folder / str(case["native_id"])
    grid = original_grid(case)
    return [export_classes(resample_bits(bits, affine, grid), grid, class_names, target, about)]


def export_classes(
    bits: NDArray[np.uint32], grid: Grid, class_names: Sequence[str], target: Path, about: dict[str, Any]
) -> Path:
    """Write `segmentation.nii.gz` and `segmentation.json` into `target`; bits (W, X, Y, Z) lie on `grid`."""
    values = {
        str(class_info(name).index): name for name in sorted(class_names, key=lambda name: class_info(name).index)
    }
    return _write(multi_label(bits, class_names), grid, target / "segmentation.nii.gz", {**about, "values": values})


def export_free_text(
    bits: NDArray[np.uint32], grid: Grid, channel: int, text: str, target: Path, about: dict[str, Any]
) -> Path:
    """Write the mask of a free text, 0 and 1, as `experimental_<text>.nii.gz` and .json; see `export_classes`."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "prompt"
    path = target / f"experimental_{name}.nii.gz"
    note = "EXPERIMENTAL: the model was never trained on this, it was found by its words alone"
    label = get_channel(bits, channel).astype(np.uint8)
    return _write(label, grid, path, {**about, "experimental": True, "note": note, "values": {"1": text}})


def _write(label: NDArray[np.uint8], grid: Grid, path: Path, about: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume(label, grid.affine), path)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(about, indent=2) + "\n")
    return path
