"""DICOM structure sets (RTSTRUCT): closed planar contours, filled on an image's slices."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_refs import check_frame, open_label
from imaging.dicom_series import LPS_TO_RAS
from imaging.errors import BadInput
from imaging.polygons import fill_polygons
from imaging.volume import Volume

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Contour types that enclose an area; both are filled by the even-odd rule (PS3.3 C.8.8.6)."""
PLANAR_MM = 0.1
"""A contour's points may leave its plane by this much: systems round to a tenth of a millimetre."""
SAME_PLANE_MM = 0.01
SNAP_DIGITS = 6
"""Coordinates are rounded to a millionth of a voxel, so that noise of the arithmetic decides nothing."""


@dataclass(frozen=True, eq=False)
class Structure:
    """One region of interest. name: free text, out of the text form, since it may hold anything.

    contours: closed and planar, (n, 3) RAS mm each. ignored: contours that enclose nothing (points, open lines).
    frame_uid: frame of reference.
    """

    number: int
    name: str = field(repr=False)
    contours: tuple[NDArray[np.float64], ...] = field(repr=False)
    ignored: int = 0
    frame_uid: str = field(repr=False, default="")


def read_structures(path: Path, *, where: str | None = None) -> list[Structure]:
    """Return the structures of a DICOM RTSTRUCT file, in its order; one without contours has none.

    where: what errors call the file instead of its name. Raises BadInput for a file that is no whole structure set and
    for contours whose points do not count up. POINT, open and shorter contours than a triangle are counted as ignored.
    """
    place = where if where is not None else path.name
    with open_label(path, place) as data:
        if str(data.get("Modality")) != "RTSTRUCT":
            raise _refusal(place, f"Modality (0008,0060) {data.get('Modality')}", "RTSTRUCT")
        drawn: dict[int, list[Any]] = defaultdict(list)
        for item in data.get("ROIContourSequence") or []:
            drawn[int(item.ReferencedROINumber)] += list(item.get("ContourSequence") or [])
        rois = data.get("StructureSetROISequence") or []
        if missing := sorted(set(drawn) - {int(roi.ROINumber) for roi in rois}):
            raise _refusal(place, f"contours of structures {missing[:10]}, which StructureSetROISequence does not list",
                           "a listed structure for all contours")  # fmt: skip
        return [_structure(roi, drawn[int(roi.ROINumber)], place) for roi in rois]


def rasterise(structure: Structure, image: Volume, where: str, *, image_frame_uid: str | None = None) -> Volume:
    """Return a structure as a mask (X, Y, Z) bool on the image's grid, oblique or not.

    A voxel is inside when its centre is (see `fill_polygons`); contours of one plane combine by the even-odd rule, so a
    nested one is a hole and keyholes close. A contour between slices goes to the nearest one (half-way: the higher
    index; a step), where several planes claim a slice, only the nearest is drawn (a step). Slices without contours stay
    empty: nothing is interpolated. Raises BadInput for a contour that is not planar along a slice or lies beyond the
    image's ends, and for another frame of reference than `image_frame_uid`.
    """
    name = f"{where}, structure {structure.number}"
    check_frame(structure.frame_uid, image_frame_uid, name)
    mask = np.zeros(image.shape, dtype=bool)
    placed = Volume(mask, image.affine)
    if structure.ignored:
        placed = placed.with_step("ignore_contours", points_or_open=structure.ignored)
    if not structure.contours:
        return placed
    to_index = np.linalg.inv(image.affine)
    indexed = [contour @ to_index[:3, :3].T + to_index[:3, 3] for contour in structure.contours]
    # a slice's normal need not be an axis' direction where the grid is sheared, so distances go with the normal
    spacing = 1.0 / np.linalg.norm(to_index[:3, :3], axis=1)
    axis = int(np.argmin(np.max([np.ptp(contour, axis=0) * spacing for contour in indexed], axis=0)))
    planes = _planes(indexed, axis, float(spacing[axis]), image, name)
    rows, columns = (other for other in range(3) if other != axis)
    for index, (_, polygons) in planes.drawn.items():
        in_plane = [np.round(polygon[:, (rows, columns)], SNAP_DIGITS) for polygon in polygons]
        mask[(slice(None),) * axis + (index,)] = fill_polygons(in_plane, (image.shape[rows], image.shape[columns]))
    if planes.moved_mm > SAME_PLANE_MM:
        placed = placed.with_step("contours_to_nearest_slice", farthest_mm=round(planes.moved_mm, 3))
    if planes.left_out:
        placed = placed.with_step("drop_contours_between_slices", planes=planes.left_out)
    if gaps := max(planes.drawn) - min(planes.drawn) + 1 - len(planes.drawn):
        placed = placed.with_step("empty_slices_between_contours", slices=gaps)
    ends = np.array(image.shape) - 0.5
    if cut := sum(bool((c < -0.5).any() or (c > ends).any()) for c in indexed):
        placed = placed.with_step("cut_contours_at_border", contours=cut)
    return placed


@dataclass(frozen=True, eq=False)
class _Planes:
    """drawn: slice index -> (distance in mm, polygons). moved_mm: the largest distance. left_out: planes not drawn."""

    drawn: dict[int, tuple[float, list[NDArray[np.float64]]]]
    moved_mm: float
    left_out: int


def _planes(contours: list[NDArray[np.float64]], axis: int, spacing: float, image: Volume, where: str) -> _Planes:
    """Return the contours of each slice along `axis`, which are (n, 3) voxel indices."""
    by_plane: list[tuple[float, list[NDArray[np.float64]]]] = []
    for contour in sorted(contours, key=lambda c: float(c[:, axis].mean())):
        height = float(contour[:, axis].mean())
        off = float(np.abs(contour[:, axis] - height).max()) * spacing
        if off > PLANAR_MM:
            raise BadInput("contour_not_planar", where, f"a contour whose points leave their slice by {off:.2f} mm",
                           f"contours along the image's slices, within {PLANAR_MM} mm",
                           "use the series on which the structure was drawn, in its original geometry")  # fmt: skip
        if by_plane and (height - by_plane[-1][0]) * spacing < SAME_PLANE_MM:
            by_plane[-1][1].append(contour)
        else:
            by_plane.append((height, [contour]))
    drawn: dict[int, tuple[float, list[NDArray[np.float64]]]] = {}
    for height, polygons in by_plane:
        index = int(np.floor(round(height, 6) + 0.5))
        if not 0 <= index < image.shape[axis]:
            beyond = max(-height, height - (image.shape[axis] - 1)) * spacing
            raise BadInput("label_outside", where, f"a contour {beyond:.2f} mm beyond the image's end slice",
                           f"contours within half a slice spacing ({spacing / 2:.2f} mm) of a slice",
                           "use the series on which the structure was drawn")  # fmt: skip
        distance = abs(height - index) * spacing
        if index not in drawn or distance < drawn[index][0]:
            drawn[index] = (distance, polygons)
    moved = max((distance for distance, _ in drawn.values()), default=0.0)
    return _Planes(drawn, moved, len(by_plane) - len(drawn))


def _structure(roi: Any, contours: list[Any], where: str) -> Structure:
    number = int(roi.ROINumber)
    points = [_points(item, f"{where}, structure {number}") for item in contours if _kind(item) in CLOSED]
    closed = tuple(p for p in points if len(p) >= 3)
    frame_uid = str(roi.get("ReferencedFrameOfReferenceUID") or "")
    return Structure(number, str(roi.get("ROIName") or ""), closed, len(contours) - len(closed), frame_uid)


def _kind(item: Any) -> str:
    return str(item.get("ContourGeometricType") or "").upper()


def _points(item: Any, where: str) -> NDArray[np.float64]:
    """Return the corners (n, 3) RAS mm of a contour; the raw text is parsed at once, since sets hold millions."""
    element = item.get_item("ContourData")
    value = None if element is None else element.value
    try:
        texts = value.strip(b" \0").split(b"\\") if isinstance(value, bytes) else list(value or [])
        numbers = np.array(texts, dtype="S" if isinstance(value, bytes) else None).astype(np.float64)
    except ValueError:
        numbers = np.array([np.nan])
    count = item.get("NumberOfContourPoints")
    if len(numbers) % 3 or not np.isfinite(numbers).all() or (count is not None and int(count) * 3 != len(numbers)):
        raise _refusal(where, f"a contour of {len(numbers)} numbers for NumberOfContourPoints {count}",
                       "three finite numbers for each point")  # fmt: skip
    points: NDArray[np.float64] = numbers.reshape(-1, 3) * LPS_TO_RAS
    return points


def _refusal(where: str, found: str, expected: str) -> BadInput:
    return BadInput("rtstruct", where, found, expected, "export the structure set again")
