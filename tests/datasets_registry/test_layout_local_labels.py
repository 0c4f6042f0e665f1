"""Labels beside a hospital's scans: paired by path or reference, known by name, and never telling whose they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pydicom
import pytest
from dicom_label_files import Frame, Roi, write_rtstruct, write_seg

from datasets_registry.cards import Card, load_card
from datasets_registry.layouts import CaseFiles, Listing, RawCase, raw_digest, reader_for
from datasets_registry.layouts.local_pairs import pair_by_path, words_of
from imaging.dicom import read_series
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.nifti import write_nifti
from imaging.volume import Volume

CARD = load_card("local")
READER = reader_for(CARD)
LIVER, PANCREAS = 6, 11  # indices of the class table


def read_only(root: Path, card: Card = CARD) -> RawCase:
    listing = READER.list_cases(root, card)
    assert listing.problems == ()
    (case,) = listing.cases
    return READER.read_case(case, card)


def refusal(root: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_only(root)
    return caught.value


def said(raw: RawCase) -> list[str]:
    return [note.split(": ", 1)[1] for note in raw.notes]


def write_nrrd(volume: Volume, path: Path, **fields: Any) -> None:
    directions = volume.affine[:3, :3].T
    header = {"space": "right-anterior-superior", "space directions": directions, "space origin": volume.affine[:3, 3]}
    nrrd.write(str(path), volume.array, {**header, **fields})


def mask(body: Any, value: int) -> Volume:
    return body.label.with_array((body.label.array == value).astype(np.uint8))


def assert_liver_and_pancreas(raw: RawCase, body: Any) -> None:
    assert raw.label is not None
    assert np.array_equal(raw.label.array == LIVER, body.label.array == 1)
    assert np.array_equal(raw.label.array == PANCREAS, body.label.array == 2)
    assert raw.present_values == frozenset({LIVER, PANCREAS})
    assert CARD.annotated_in("x", raw.present_values) == ("liver", "pancreas")


def hospital_card() -> Card:
    """A hospital's copy of the card, which says what the values of its label maps mean."""
    fields = CARD.model_dump()
    fields["layout"]["options"] = {**CARD.layout.options, "label_map": True}
    fields |= {
        "labels": {1: {"name": "liver", "classes": ["liver"]}, 2: {"name": "pancreas", "classes": ["pancreas"]}},
        "annotated_classes": ["liver", "pancreas"],
        "annotation_rule": "declared",
    }
    return Card.model_validate(fields)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("scan.nii.gz", "scan_seg.nii.gz"),
        ("a/ct.nii.gz", "a/label.nii.gz"),
        ("images/p7.nii.gz", "labels/p7.nii.gz"),
        ("imagesTr/p7_0000.nii.gz", "labelsTr/p7.nii.gz"),
        ("p7.nii.gz", "segmentations/p7-mask.nii.gz"),
    ],
)
def test_label_maps_are_paired_by_stem_and_need_a_card(tmp_path: Path, body: Any, image: str, label: str) -> None:
    for name, volume in ((image, body.image), (label, body.label)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_nifti(volume, tmp_path / name)
    raw = read_only(tmp_path)
    assert raw.label is None
    assert said(raw) == ["1 label maps left out: values mean nothing without a card"]
    card = hospital_card()
    raw = read_only(tmp_path, card)
    assert raw.label is not None
    assert np.array_equal(raw.label.array, body.label.array)
    assert raw.notes == ()
    assert card.annotated_in("x", raw.present_values) == ("liver", "pancreas")


@pytest.mark.parametrize(
    ("image", "pattern"),
    [
        ("ct.nii.gz", "segmentations/{}.nii.gz"),
        ("p7/ct.nii.gz", "p7/{}.nii.gz"),
        ("p7.nii.gz", "masks/p7/{}.nii.gz"),
        ("p7.nii.gz", "p7_{}_mask.nii.gz"),
    ],
)
def test_one_mask_for_each_structure_is_known_by_its_name(tmp_path: Path, body: Any, image: str, pattern: str) -> None:
    files = [(image, body.image), (pattern.format("Liver"), mask(body, 1)), (pattern.format("pancreas"), mask(body, 2))]
    for name, volume in files:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        write_nifti(volume, tmp_path / name)
    raw = read_only(tmp_path)
    assert_liver_and_pancreas(raw, body)
    assert raw.notes == ()


def test_nrrd_scan_with_a_detached_header_and_slicer_segments(tmp_path: Path, body: Any) -> None:
    write_nrrd(body.image, tmp_path / "scan.nhdr")
    names = {"Segment0_Name": "pancreas", "Segment0_LabelValue": "2", "Segment1_Name": "Mustermann",
             "Segment1_LabelValue": "3", "Segment2_Name": "Liver", "Segment2_LabelValue": "1"}  # fmt: skip
    write_nrrd(body.label, tmp_path / "scan.seg.nrrd", **names)
    listing = READER.list_cases(tmp_path, CARD)
    (case,) = listing.cases
    assert (len(case.image), len(case.label), listing.skipped_files) == (2, 1, 0)
    raw = READER.read_case(case, CARD)
    assert np.array_equal(raw.image.array, body.image.array)
    assert_liver_and_pancreas(raw, body)
    assert said(raw) == ["1 structures left out, their names mean no class of the card"]
    before = raw_digest(case)
    voxels = case.image[1]
    voxels.write_bytes(voxels.read_bytes()[:-1] + b"x")
    assert raw_digest(case) != before


def outline(image: Volume, low: tuple[int, int], high: tuple[int, int], k: int) -> Any:
    """Corners around the voxels low <= (x, y) < high of slice k."""
    (a, b), (c, d) = ([v - 0.5 for v in low], [v - 0.5 for v in high])
    return image.world_mm(np.array([(a, b, k), (c, b, k), (c, d, k), (a, d, k)])), "CLOSED_PLANAR"


@pytest.fixture
def series(tmp_path: Path, body: Any) -> list[Path]:
    return write_series(body.image, tmp_path / "in" / "Mustermann" / "ct", patient_id="4711", patient_name="Mustermann")


def structure_set(tmp_path: Path, body: Any, slice_file: Path) -> Path:
    liver = [outline(body.image, (11, 5), (16, 12), k) for k in range(3, 9)]
    pancreas = [outline(body.image, (6, 8), (10, 11), k) for k in (4, 5)]
    rois = [Roi("LIVER", liver), Roi("Dr Mustermann 4711", liver[:1]), Roi("Pancreas", pancreas), Roi("spleen", [])]
    return write_rtstruct(tmp_path / "in" / "elsewhere" / "rs", rois, slice_file)


def test_structure_set_is_tied_to_its_series(tmp_path: Path, body: Any, series: list[Path]) -> None:
    structure_set(tmp_path, body, series[0])
    other = body.image.with_array((body.image.array + 1).astype(np.int16))
    study = pydicom.dcmread(series[0]).StudyInstanceUID  # both phases share one frame of reference
    write_series(other, tmp_path / "in" / "Mustermann" / "delayed", patient_id="4711", patient_name="Mustermann",
                 study_uid=study)  # fmt: skip
    listing = READER.list_cases(tmp_path / "in", CARD)
    labelled = [case for case in listing.cases if case.label]
    assert (len(listing.cases), len(labelled), listing.skipped_files) == (2, 1, 0)
    raw = READER.read_case(labelled[0], CARD)
    # an RTSTRUCT region that nobody drew says nothing about the spleen
    assert_liver_and_pancreas(raw, body)
    assert said(raw) == ["1 structures left out, their names mean no class of the card"]
    assert not re.search("Mustermann|4711|Dr", " ".join(raw.notes) + repr(listing))


def test_segmentation_is_tied_to_its_series_and_known_by_its_code(
    tmp_path: Path, body: Any, series: list[Path]
) -> None:
    image = read_series(series)
    frames = [
        Frame(number, (body.label.array == number)[:, :, k].T, k) for number in (1, 2) for k in (5, 3, 4, 8, 6, 7)
    ]
    path = write_seg(tmp_path / "in" / "seg.dcm", "BINARY", {1: "liver", 2: "Mustermann", 3: "spleen"}, frames, image,
                     series[0])  # fmt: skip
    raw = read_only(tmp_path / "in")
    assert raw.present_values == frozenset({LIVER})
    assert raw.label is not None
    assert np.array_equal(raw.label.array == LIVER, body.label.array == 1)
    data = pydicom.dcmread(path)
    code = pydicom.Dataset()
    code.CodeMeaning = "Pancreas"
    data.SegmentSequence[1].SegmentedPropertyTypeCodeSequence = [code]
    data.save_as(path)
    assert_liver_and_pancreas(read_only(tmp_path / "in"), body)


def test_label_without_a_series_uid_is_tied_by_its_frame_of_reference(
    tmp_path: Path, body: Any, series: list[Path]
) -> None:
    path = structure_set(tmp_path, body, series[0])
    data = pydicom.dcmread(path)
    del data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    data.save_as(path)
    assert_liver_and_pancreas(read_only(tmp_path / "in"), body)
    data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    data.save_as(path)
    listing = READER.list_cases(tmp_path / "in", CARD)
    assert [case.label for case in listing.cases] == [()]
    assert listing.skipped_files == 1


def test_structure_of_another_frame_of_reference_is_refused(tmp_path: Path, body: Any, series: list[Path]) -> None:
    path = structure_set(tmp_path, body, series[0])
    data = pydicom.dcmread(path)
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    data.save_as(path)
    found = refusal(tmp_path / "in")
    assert found.code == "frame_of_reference"
    assert not re.search("Mustermann|4711|LIVER", str(found.record()))


def test_damaged_labels_name_nobody(tmp_path: Path, body: Any, series: list[Path]) -> None:
    path = structure_set(tmp_path, body, series[0])
    path.write_bytes(path.read_bytes()[:-80])
    try:
        listing = READER.list_cases(tmp_path / "in", CARD)
        told = [str(problem.record()) for _, problem in listing.problems]
        for case in listing.cases:
            READER.read_case(case, CARD)
    except BadInput as problem:
        told = [str(problem.record())]
    assert told
    assert not re.search("Mustermann|4711|LIVER", " ".join(told))


def test_ignored_points_are_noted(tmp_path: Path, body: Any, series: list[Path]) -> None:
    contour, kind = outline(body.image, (11, 5), (16, 12), 4)
    rois = [Roi("liver", [(contour, kind), (contour[:1], "POINT")])]
    write_rtstruct(tmp_path / "in" / "rs.dcm", rois, series[0])
    (note,) = said(read_only(tmp_path / "in"))
    assert '"points_or_open": 2' not in note
    assert '"points_or_open": 1, "step": "ignore_contours", "structure": 6' in note


def test_mask_with_several_values_or_of_another_grid_is_refused(tmp_path: Path, body: Any) -> None:
    write_nifti(body.image, tmp_path / "ct.nii.gz")
    write_nifti(body.label, tmp_path / "liver_mask.nii.gz")
    found = refusal(tmp_path)
    assert (found.code, found.found) == ("mask_values", "2 values other than 0 in the mask of one structure")
    shifted = body.label.affine.copy()
    shifted[0, 3] += 8
    write_nifti(Volume(mask(body, 1).array, shifted), tmp_path / "liver_mask.nii.gz")
    assert refusal(tmp_path).code == "label_shift"


def test_two_masks_of_one_class_are_united_with_a_note(tmp_path: Path, body: Any) -> None:
    write_nifti(body.image, tmp_path / "ct.nii.gz")
    for name, x in (("liver_tumor_seg", 12), ("liver_metastases_seg", 14)):
        part = mask(body, 9)
        part.array[x, 6, 4] = 1
        write_nifti(part, tmp_path / f"{name}.nii.gz")
    raw = read_only(tmp_path)
    assert raw.label is not None
    assert np.argwhere(raw.label.array == 27).tolist() == [[12, 6, 4], [14, 6, 4]]
    assert said(raw) == ["1 classes are drawn by several structures, which were united"]


def test_every_ct_of_a_study_is_a_case_and_its_scouts_are_not(tmp_path: Path, body: Any) -> None:
    def series(name: str, change: int, slices: int, **header: Any) -> None:
        part = Volume((body.image.array + change).astype(np.int16)[:, :, :slices], body.image.affine)
        write_series(
            part, tmp_path / name, patient_id="4711", study_uid="1.2", series_uid=f"1.2.{change}", header=header
        )

    series("portal", 1, 10)
    series("delayed", 2, 10)
    series("timing", 3, 4)
    series("scout", 4, 10, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    series("pet", 5, 10, Modality="PT")
    listing = READER.list_cases(tmp_path, CARD)
    assert len(listing.cases) == 2
    assert (listing.problems, listing.skipped_files) == ((), 24)
    for case in listing.cases:
        assert READER.read_case(case, CARD).notes == ()


def test_a_short_scan_alone_is_a_case_with_a_note(tmp_path: Path, body: Any) -> None:
    short = Volume(body.image.array[:, :, :4], body.image.affine)
    write_series(short, tmp_path, patient_id="4711")
    assert said(read_only(tmp_path)) == ["only 4 slices, fewer than 10"]


def test_labels_that_could_belong_to_two_scans_belong_to_none() -> None:
    images = {"a": Path("/x/p1/ct.nii.gz"), "b": Path("/x/p1/scan.nii.gz"), "c": Path("/x/p2/dicom/series1")}
    labels = [Path("/x/p1/seg.nii.gz"), Path("/x/p2/seg.nii.gz"), Path("/x/p3/seg.nii.gz")]
    assert pair_by_path(images, labels) == {"c": [Path("/x/p2/seg.nii.gz")]}
    assert words_of(Path("/x/imagesTr/P_7_0000.nii.gz")) == words_of(Path("/x/labelsTr/p_7.nii.gz")) == ("x", "p", "7")


def test_names_of_files_stay_out_of_everything_said(tmp_path: Path, body: Any) -> None:
    folder = tmp_path / "Mustermann"
    folder.mkdir()
    write_nifti(body.image, folder / "ct.nii.gz")
    write_nifti(mask(body, 1), folder / "liver_mask.nii.gz")
    write_nifti(mask(body, 2), folder / "Erika_mask.nii.gz")
    listing: Listing = READER.list_cases(tmp_path, CARD)
    case: CaseFiles = listing.cases[0]
    told = [repr(listing), repr(case), *READER.read_case(case, CARD).notes]
    for path in case.label:
        path.write_bytes(path.read_bytes()[:-9])
    told.append(str(refusal(tmp_path).record()))
    assert not re.search("Mustermann|Erika|liver_mask", " ".join(told))
