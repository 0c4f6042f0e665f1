"""A corrected mask comes back: on the scan's grid, onto the lake's, as a new annotation that goes before a model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
from dicom_label_files import Frame, write_seg

from catalog import queries
from catalog.label_decisions import restore, retract
from datasets_registry.cards import load_card
from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import empty_bits, get_channel
from imaging.dicom_write import write_series
from imaging.errors import BadInput
from imaging.nifti import write_nifti
from imaging.volume import Volume
from tasks.case_rows import label_rows
from tasks.review import import_mask
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

ORIGINAL = np.array([[-1.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 2.0, -10], [0, 0, 0, 1]])
"""The scan as it was read: axes to L, P, S; 24 x 16 x 12 voxels of 1 x 1.5 x 2 mm."""
ORIGINAL_SHAPE = (24, 16, 12)
LAKE = np.array([[2.0, 0, 0, 17.5], [0, 3.0, 0, 8.25], [0, 0, 4.0, -9], [0, 0, 0, 1]])
"""The lake's grid: RAS, 12 x 8 x 6 voxels of 2 x 3 x 4 mm."""
LAKE_SHAPE = (12, 8, 6)
WHO = {"who": "a reader", "why": "the tip was missing"}
LIVER, TUMOUR = class_info("liver"), class_info("liver_tumor")
BOX = (slice(4, 12), slice(4, 10), slice(2, 8))
"""A liver on the scan's grid; the first slice along x is the most rightward."""
LESION = (slice(6, 8), slice(6, 8), slice(4, 6))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = open_workspace(Settings(workspace=tmp_path / "w"))
    image = Volume(np.full(LAKE_SHAPE, 40, np.int16), LAKE)
    bits = empty_bits(LAKE_SHAPE, len(all_classes()))
    stored = found.lake.write_case("ward", "1", "ab" * 32, image, {}, {"shipped": bits})
    row = {
        "case_id": "ward/1", "dataset": "ward", "native_id": "1", "ingest_key": "ab" * 32, "content_sha256": "c",
        "raw_sha256": "r", "split_group": "g", "role": "external", "path": stored.path,
        "manifest": stored.manifest.to_json(), "shape_x": 12, "shape_y": 8, "shape_z": 6, "spacing_mm": [2.0, 3.0, 4.0],
        "affine": LAKE.ravel().tolist(), "original_shape": list(ORIGINAL_SHAPE),
        "original_affine": ORIGINAL.ravel().tolist(), "original_orientation": "LPS",
        **dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), 40.0),
        "steps": [], "flags": [], "card_digest": "c", "harmoniser_version": "1", "tumour_free": [],
    }  # fmt: skip
    case = {"case_id": "ward/1", "ingest_key": "ab" * 32}
    about = {"state": "annotated", "label_origin": "human"}
    about["manifest"] = stored.annotation_manifest("shipped").to_json()
    human = label_rows(
        bits, image, ["aorta"], case=case, annotation="shipped", sampled_voxels=4, provenance=lambda _: about
    )
    found.tables.commit_case(row, human)
    _label_by_model(found, "pseudo-v1")
    return found


def _label_by_model(workspace: Workspace, annotation: str) -> None:
    """Commit an empty liver and spleen by a model."""
    (case,) = workspace.tables.cases().to_dict("records")
    bits = empty_bits(LAKE_SHAPE, len(all_classes()))
    manifest = workspace.lake.write_annotation(case["path"], annotation, bits).to_json()
    made = {"state": "pseudo", "label_origin": "model", "model_name": "m", "model_version": "1", "manifest": manifest}
    rows = label_rows(
        bits, Volume(np.zeros(LAKE_SHAPE, np.int16), LAKE), ["liver", "spleen"],
        case={"case_id": "ward/1", "ingest_key": case["ingest_key"]}, annotation=annotation, sampled_voxels=4,
        provenance=lambda _: {**made, "flow_run_id": annotation, "review_state": "pending"},
    )  # fmt: skip
    workspace.tables.commit_labels(rows)


def _nifti(path: Path, affine: Any = ORIGINAL, value: int = LIVER.index) -> Path:
    label = np.zeros(ORIGINAL_SHAPE, np.uint8)
    label[BOX] = value
    label[LESION] = TUMOUR.index
    write_nifti(Volume(label, affine), path)
    return path


def _seg_nrrd(path: Path, *, layers: bool = False) -> Path:
    """Write a liver and an empty spleen in one layer, or a liver and a lesion in a layer each."""
    label = np.zeros((2, *ORIGINAL_SHAPE), np.uint8)
    label[0][BOX], label[1][LESION] = 1, 1
    header: dict[str, Any] = {
        "space": "right-anterior-superior",
        "space directions": ORIGINAL[:3, :3].T,
        "space origin": ORIGINAL[:3, 3],
    }
    names = {
        "Segment0_Name": "Liver",
        "Segment0_LabelValue": "1",
        "Segment1_Name": "spleen",
        "Segment1_LabelValue": "2",
    }
    if layers:
        names |= {"Segment1_Name": "Liver tumor", "Segment1_LabelValue": "1", "Segment1_Layer": "1"}
        header |= {
            "space directions": np.array([[np.nan] * 3, *ORIGINAL[:3, :3].T]),
            "kinds": ["list", "domain", "domain", "domain"],
        }
    nrrd.write(str(path), label if layers else label[0], {**header, **names}, index_order="F")
    return path


def _dicom_seg(folder: Path) -> Path:
    """Write a BINARY segmentation with an overlapping liver and lesion, on planes of the scan's third axis."""
    scan = Volume(np.zeros(ORIGINAL_SHAPE, np.int16), ORIGINAL)
    series = write_series(scan, folder / "scan", patient_id="4711")
    frames = []
    for segment, box in ((1, BOX), (2, LESION)):
        mask = np.zeros(ORIGINAL_SHAPE, np.uint8)
        mask[box] = 1
        frames += [Frame(segment, mask[:, :, k].T, k) for k in range(ORIGINAL_SHAPE[2]) if mask[:, :, k].any()]
    names = {1: "Liver", 2: "Liver tumor"}
    return write_seg(folder / "m.dcm", "BINARY", names, frames, scan, series[0])


def _stored_liver(workspace: Workspace, annotation: str) -> Any:
    row = workspace.tables.labels(annotation=annotation, class_name="liver").iloc[0]
    return get_channel(workspace.lake.open_bits(row, annotation).read(), LIVER.channel)


def _expected_liver() -> Any:
    # lake voxel centres lie at 17.5 + 2 i to the right: index 22.5 - 2 i along the scan's x, so 4 <= x < 12 is 6..9;
    # at 8.25 + 3 j: index 14.5 - 2 j along y, 4 <= y < 10 is 3..5; at -9 + 4 k: index 0.5 + 2 k along z, 2 <= z < 8
    # is 1..3. Half-way voxels go to either neighbour, of which both are inside or both outside here.
    liver = np.zeros(LAKE_SHAPE, dtype=bool)
    liver[6:10, 3:6, 1:4] = True
    return liver


def test_a_nifti_in_the_scans_grid_becomes_the_label_that_counts(workspace: Workspace, tmp_path: Path) -> None:
    made = import_mask(workspace, "ward/1", _nifti(tmp_path / "m.nii.gz"), ["liver"], **WHO)
    np.testing.assert_array_equal(_stored_liver(workspace, made.annotation), _expected_liver())
    row = queries.effective_labels(workspace.tables).set_index("class_name").loc["liver"]
    assert (row["state"], row["label_origin"], row["review_state"]) == ("pseudo", "human", "reviewed")
    assert row["annotation"] == made.annotation
    assert made.ml["liver"] == pytest.approx(36 * 24 / 1000)
    # a later model does not hide it, and the same file again adds nothing
    _label_by_model(workspace, "pseudo-v2")
    assert import_mask(workspace, "ward/1", tmp_path / "m.nii.gz", ["liver"], **WHO).new == 0
    assert (
        queries.effective_labels(workspace.tables).set_index("class_name").loc["liver", "annotation"]
        == row["annotation"]
    )
    assert workspace.tables.runs("review")["run_id"].tolist() == [made.run_id]


def test_an_import_can_be_retracted_and_restored_by_its_run(workspace: Workspace, tmp_path: Path) -> None:
    made = import_mask(workspace, "ward/1", _nifti(tmp_path / "m.nii.gz"), ["liver", "spleen"], **WHO)
    assert made.ml["spleen"] == 0  # looked for, and absent
    assert len(retract(workspace.tables, made.run_id, who="x", why="y")) == 2
    assert set(queries.effective_labels(workspace.tables)["annotation"]) == {"shipped", "pseudo-v1"}
    again = import_mask(workspace, "ward/1", tmp_path / "m.nii.gz", ["liver", "spleen"], **WHO)
    assert again.retracted == ("liver", "spleen")
    restore(workspace.tables, made.run_id, who="x", why="y")
    assert (queries.effective_labels(workspace.tables)["annotation"] == made.annotation).sum() == 2


def test_a_lesion_painted_over_its_organ_is_organ_too(workspace: Workspace, tmp_path: Path) -> None:
    file = _nifti(tmp_path / "m.nii.gz")
    made = import_mask(workspace, "ward/1", file, ["liver", "liver_tumor"], **WHO)
    row = workspace.tables.labels(annotation=made.annotation).iloc[0]
    bits = workspace.lake.open_bits(row, made.annotation).read()
    tumour = get_channel(bits, TUMOUR.channel)
    assert tumour.any()
    assert not (tumour & ~get_channel(bits, LIVER.channel)).any()
    # without a word about the tumour, none is stored
    alone = import_mask(workspace, "ward/1", file, ["liver"], **WHO)
    row = workspace.tables.labels(annotation=alone.annotation).iloc[0]
    stored = workspace.lake.open_bits(row, alone.annotation).read()
    assert not get_channel(stored, TUMOUR.channel).any()
    np.testing.assert_array_equal(get_channel(stored, LIVER.channel), _expected_liver())


def test_segments_of_slicer_are_read_by_their_names(workspace: Workspace, tmp_path: Path) -> None:
    made = import_mask(workspace, "ward/1", _seg_nrrd(tmp_path / "m.seg.nrrd"), ["liver", "spleen"], **WHO)
    np.testing.assert_array_equal(_stored_liver(workspace, made.annotation), _expected_liver())
    layered = import_mask(
        workspace, "ward/1", _seg_nrrd(tmp_path / "l.seg.nrrd", layers=True), ["liver", "liver_tumor"], **WHO
    )
    np.testing.assert_array_equal(_stored_liver(workspace, layered.annotation), _expected_liver())
    assert layered.ml["liver_tumor"] > 0
    with pytest.raises(ValueError, match="no value or segment for pancreas, it has liver, spleen"):
        import_mask(workspace, "ward/1", tmp_path / "m.seg.nrrd", ["pancreas"], **WHO)


def test_overlapping_segments_of_a_dicom_segmentation_stay_whole(workspace: Workspace, tmp_path: Path) -> None:
    made = import_mask(workspace, "ward/1", _dicom_seg(tmp_path), ["liver", "liver_tumor"], **WHO)
    np.testing.assert_array_equal(_stored_liver(workspace, made.annotation), _expected_liver())
    assert made.ml["liver_tumor"] > 0


def test_names_beside_a_nifti_tell_its_values(workspace: Workspace, tmp_path: Path) -> None:
    assert load_card("local").value_names[6] == "liver"  # as after an ingest in the same process
    file = _nifti(tmp_path / "m.nii.gz", value=77)
    with pytest.raises(BadInput, match="label value 77"):
        import_mask(workspace, "ward/1", file, ["liver"], **WHO)
    beside = tmp_path / "m.json"
    beside.write_text(json.dumps({"values": {"77": "liver", str(TUMOUR.index): "liver_tumor"}}))
    made = import_mask(workspace, "ward/1", file, ["liver"], **WHO)
    np.testing.assert_array_equal(_stored_liver(workspace, made.annotation), _expected_liver())
    for text in ('{"values": [1]}', "{}", "not json"):
        beside.write_text(text)
        with pytest.raises(BadInput, match="without the names of its values"):
            import_mask(workspace, "ward/1", file, ["liver"], **WHO)
    beside.write_text('{"values": {"77": "livre"}}')
    with pytest.raises(BadInput, match="liver"):
        import_mask(workspace, "ward/1", file, ["liver"], **WHO)


def test_a_mask_elsewhere_a_human_class_and_what_is_not_there_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    shifted = ORIGINAL.copy()
    shifted[0, 3] += 1
    with pytest.raises(BadInput, match=r"shifted by .*1.000 mm at the farthest"):
        import_mask(workspace, "ward/1", _nifti(tmp_path / "s.nii.gz", shifted), ["liver"], **WHO)
    file = _nifti(tmp_path / "m.nii.gz")
    with pytest.raises(ValueError, match="annotators drew aorta there, and a human label is never replaced"):
        import_mask(workspace, "ward/1", file, ["liver", "aorta"], **WHO)
    with pytest.raises(KeyError, match="unknown case 'ward/2'"):
        import_mask(workspace, "ward/2", file, ["liver"], **WHO)
    with pytest.raises(FileNotFoundError, match="no such file"):
        import_mask(workspace, "ward/1", tmp_path / "none.nii.gz", ["liver"], **WHO)
    with pytest.raises(ValueError, match="found no reason"):
        import_mask(workspace, "ward/1", file, ["liver"], who="x", why=" ")
    assert workspace.tables.runs("review").empty
