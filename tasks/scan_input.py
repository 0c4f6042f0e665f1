"""A scan from a file, a folder or an array onto the grid of a model, and the grid it came on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, reader_for
from datasets_registry.layouts.cases import RawCase, file_digest
from datasets_registry.layouts.local import pseudonym
from datasets_registry.layouts.local_labels import label_files
from datasets_registry.layouts.read import join
from imaging.resample import Grid
from imaging.volume import Volume
from tasks.export import original_grid
from tasks.harmonise import harmonise

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ScanOnGrid:
    """A scan on the model's grid, RAS int16 HU, and the grid it came on. licence: of the scan, None where not known."""

    name: str
    image: Volume
    original: Grid
    licence: str | None = None


def scan_of_path(path: Path, spacing_mm: Spacing) -> ScanOnGrid:
    """Return the scan of a NIfTI or NRRD file, or of a folder with one DICOM series; it goes by a pseudonym.

    Raises BadInput for what cannot be CT, ValueError for a folder of several scans.
    """
    card = load_card("local")
    reader = reader_for(card)
    if path.is_dir():
        listing = reader.list_cases(path.absolute(), card)
        for _, problem in listing.problems:
            raise problem
        if len(listing.cases) != 1:
            raise ValueError(
                f"{path}: {len(listing.cases)} scans, expected one; give the folder of one series, or ingest all with "
                "`ctfactory ingest local` and label them with `ctfactory pseudo-label`"
            )
        files = replace(listing.cases[0], label=())
    else:
        parts = label_files(path.absolute(), path.name)
        files = CaseFiles(card.id, pseudonym(file_digest(part) for part in parts), parts)
    return _on_grid(reader.read_case(files, card), files, spacing_mm)


def scan_of_array(array: NDArray[Any], affine: NDArray[Any], spacing_mm: Spacing) -> ScanOnGrid:
    """Return the scan of an array (X, Y, Z) in HU, and its affine, 4 x 4, voxel index to world mm in RAS.

    Raises BadInput for values that cannot be HU and for an affine that is none.
    """
    files = CaseFiles("local", "array", ())
    raw = join(Volume(np.asarray(array), np.asarray(affine, dtype=np.float64)), None, load_card("local"), files.where)
    return _on_grid(raw, files, spacing_mm)


def _on_grid(raw: RawCase, files: CaseFiles, spacing_mm: Spacing) -> ScanOnGrid:
    harmonised = harmonise(raw, load_card("local"), spacing_mm, files)
    return ScanOnGrid(files.native_id, harmonised.image, original_grid(harmonised.geometry))
