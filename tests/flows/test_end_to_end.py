"""The whole line on the smallest miniatures, as real Prefect flows, with a real SQLite MLflow, Zarr and Delta."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import nibabel
import numpy as np
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from typer.testing import CliRunner

from catalog.label_decisions import judge, restore, retract
from catalog.queries import run_snapshot
from catalog.splits import TEST
from datasets_registry.cards import load_card
from datasets_registry.taxonomy import class_names
from flows.cli import app
from flows.evaluate import evaluate
from flows.export import export
from flows.factory import FactoryPlan, FactoryReport, factory
from flows.ingest import ingest
from flows.local_server import prefect_api
from flows.promote import promote
from flows.pseudo_label import pseudo_label
from flows.train import fine_tune
from imaging.dicom import find_series, read_series
from models.checkpoint import read_metadata
from tasks.export_plan import ExportPlan
from tasks.ingest import ingest_batch, list_source
from tasks.miniatures import EXTERNAL_COHORT
from tasks.models import list_models
from tasks.prediction import trained_classes
from tasks.pseudo_choice import PseudoChoice
from tasks.registry import CHALLENGER, CHAMPION, alias_version, fetch_checkpoint, training_cases
from tasks.settings import Settings
from tasks.splits import LeakRefused, SplitChoice
from tasks.status import read_status
from tasks.workspace import open_workspace

pytestmark = pytest.mark.end_to_end

SETS = ("msd_pancreas", "chaos_ct")
PRESET = """
model: {backbone: tiny, text_encoder: hashing, prompt: V1, spacing_mm: [12, 12, 12], patch: [32, 32, 32]}
train: {steps: 6, batch: 1, lr: 1.0e-3, warmup: 1, device: cpu, threads: 2, readers: 1}
"""

# An untrained network passes no bar, and what is tested here is the line, not the network.
GATES = """
target: research
groups: [{name: organs, kinds: [organ, vessel], bars: {dsc: 0}}]
champion: {drop: 1}
targets: {research: {non_commercial: true, offline_encoder: true}}
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("factory")
    (folder / "gates.yaml").write_text(GATES)
    return Settings(workspace=folder, spacing_mm=(12, 12, 12), nsd_tolerance_mm=12, gates=str(folder / "gates.yaml"))


@pytest.fixture(scope="module")
def _server(settings: Settings) -> Iterator[str]:
    with prefect_api(settings) as url:
        yield url


@pytest.fixture(scope="module")
def report(settings: Settings, _server: str) -> FactoryReport:
    preset = settings.workspace / "preset.yaml"
    preset.write_text(PRESET)
    plan = FactoryPlan(datasets=SETS, cases=3, external_cases=1, seed=7, preset=str(preset))
    return factory(settings, plan)


def test_every_case_is_ingested_once(report: FactoryReport) -> None:
    assert [item.counts["ingested"] for item in report.first_ingest] == [3, 3, 1]
    assert all(item.counts["quarantined"] == 0 for item in report.first_ingest)
    assert all(item.nothing_to_do for item in report.second_ingest)
    assert [item.counts["unchanged"] for item in report.second_ingest] == [3, 3, 1]


def test_labels_are_known_exactly_where_the_card_says(report: FactoryReport, settings: Settings) -> None:
    labels = open_workspace(settings).tables.labels(state="annotated")
    for dataset in SETS:
        rows = labels[labels["dataset"] == dataset]
        assert set(rows["class_name"]) == set(load_card(dataset).annotated_classes)
        assert len(rows) == 3 * len(load_card(dataset).annotated_classes)
    assert EXTERNAL_COHORT not in set(labels["dataset"])


def test_export_writes_the_cohorts_masks_once_and_leaves_a_record(
    report: FactoryReport, settings: Settings, tmp_path: Path
) -> None:
    plan = ExportPlan((EXTERNAL_COHORT,), ("nifti", "seg_nrrd"), include_review=True, out=tmp_path)
    first, second = export(plan, settings), export(plan, settings)
    assert (first.counts["exported"], second.counts["unchanged"]) == (1, 1)
    (case,) = (tmp_path / EXTERNAL_COHORT).iterdir()
    made = {path.name for path in case.iterdir()}
    assert {"segmentation.nii.gz", "segmentation.seg.nrrd", "statistics.csv", "segmentation.json"} <= made
    runs = open_workspace(settings).tables.runs()
    assert list(runs[runs["kind"] == "export"]["outcome"]) == ["done", "done"]
    waiting = export(replace(plan, include_review=False, out=tmp_path / "b"), settings)
    assert waiting.counts["left_out"] == 1
    assert "waits for a review" in waiting.outcomes[0].message


def test_training_saw_neither_held_out_nor_external_cases(report: FactoryReport, settings: Settings) -> None:
    text = mlflow.artifacts.load_text(f"runs:/{report.training.run_id}/training_cases.txt")
    cases = open_workspace(settings).tables.cases(role="train")
    held_out = set(cases[cases["fold"] == TEST]["case_id"])
    assert len(held_out) == len(SETS)
    assert set(text.split()) == set(cases["case_id"]) - held_out
    assert set(report.evaluation.evaluation.classes["dataset"]) == set(SETS)


def test_evaluation_on_training_cases_is_refused(report: FactoryReport, settings: Settings) -> None:
    cases = open_workspace(settings).tables.cases(role="train")
    fold = int(cases[cases["fold"] != TEST]["fold"].iloc[0])
    with pytest.raises(LeakRefused, match=r"the model was trained on (\d) of these \1 cases"):
        evaluate(report.training.model.uri, settings, choice=SplitChoice(fold=fold))


def test_training_run_can_be_read_again(report: FactoryReport, settings: Settings) -> None:
    run = mlflow.get_run(report.training.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "6"
    read = json.loads(run.data.tags["table_versions"])
    assert read["cases"] >= 1
    assert run_snapshot(open_workspace(settings).tables, report.training.run_id) == read
    assert np.isfinite(run.data.metrics["loss"])
    names = {item.path for item in mlflow.MlflowClient().list_artifacts(report.training.run_id)}
    assert {"environment.json", "parameters.json", "loss.png", "training_cases.txt", "sampling.json"} <= names
    evaluated = {item.path for item in mlflow.MlflowClient().list_artifacts(report.evaluation.evaluation.run_id)}
    assert {
        "classes.parquet",
        "detection.parquet",
        "scores.parquet",
        "class_scores.png",
        "chaos_ct.png",
        "report.html",
    } <= evaluated


def test_aliases_name_the_version(report: FactoryReport, settings: Settings) -> None:
    for alias in (CHALLENGER, CHAMPION):
        found = alias_version(alias, settings)
        assert found is not None
        assert found.version == report.training.model.version
    assert "the champion already" in promote(CHAMPION, settings).reason


def test_the_version_is_listed_with_its_network_and_classes(report: FactoryReport, settings: Settings) -> None:
    (row,) = [row for row in list_models(settings) if row["model"] == report.training.model.uri]
    assert (row["made_by"], row["backbone"], row["classes"]) == ("train", "tiny", len(class_names()))


def test_registered_model_predicts_through_mlflow(report: FactoryReport) -> None:
    model = mlflow.pyfunc.load_model(report.training.model.uri)
    bits = model.predict(np.full((20, 24, 28), -1000, dtype=np.int16))
    assert bits.shape == (1, 20, 24, 28)
    assert bits.dtype == np.uint32


def test_masks_come_back_in_the_scans_own_geometry(report: FactoryReport, settings: Settings) -> None:
    assert report.pseudo_labels is not None
    (outcome,) = report.pseudo_labels.outcomes
    assert outcome.outcome == "labelled"
    exported = nibabel.load(outcome.segmentation)
    (series,) = find_series(settings.workspace / "miniatures" / "raw" / EXTERNAL_COHORT)
    scan = read_series(series)
    assert exported.shape == scan.shape
    assert np.allclose(exported.affine, scan.affine, atol=1e-3)
    assert outcome.overlay is not None
    assert outcome.overlay.stat().st_size > 1000


def test_pseudo_labels_say_who_made_them_and_are_not_made_twice(report: FactoryReport, settings: Settings) -> None:
    rows = open_workspace(settings).tables.labels(EXTERNAL_COHORT)
    assert set(rows["state"]) == {"pseudo"}
    assert set(rows["model_version"]) == {str(report.training.model.version)}
    assert set(rows["mlflow_run_id"]) == {report.training.run_id}
    again = pseudo_label(EXTERNAL_COHORT, CHAMPION, settings)
    assert again.counts == {"labelled": 0, "rejudged": 0, "completed": 0, "unchanged": 1, "failed": 0}


def test_a_pseudo_label_run_is_tracked_judged_and_has_a_page(report: FactoryReport, settings: Settings) -> None:
    labels = report.pseudo_labels
    assert labels is not None
    run = mlflow.get_run(labels.mlflow_run_id)
    assert (run.data.tags["kind"], run.data.tags["cohort"]) == ("pseudo_label", EXTERNAL_COHORT)
    assert run.data.metrics["cases_labelled"] == 1
    assert 0 < run.data.metrics["network_share"] <= 1
    assert json.loads(run.data.tags["table_versions"])["cases"] >= 1
    assert "parentRunId" not in " ".join(run.data.tags)
    kept = {item.path for item in mlflow.MlflowClient().list_artifacts(labels.mlflow_run_id)}
    assert {"report.html", "parameters.json"} <= kept
    (row,) = open_workspace(settings).tables.runs("pseudo-label").head(1).to_dict("records")
    assert (row["mlflow_run_id"], row["outcome"]) == (labels.mlflow_run_id, "done")
    rows = open_workspace(settings).tables.labels(EXTERNAL_COHORT)
    assert set(rows["decision"]) <= {"accept", "review", "reject"}
    assert set(rows["flow_run_id"]) == {row["flow_run_id"]}
    page = labels.page.read_text()
    assert all(case in page for case in rows["case_id"])
    assert f'href="{labels.page.relative_to(settings.workspace)}"' in report.report.read_text()


def test_the_command_labels_what_it_can_and_says_by_its_exit_code_that_a_case_failed(
    report: FactoryReport, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))  # the server of these tests
    shutil.copytree(settings.lake.folder, tmp_path / "lake")
    elsewhere = settings.model_copy(
        update={"workspace": tmp_path, "mlflow_tracking_uri": settings.mlflow_uri, "lake_root": str(tmp_path / "lake")}
    )
    case = open_workspace(elsewhere).tables.cases("chaos_ct").iloc[0]
    shard = next((tmp_path / "lake" / case["path"] / "0").rglob("c/0/0/0"))
    shard.write_bytes(shard.read_bytes()[:-100])
    spec = tmp_path / "run.yaml"
    spec.write_text("cohort: chaos_ct\nmodels: [champion]\nclasses: [pancreas, liver]\nreport: {pictures: false}\n")
    monkeypatch.setattr("flows.cli_pseudo_label.settings_for", lambda _: elsewhere)
    answer = CliRunner().invoke(app, ["pseudo-label", "--spec", str(spec), "--json"])
    assert answer.exit_code == 3, answer.output
    told = json.loads(answer.stdout)
    assert (told["cohort"], told["labelled"], told["failed"]) == ("chaos_ct", 2, 1)
    (failed,) = [item for item in told["cases"] if item["outcome"] == "failed"]
    assert failed["case_id"] == case["case_id"]
    assert list(open_workspace(elsewhere).tables.quarantined("chaos_ct")["code"]) == ["unreadable"]
    # a human annotated the liver of these scans: only the pancreas is filled in, and the training had seen some
    rows = open_workspace(elsewhere).tables.labels("chaos_ct", state="pseudo")
    assert set(rows["class_name"]) == {"pancreas"}
    assert set(rows["independent"]) <= {True, False}
    assert False in set(rows["independent"])


def test_hidden_truth_lies_apart_from_what_is_ingested(report: FactoryReport, settings: Settings) -> None:
    raw = settings.workspace / "miniatures" / "raw"
    assert not list(raw.rglob("*.npz"))
    assert len(report.external_scores) > 0


def test_nobody_is_named_in_lake_tables_or_report(report: FactoryReport, settings: Settings) -> None:
    series = find_series(settings.workspace / "miniatures" / "raw" / EXTERNAL_COHORT)
    import pydicom

    header = pydicom.dcmread(series[0].files[0], stop_before_pixels=True)
    names = [str(header.PatientName).encode(), str(header.PatientID).encode()]
    assert all(len(name) > 3 for name in names)
    places = [settings.lake.folder, settings.workspace / "exports", settings.workspace / "prefect", report.report]
    for place in places:
        for file in [place] if place.is_file() else place.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert not any(name in content for name in names), file


def test_report_and_artifacts_are_published(report: FactoryReport) -> None:
    html = report.report.read_text()
    assert "Pseudo-labels of the external cohort" in html
    assert html.count("data:image/png;base64,") >= 3
    with get_client(sync_client=True) as client:
        keys = {artifact.key for artifact in client.read_artifacts()}
    assert {"train", "evaluate", "promote", "factory", "ingest-chaos-ct"} <= keys
    slug = "pseudo-label-external-demo"
    assert {slug, f"{slug}-summary", f"{slug}-page"} <= keys


@pytest.mark.real_data
def test_a_real_ct_gets_masks_in_its_own_geometry(
    report: FactoryReport, settings: Settings, real_data: Path, tmp_path: Path
) -> None:
    # Into a copy of the registry's workspace, so that the other tests see the miniatures alone.
    elsewhere = settings.model_copy(
        update={"workspace": tmp_path, "mlflow_tracking_uri": settings.mlflow_uri, "lake_root": str(tmp_path / "lake")}
    )
    assert ingest("local", real_data / "crlm_ct_1004_unlabelled", elsewhere, "real").counts["ingested"] == 1
    (outcome,) = pseudo_label("real", CHAMPION, elsewhere).outcomes
    assert outcome.outcome == "labelled"
    exported = nibabel.load(outcome.segmentation)
    scan = nibabel.load(real_data / "crlm_ct_1004_unlabelled" / "ct.nii.gz")
    assert exported.shape == scan.shape
    assert np.allclose(exported.affine, scan.affine, atol=1e-3)


def test_status_shows_what_happened(report: FactoryReport, settings: Settings) -> None:
    status = read_status(settings)
    assert status.cases == {"chaos_ct": 3, EXTERNAL_COHORT: 1, "msd_pancreas": 3}
    assert status.labels["pancreas"]["annotated"] == 3
    assert status.models[0]["aliases"] == ["challenger", "champion"]
    assert {run["kind"] for run in status.runs} >= {"evaluate", "promote", "pseudo-label"}  # the last ones
    kinds = set(open_workspace(settings).tables.runs()["kind"])
    assert kinds >= {"ingest", "train", "evaluate", "promote", "calibrate", "pseudo-label"}
    json.dumps(status.as_dict())


@pytest.mark.parametrize("dask_address", [None, "local"])
def test_a_plain_call_gives_the_same_bytes(
    report: FactoryReport, settings: Settings, tmp_path: Path, dask_address: str | None
) -> None:
    elsewhere = settings.model_copy(update={"workspace": tmp_path, "dask_address": dask_address})
    listing = list_source("chaos_ct", settings.workspace / "miniatures" / "raw" / "chaos_ct", elsewhere)
    outcomes = ingest_batch(listing.requests, elsewhere)
    assert [item.outcome for item in outcomes] == ["ingested"] * 3
    under_a_flow = open_workspace(settings).tables.cases("chaos_ct")
    plain = open_workspace(elsewhere).tables.cases("chaos_ct")
    columns = ["case_id", "ingest_key", "content_sha256", "manifest"]
    assert plain[columns].equals(under_a_flow[columns])


def test_fine_tuning_keeps_classes_and_remembers_what_was_seen(report: FactoryReport, settings: Settings) -> None:
    outcome = fine_tune(
        report.training.model.uri,
        str(settings.workspace / "preset.yaml"),
        settings,
        datasets=["chaos_ct"],
        classes=["liver"],
    )
    assert outcome.model.version == report.training.model.version + 1
    before, after = (read_metadata(fetch_checkpoint(one, settings)) for one in (report.training.model, outcome.model))
    assert after.model.classes == before.model.classes
    assert trained_classes(after) == trained_classes(before)
    # Only CHAOS was read now, but the version has seen the Decathlon cases too.
    seen = training_cases(outcome.model, settings)
    assert {case_id.split("/")[0] for case_id in seen} == set(SETS)
    champion = alias_version(CHAMPION, settings)
    assert champion is not None
    assert champion.version == report.training.model.version


def test_a_self_training_round_learns_from_the_champions_accepted_masks(
    report: FactoryReport, settings: Settings
) -> None:
    tables = open_workspace(settings).tables
    (case_id,) = tables.cases(EXTERNAL_COHORT)["case_id"]
    preset, champion = str(settings.workspace / "preset.yaml"), report.training.model
    pseudo = PseudoChoice("accepted", (EXTERNAL_COHORT,))
    judge(tables, case_id, ["liver", "pancreas"], "accepted", who="a reader", why="good")
    outcome = fine_tune(champion.uri, preset, settings, pseudo=pseudo)
    assert case_id in training_cases(outcome.model, settings)
    run = mlflow.get_run(outcome.run_id)
    assert run.data.tags["pseudo_models"] == champion.uri
    learnt = mlflow.artifacts.load_dict(f"runs:/{outcome.run_id}/pseudo_labels.json")
    (entry,) = learnt["annotations"]
    assert (entry["case_id"], sorted(entry["classes"]), entry["mlflow_run_id"]) == (
        case_id,
        ["liver", "pancreas"],
        report.training.run_id,
    )
    assert read_metadata(fetch_checkpoint(outcome.model, settings)).extra["pseudo_models"] == champion.uri
    # what it learnt from is no test for it any more; and a retracted run is nobody's teacher
    assert retract(tables, champion.uri, who="a reader", why="no")["case_id"].unique().tolist() == [case_id]
    with pytest.raises(LookupError, match="no such pseudo-label"):
        fine_tune(champion.uri, preset, settings, pseudo=pseudo)
    assert read_status(settings).labels["pancreas"] == {"annotated": 3}
    restore(tables, champion.uri, who="a reader", why="yes")
