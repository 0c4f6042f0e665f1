"""Masks drawn as DICOM slices of their own: foreground and place of each, put onto the image they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_header import PARSE_ERRORS, SliceHeader, read_header
from imaging.dicom_pixels import read_stored
from imaging.dicom_seg import Plane, Segment, place_segment
from imaging.dicom_series import LPS_TO_RAS
from imaging.errors import BadInput
from imaging.volume import Volume


@dataclass(frozen=True, eq=False)
class MaskSlice:
    """inside: (rows, columns) bool. position: ImagePositionPatient in RAS mm; cosines, spacing: as stored; or None."""

    inside: NDArray[np.bool_]
    position: NDArray[np.float64] | None
    cosines: NDArray[np.float64] | None
    spacing: NDArray[np.float64] | None


def read_mask_slice(path: Path, ordinal: int, where: str) -> MaskSlice:
    """Return one mask slice, stored values other than 0 being foreground; BadInput for a file that does not decode."""
    try:
        header = read_header(path, ordinal)
    except FileNotFoundError:
        raise
    except PARSE_ERRORS as error:
        raise BadInput("dicom_unreadable", where, f"mask file {ordinal} unreadable ({error.__class__.__name__})",
                       "a whole DICOM file", "fetch the case again") from error  # fmt: skip
    stored, _ = read_stored(header, where)
    position = _numbers(header, "ImagePositionPatient", 3, where)
    return MaskSlice(
        stored != 0,
        None if position is None else position * LPS_TO_RAS,
        _numbers(header, "ImageOrientationPatient", 6, where),
        _numbers(header, "PixelSpacing", 2, where),
    )


def place_slices(slices: Sequence[MaskSlice], image: Volume, where: str) -> Volume:
    """Return mask slices as one mask (X, Y, Z) bool on the image's grid, by their positions.

    A slice without orientation or spacing is taken to have the image's. Raises BadInput where one has no position while
    others have, and where one does not coincide with a slice of the image or shares its place with another.
    """
    columns, rows = image.affine[:3, 0], image.affine[:3, 1]
    planes: list[Plane] = []
    for ordinal, one in enumerate(slices, start=1):
        if one.position is None:
            raise BadInput("dicom_tag", where, f"mask file {ordinal} without a usable ImagePositionPatient (0020,0032)",
                           "a position in all masks of a structure, or in none", "fetch the case again")  # fmt: skip
        column, row = columns, rows
        if one.cosines is not None and one.spacing is not None:
            column = one.cosines[:3] * one.spacing[1] * LPS_TO_RAS
            row = one.cosines[3:] * one.spacing[0] * LPS_TO_RAS
        planes.append(Plane(one.inside, one.position, column, row))
    return place_segment(Segment(1, "", "", "BINARY", tuple(planes)), image, where)


def _numbers(header: SliceHeader, keyword: str, count: int, where: str) -> NDArray[np.float64] | None:
    return header.numbers(keyword, count, where) if header.fields.get(keyword) not in (None, "") else None
