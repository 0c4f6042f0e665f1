"""Exports as NIfTI and .seg.nrrd: one function a format, each writing into a folder and saying what is in its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.dicom_codes import Code, class_codes
from datasets_registry.taxonomy import ClassInfo
from imaging.bits import get_channel
from imaging.label_table import LabelEntry, itksnap_table, slicer_table
from imaging.nifti import write_nifti
from imaging.nrrd_write import SlicerSegment, write_seg_nrrd
from imaging.resample import resample_image
from imaging.volume import Volume
from tasks.export_subject import ExportSubject


def write_multi_label(subject: ExportSubject, label: NDArray[Any], folder: Path) -> dict[str, Any]:
    """Write one label a voxel, `segmentation.nii.gz`, with names and colours inside it and as tables for two viewers.

    label: (X, Y, Z), the index of a class. Returns the voxels of each class that another one covers.
    """
    write_nifti(Volume(label, subject.grid.affine), folder / "segmentation.nii.gz", subject.entries)
    (folder / "segmentation.itksnap.txt").write_text(itksnap_table(subject.entries), encoding="utf-8")
    (folder / "segmentation.ctbl").write_text(slicer_table(subject.entries), encoding="utf-8")
    seen = np.bincount(label.ravel(order="K"), minlength=256)
    covered = {info.name: subject.voxels[info.name] - int(seen[info.index]) for info in subject.classes}
    return {"painted_over": {name: voxels for name, voxels in covered.items() if voxels}}


def write_per_class(subject: ExportSubject, folder: Path) -> dict[str, Any]:
    """Write `classes/<class>.nii.gz`, 0 and 1, for every class, empty ones too: overlaps stay whole."""
    (folder / "classes").mkdir()
    for info in subject.classes:
        _write_mask(subject, info, folder / "classes" / f"{info.name}.nii.gz", info.name)
    return {"class_files": {info.name: f"classes/{info.name}.nii.gz" for info in subject.classes}}


def write_slicer(subject: ExportSubject, folder: Path) -> dict[str, Any]:
    """Write `segmentation.seg.nrrd`: names, colours, codes and extents, overlapping classes in layers of their own."""
    segments = [
        SlicerSegment(info.channel, entry, terminology(info))
        for info, entry in zip(subject.classes, subject.entries, strict=True)
    ]
    layers = write_seg_nrrd(folder / "segmentation.seg.nrrd", subject.bits, subject.grid, segments)
    return {"seg_nrrd_layers": layers}


def write_atlas(subject: ExportSubject, folder: Path, scan: Volume | None) -> dict[str, Any]:
    """Write `ct.nii.gz` and `segmentations/<class>.nii.gz`, the folder of a case of AbdomenAtlas.

    Sides stand behind the organ there (kidney_left). scan: the scan as it was read; without it `ct.nii.gz` is the
    lake's image brought back to the scan's grid, and the JSON says so. ValueError where there is neither.
    """
    if scan is not None:
        image, told = scan, "as the source has it"
    elif subject.image is not None:
        image = resample_image(subject.image, subject.grid)
        told = f"interpolated from the lake's {[round(s, 3) for s in subject.image.spacing_mm]} mm, not the source's"
    else:
        raise ValueError(f"{subject.case_id}: abdomenatlas needs the scan for ct.nii.gz; give the source or the image")
    if image.shape != subject.grid.shape or not np.allclose(image.affine, subject.grid.affine, atol=1e-3):
        raise ValueError(f"{subject.case_id}: the source's grid {image.shape} is not the scan's {subject.grid.shape}; "
                         "give the folder this case was ingested from")  # fmt: skip
    write_nifti(image, folder / "ct.nii.gz")
    (folder / "segmentations").mkdir()
    names = {info.name: atlas_name(info) for info in subject.classes}
    for info in subject.classes:
        _write_mask(subject, info, folder / "segmentations" / f"{names[info.name]}.nii.gz", names[info.name])
    return {"ct": told, "segmentation_files": {name: f"segmentations/{file}.nii.gz" for name, file in names.items()}}


def atlas_name(info: ClassInfo) -> str:
    """Return a class's name with its side behind: right_kidney -> kidney_right."""
    if info.side is None or not info.name.startswith(f"{info.side}_"):
        return info.name
    return f"{info.name.removeprefix(f'{info.side}_')}_{info.side}"


def _write_mask(subject: ExportSubject, info: ClassInfo, path: Path, name: str) -> None:
    mask = get_channel(subject.bits, info.channel).view(np.uint8)
    write_nifti(Volume(mask, subject.grid.affine), path, [LabelEntry(1, name, info.title, info.colour)])


def terminology(info: ClassInfo) -> str:
    """Return the codes of a class as 3D Slicer stores a terminology entry: context, category, type, modifier, region.

    Form: "context~category~type~modifier~anatomic context~region~region modifier", each code SCHEME^VALUE^MEANING.
    """
    codes = class_codes(info.name)

    def text(code: Code | None) -> str:
        return "^^" if code is None else f"{code[2]}^{code[0]}^{code[1]}"

    return "~".join(
        (
            "Segmentation category and type - DICOM master list",
            text(codes.category),
            text(codes.type),
            text(codes.modifier),
            "Anatomic codes - DICOM master list",
            text(codes.region),
            text(None),
        )
    )
