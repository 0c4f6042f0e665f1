"""Each DICOM folder that forms no trustworthy volume, what its refusal says, and that it tells nobody's name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_samples import LPS, edit, edit_all, scan, write
from imaging_samples import linear_scan
from pydicom.uid import JPEG2000Lossless, generate_uid

from imaging.dicom import find_series, position_order, read_series
from imaging.errors import BadInput


def refusal(files: list[Path]) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_series(files)
    return caught.value


def test_missing_slice_gives_the_positions_of_the_gap(tmp_path: Path) -> None:
    paths = write(tmp_path)  # at z = -100, -95, -90, -85
    found = refusal([paths[0], paths[1], paths[3]])
    assert found.code == "dicom_missing_slice"
    assert "10.000 mm from -95.000 to -85.000" in found.found
    assert found.expected == "5.000 mm between all slices"


def test_uneven_spacing_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)

    def lift(data: Any) -> None:
        data.ImagePositionPatient = [*data.ImagePositionPatient[:2], -88.7]

    edit(paths[2], lift)
    assert "6.300 mm from -95.000 to -88.700" in refusal(paths).found


def test_conflicting_slices_name_both_files(tmp_path: Path) -> None:
    paths = write(tmp_path)
    twin = tmp_path / "IM0009.dcm"
    shutil.copy(paths[1], twin)

    def brighten(data: Any) -> None:
        data.PixelData = (data.pixel_array + 1).tobytes()
        data.InstanceNumber = 77

    edit(twin, brighten)
    found = refusal([*paths, twin])
    assert found.code == "dicom_conflicting_slices"
    assert "file 2 (instance 2) and file 5 (instance 77)" in found.found


def test_images_at_one_position_are_no_volume(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit_all(paths, lambda d: setattr(d, "ImagePositionPatient", [0, 0, 7.5]))
    found = refusal(paths)
    assert found.code == "dicom_same_position"
    assert "4 different images" in found.found


def test_two_patients_are_counted(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit(paths[3], lambda d: setattr(d, "PatientID", "4712"))
    found = refusal(paths)
    assert (found.code, found.found) == ("dicom_patients", "slices of 2 patients")


def test_one_patient_whose_name_is_spelled_twice_passes(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit(paths[3], lambda d: setattr(d, "PatientName", "Anonymous"))
    assert np.array_equal(read_series(paths).array, scan().array)


@pytest.mark.parametrize(
    ("keyword", "tag"),
    [
        ("RescaleIntercept", "(0028,1052)"),
        ("RescaleSlope", "(0028,1053)"),
        ("ImagePositionPatient", "(0020,0032)"),
        ("ImageOrientationPatient", "(0020,0037)"),
        ("PixelSpacing", "(0028,0030)"),
    ],
)
def test_missing_tag_is_named(tmp_path: Path, keyword: str, tag: str) -> None:
    paths = write(tmp_path)
    edit(paths[2], lambda d: delattr(d, keyword))
    found = refusal(paths)
    assert found.code == "dicom_tag"
    assert f"file 3 (instance 3) without a usable {keyword} {tag}" in found.found


def test_position_order_without_position_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit(paths[1], lambda d: delattr(d, "ImagePositionPatient"))
    with pytest.raises(BadInput, match=r"ImagePositionPatient \(0020,0032\)"):
        position_order(paths)


def test_wrong_modality_is_named(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit_all(paths, lambda d: setattr(d, "Modality", "MR"))
    assert refusal(paths).found == "Modality (0008,0060) MR"


def test_values_that_are_no_hu_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit(paths[0], lambda d: setattr(d, "RescaleType", "Z_EFF"))
    assert "RescaleType (0028,1054) Z_EFF" in refusal(paths).found
    edit(paths[0], lambda d: setattr(d, "RescaleType", "HU"))
    edit(paths[0], lambda d: setattr(d, "RescaleSlope", 900))
    assert refusal(paths).code == "hu_wrapped"


def test_multi_frame_file_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)
    edit(paths[0], lambda d: setattr(d, "NumberOfFrames", 3))
    assert "NumberOfFrames (0028,0008) 3" in refusal(paths).found


def test_slices_of_unlike_matrix_or_spacing_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path / "a")
    edit(paths[0], lambda d: setattr(d, "PixelSpacing", [0.9, 0.7]))
    assert refusal(paths).code == "dicom_spacing"
    paths = write(tmp_path / "b")

    def crop(data: Any) -> None:
        data.PixelData = data.pixel_array[:4].tobytes()
        data.Rows = 4

    edit(paths[0], crop)
    assert "[(4, 6), (5, 6)]" in refusal(paths).found


def test_localizers_alone_and_two_orientations_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path / "a")
    edit_all(paths, lambda d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    assert refusal(paths).code == "dicom_localizer"
    paths = write(tmp_path / "b")
    edit_all(paths[:2], lambda d: setattr(d, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]))
    assert refusal(paths).code == "dicom_orientation"


def test_two_series_of_one_size_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path / "a") + write(tmp_path / "b", series_uid="1.2.3")
    assert refusal(paths).code == "dicom_series"


def test_slices_off_the_line_are_refused(tmp_path: Path) -> None:
    paths = write(tmp_path)

    def push(data: Any) -> None:
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [float(x) + 9, y, z]

    edit(paths[1], push)
    assert "9.00 mm off the line" in refusal(paths).found


@pytest.mark.parametrize("left", [-20, 900, 150])
def test_truncated_file_is_refused(tmp_path: Path, left: int) -> None:
    paths = write(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:left])
    found = refusal(paths)
    assert found.code in ("dicom_pixels", "dicom_tag", "dicom_unreadable", "dicom_modality", "dicom_patients")


def test_damaged_compression_is_refused(tmp_path: Path) -> None:
    paths = write(tmp_path, linear_scan((64, 64, 3), LPS, np.int16))
    edit_all(paths, lambda d: d.compress(JPEG2000Lossless))
    assert read_series(paths).shape == (64, 64, 3)
    raw = bytearray(paths[1].read_bytes())
    place = raw.index(b"\xff\x4f\xff\x51")  # the start of the JPEG 2000 code stream
    raw[place : place + 40] = bytes(40)
    paths[1].write_bytes(raw)
    found = refusal(paths)
    assert found.code == "dicom_pixels"
    assert "JPEG 2000" in found.found


def test_damaged_file_in_a_folder_is_not_passed_over(tmp_path: Path) -> None:
    paths = write(tmp_path)
    # a header that says DICOM, and nothing that can be parsed behind it
    paths[3].write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 300)
    (series,) = find_series(tmp_path)
    assert len(series.files) == 4
    with pytest.raises(BadInput, match="file 4"):
        read_series(series)


@pytest.mark.filterwarnings("always")
def test_no_name_id_path_or_uid_in_messages_warnings_and_steps(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "Mustermann_Erika"
    secret: dict[str, Any] = {
        "patient_name": "Mustermann^Erika",
        "file_name": "Mustermann_{index:03d}.dcm",
        "series_uid": "1.2.826.4711",
        "study_uid": "1.2.826.4711.1",
        "header": {"InstitutionName": "St. Elsewhere", "AccessionNumber": "A99", "PatientBirthDate": "19610203"},
    }
    spoils: list[Any] = [
        lambda d: delattr(d, "RescaleIntercept"),
        lambda d: delattr(d, "PixelData"),
        lambda d: setattr(d, "Modality", "MR"),
        lambda d: setattr(d, "PatientID", "Mustermann 2"),
        lambda d: setattr(d, "ImagePositionPatient", [0, 0, 1.5]),
        lambda d: setattr(d, "SOPInstanceUID", generate_uid(entropy_srcs=["x"])),
    ]
    texts = []
    for number, spoil in enumerate(spoils):
        paths = write(folder / str(number), **secret)
        edit(paths[1], spoil)
        (series, *_) = find_series(folder / str(number))
        texts.append(repr(series))
        try:
            texts += [step.as_json() for step in read_series(paths).steps]
        except BadInput as error:
            texts.append(str(error.record()))
    damaged = write(folder / "damaged", **secret)
    damaged[0].write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 300)  # pydicom warns about its end
    texts.append(repr(find_series(folder / "damaged")))
    told = " ".join([*texts, *(str(w.message) for w in recwarn), caplog.text])
    for word in ("Mustermann", "Erika", "4711", "Elsewhere", "A99", "1961", "1.2.826"):
        assert word not in told, word
    assert len(texts) >= 2 * len(spoils) - 2
