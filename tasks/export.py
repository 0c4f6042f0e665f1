"""Write a case's masks out in the geometry of the scan as it was read, in the formats of its users."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.taxonomy import class_info
from imaging.bits import Bits, get_channel
from imaging.layers import paint
from imaging.nifti import read_nifti, write_nifti
from imaging.resample import Grid
from imaging.resample_masks import BoxedField, Form, resample_masks
from imaging.volume import Volume
from tasks.export_dicom import CaseSource, find_source, write_dicom_seg, write_rtstruct
from tasks.export_files import write_atlas, write_multi_label, write_per_class, write_slicer
from tasks.export_staging import RECORD, publish, staged
from tasks.export_statistics import write_statistics
from tasks.export_subject import PAINT_ORDER, ExportSubject, Origin
from tasks.licences import LabelLicence, check_profile, joined, licence_of, strictest

FORMATS = ("nifti", "nifti_per_class", "seg_nrrd", "dicom_seg", "rtstruct", "abdomenatlas")
DICOM_FORMATS = ("dicom_seg", "rtstruct")
STATISTICS = "statistics.csv"
FORMAT_VERSION = 1
"""Of the JSON beside an export."""


def original_grid(case: Mapping[str, Any]) -> Grid:
    """Return the voxel grid the scan of a `cases` row was read on."""
    shape = tuple(int(n) for n in case["original_shape"])
    return Grid((shape[0], shape[1], shape[2]), np.asarray(case["original_affine"], dtype=float).reshape(4, 4))


def check_formats(formats: Sequence[str]) -> None:
    """Raise ValueError for a format that does not exist, or for none."""
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"format {', '.join(map(repr, unknown))}, expected one of {', '.join(FORMATS)}")
    if not formats:
        raise ValueError(f"no format, expected at least one of {', '.join(FORMATS)}")


def multi_label(bits: Bits, class_names: Sequence[str]) -> NDArray[Any]:
    """Return one integer label a voxel, (X, Y, Z): the class index, 0 for none.

    Classes overlap in the bits; here organs are painted first, then vessels, then lesions, so that the most specific
    class is seen.
    """
    ordered = sorted((class_info(name) for name in class_names), key=lambda info: (PAINT_ORDER[info.kind], info.index))
    return paint(bits, {info.channel: info.index for info in ordered})


def export_case(
    case: dict[str, Any],
    bits: NDArray[np.uint32],
    class_names: Sequence[str],
    folder: Path,
    about: dict[str, Any],
    *,
    formats: Sequence[str] = ("nifti",),
    profile: str = "research",
    source_series: Path | Sequence[Path] | None = None,
    probabilities: Mapping[str, BoxedField] | None = None,
    image: Volume | None = None,
    origins: Mapping[str, Origin] | None = None,
    keep_patient: bool = False,
) -> list[Path]:
    """Write one case's masks into folder/<native id>/ in the scan's original geometry; return the files made.

    case: its `cases` row. bits: (W, X, Y, Z) on the lake grid. formats: of `FORMATS`; `statistics.csv` and
    `segmentation.json` are always written. about: what a reader of the files must know, such as `model`, `state`,
    `model_licence`; it goes into the JSON. profile: research, public or commercial, see `tasks.licences.check_profile`.
    source_series: folder or files of the source (DICOM series; of `abdomenatlas` also a NIfTI file).
    probabilities: of classes, on the lake grid; resampled instead of the mask where given. image: the scan on the lake
    grid, HU, for mean HU and, without a source, ct.nii.gz. origins: class -> where its mask comes from, instead of
    `model` and `state` of `about` for all. keep_patient: see `tasks.export_dicom.find_source`.
    Files are moved into place once all are written, so a full disk leaves nothing; a second call writes them again.
    Raises LicenceRefused, FileNotFoundError for a source that is needed and not there, OSError.
    """
    check_formats(formats)
    where = str(case["case_id"])
    origins = origins or _one_origin(class_names, about)
    licence = label_licence(case, origins, about)
    check_profile(profile, licence, where)
    source = None
    if any(name in DICOM_FORMATS for name in formats):
        source = find_source(case, source_series, keep_patient=keep_patient)
    grid, lake_affine = original_grid(case), np.asarray(case["affine"], dtype=float).reshape(4, 4)
    fields = {class_info(name).channel: one for name, one in (probabilities or {}).items()}
    form: Form = "probability" if fields else "linear"
    on_grid = resample_masks(bits, lake_affine, grid, form=form, probabilities=fields)
    subject = ExportSubject(where, grid, on_grid, {name: origins[name] for name in class_names}, image, bits, form)
    on_slices = None
    if source is not None:
        # a tilted gantry's slices are not the straight grid of its volume
        slices = source.headers.grid
        same = grid.shape == slices.shape and np.allclose(grid.affine, slices.affine, atol=1e-4)
        on_slices = on_grid if same else resample_masks(bits, lake_affine, slices, form=form, probabilities=fields)
    about = {
        **about,
        "licence": licence.licence,
        "non_commercial": licence.non_commercial,
        "licence_sources": list(licence.sources),
        "profile": profile,
    }
    return _write(subject, folder / str(case["native_id"]), about, formats, source, on_slices, source_series)


def label_licence(case: Mapping[str, Any], origins: Mapping[str, Origin], about: Mapping[str, Any]) -> LabelLicence:
    """Return the strictest licence over the classes of a case's export.

    A class by a model inherits that of scan and model (`model_licence` of `about`), unless its origin states one; a
    human one has the scan's.
    """
    scan = licence_of(case.get("licence"), case.get("non_commercial"))
    by_model = strictest(case.get("licence"), about.get("model_licence"), case.get("non_commercial"))
    return joined(
        [origin.licence or (scan if origin.model is None else by_model) for origin in origins.values()] or [scan]
    )


def export_classes(
    bits: NDArray[np.uint32],
    grid: Grid,
    class_names: Sequence[str],
    target: Path,
    about: dict[str, Any],
    formats: Sequence[str] = ("nifti",),
) -> Path:
    """Write masks that lie on the scan's own `grid` already into `target`; return the first file, the NIfTI's.

    Formats that need no source; see `export_case`.
    """
    subject = ExportSubject(str(about.get("scan", "scan")), grid, bits, _one_origin(class_names, about))
    return _write(subject, target, about, formats)[0]


def _one_origin(class_names: Sequence[str], about: Mapping[str, Any]) -> dict[str, Origin]:
    models = about.get("model") or ", ".join(about.get("models", ()))
    state = str(about.get("state") or ("pseudo" if models else "annotated"))
    return dict.fromkeys(class_names, Origin(state, str(models) if models else None))


def _write(
    subject: ExportSubject,
    target: Path,
    about: dict[str, Any],
    formats: Sequence[str],
    source: CaseSource | None = None,
    on_slices: NDArray[np.uint32] | None = None,
    source_files: Path | Sequence[Path] | None = None,
) -> list[Path]:
    record = {"format": FORMAT_VERSION, "case_id": subject.case_id, **about, **subject.described()}
    with staged(target) as aside:
        for name in dict.fromkeys(formats):
            if name == "nifti":
                record |= write_multi_label(subject, multi_label(subject.bits, list(subject.origins)), aside)
            elif name == "nifti_per_class":
                record |= write_per_class(subject, aside)
            elif name == "seg_nrrd":
                record |= write_slicer(subject, aside)
            elif name == "abdomenatlas":
                scan = source.scan if source is not None else _read_scan(source_files)
                record |= write_atlas(subject, aside, scan)
            elif source is None or on_slices is None:
                raise ValueError(f"{subject.case_id}: {name} needs the source series")
            else:
                write = write_dicom_seg if name == "dicom_seg" else write_rtstruct
                record |= write(subject, on_slices, source.headers, aside)
                if source.headers.tilt_degrees > 1e-3:
                    record["gantry_tilt_degrees"] = round(source.headers.tilt_degrees, 3)
        write_statistics(subject, aside / STATISTICS, about.get("licence"))
        made = publish(aside, target, record)
    first = {"nifti": "segmentation.nii.gz"}.get(formats[0])
    return sorted(made, key=lambda path: (path.name != first, path.name == RECORD, path))


def _read_scan(files: Path | Sequence[Path] | None) -> Volume | None:
    """Return the scan of a NIfTI source; None for a folder, whose scan is not known here, or for no source."""
    paths = [files] if isinstance(files, Path) else list(files or ())
    if len(paths) == 1 and paths[0].is_file() and paths[0].name.endswith((".nii", ".nii.gz")):
        return read_nifti(paths[0], where="the source")
    return None


def export_free_text(
    bits: NDArray[np.uint32], grid: Grid, channel: int, text: str, target: Path, about: dict[str, Any]
) -> Path:
    """Write the mask of a free text, 0 and 1, as `experimental_<text>.nii.gz` and .json; see `export_classes`."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "prompt"
    path = target / f"experimental_{name}.nii.gz"
    note = "EXPERIMENTAL: the model was never trained on this, it was found by its words alone"
    label = get_channel(bits, channel).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_nifti(Volume(label, grid.affine), path)
    told = {**about, "experimental": True, "note": note, "values": {"1": text}}
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps(told, indent=2) + "\n")
    return path
