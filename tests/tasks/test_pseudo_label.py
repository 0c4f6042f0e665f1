"""A pseudo-label run without Prefect: what it leaves, what a second one does, and what bad input does to it."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from lake_equality import differences
from pseudo_label_cohort import CLASSES, ingest_cohort, write_scans, write_teacher
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from catalog.errors import WriteFailed
from catalog.label_decisions import restore, retract
from models.infer import Predictor
from tasks import pseudo_label_files
from tasks.map_cases import map_cases
from tasks.notices import told
from tasks.pseudo_label import pseudo_label_batch
from tasks.pseudo_label_case import PseudoLabelOutcome, pseudo_label_case
from tasks.pseudo_label_plan import LabelRun, PseudoLabelRequest, plan_with
from tasks.pseudo_label_report import labels_of_run, report_run
from tasks.pseudo_label_run import figures_of, run_facts
from tasks.pseudo_label_spec import PseudoLabelSpec, make_spec
from tasks.settings import Settings
from tasks.teacher import Teacher, teacher_of
from tasks.two_stages import StageTimes
from tasks.workspace import open_workspace

SCANS = 3
SPEC = PseudoLabelSpec("clinic")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scans(tmp_path_factory.mktemp("raw") / "scans", SCANS)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return teacher_of([write_teacher(tmp_path_factory.mktemp("model") / "own.safetensors")])


@pytest.fixture(scope="module")
def ingested(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake of the cohort before anybody labelled it; tests copy it."""
    work = tmp_path_factory.mktemp("ingested")
    ingest_cohort(raw, _settings(work))
    return work / "lake"


def _settings(workspace: Path) -> Settings:
    return Settings(workspace=workspace, spacing_mm=(12.0, 12.0, 15.0), device="cpu", threads=1)


@pytest.fixture
def settings(ingested: Path, tmp_path: Path) -> Settings:
    shutil.copytree(ingested, tmp_path / "work" / "lake")
    return _settings(tmp_path / "work")


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the scans that the network was given, as it goes."""
    seen: list[tuple[int, ...]] = []
    real = Predictor.predict

    def noted(self: Predictor, scan: object, *more: object, **named: object) -> object:
        seen.append(scan.shape)  # type: ignore[attr-defined]
        return real(self, scan, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Predictor, "predict", noted)
    return seen


def label(
    settings: Settings, teacher: Teacher, spec: PseudoLabelSpec = SPEC, seen: tuple[str, ...] = ()
) -> tuple[LabelRun, list[PseudoLabelRequest], list[PseudoLabelOutcome]]:
    run, requests = plan_with(spec, teacher, settings, seen)
    return run, requests, pseudo_label_batch(requests, settings, run=run)


def test_the_overlapped_run_leaves_what_a_plain_loop_does(
    settings: Settings, teacher: Teacher, ingested: Path, tmp_path: Path
) -> None:
    _, _, outcomes = label(settings, teacher)
    shutil.copytree(ingested, tmp_path / "plain" / "lake")
    plain = _settings(tmp_path / "plain")
    run, requests = plan_with(SPEC, teacher, plain, ())
    others = map_cases(partial(pseudo_label_case, run=run), requests, plain)
    assert differences(settings.lake.folder, plain.lake.folder) == []
    assert [item.outcome for item in outcomes] == ["labelled"] * SCANS
    assert [replace(item, segmentation=None, overlay=None) for item in outcomes] == [
        replace(item, segmentation=None, overlay=None)  # type: ignore[type-var]
        for item in others
    ]


def test_rows_carry_scores_decision_reason_and_provenance(settings: Settings, teacher: Teacher) -> None:
    run, _, outcomes = label(settings, teacher)
    rows = labels_of_run(open_workspace(settings), run, outcomes)
    assert len(rows) == SCANS * len(CLASSES)
    full = open_workspace(settings).tables.labels("clinic")
    assert set(full["state"]) == {"pseudo"}
    assert set(full["review_state"]) == {"pending"}
    assert set(full["label_origin"]) == {"model"}
    assert set(full["independent"]) == {True}
    assert full["reason"].str.len().min() > 5
    assert set(full["decision"]) <= {"review", "reject"}  # nothing is accepted without a calibration
    scores = json.loads(full["scores"].iloc[0])
    assert {"mean_prob", "boundary_entropy", "agreement", "ml", "z", "flags"} <= set(scores)
    assert all(isinstance(json.loads(text), list) for text in full["cleaning"])


def test_a_second_run_predicts_nothing(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]]
) -> None:
    label(settings, teacher)
    assert len(predictions) == SCANS
    _, _, outcomes = label(settings, teacher)
    assert len(predictions) == SCANS
    assert [item.outcome for item in outcomes] == ["unchanged"] * SCANS
    assert all(item.overlay and item.segmentation and item.mean_probability for item in outcomes)


def test_what_is_missing_behind_the_commit_is_made_up_from_the_lake(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]]
) -> None:
    _, _, first = label(settings, teacher)
    whole = [Path(str(item.segmentation)).read_bytes() for item in first]
    for item in first:
        Path(str(item.overlay)).unlink()
    shutil.rmtree(Path(str(first[0].segmentation)).parent)
    _, _, again = label(settings, teacher)
    assert [item.outcome for item in again] == ["completed"] * SCANS
    assert [Path(str(item.segmentation)).read_bytes() for item in again] == whole
    assert len(predictions) == SCANS
    # another format is made from the masks in the lake as well
    _, _, more = label(settings, teacher, make_spec({"cohort": "clinic", "export": {"formats": ["nifti_per_class"]}}))
    assert [item.outcome for item in more] == ["completed"] * SCANS
    assert len(predictions) == SCANS


def test_fewer_classes_are_served_by_what_is_there_and_more_are_predicted(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]]
) -> None:
    liver = make_spec({"cohort": "clinic", "classes": ["liver"]})
    _, _, narrow = label(settings, teacher, liver)
    assert [item.classes for item in narrow] == [("liver",)] * SCANS
    _, _, every = label(settings, teacher)
    assert [item.classes for item in every] == [CLASSES] * SCANS
    assert len(predictions) == 2 * SCANS
    _, _, again = label(settings, teacher, make_spec({"cohort": "clinic", "classes": ["spleen"]}))
    assert {item.annotation for item in again} == {item.annotation for item in every}
    assert len(predictions) == 2 * SCANS


def test_another_bar_decides_again_on_the_masks_in_the_lake(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]]
) -> None:
    first, _, before = label(settings, teacher)
    strict = make_spec({"cohort": "clinic", "bars": {"accept": 0.99, "reject": 0.98}})
    second, _, after = label(settings, teacher, strict)
    assert [item.outcome for item in after] == ["rejudged"] * SCANS
    assert len(predictions) == SCANS
    one, other = (labels_of_run(open_workspace(settings), *pair) for pair in ((first, before), (second, after)))
    assert set(one["annotation"]).isdisjoint(other["annotation"])
    assert list(one["scores"]) == list(other["scores"])
    workspace = open_workspace(settings)
    for case in workspace.tables.cases("clinic").to_dict("records"):
        masks = []
        for rows in (one, other):
            row = rows[rows["case_id"] == case["case_id"]].iloc[0]
            masks.append(workspace.lake.open_bits({**case, "manifest": row["manifest"]}, row["annotation"]).read())
        assert np.array_equal(*masks)
    # both stand, each is found again by its own bars
    assert [item.outcome for item in label(settings, teacher, strict)[2]] == ["unchanged"] * SCANS
    assert {item.annotation for item in label(settings, teacher)[2]} == set(one["annotation"])


def test_labels_that_were_retracted_do_not_come_back_by_themselves(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]]
) -> None:
    run, requests = plan_with(SPEC, teacher, settings, (), flow_run_id="round-1")
    pseudo_label_batch(requests, settings, run=run)
    retract(open_workspace(settings).tables, "round-1", who="ada", why="masks shifted")
    for spec in (SPEC, make_spec({"cohort": "clinic", "bars": {"accept": 0.99, "reject": 0.98}})):
        _, _, outcomes = label(settings, teacher, spec)
        assert [item.outcome for item in outcomes] == ["unchanged"] * SCANS
        assert "retracted" in outcomes[0].message
    assert open_workspace(settings).tables.labels("clinic").empty
    assert len(predictions) == SCANS
    restore(open_workspace(settings).tables, "round-1", who="ada", why="the scanner was")
    assert len(open_workspace(settings).tables.labels("clinic")) == SCANS * len(CLASSES)


def test_a_class_that_a_human_annotated_gets_no_row(settings: Settings, teacher: Teacher) -> None:
    workspace = open_workspace(settings)
    case = workspace.tables.cases("clinic").iloc[0]
    bits = np.zeros((1, case["shape_x"], case["shape_y"], case["shape_z"]), dtype=np.uint32)
    bits[0, 3:9, 3:9, 3:9] = 1 << 5  # liver
    manifest = workspace.lake.write_annotation(case["path"], "human", bits)
    row = {
        "case_id": case["case_id"],
        "ingest_key": case["ingest_key"],
        "class_name": "liver",
        "channel": 5,
        "annotation": "human",
        "state": "annotated",
        "label_origin": "human",
        "voxels": 216,
        "ml": 466.6,
        "hu_mean": 60.0,
        "bbox": [3, 3, 3, 9, 9, 9],
        "centroid_mm": [-126.0, -90.0, -60.0],
        "components": 1,
        "touches_border": False,
        "sampled_voxels": [3, 3, 3],
        "manifest": manifest.to_json(),
    }
    workspace.tables.commit_labels([row])
    _, _, outcomes = label(settings, teacher)
    assert [item.classes for item in outcomes] == [("spleen", "liver_tumor"), CLASSES, CLASSES]
    rows = open_workspace(settings).tables.labels(case_ids=[case["case_id"]], class_name="liver")
    assert list(rows["annotation"]) == ["human"]
    _, _, again = label(settings, teacher)
    assert [item.outcome for item in again] == ["unchanged"] * SCANS


def test_several_models_are_one_ensemble(settings: Settings, teacher: Teacher, tmp_path: Path) -> None:
    other = write_teacher(tmp_path / "other.safetensors", seed=3)
    both = teacher_of([teacher.checkpoints[0], other])
    assert both.name == "own+other"
    run, _, outcomes = label(settings, both)
    alone, _, _ = label(settings, teacher)
    assert run.base != alone.base
    assert {item.outcome for item in outcomes} == {"labelled"}
    rows = open_workspace(settings).tables.labels("clinic", annotation=outcomes[0].annotation)
    assert all(isinstance(json.loads(text)["agreement"], float) for text in rows["scores"])
    strange = write_teacher(tmp_path / "strange.safetensors", classes=("liver", "spleen"))
    with pytest.raises(ValueError, match="are no ensemble: classes"):
        teacher_of([teacher.checkpoints[0], strange])


# --- bad input ---


def test_a_cohort_without_scans_names_what_there_is(settings: Settings, teacher: Teacher) -> None:
    with pytest.raises(LookupError, match=r"cohort 'clinik' has no case in the lake, which holds clinic; ingest it"):
        plan_with(PseudoLabelSpec("clinik"), teacher, settings, ())


def test_a_scan_of_the_training_is_warned_of_and_marked(settings: Settings, teacher: Teacher) -> None:
    ids = list(open_workspace(settings).tables.cases("clinic")["case_id"])
    heard: list[str] = []
    with told(heard.append):
        label(settings, teacher, seen=(ids[1],))
    assert [text for text in heard if "was trained on 1 of these 3 scans" in text and ids[1] in text]
    rows = open_workspace(settings).tables.labels("clinic", columns=["independent"])
    independent = rows.drop_duplicates("case_id").set_index("case_id")["independent"]
    assert dict(independent) == {ids[0]: True, ids[1]: False, ids[2]: True}


def test_where_the_training_is_not_known_independence_is_not_claimed(settings: Settings, teacher: Teacher) -> None:
    _, requests = plan_with(SPEC, teacher, settings, None)
    assert {request.independent for request in requests} == {None}


def test_a_model_of_another_class_table_is_refused_by_name(teacher: Teacher, tmp_path: Path) -> None:
    weights = load_file(teacher.checkpoints[0])
    with safe_open(teacher.checkpoints[0], framework="np") as opened:
        header = json.loads(opened.metadata()["ctfactory"])
    header["model"]["classes"] = ["spleen", "liver", "liver_haemangioma"]
    save_file(weights, tmp_path / "foreign.safetensors", {"ctfactory": json.dumps(header)})
    with pytest.raises(ValueError, match="its classes liver_haemangioma are not among the 32 of the class table"):
        teacher_of([tmp_path / "foreign.safetensors"])


def test_a_class_the_model_does_not_have_is_refused(settings: Settings, teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="was not trained on aorta; it was trained on spleen, liver, liver_tumor"):
        plan_with(make_spec({"cohort": "clinic", "classes": ["aorta"]}), teacher, settings, ())


@pytest.mark.parametrize(
    ("export", "words"),
    [
        ({"formats": ["dicom_seg"]}, "dicom_seg refer to the scan's DICOM series, found no source"),
        ({"source": "nowhere"}, "source: nowhere: no such folder"),
        ({"formats": ["nrrd"]}, "'nrrd', expected one of nifti"),
        ({"profile": "commercial"}, "profile commercial refuses"),
        ({"profile": "secret"}, "profile 'secret', expected one of research"),
    ],
)
def test_an_export_that_cannot_be_is_refused_before_any_work(
    settings: Settings, teacher: Teacher, export: dict[str, object], words: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as found:
        plan_with(make_spec({"cohort": "clinic", "export": export}), teacher, settings, ())
    assert words in str(found.value)


def test_a_full_disk_in_export_is_told_and_made_up_once_fixed(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pseudo_label_files.export_case

    def full(case: dict[str, object], *more: object, **named: object) -> object:
        if str(case["case_id"]) == ids[1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(case, *more, **named)  # type: ignore[arg-type]

    ids = list(open_workspace(settings).tables.cases("clinic")["case_id"])
    monkeypatch.setattr(pseudo_label_files, "export_case", full)
    run, _, outcomes = label(settings, teacher)
    assert [item.outcome for item in outcomes] == ["labelled", "failed", "labelled"]
    message = outcomes[1].message
    assert "labelled, but not exported" in message
    assert f"{run.export_folder}/{ids[1].split('/')[1]}: No space left on device, while writing" in message
    assert "bytes free" in message
    monkeypatch.setattr(pseudo_label_files, "export_case", real)
    _, _, again = label(settings, teacher)
    assert [item.outcome for item in again] == ["unchanged", "completed", "unchanged"]
    assert len(predictions) == SCANS


def test_a_full_disk_in_the_lake_ends_the_run_which_goes_on_once_fixed(
    settings: Settings, teacher: Teacher, predictions: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from catalog import lake_write

    real = lake_write.store_annotation

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lake_write, "store_annotation", full)
    with pytest.raises(WriteFailed, match="No space left on device, while writing"):
        label(settings, teacher)
    assert open_workspace(settings).tables.labels("clinic").empty
    monkeypatch.setattr(lake_write, "store_annotation", real)
    _, _, outcomes = label(settings, teacher)
    assert [item.outcome for item in outcomes] == ["labelled"] * SCANS


def test_an_unreadable_scan_goes_to_quarantine_and_the_run_goes_on(settings: Settings, teacher: Teacher) -> None:
    case = open_workspace(settings).tables.cases("clinic").iloc[1]
    shard = next((settings.lake.folder / case["path"] / "0").rglob("c/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(bytes(data))
    run, _, outcomes = label(settings, teacher)
    assert [item.outcome for item in outcomes] == ["labelled", "failed", "labelled"]
    (row,) = open_workspace(settings).tables.quarantined("clinic").to_dict("records")
    assert (row["native_id"], row["code"]) == (case["native_id"], "unreadable")
    assert row["retry"] == "ctfactory pseudo-label clinic"
    figures = figures_of(run, outcomes, StageTimes(1.0, 1.0, 1.5))
    assert figures.outcomes == {"labelled": 2, "failed": 1}
    page = report_run(run, outcomes, figures, run_facts(run, {}, None, None), settings)
    assert case["case_id"] in page.read_text()


def test_a_scan_on_another_grid_goes_to_quarantine(settings: Settings, raw: Path, teacher: Teacher) -> None:
    elsewhere = settings.model_copy(update={"spacing_mm": (16.0, 16.0, 16.0)})
    ingest_cohort(raw, elsewhere, "coarse")
    _, _, outcomes = label(settings, teacher, PseudoLabelSpec("coarse"))
    assert {item.outcome for item in outcomes} == {"failed"}
    assert "spacing [16.0, 16.0, 16.0] mm, but the model was trained at" in outcomes[0].message
    assert set(open_workspace(settings).tables.quarantined("coarse")["code"]) == {"not_predicted"}


def test_exports_lie_on_the_grid_of_the_scan_as_it_came(settings: Settings, raw: Path, teacher: Teacher) -> None:
    _, _, outcomes = label(settings, teacher)
    exported = nibabel.load(outcomes[0].segmentation)
    scan = nibabel.load(raw / "scan_0" / "ct.nii.gz")
    assert exported.shape == scan.shape
    assert np.allclose(exported.affine, scan.affine)
