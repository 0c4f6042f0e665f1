"""A cohort with planted trouble: half of its scans are good, the others have something that must be noticed.

Every scan is valid as a file and passes the checks of an ingest; what is wrong shows in what is seen on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets_registry.miniatures.case_scans import patient_scan
from datasets_registry.miniatures.local_set import named_by_reader
from datasets_registry.miniatures.scan_changes import Scan
from datasets_registry.miniatures.scans import lesions_of
from datasets_registry.miniatures.styles import EXTERNAL_STYLE
from datasets_registry.miniatures.truth import separate_folders
from imaging.nifti import write_nifti

METAL_HU = 3071
REMOVED = ("spleen", "left_kidney", "gall_bladder", "right_kidney", "stomach")
"""Organs that the patients of `missing_organ` lack, in turn."""
OFFSETS_HU = (150, -200, 250, -300)
SLOPE = 1.3
"""What every fifth scan of `shifted_hu` is multiplied with, counted from -1024, in place of an offset."""
SLABS_MM = ((20.0, 100.0), (-40.0, 30.0), (60.0, 130.0))
NOISES_HU = (180.0, 220.0, 260.0)


@dataclass(frozen=True)
class Planted:
    """One scan of the cohort. trouble: a name of `TROUBLES`, or `none`. detail: in words. organ: the one missing."""

    native_id: str
    trouble: str
    detail: str
    organ: str | None = None


@dataclass(frozen=True, eq=False)
class _Troubled:
    scan: Scan
    detail: str
    organ: str | None = None


Trouble = Callable[[str, int, int], _Troubled]
"""Makes the scan of a patient by name, seed, and how many scans of this trouble there were before."""


def troubled_patient(name: str, seed: int, turn: int, anatomy: tuple[str, ...] = ()) -> Scan:
    """Return the scan of a patient before anything happens to it. anatomy: names of `peculiar.PECULIAR`."""
    style = replace(EXTERNAL_STYLE, anatomy=anatomy)
    return patient_scan(name, seed, style, lesions_of(turn, style, None))


def _good(name: str, seed: int, turn: int) -> _Troubled:
    return _Troubled(troubled_patient(name, seed, turn), "nothing")


def _missing_organ(name: str, seed: int, turn: int) -> _Troubled:
    organ = REMOVED[turn % len(REMOVED)]
    return _Troubled(troubled_patient(name, seed, turn, (f"no_{organ}",)), f"no {organ}", organ)


def _mirrored(name: str, seed: int, turn: int) -> _Troubled:
    """Voxels left and right exchanged, the affine left as it was; the truth is of what is seen."""
    scan = troubled_patient(name, seed, turn)
    axis = int(np.abs(scan.image.affine[0, :3]).argmax())
    image = scan.image.with_array(np.ascontiguousarray(np.flip(scan.image.array, axis)))
    return _Troubled(replace(scan, image=image, bits=np.flip(scan.bits, 1 + axis)), "left and right exchanged")


def _shifted_hu(name: str, seed: int, turn: int) -> _Troubled:
    scan = troubled_patient(name, seed, turn)
    place = turn % (len(OFFSETS_HU) + 1)
    values = scan.image.array.astype(np.float32)
    if place < len(OFFSETS_HU):
        values, detail = values + OFFSETS_HU[place], f"{OFFSETS_HU[place]:+d} HU"
    else:
        values, detail = (values + 1024) * SLOPE - 1024, f"values x {SLOPE} above -1024"
    return _Troubled(_with_hu(scan, values), detail)


def _cropped(name: str, seed: int, turn: int) -> _Troubled:
    """A slab of some centimetres, or for every second scan the right half of the body alone."""
    scan = troubled_patient(name, seed, turn)
    world, (low, high) = (0, (0.0, 1000.0)) if turn % 2 else (2, SLABS_MM[turn // 2 % len(SLABS_MM)])
    axis = int(np.abs(scan.image.affine[world, :3]).argmax())
    places = scan.image.affine[world, axis] * np.arange(scan.image.shape[axis]) + scan.image.affine[world, 3]
    kept = np.flatnonzero((places >= low) & (places <= high))
    window = tuple(slice(int(kept[0]), int(kept[-1]) + 1) if a == axis else slice(None) for a in range(3))
    shift = np.eye(4)
    shift[axis, 3] = kept[0]
    image = replace(scan.image, array=np.ascontiguousarray(scan.image.array[window]), affine=scan.image.affine @ shift)
    bits = np.ascontiguousarray(scan.bits[(slice(None), *window)])
    detail = "the right half of the body" if world == 0 else f"{low:.0f} to {high:.0f} mm along the body"
    return _Troubled(replace(scan, image=image, bits=bits, true_affine=scan.true_affine @ shift), detail)


def _noise(name: str, seed: int, turn: int) -> _Troubled:
    scan = troubled_patient(name, seed, turn)
    noise = NOISES_HU[turn % len(NOISES_HU)]
    random = np.random.default_rng([seed, turn])
    values = scan.image.array + noise * random.standard_normal(scan.image.shape, dtype=np.float32)
    return _Troubled(_with_hu(scan, values), f"noise of {noise:.0f} HU")


def _metal(name: str, seed: int, turn: int) -> _Troubled:
    """A rod beside the spine or in a hip, and in its planes bright and dark streaks that fade with the distance."""
    scan = troubled_patient(name, seed, turn)
    x, y, low, high = ((28.0, -88.0, 0.0, 90.0), (-88.0, -8.0, -215.0, -150.0))[turn % 2]
    grid = np.indices(scan.image.shape, dtype=np.float32)
    world = [
        np.tensordot(scan.true_affine[row, :3].astype(np.float32), grid, 1) + np.float32(scan.true_affine[row, 3])
        for row in range(3)
    ]
    across, along = world[0] - x, world[1] - y
    distance = np.hypot(across, along)
    planes = (world[2] >= low) & (world[2] <= high)
    streaks = 9000.0 * np.cos(6 * np.arctan2(along, across)) / np.maximum(distance, 12.0)
    values = np.where(planes & (scan.image.array > -300), scan.image.array + streaks, scan.image.array)
    values = np.where(planes & (distance <= 8.0), METAL_HU, values)
    return _Troubled(_with_hu(scan, values), f"a rod of {high - low:.0f} mm at x = {x:.0f} mm")


def _with_hu(scan: Scan, values: NDArray[np.floating[Any]]) -> Scan:
    array = np.clip(np.rint(values), -32768, 32767).astype(np.int16)
    return replace(scan, image=scan.image.with_array(np.minimum(array, METAL_HU)))


TROUBLES: dict[str, Trouble] = {
    "missing_organ": _missing_organ,
    "mirrored": _mirrored,
    "shifted_hu": _shifted_hu,
    "cropped": _cropped,
    "noise": _noise,
    "metal": _metal,
}


def write_troubled(folder: Path, *, cases: int, seed: int, truth_folder: Path, dataset: str = "local") -> list[Planted]:
    """Write `cases` scans as NIfTI files for the card `local`, good and troubled ones in turn; return which is which.

    The kinds of trouble take turns too. The truth, of what each scan shows, goes to
    `truth_folder/<dataset>/<native id>.npz`. The same seed gives the same bytes. `folder` must not hold other scans.
    """
    folder, truth_folder = separate_folders(folder, truth_folder)
    kinds = tuple(TROUBLES)
    truths: dict[Path, Scan] = {}
    made: list[tuple[str, _Troubled]] = []
    for case in range(cases):
        kind = kinds[case // 2 % len(kinds)] if case % 2 else "none"
        turn = case // (2 * len(kinds)) if case % 2 else case // 2
        found = TROUBLES.get(kind, _good)(f"trouble/{case}", seed, turn)
        place = folder / f"scan_{case:03d}.nii.gz"
        write_nifti(found.scan.image, place)
        truths[place] = found.scan
        made.append((kind, found))
    ids = named_by_reader(folder, truths, truth_folder, dataset)
    return [
        Planted(native_id, kind, found.detail, found.organ) for native_id, (kind, found) in zip(ids, made, strict=True)
    ]
