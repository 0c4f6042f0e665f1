"""`ctfactory ingest CARD --miniature`: the summary, the second run, and which refused cases count as a fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from flows import ingest_all
from flows.ingest import IngestReport
from flows.ingest_all import COLUMNS, MiniatureIngest, cards_of, ingest_miniatures, print_ingest_all
from flows.local_server import prefect_api
from tasks.ingest_case import CaseOutcome
from tasks.settings import Settings
from tasks.workspace import open_workspace

pytestmark = pytest.mark.end_to_end

REFUSED = CaseOutcome("totalsegmentator_v1/s0864", "quarantined", "a case known as faulty")
SURPRISE = CaseOutcome("totalsegmentator_v1/s0000", "quarantined", "truncated")


def report(*remarks: CaseOutcome, ingested: int = 0, unchanged: int = 1) -> IngestReport:
    counts = {"ingested": ingested, "unchanged": unchanged, "quarantined": len(remarks)}
    return IngestReport("totalsegmentator_v1", counts, 0, remarks)


def test_a_case_that_the_card_announces_as_faulty_is_no_surprise() -> None:
    assert ingest_all._unexpected(report(REFUSED)) == ()
    assert ingest_all._unexpected(report(REFUSED, SURPRISE)) == (SURPRISE,)


def test_a_run_with_announced_faults_only_has_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = MiniatureIngest(report(REFUSED), 19, (), 1.0)
    assert quiet.nothing_to_do
    assert quiet.row() == ("totalsegmentator_v1", 2, 0, 1, 1, 1, 19, 1.0)
    assert len(quiet.row()) == len(COLUMNS)
    assert not MiniatureIngest(report(SURPRISE), 19, (SURPRISE,), 1.0).nothing_to_do
    assert not MiniatureIngest(report(ingested=1), 19, (), 1.0).nothing_to_do
    print_ingest_all([quiet, quiet], as_json=False)
    assert "2 data sets: nothing to do: 0 ingested, 2 unchanged, 2 quarantined, 0 of them" in capsys.readouterr().out
    print_ingest_all([MiniatureIngest(report(SURPRISE), 19, (SURPRISE,), 1.0)], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found[0]["card"] == "totalsegmentator_v1"
    assert found[0]["unexpected"][0]["case_id"] == SURPRISE.case_id


def test_all_means_every_card_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTFACTORY_CARDS", str(tmp_path))
    assert {"lits", "local", "ircadb_01", "totalsegmentator_v1"} <= set(cards_of("all"))
    assert cards_of("kits", "kits19") == ["kits"]
    with pytest.raises(ValueError, match="one data set"):
        cards_of("all", "kits19")
    with pytest.raises(KeyError, match="lits"):
        cards_of("litz")


def test_ingested_miniatures_have_rows_for_annotated_classes_only_and_a_second_run_does_nothing(
    tmp_path: Path,
) -> None:
    settings = Settings(
        workspace=tmp_path, spacing_mm=(9, 9, 9), dask_address="local", workers=2, batch_cases=1
    )  # two batches, which share the cluster of the flow
    with prefect_api(settings), get_client(sync_client=True) as client:
        (first,) = ingest_miniatures(["flare23_pool"], settings, cases=1)
        (shown,) = [item for item in client.read_artifacts() if item.key == "ingest-flare23-pool-progress"]
        (second,) = ingest_miniatures(["flare23_pool"], settings, cases=1)
    assert (shown.type, shown.data) == ("progress", 100.0)
    assert shown.flow_run_id is not None
    assert shown.description.startswith("ingest flare23_pool: 2 of 2 cases. ")
    assert "cases/min" in shown.description
    assert first.row()[:7] == ("flare23_pool", 2, 2, 0, 0, 0, 2)
    assert second.row()[:7] == ("flare23_pool", 2, 0, 2, 0, 0, 2)
    assert second.nothing_to_do
    tables = open_workspace(settings).tables
    rows = tables.labels(dataset="flare23_pool")
    # spleen, pancreas and left kidney are drawn too, but touch tumours of no stated organ: they are unknown here
    assert set(rows["class_name"]) == {"liver", "right_kidney"}
    assert set(rows["case_id"]) == {"flare23_pool/0001"}
