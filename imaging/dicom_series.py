"""Which files under a folder form a DICOM series."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from imaging.dicom_header import PARSE_ERRORS, SliceHeader, read_header, short_hash
from imaging.errors import BadInput

UNREADABLE = "unreadable"
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class DicomSeries:
    """Files of one series, in name order. Paths and UIDs stay out of its text form.

    patient_key: hash of the patient, equal for one patient. slices: images that are no localizers, frames counted.
    frame_uid: the frame of reference its files share, "" where they have none or several. skipped: files of its
    folders that are no DICOM files.
    modality is "unreadable" for DICOM files so damaged that their series is unknown; read_series refuses them.
    """

    files: tuple[Path, ...] = field(repr=False)
    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str
    patient_key: str
    skipped: int = 0
    slices: int = 0
    frame_uid: str = field(repr=False, default="")

    @property
    def key(self) -> str:
        """Return the hash by which messages call the series."""
        return short_hash(f"{self.study_uid}|{self.series_uid}")


class SeriesList(list[DicomSeries]):
    """The series found; `skipped` counts the files under the root that are no DICOM files (and `._*` litter)."""

    def __init__(self, series: Iterable[DicomSeries], skipped: int) -> None:
        super().__init__(series)
        self.skipped = skipped


def find_series(root: Path) -> SeriesList:
    """Return every DICOM series under a folder, by path of its first file.

    Files belong together by study and series UID; where the series UID is empty, by folder and modality.
    """
    groups: dict[tuple[str, ...], list[SliceHeader]] = defaultdict(list)
    skipped: Counter[Path] = Counter()
    damaged: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        if path.name.startswith("._") or path.name.upper() in ("DICOMDIR", ".DS_STORE"):
            skipped[path.parent] += 1
            continue
        try:
            header = read_header(path, 0)
        except InvalidDicomError:
            skipped[path.parent] += 1
        except PARSE_ERRORS:
            damaged[path.parent].append(path)
        else:
            by_uid = ("uid", header.study_uid, header.series_uid)
            groups[by_uid if header.series_uid else ("folder", str(path.parent), header.modality)].append(header)
    # a damaged slice would otherwise be missing without a word: it goes with the series it lies beside
    for folder, paths in damaged.items():
        beside = [members for members in groups.values() if any(m.path.parent == folder for m in members)]
        if len(beside) == 1:
            beside[0].extend(SliceHeader(p, 0, "", "", beside[0][0].patient_key, UNREADABLE, {}) for p in paths)
        else:
            groups["damaged", str(folder)] = [SliceHeader(p, 0, "", "", "", UNREADABLE, {}) for p in paths]
    found = [_series(members, skipped) for members in groups.values()]
    return SeriesList(sorted(found, key=lambda s: s.files[0]), skipped.total())


def read_headers(files: Sequence[Path], where: str) -> list[SliceHeader]:
    """Return the headers of files in name order; BadInput when one of them cannot be parsed."""
    headers = []
    for ordinal, path in enumerate(sorted(files), start=1):
        try:
            headers.append(read_header(path, ordinal))
        except FileNotFoundError:
            raise
        except PARSE_ERRORS as error:
            raise BadInput(
                "dicom_unreadable",
                where,
                f"file {ordinal} of {len(files)} in name order unreadable ({error.__class__.__name__})",
                "a whole DICOM file",
                "fetch or export the series again",
            ) from error
    return headers


def count_slices(headers: Iterable[SliceHeader]) -> int:
    """Return how many slices files hold: localizers do not count, every frame of an enhanced CT does."""
    return sum(header.frame_count for header in headers if not header.is_localizer)


def position_order(files: Sequence[Path]) -> list[int]:
    """Return the places of `files` in their order along the slice normal, towards superior.

    position_order(files)[0] is the index in `files` of the lowest slice. Raises BadInput when a file has no position.
    """
    headers = {header.path: header for header in read_headers(files, "DICOM slices")}
    positions = slice_positions([headers[path] for path in files], "DICOM slices")
    return [int(i) for i in np.argsort(positions, kind="stable")]


def slice_positions(headers: Sequence[SliceHeader], where: str) -> NDArray[np.float64]:
    """Return each slice's place in mm along the normal of the first slice, (n,), growing towards superior."""
    normal = slice_normal(headers[0].numbers("ImageOrientationPatient", 6, where))
    return np.array([header.numbers("ImagePositionPatient", 3, where) @ normal for header in headers])


def slice_normal(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the unit normal (LPS) of ImageOrientationPatient, turned to superior, else anterior, else right."""
    normal = np.cross(cosines[:3], cosines[3:])
    length = np.linalg.norm(normal)
    if length < 1e-3:
        raise BadInput(
            "dicom_tag",
            "DICOM slices",
            f"ImageOrientationPatient (0020,0037) {cosines.tolist()}",
            "two perpendicular directions",
            "export the series again",
        )
    normal = normal / length
    towards = normal * np.array([-1.0, -1.0, 1.0])
    leading = int(np.argmax(np.abs(towards)))
    turned: NDArray[np.float64] = normal * np.sign(towards[leading])
    return turned


def _series(members: list[SliceHeader], skipped: Counter[Path]) -> DicomSeries:
    first = members[0]
    folders = {member.path.parent for member in members}
    frames = {
        str(member.fields.get("FrameOfReferenceUID") or "") for member in members if member.modality != UNREADABLE
    }
    return DicomSeries(
        files=tuple(sorted(member.path for member in members)),
        study_uid=first.study_uid,
        series_uid=first.series_uid,
        modality=first.modality,
        patient_key=first.patient_key,
        skipped=sum(skipped[folder] for folder in folders),
        slices=count_slices(member for member in members if member.modality != UNREADABLE),
        frame_uid=frames.pop() if len(frames) == 1 else "",
    )
