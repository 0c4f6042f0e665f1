"""DICOM segmentations (SEG): each segment's frames, placed on an image by their positions in the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_enhanced import GROUPS, group_value
from imaging.dicom_pixels import check_decoder, iter_stored
from imaging.dicom_refs import check_frame, open_label
from imaging.dicom_series import LPS_TO_RAS
from imaging.errors import BadInput
from imaging.volume import Volume

TOLERANCE_MM = 0.01
"""Pixels this close to voxel centres are taken for them; positions are decimal text and never exact."""
FRACTION = 0.5
"""A FRACTIONAL pixel is inside from this share of MaximumFractionalValue on."""


@dataclass(frozen=True, eq=False)
class Plane:
    """The foreground of one frame, cropped to its box.

    inside: (rows, columns) bool. first: RAS mm of pixel (0, 0). column, row: RAS mm from a pixel to the next one along
    a row (next column) and down a column (next row).
    """

    inside: NDArray[np.bool_]
    first: NDArray[np.float64]
    column: NDArray[np.float64]
    row: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Segment:
    """One segment. label, meaning: free text and the coded name (with side); out of the text form, may tell a person.

    kind: BINARY, FRACTIONAL or LABELMAP. planes: its frames that hold foreground; frames that lack are empty.
    frame_uid: frame of reference.
    """

    number: int
    label: str = field(repr=False)
    meaning: str = field(repr=False)
    kind: str
    planes: tuple[Plane, ...] = field(repr=False)
    frame_uid: str = field(repr=False, default="")


def read_segmentation(path: Path, *, where: str | None = None) -> list[Segment]:
    """Return the segments of a DICOM SEG file, by number.

    BINARY pixels are inside where 1, FRACTIONAL ones from half of MaximumFractionalValue on, LABELMAP ones where they
    equal the segment's number. Overlapping segments stay apart; frames may be sparse and in any order.
    where: what errors call the file instead of its name. Raises BadInput for a file that is no whole segmentation.
    """
    place = where if where is not None else path.name
    with open_label(path, place, pixels=True) as data:
        kind = str(data.get("SegmentationType") or "")
        if str(data.get("Modality")) != "SEG" or kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
            raise _refusal(place, f"Modality {data.get('Modality')}, SegmentationType {kind or '(none)'}",
                           "a SEG of type BINARY, FRACTIONAL or LABELMAP")  # fmt: skip
        named = {int(item.SegmentNumber): item for item in data.get("SegmentSequence") or []}
        if kind == "LABELMAP":
            named.pop(_background(data), None)  # a label map may list its background as a segment
        if not named:
            raise _refusal(place, "no SegmentSequence (0062,0002)", "at least one segment")
        planes: dict[int, list[Plane]] = defaultdict(list)
        for number, plane in _planes(data, kind, set(named), place):
            planes[number].append(plane)
        frame_uid = str(data.get("FrameOfReferenceUID") or "")
        return [
            Segment(number, str(item.get("SegmentLabel") or ""), _meaning(item), kind, tuple(planes[number]), frame_uid)
            for number, item in sorted(named.items())
        ]


def place_segment(segment: Segment, image: Volume, where: str, *, image_frame_uid: str | None = None) -> Volume:
    """Return a segment as a mask (X, Y, Z) bool on the image's grid.

    Every frame must coincide with voxels of the image, whatever way its rows run: a rest below 0.01 mm is rounding (a
    step), more is refused with the shift in mm. Raises BadInput too for foreground outside the image, for two unlike
    frames at one place, and for another frame of reference than `image_frame_uid`.
    """
    name = f"{where}, segment {segment.number}"
    check_frame(segment.frame_uid, image_frame_uid, name)
    mask = np.zeros(image.shape, dtype=bool)
    to_index = np.asarray(np.linalg.inv(image.affine), dtype=np.float64)
    worst = 0.0
    taken: dict[tuple[int, int], Plane] = {}
    for plane in segment.planes:
        origin, column, row, shift = _snap(plane, image, to_index, name)
        worst = max(worst, float(np.linalg.norm(shift)))
        normal = int(np.flatnonzero(column + row == 0)[0])
        _check_once(taken, plane, (normal, int(origin[normal])), name)
        rows, columns = np.nonzero(plane.inside)
        index = origin + columns[:, None] * column + rows[:, None] * row  # (n, 3)
        if (index < 0).any() or (index >= image.shape).any():
            outside = int(((index < 0) | (index >= image.shape)).any(axis=1).sum())
            raise BadInput("label_outside", name, f"{outside} pixels of a frame outside the image",
                           f"foreground inside the image's {image.shape} voxels",
                           "use the segmentation drawn on this image")  # fmt: skip
        mask[tuple(index.T)] = True
    placed = Volume(mask, image.affine)
    if segment.kind == "FRACTIONAL":
        placed = placed.with_step("threshold_fractional", share=FRACTION)
    if worst > 1e-6:
        placed = placed.with_step("round_grid", farthest_mm=round(worst, 6))
    return placed


def _snap(
    plane: Plane, image: Volume, to_index: NDArray[np.float64], where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return voxel index of pixel (0, 0), the index steps of column and row, and the worst rest of a corner in mm."""
    exact = to_index[:3, :3] @ plane.first + to_index[:3, 3]
    steps = np.stack([to_index[:3, :3] @ plane.column, to_index[:3, :3] @ plane.row])  # (2, 3)
    origin, whole = np.rint(exact).astype(np.int64), np.rint(steps).astype(np.int64)
    height, width = plane.inside.shape
    corners = np.array([(c, r) for c in (0, width - 1) for r in (0, height - 1)])
    rests = ((exact - origin) + corners @ (steps - whole)) @ image.affine[:3, :3].T  # (4, 3) mm
    shift: NDArray[np.float64] = rests[int(np.argmax(np.linalg.norm(rests, axis=1)))]
    straight = np.abs(whole).sum(axis=1).tolist() == [1, 1] and not (whole[0] * whole[1]).any()
    if not straight or float(np.linalg.norm(shift)) >= TOLERANCE_MM:
        spacing = [round(float(np.linalg.norm(step)), 4) for step in (plane.column, plane.row)]
        raise BadInput(
            "label_shift",
            where,
            f"a frame of pixel spacing {spacing} mm, {np.round(shift, 3).tolist()} mm (RAS) away from the voxels",
            f"frames on the image's slices, within {TOLERANCE_MM} mm",
            "use the segmentation drawn on this image, or resample it to the image's grid",
        )
    return origin, whole[0], whole[1], shift


def _check_once(taken: dict[tuple[int, int], Plane], plane: Plane, place: tuple[int, int], where: str) -> None:
    other = taken.setdefault(place, plane)
    if other is not plane and not (
        np.array_equal(other.inside, plane.inside) and np.allclose(other.first, plane.first, atol=TOLERANCE_MM)
    ):
        raise BadInput("dicom_conflicting_slices", where, f"two unlike frames at slice {place[1]}",
                       "one frame a slice", "find out which frame is right, and export again")  # fmt: skip


def _planes(data: Any, kind: str, known: set[int], where: str) -> Iterator[tuple[int, Plane]]:
    """Yield (segment number, plane) for every frame that holds foreground."""
    shared_groups, own = (list(data.get(keyword) or []) for keyword in GROUPS)
    shared = shared_groups[0] if shared_groups else type(data)()
    frames = int(data.get("NumberOfFrames") or 0)
    if len(own) != frames:
        raise _refusal(where, f"NumberOfFrames {frames} and {len(own)} items of PerFrameFunctionalGroupsSequence",
                       "one item for each frame")  # fmt: skip
    if not frames:
        return
    check_decoder(data.file_meta.TransferSyntaxUID, where)
    most = int(data.get("MaximumFractionalValue") or 0)
    if kind == "FRACTIONAL" and most < 1:
        raise _refusal(where, f"MaximumFractionalValue (0062,000E) {most}", "at least 1")
    for ordinal, (groups, stored) in enumerate(zip(own, iter_stored(data, where), strict=True), start=1):
        name = f"{where}, frame {ordinal}"
        if kind == "LABELMAP":
            present = np.unique(stored).tolist()
            masks = {int(number): stored == number for number in present if number != _background(data)}
        else:
            number = group_value("ReferencedSegmentNumber", "SegmentIdentificationSequence", groups, shared)
            if number is None:
                raise _refusal(name, "no ReferencedSegmentNumber (0062,000B)", "the segment each frame belongs to")
            masks = {int(number): stored >= FRACTION * most if kind == "FRACTIONAL" else stored != 0}
        for number, inside in masks.items():
            if number not in known:
                raise _refusal(name, f"segment {number}", f"one of {sorted(known)[:40]}, as SegmentSequence lists")
            if inside.any():
                yield number, _plane(inside, groups, shared, name)


def _background(data: Any) -> int:
    """Return the LABELMAP value that is no segment: PixelPaddingValue where given (PS3.3 C.8.20.2), else 0."""
    value = data.get("PixelPaddingValue")
    return 0 if value in (None, "") else int(value)


def _plane(inside: NDArray[np.bool_], groups: Any, shared: Any, where: str) -> Plane:
    position = _numbers("ImagePositionPatient", "PlanePositionSequence", 3, groups, shared, where)
    cosines = _numbers("ImageOrientationPatient", "PlaneOrientationSequence", 6, groups, shared, where)
    spacing = _numbers("PixelSpacing", "PixelMeasuresSequence", 2, groups, shared, where)
    # DICOM: the first direction runs along a row, so its step is the spacing between columns
    column, row = cosines[:3] * spacing[1] * LPS_TO_RAS, cosines[3:] * spacing[0] * LPS_TO_RAS
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    cropped = inside[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1].copy()
    return Plane(cropped, position * LPS_TO_RAS + left * column + top * row, column, row)


def _numbers(keyword: str, sequence: str, count: int, groups: Any, shared: Any, where: str) -> NDArray[np.float64]:
    value = group_value(keyword, sequence, groups, shared)
    numbers = np.array([float(item) for item in value] if value is not None else [])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise _refusal(where, f"no usable {keyword}", f"{count} finite numbers in {sequence}")
    return numbers


def _meaning(item: Any) -> str:
    """Return the coded name of a segment, its modifiers (right, left) first."""
    kinds = item.get("SegmentedPropertyTypeCodeSequence") or []
    if not kinds:
        return ""
    modifiers = kinds[0].get("SegmentedPropertyTypeModifierCodeSequence") or []
    return " ".join(str(code.get("CodeMeaning") or "") for code in (*modifiers, kinds[0])).strip()


def _refusal(where: str, found: str, expected: str) -> BadInput:
    return BadInput("dicom_seg", where, found, expected, "export the segmentation again from the tool that made it")
