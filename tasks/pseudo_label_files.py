"""Files of a labelled case outside of the lake: exports in the scan's own geometry, and a picture."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.writing import naming_the_write
from datasets_registry.taxonomy import class_info
from imaging.bits import Bits
from imaging.overlay import overlay_png
from imaging.volume import Volume
from tasks.export import export_case
from tasks.export_subject import Origin
from tasks.pseudo_label_plan import LabelRun, PseudoLabelRequest

NOTE = "made.json"
"""Written last: says of which masks the files are, and which they are. Without it nothing counts as written."""


@dataclass(frozen=True)
class FilesMade:
    """The files of one case; segmentation: the multi-label NIfTI, where one was asked for."""

    segmentation: Path | None = None
    overlay: Path | None = None


def files_of_case(run: LabelRun, request: PseudoLabelRequest, rows: Sequence[dict[str, Any]]) -> FilesMade | None:
    """Return the files of the annotation of `rows` where all of them are there as this run wants them, else None."""
    folder = _folder(run, request)
    try:
        note = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return None
    if not rows or {key: note.get(key) for key in _wanted(run, rows)} != _wanted(run, rows):
        return None
    files = [folder / name for name in note.get("files", ())]
    return _made(files) if all(file.is_file() for file in files) else None


def write_files(
    run: LabelRun, request: PseudoLabelRequest, rows: Sequence[dict[str, Any]], bits: Bits, image: Volume
) -> FilesMade:
    """Export the masks of one case and draw them. bits: (W, X, Y, Z) on the grid of `image`, HU in RAS.

    Raises WriteFailed, with path and bytes, where the disk refuses; what was written then does not count, and the next
    run writes it again.
    """
    folder = _folder(run, request)
    classes = [str(row["class_name"]) for row in rows]
    with naming_the_write(folder, bits.nbytes):
        _sweep(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTE).unlink(missing_ok=True)
        files = export_case(
            request.case,
            bits,
            classes,
            run.export_folder,
            _about(run, request, rows),
            formats=run.spec.export.formats,
            profile=run.spec.export.profile,
            source_series=None if run.spec.export.source is None else Path(run.spec.export.source),
            image=image,
            origins={name: Origin("pseudo", run.teacher.title, request.licence) for name in classes},
        )
        shown = {class_info(name).channel: (class_info(name).title, class_info(name).colour) for name in classes}
        title = f"{request.case_id}, {run.teacher.title}"
        files.append(overlay_png(image, bits, shown, folder / "overlay.png", title=title))
        names = sorted(os.path.relpath(file, folder) for file in files)
        aside = folder / f".{NOTE}.{os.getpid()}.part"
        aside.write_text(json.dumps({**_wanted(run, rows), "files": names}, indent=2) + "\n")
        aside.replace(folder / NOTE)
    return _made(files)


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed left half-written, in the folder of a case and beside it."""
    for left in (*folder.glob(".*.part"), *folder.parent.glob(f".{folder.name}.*.part")):
        process = left.name.split(".")[-2]
        if process.isdecimal() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _folder(run: LabelRun, request: PseudoLabelRequest) -> Path:
    return run.export_folder / str(request.case["native_id"])


def _wanted(run: LabelRun, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the files depend on."""
    return {
        "annotation": str(rows[0]["annotation"]),
        "classes": sorted(str(row["class_name"]) for row in rows),
        "formats": sorted(run.spec.export.formats),
        "profile": run.spec.export.profile,
    }


def _made(files: Sequence[Path]) -> FilesMade:
    by_name = {file.name: file for file in files}
    return FilesMade(by_name.get("segmentation.nii.gz"), by_name.get("overlay.png"))


def _about(run: LabelRun, request: PseudoLabelRequest, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "case_id": request.case_id,
        "annotation": str(rows[0]["annotation"]),
        "model": run.teacher.title,
        "state": "pseudo",
        "scan_licence": request.case["licence"],
        "model_licence": run.teacher.licence,
        "decisions": {str(row["class_name"]): row["decision"] for row in rows},
        "note": "made by a model, not by an annotator",
    }
