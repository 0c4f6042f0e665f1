"""A CT volume written as DICOM slices: the way scans of a cohort look when they come from an archive."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from imaging.volume import Volume

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def write_series(
    volume: Volume,
    folder: Path,
    *,
    patient_id: str,
    study_uid: str | None = None,
    series_uid: str | None = None,
    file_name: str = "IM{index:04d}.dcm",
    patient_name: str = "ANONYMOUS",
    intercept: int = -1024,
    header: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write one CT Image Storage file (Explicit VR Little Endian) for each plane of the third axis; return the paths.

    volume: HU (X, Y, Z), any orientation; axis X becomes the columns, Y the rows. The first two axes must be
    perpendicular; a third axis that leans on them is written as a tilted gantry.
    file_name: template with `index` from 1 along the third axis. intercept: RescaleIntercept in HU.
    header: further DICOM keywords and values for every slice, such as {"InstitutionName": "..."}.
    UIDs not given are derived from the voxels and the patient id, so that the same input gives the same files.
    """
    stored = np.rint(volume.array).astype(np.int64) - intercept
    if stored.min() < -32768 or stored.max() > 32767:
        raise ValueError(
            f"stored values {stored.min()} to {stored.max()} with intercept {intercept}: 16 bits hold -32768..32767"
        )
    columns, rows, _ = volume.affine[:3, :3].T
    if abs(columns @ rows) > 1e-4 * np.linalg.norm(columns) * np.linalg.norm(rows):
        raise ValueError("the first two axes are not perpendicular; a DICOM slice cannot hold that, straighten first")
    entropy = [
        patient_id,
        str(stored.shape),
        hashlib.sha256(stored.tobytes()).hexdigest(),
        str(volume.affine.round(6).tolist()),
    ]
    study = study_uid or str(generate_uid(entropy_srcs=[*entropy, "study"]))
    series = series_uid or str(generate_uid(entropy_srcs=[*entropy, "series"]))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k in range(volume.shape[2]):
        path = folder / file_name.format(index=k + 1)
        slice_data = _slice(volume, stored[:, :, k].T, k, intercept, (study, series))
        slice_data.PatientID, slice_data.PatientName = patient_id, patient_name
        for keyword, value in (header or {}).items():
            setattr(slice_data, keyword, value)
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        slice_data.save_as(aside, enforce_file_format=True)
        aside.replace(path)
        paths.append(path)
    return paths


def _slice(volume: Volume, pixels: NDArray[np.int64], k: int, intercept: int, uids: tuple[str, str]) -> FileDataset:
    """Return the data set of plane k, pixels (rows, columns) as stored, without what identifies a patient."""
    study, series = uids
    instance = str(generate_uid(entropy_srcs=[series, str(k)]))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, instance
    data.StudyInstanceUID, data.SeriesInstanceUID = study, series
    data.FrameOfReferenceUID = str(generate_uid(entropy_srcs=[study, "frame"]))
    data.Modality, data.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    for keyword in ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "Manufacturer",
                    "PatientBirthDate", "PatientSex", "PositionReferenceIndicator", "PatientPosition"):  # fmt: skip
        setattr(data, keyword, "")
    data.KVP, data.AcquisitionNumber = None, None
    data.SeriesNumber, data.InstanceNumber = 1, k + 1
    spacing = volume.spacing_mm
    unit = volume.affine[:3, :3] / spacing
    position = (volume.affine[:3, :3] @ [0.0, 0.0, k] + volume.affine[:3, 3]) * RAS_TO_LPS
    data.ImagePositionPatient = _numbers(position)
    data.ImageOrientationPatient = _numbers([*(unit[:, 0] * RAS_TO_LPS), *(unit[:, 1] * RAS_TO_LPS)])
    data.PixelSpacing = _numbers([spacing[1], spacing[0]])  # DICOM: between rows, then between columns
    data.SliceThickness = _numbers([spacing[2]])[0]
    data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, intercept, "HU"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = np.ascontiguousarray(pixels, dtype="<i2").tobytes()
    return data


def _numbers(values: Any) -> list[DSfloat]:
    # decimal strings hold 16 characters; a negative zero would be written as "-0.0"
    return [DSfloat(float(value) + 0.0, auto_format=True) for value in values]
