"""Evaluation as a flow on miniatures: what it leaves behind, going on after a kill, two models, a challenge's rules."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import nibabel
import numpy as np
import pandas as pd
import pytest
from small_model import checkpoint

from datasets_registry.taxonomy import class_info
from flows.evaluate import EvaluateReport, Extras, evaluate
from flows.ingest_all import ingest_miniatures
from flows.local_server import prefect_api
from imaging.bits import get_channel
from imaging.metrics import dice
from models.settings import ModelSettings
from tasks.evaluate import evaluate_cases
from tasks.evaluate_case import SCORE_COLUMNS, CaseRequest, case_masks
from tasks.evaluation_points import points_of_run
from tasks.evaluation_run import Evaluation
from tasks.evaluation_store import EvaluationStore
from tasks.evidence import read_evidence
from tasks.protocol import load_protocol
from tasks.protocol_case import label_map
from tasks.registry import (
    TRAINING_CASES,
    ModelVersion,
    checkpoint_digest,
    fetch_checkpoint,
    model_version,
    register_checkpoint,
    version_tags,
)
from tasks.settings import Settings
from tasks.splits import LeakRefused, ScoringCases, SplitChoice
from tasks.tracking import mlflow_client, tracked_run
from tasks.workspace import open_workspace, row_dicts

pytestmark = pytest.mark.end_to_end

MODEL = ModelSettings(
    classes=("spleen", "liver", "liver_tumor", "hepatic_vessel_tumor"),
    patch=(32, 32, 32),
    spacing_mm=(12.0, 12.0, 12.0),
)


def register(settings: Settings, folder: Path, seed: int, learnt: list[str]) -> ModelVersion:
    """Register an untrained network that claims to have seen the cases `learnt`."""
    with tracked_run(settings, "train", kind="train", tags={}):
        mlflow.log_text("\n".join(learnt), TRAINING_CASES)
        return register_checkpoint(checkpoint(folder / f"{seed}.safetensors", MODEL, seed), settings, tags={})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    chosen = Settings(
        workspace=tmp_path_factory.mktemp("evaluate"),
        spacing_mm=(12, 12, 12),
        nsd_tolerance_mm=12,
        device="cpu",
        threads=1,
    )
    with prefect_api(chosen):
        ingest_miniatures(["msd_liver", "chaos_ct", "ircadb_01"], chosen, cases=2)
        yield chosen


@pytest.fixture(scope="module")
def versions(settings: Settings) -> tuple[ModelVersion, ModelVersion]:
    learnt = ["word/0001"]  # of neither cohort, so that every case may be scored
    return (register(settings, settings.workspace, 2, learnt), register(settings, settings.workspace, 5, learnt))


@pytest.fixture(scope="module")
def everything(settings: Settings) -> SplitChoice:
    """Every labelled case, whatever its fold: the networks have seen none."""
    cases = open_workspace(settings).tables.cases()
    return SplitChoice(only=tuple(cases["case_id"]))


@pytest.fixture(scope="module")
def report(settings: Settings, versions: tuple[ModelVersion, ModelVersion], everything: SplitChoice) -> EvaluateReport:
    return evaluate(versions[0].uri, settings, None, everything, extras=Extras(compare=versions[1].uri))


def artifact(evaluation: Evaluation, name: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(run_id=evaluation.run_id, artifact_path=name))


def test_promotion_can_trust_the_files(
    report: EvaluateReport, settings: Settings, versions: tuple[ModelVersion, ModelVersion]
) -> None:
    evaluation = report.evaluation
    found = read_evidence(evaluation.run_id, versions[0], open_workspace(settings))
    assert tuple(found.scores.columns) == SCORE_COLUMNS
    assert found.about["weights_sha256"] == checkpoint_digest(fetch_checkpoint(versions[0], settings))
    assert found.about["datasets"] == {"chaos_ct": 2, "ircadb_01": 2, "msd_liver": 2}
    assert found.about["model"] == {"name": "universal", "version": versions[0].version}
    ids = "\n".join(sorted(found.scores["case_id"].unique()))
    assert found.about["case_ids_sha256"] == hashlib.sha256(ids.encode()).hexdigest()
    row = open_workspace(settings).tables.runs(kind="evaluate").iloc[-1]
    assert json.loads(row["evidence"]).keys() == {"evaluation.json", "scores.parquet"}


def test_a_case_is_scored_where_annotators_looked(report: EvaluateReport, settings: Settings) -> None:
    scores = pd.read_parquet(artifact(report.evaluation, "scores.parquet"))
    labels = open_workspace(settings).tables.labels(state="annotated")
    for case_id, part in scores.groupby("case_id"):
        drawn = set(labels[labels["case_id"] == case_id]["class_name"]) & set(MODEL.classes)
        assert set(part[~part["known_absent"]]["class_name"]) == drawn
    # Nobody drew tumours in CHAOS, whose source says that its donors are healthy.
    chaos = scores[scores["dataset"] == "chaos_ct"]
    assert set(chaos[chaos["known_absent"]]["class_name"]) >= {"liver_tumor"}
    assert chaos[chaos["known_absent"]]["dsc"].isna().all()


def test_a_spacing_that_is_known_to_be_wrong_is_no_stratum(report: EvaluateReport) -> None:
    scores = pd.read_parquet(artifact(report.evaluation, "scores.parquet")).drop_duplicates("case_id")
    slices = scores.set_index("case_id")["slice_mm"]
    assert np.isnan(slices["msd_liver/28"])  # one of the scans whose header lost its spacing
    assert slices["msd_liver/0"] > 1.0


def test_either_tumour_class_finds_a_liver_tumour(report: EvaluateReport, settings: Settings) -> None:
    scores = pd.read_parquet(artifact(report.evaluation, "scores.parquet"))
    row = scores[(scores["case_id"] == "msd_liver/0") & (scores["class_name"] == "liver_tumor")].iloc[0]
    case = row_dicts(open_workspace(settings).tables.cases(case_ids=["msd_liver/0"]))[0]
    request = request_of(case, settings)
    bits = case_masks(request, settings).bits
    either = get_channel(bits, class_info("liver_tumor").channel) | get_channel(
        bits, class_info("hepatic_vessel_tumor").channel
    )
    assert row["detected_ml"] == pytest.approx(either.sum() * 12**3 / 1000)
    assert row["predicted_ml"] < row["detected_ml"]


def request_of(case: dict[str, object], settings: Settings) -> CaseRequest:
    path = fetch_checkpoint(model_version("1", settings), settings)
    return CaseRequest(case, path, checkpoint_digest(path))


def test_the_run_shows_tables_pictures_and_steady_metric_names(report: EvaluateReport, settings: Settings) -> None:
    client, run_id = mlflow_client(settings), report.evaluation.run_id
    names = {item.path for item in client.list_artifacts(run_id)}
    for table in ("classes", "detection", "generalisation", "strata", "comparison"):
        assert {f"{table}.parquet", f"{table}.html"} <= names
    assert {"lesions.parquet", "costs.parquet"} <= names
    assert {
        "tables.md",
        "report.html",
        "boxes.png",
        "roc.png",
        "efficiency.png",
        "worst_1.png",
        "msd_liver.png",
    } <= names
    metrics = client.get_run(run_id).data.metrics
    assert {"dsc/liver", "nsd/liver", "sensitivity/liver_tumor", "mean_organ_dsc"} <= metrics.keys()
    assert metrics["efficiency/parameters"] > 1e6
    assert metrics["efficiency/tflops_per_scan"] > 0
    page = report.evaluation.page.read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert "Side by side" in page


def test_only_held_out_cases_are_named_by_the_version(
    report: EvaluateReport, settings: Settings, versions: tuple[ModelVersion, ModelVersion]
) -> None:
    assert "evaluation_run_id" not in version_tags(versions[0], settings)  # cases were listed, and some are external


def test_two_models_are_compared_on_the_same_cases(report: EvaluateReport) -> None:
    assert report.evaluation.comparison is not None
    table = report.evaluation.comparison.set_index("class_name")
    assert table.loc["liver", "scored"] == 6
    assert table.loc["liver", "a"] == pytest.approx(table.loc["liver", "b"] + table.loc["liver", "difference"])


def test_operating_points_come_from_other_patients_of_the_same_weights(
    report: EvaluateReport, settings: Settings
) -> None:
    weights = request_of({}, settings).weights
    cases = open_workspace(settings).tables.cases()
    elsewhere = ScoringCases(cases.assign(split_group="somebody else"), ())
    run_id = report.evaluation.run_id
    found = points_of_run(run_id, weights, elsewhere, settings)
    detection = report.evaluation.detection.set_index("class_name")
    assert found.limits["liver_tumor"] == detection.loc["liver_tumor", "chosen_min_ml"]
    assert detection.loc["liver_tumor", "chosen_on"] == "these cases (optimistic)"
    assert found.chosen_on == f"run {run_id}"
    with pytest.raises(ValueError, match="of its patients are scored now"):
        points_of_run(run_id, weights, ScoringCases(cases, ()), settings)
    with pytest.raises(ValueError, match="chosen for weights"):
        points_of_run(run_id, "0" * 64, elsewhere, settings)


def test_a_killed_evaluation_goes_on_and_another_model_begins_anew(
    report: EvaluateReport, settings: Settings, tmp_path: Path
) -> None:
    cases = open_workspace(settings).tables.cases(dataset="msd_liver")
    path = request_of({}, settings).checkpoint
    elsewhere = settings.model_copy(
        update={"workspace": tmp_path, "lake_root": str(settings.workspace / "lake"), "device": "cpu"}
    )
    digest = checkpoint_digest(path)
    first = evaluate_cases(cases.iloc[:1], path, digest, elsewhere)
    folder = EvaluationStore(elsewhere).folder
    # What a kill leaves behind: a file that was not moved into place, and one that is torn.
    (folder / ".torn.npz.1.part").write_bytes(b"half")
    gone_on = evaluate_cases(cases, path, digest, elsewhere)
    assert (first.reused, gone_on.reused) == (0, 1)
    again = evaluate_cases(cases, path, digest, elsewhere)
    assert again.reused == len(cases)
    pd.testing.assert_frame_equal(again.scores, gone_on.scores)
    for file in folder.glob("*.json"):
        file.write_text('{"rows": [')
    assert evaluate_cases(cases, path, digest, elsewhere).reused == 0
    # Scores of other weights, and by other rules, are never taken.
    assert evaluate_cases(cases, path, "0" * 64, elsewhere).reused == 0
    stricter = elsewhere.model_copy(update={"nsd_tolerance_mm": 1.0})
    other = evaluate_cases(cases, path, digest, stricter)
    assert other.reused == 0
    assert (other.scores["nsd"].fillna(0) <= gone_on.scores["nsd"].fillna(0)).all()


def test_cases_of_the_training_are_refused_or_left_out(settings: Settings, tmp_path: Path) -> None:
    version = register(settings, tmp_path, 7, ["msd_liver/0", "chaos_ct/1"])
    asked = SplitChoice(only=("msd_liver/0", "msd_liver/28"))
    with pytest.raises(LeakRefused, match="msd_liver/0"):
        evaluate(version.uri, settings, None, asked)
    left = evaluate(version.uri, settings, None, SplitChoice(only=asked.only, drop_leaking=True))
    about = json.loads(artifact(left.evaluation, "evaluation.json").read_text())
    assert about["dropped_leaking"] == ["msd_liver/0"]
    assert about["datasets"] == {"msd_liver": 1}


def test_a_protocol_scores_the_file_it_would_submit_on_the_scans_own_grid(
    report: EvaluateReport, settings: Settings, versions: tuple[ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    raw = settings.workspace / "miniatures" / "registry" / "msd_liver"
    folder = tmp_path / "upload"
    extras = Extras(protocol="msd_liver", submission=folder, raw=raw)
    chosen = SplitChoice(only=("msd_liver/0", "msd_liver/28"))
    found = evaluate(versions[0].uri, settings, None, chosen, extras=extras).protocol
    assert found is not None
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz"))
    assert written == ["Task03_Liver/liver_0.nii.gz", "Task03_Liver/liver_28.nii.gz"]
    assert folder.with_name("upload.zip").stat().st_size > 0
    ours = nibabel.load(folder / "Task03_Liver" / "liver_0.nii.gz")
    theirs = nibabel.load(next(raw.rglob("labelsTr/liver_0.nii.gz")))
    assert ours.shape == theirs.shape
    assert np.allclose(ours.affine, theirs.affine, atol=1e-4)
    mask, truth = np.asarray(ours.dataobj), np.asarray(theirs.dataobj)
    assert set(np.unique(mask)) <= {0, 1, 2}
    rows = found.rows[found.rows["case_id"] == "msd_liver/0"].set_index("region")
    assert rows.loc["liver", "dsc"] == pytest.approx(dice(truth > 0, mask > 0))
    assert rows.loc["cancer", "dsc"] == pytest.approx(dice(truth == 2, mask == 2))
    assert set(found.rows["truth"]) == {"raw labels"}
    with pytest.raises(FileExistsError, match="the folder holds files"):
        evaluate(versions[0].uri, settings, None, chosen, extras=extras)


def test_raw_files_that_are_not_those_ingested_are_refused(
    settings: Settings, versions: tuple[ModelVersion, ModelVersion], tmp_path: Path
) -> None:
    raw = shutil.copytree(settings.workspace / "miniatures" / "registry" / "msd_liver", tmp_path / "raw")
    label = next(raw.rglob("labelsTr/liver_0.nii.gz"))
    array = np.asarray(nibabel.load(label).dataobj).copy()
    array[array == 2] = 1
    nibabel.save(nibabel.Nifti1Image(array, nibabel.load(label).affine), label)
    extras = Extras(protocol="msd_liver", raw=raw)
    with pytest.raises(ValueError, match="msd_liver/0: its raw files differ from those ingested"):
        evaluate(versions[0].uri, settings, None, SplitChoice(only=("msd_liver/0",)), extras=extras)


def test_without_raw_files_the_lakes_labels_are_brought_back(settings: Settings) -> None:
    cases = row_dicts(open_workspace(settings).tables.cases(case_ids=["msd_liver/0"]))
    workspace = open_workspace(settings)
    label = row_dicts(workspace.tables.labels(case_ids=["msd_liver/0"], state="annotated"))[0]
    truth = label_map(workspace.lake.open_bits(label, label["annotation"]).read(), cases[0], load_protocol("msd_liver"))
    assert truth.shape == tuple(cases[0]["original_shape"])
    assert np.allclose(truth.affine.ravel(), cases[0]["original_affine"])
    raw = next((settings.workspace / "miniatures" / "registry" / "msd_liver").rglob("labelsTr/liver_0.nii.gz"))
    drawn = np.asarray(nibabel.load(raw).dataobj)
    assert dice(truth.array > 0, drawn > 0) > 0.8
