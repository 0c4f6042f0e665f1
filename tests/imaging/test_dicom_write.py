"""Series written as valid CT slices, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_samples import scan, write
from imaging_samples import oriented_affine
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from imaging.volume import Volume


def test_files_hold_what_a_ct_slice_must(tmp_path: Path) -> None:
    paths = write(
        tmp_path, file_name="slice_{index}.dcm", patient_name="Doe^Jane", study_uid="1.2.3", series_uid="1.2.4"
    )
    assert [p.name for p in paths] == [f"slice_{n}.dcm" for n in (1, 2, 3, 4)]
    data = pydicom.dcmread(paths[2])
    assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (data.SOPClassUID, data.Modality) == (CTImageStorage, "CT")
    assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
    assert (data.StudyInstanceUID, data.SeriesInstanceUID) == ("1.2.3", "1.2.4")
    assert (str(data.PatientName), data.PatientID) == ("Doe^Jane", "4711")
    # the affine runs left and posterior from (20, 30, -100) RAS: LPS (-20, -30, -100) and the third slice 10 mm up
    assert [float(v) for v in data.ImagePositionPatient] == [-20.0, -30.0, -90.0]
    assert [float(v) for v in data.ImageOrientationPatient] == [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert [float(v) for v in data.PixelSpacing] == [0.9, 0.8]  # rows first
    assert (data.Rows, data.Columns) == (5, 6)
    assert np.array_equal(data.pixel_array.T - 1024, scan().array[:, :, 2])


def test_same_input_gives_the_same_files_and_other_input_other_uids(tmp_path: Path) -> None:
    one, two = write(tmp_path / "a"), write(tmp_path / "b")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    other = write(tmp_path / "c", scan().with_array(scan().array + 1))
    assert pydicom.dcmread(one[0]).SeriesInstanceUID != pydicom.dcmread(other[0]).SeriesInstanceUID


def test_intercept_and_further_header_fields(tmp_path: Path) -> None:
    paths = write(tmp_path, intercept=0, header={"InstitutionName": "St. Elsewhere", "PatientSex": "F"})
    data = pydicom.dcmread(paths[0])
    assert float(data.RescaleIntercept) == 0.0
    assert (data.InstitutionName, data.PatientSex) == ("St. Elsewhere", "F")
    assert np.array_equal(data.pixel_array.T, scan().array[:, :, 0])


def test_what_a_slice_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stored values 41024"):
        write(tmp_path, Volume(np.full((2, 2, 2), 40000, dtype=np.int32), np.eye(4)))
    leaning = oriented_affine((1.0, 1.0, 1.0))
    leaning[0, 1] = 0.3
    with pytest.raises(ValueError, match="not perpendicular"):
        write(tmp_path, Volume(np.zeros((2, 2, 2), dtype=np.int16), leaning))
