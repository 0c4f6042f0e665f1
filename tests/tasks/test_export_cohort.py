"""Exports of the catalog's labels: what counts, under which licence, in which formats, whole or not at all."""

from __future__ import annotations

import csv
import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from catalog.keys import content_sha256
from datasets_registry.miniatures import write_local
from datasets_registry.taxonomy import all_classes, class_info
from imaging.bits import get_channel
from imaging.dicom import find_series, read_series
from imaging.dicom_seg import place_segment, read_segmentation
from imaging.metrics import dice
from imaging.resample import Grid, orient_ras
from imaging.resample_masks import resample_masks
from imaging.rtstruct import rasterise, read_structures
from tasks.case_rows import label_rows
from tasks.export import FORMATS, original_grid
from tasks.export_cohort import export_batch, merged_bits
from tasks.export_plan import ExportPlan, plan_export
from tasks.export_staging import RECORD
from tasks.ingest import ingest_batch, list_source
from tasks.prediction import case_image
from tasks.settings import Settings
from tasks.workspace import open_workspace, row_dicts

WARD = "ward"
PSEUDO = {
    "spleen": "accept",
    "liver_tumor": "accept",
    "aorta": "review",
    "pancreas": "reject",
    "celiac_trunk": "accept",
}
"""What the model found in every case, and what the factory decided of it; the celiac trunk is absent."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_local(folder / WARD, cases=2, seed=3, truth_folder=folder / "truth", spacing_mm=(6.0, 6.0, 8.0))
    return folder


@pytest.fixture(scope="module")
def settings(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A lake with a cohort of one DICOM and one NIfTI scan, human labels as shipped and pseudo-labels of a model."""
    settings = Settings(workspace=tmp_path_factory.mktemp("w"), spacing_mm=(8.0, 8.0, 8.0))
    outcomes = ingest_batch(list_source("local", raw / WARD, settings, cohort=WARD).requests, settings)
    assert [item.outcome for item in outcomes] == ["ingested"] * 2
    workspace = open_workspace(settings)
    for case in cases(settings):
        truth = np.load(raw / "truth" / "local" / f"{case['native_id']}.npz")
        image = case_image(workspace, case)
        bits = resample_masks(truth["bits"], truth["affine"], Grid.of(image), form="nearest")
        bits[0] &= ~(np.uint32(1) << np.uint32(class_info("celiac_trunk").channel))
        manifest = workspace.lake.write_annotation(case["path"], "pseudo-v1", bits)
        rows = label_rows(
            bits, image, list(PSEUDO), case={"case_id": case["case_id"], "ingest_key": case["ingest_key"]},
            annotation="pseudo-v1", sampled_voxels=4,
            provenance=lambda name, m=manifest: {
                "state": "pseudo", "label_origin": "model", "model_name": "universal", "model_version": "1",
                "manifest": m.to_json(), "review_state": "pending", "decision": PSEUDO[name],
                "licence": "CC-BY-NC-4.0", "non_commercial": True,
            },
        )  # fmt: skip
        workspace.tables.commit_labels(rows)
    return settings


def cases(settings: Settings) -> list[dict[str, Any]]:
    return row_dicts(open_workspace(settings).tables.cases(dataset=WARD))


def dicom_case(settings: Settings, raw: Path) -> dict[str, Any]:
    """Return the case that came as a DICOM series."""
    (series,) = find_series(raw / WARD)
    upright = orient_ras(read_series(series))
    digest = content_sha256(upright.array, upright.affine)
    return next(case for case in cases(settings) if case["content_sha256"] == digest)


def export(settings: Settings, plan: ExportPlan) -> list[Any]:
    return export_batch(plan_export(plan, settings), settings)


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / RECORD).read_text())
    return found


def human_classes(settings: Settings, case_id: str) -> set[str]:
    return set(open_workspace(settings).tables.labels(case_ids=[case_id], state="annotated")["class_name"])


def test_human_labels_and_accepted_masks_are_exported_and_others_wait(settings: Settings, tmp_path: Path) -> None:
    outcomes = export(settings, ExportPlan((WARD,), out=tmp_path))
    assert [item.outcome for item in outcomes] == ["exported", "exported"]
    for item in outcomes:
        human = human_classes(settings, item.case_id)
        assert human
        assert set(item.classes) == human | {"spleen", "liver_tumor", "celiac_trunk"}
        assert ("aorta (--include review takes them)" in item.message) == ("aorta" not in human)
        told = record_of(item.folder)["classes"]
        assert {name: one["state"] for name, one in told.items()} == {
            name: "annotated" if name in human else "pseudo" for name in item.classes
        }
        models = {None if name in human else "models:/universal/1" for name in item.classes}
        assert {one["model"] for one in told.values()} == models
    again = export(settings, ExportPlan((WARD,), out=tmp_path))
    assert [item.outcome for item in again] == ["unchanged", "unchanged"]
    more = export(settings, ExportPlan((WARD,), out=tmp_path, include_review=True))
    assert [item.outcome for item in more] == ["exported", "exported"]
    for item in more:
        assert "aorta" in item.classes
        # what the factory rejected is no label, whatever is included
        assert ("pancreas" in item.classes) == ("pancreas" in human_classes(settings, item.case_id))


def test_exported_file_is_the_lakes_mask_on_the_scans_own_grid(settings: Settings, tmp_path: Path) -> None:
    plan = ExportPlan((WARD,), ("nifti_per_class", "nifti"), out=tmp_path)
    requests = plan_export(plan, settings)
    export_batch(requests, settings)
    workspace = open_workspace(settings)
    for request in requests:
        grid = original_grid(request.case)
        bits = merged_bits(workspace, request.labels)
        expected = resample_masks(bits, np.reshape(request.case["affine"], (4, 4)), grid)
        folder = request.folder / request.case["native_id"]
        for row in request.labels:
            read = nibabel.load(folder / "classes" / f"{row['class_name']}.nii.gz")
            assert np.allclose(read.affine, grid.affine, atol=1e-3)
            assert np.array_equal(np.asarray(read.dataobj) != 0, get_channel(expected, row["channel"]))
        label = np.asarray(nibabel.load(folder / "segmentation.nii.gz").dataobj)
        assert set(np.unique(label).tolist()) <= {0, *(row["channel"] + 1 for row in request.labels)}
        tumour = get_channel(expected, class_info("liver_tumor").channel)
        assert tumour.any()
        assert (label[tumour] == 27).all()


def test_exports_agree_with_the_hidden_truth(settings: Settings, raw: Path, tmp_path: Path) -> None:
    outcomes = export(settings, ExportPlan((WARD,), ("nifti_per_class",), annotation="pseudo-v1", out=tmp_path))
    for item in outcomes:
        truth = np.load(raw / "truth" / "local" / f"{item.folder.name}.npz")
        mask = np.asarray(nibabel.load(item.folder / "classes" / "spleen.nii.gz").dataobj) != 0
        assert dice(mask, get_channel(truth["bits"], class_info("spleen").channel)) > 0.8
        assert set(item.classes) == {"spleen", "liver_tumor", "celiac_trunk"}


def test_statistics_tell_absent_from_unlabelled(settings: Settings, tmp_path: Path) -> None:
    (item, _) = export(settings, ExportPlan((WARD,), annotation="pseudo-v1", out=tmp_path))
    with (item.folder / "statistics.csv").open() as stream:
        rows = {row["class_name"]: row for row in csv.DictReader(stream)}
    assert list(rows) == [info.name for info in all_classes()]
    absent, unlabelled, spleen = rows["celiac_trunk"], rows["rectum"], rows["spleen"]
    assert (absent["state"], absent["ml"], absent["voxels"], absent["hu_mean"]) == ("pseudo", "0.0", "0", "")
    assert unlabelled["state"] == "unlabelled"
    assert {unlabelled[name] for name in ("ml", "voxels", "hu_mean", "touches_border", "licence")} == {""}
    label = nibabel.load(item.folder / "segmentation.nii.gz")
    mask = np.asarray(label.dataobj) == 1
    index = np.argwhere(mask).mean(axis=0)
    centroid = label.affine[:3, :3] @ index + label.affine[:3, 3]
    assert float(spleen["ml"]) == pytest.approx(mask.sum() * abs(np.linalg.det(label.affine[:3, :3])) / 1000, rel=1e-5)
    assert [float(spleen[f"centroid_{axis}_mm"]) for axis in "ras"] == pytest.approx(centroid.tolist(), abs=1e-2)
    assert centroid[0] < 0  # the spleen is on the left: RAS x below 0
    assert spleen["licence"] == "CC-BY-NC-4.0"
    assert 0 < float(spleen["hu_mean"]) < 200


def test_profiles_refuse_by_licence_and_write_nothing(settings: Settings, tmp_path: Path) -> None:
    for profile in ("public", "commercial"):
        outcomes = export(settings, ExportPlan((WARD,), profile=profile, out=tmp_path))
        assert {item.outcome for item in outcomes} == {"refused"}
        assert "scan: not stated" in outcomes[0].message
        assert "--profile research" in outcomes[0].message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_all_formats_of_the_dicom_case_open_and_refer_to_its_series(
    settings: Settings, raw: Path, tmp_path: Path
) -> None:
    case = dicom_case(settings, raw)
    plan = ExportPlan((case["case_id"],), FORMATS, source=raw / WARD, out=tmp_path)
    (item,) = export(settings, plan)
    assert (item.outcome, item.message.split(":")[0]) == ("exported", "waits for a review")
    (series,) = find_series(raw / WARD)
    image = read_series(series)
    told = record_of(item.folder)
    masks = {
        name: np.asarray(nibabel.load(item.folder / file).dataobj) != 0 for name, file in told["class_files"].items()
    }
    maps = told["dicom_seg_label_maps"]
    assert len(maps) > 1  # a tumour lies in its organ: one label map cannot hold both
    for file, names in maps.items():
        assert highdicom.seg.segread(item.folder / file).SegmentationType == "LABELMAP"
        placed = {s.number: place_segment(s, image, "x", image_frame_uid=series.frame_uid).array
                  for s in read_segmentation(item.folder / file)}  # fmt: skip
        for name in names:
            number = class_info(name).index
            assert np.array_equal(placed[number], masks[name]) if masks[name].any() else number not in placed
    structures = {s.number: s for s in read_structures(item.folder / "structures.dcm")}
    for name, mask in masks.items():
        assert np.array_equal(rasterise(structures[class_info(name).index], image, "x").array, mask)
    assert told["rtstruct_without_contours"] == [name for name in item.classes if not masks[name].any()]
    ct = nibabel.load(item.folder / "ct.nii.gz")
    assert np.array_equal(np.asarray(ct.dataobj), image.array)
    assert told["ct"] == "as the source has it"
    held = b"".join(path.read_bytes() for path in item.folder.rglob("*.dcm"))
    source = pydicom.dcmread(series.files[0])
    assert len(str(source.PatientName)) > 5
    for told_of in (source.PatientName, source.PatientID):
        assert str(told_of).encode() not in held
    assert case["native_id"].encode() in held


def test_dicom_formats_say_what_is_missing(settings: Settings, raw: Path, tmp_path: Path) -> None:
    outcomes = {item.case_id: item for item in export(settings, ExportPlan((WARD,), ("dicom_seg",), out=tmp_path))}
    assert {item.outcome for item in outcomes.values()} == {"failed"}
    assert all("--source FOLDER" in item.message for item in outcomes.values())
    with pytest.raises(FileNotFoundError, match="--source"):
        plan_export(ExportPlan((WARD,), ("dicom_seg",), source=tmp_path / "gone"), settings)
    came_as = dicom_case(settings, raw)["case_id"]
    outcomes = {
        item.case_id: item
        for item in export(settings, ExportPlan((WARD,), ("dicom_seg",), source=raw / WARD, out=tmp_path))
    }
    assert outcomes[came_as].outcome == "exported"
    (other,) = set(outcomes) - {came_as}
    assert "did not come as DICOM" in outcomes[other].message
    moved = tmp_path / "other"
    shutil.copytree(raw / WARD, moved)
    for path in sorted(moved.rglob("*.dcm"))[:1]:
        data = pydicom.dcmread(path)
        data.PixelData = bytes(len(data.PixelData))
        data.save_as(path)
    (changed,) = export(settings, ExportPlan((came_as,), ("dicom_seg",), source=moved, out=tmp_path / "b"))
    assert "is this scan by its voxels" in changed.message


@contextmanager
def files_no_larger_than(count: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_disk_that_refuses_leaves_the_last_export_whole_and_goes_on_once_fixed(
    settings: Settings, tmp_path: Path
) -> None:
    plan = ExportPlan((WARD,), out=tmp_path)
    export(settings, plan)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    more = replace(plan, formats=("nifti", "seg_nrrd", "nifti_per_class"), include_review=True)
    with files_no_larger_than(2000):
        outcomes = export(settings, more)
    assert {item.outcome for item in outcomes} == {"failed"}
    assert "once fixed" in outcomes[0].message
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {item.outcome for item in export(settings, more)} == {"exported"}
    for item in export(settings, plan):  # and back: files of the wider export go
        assert not (item.folder / "segmentation.seg.nrrd").exists()
        assert not list((item.folder / "classes").glob("*"))
        assert set(record_of(item.folder)["files"]) == {
            path.name for path in item.folder.iterdir() if path.is_file() and path.name != RECORD
        }


def test_names_that_mean_nothing_are_errors(settings: Settings) -> None:
    for plan, said in (
        (ExportPlan(("nowhere",)), "no cohort and no case"),
        (ExportPlan((WARD,), annotation="pseudo-v9"), "no label of annotation 'pseudo-v9'"),
        (ExportPlan((WARD,), classes=("liverr",)), "unknown class 'liverr'"),
    ):
        with pytest.raises(LookupError, match=said):
            plan_export(plan, settings)
    for plan in (ExportPlan((WARD,), ("obj",)), ExportPlan((WARD,), profile="secret"), ExportPlan((WARD,), ())):
        with pytest.raises(ValueError, match="expected"):
            plan_export(plan, settings)


def test_classes_merge_from_several_annotations_into_more_words(settings: Settings) -> None:
    request = plan_export(ExportPlan((WARD,)), settings)[0]
    bits = merged_bits(open_workspace(settings), request.labels)
    assert len({row["annotation"] for row in request.labels}) == 2
    for row in request.labels:
        assert int(get_channel(bits, row["channel"]).sum()) == row["voxels"]
