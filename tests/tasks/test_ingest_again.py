"""Ingesting again: only what changed is made anew, runs still read what they read, and the withdrawn stays out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from catalog.reports import case_history
from datasets_registry.card_files import CARDS
from datasets_registry.miniatures import write_miniature
from tasks import case_rows, harmonise, ingest_case
from tasks.ingest import ingest_batch, list_source
from tasks.ingest_case import CaseOutcome
from tasks.settings import Settings
from tasks.workspace import open_workspace

SPACING = (12.0, 12.0, 12.0)
SHAPE = (30, 20, 20)
LICENCE = "spdx: CC-BY-NC-SA-4.0"
CASES = {"kits": "spx_kits", "msd_spleen": "spx_spleen"}
"""Two sets, read by copies of their cards under ids of one's own."""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    cards = tmp_path / "cards"
    cards.mkdir()
    for original, own in CASES.items():
        text = (CARDS / f"{original}.yaml").read_text().replace(f"id: {original}\n", f"id: {own}\n", 1)
        (cards / f"{own}.yaml").write_text(text)
        write_miniature(original, tmp_path / own, cases=2, seed=1, truth_folder=tmp_path / "truth", spacing_mm=SPACING)
    monkeypatch.setenv("CTFACTORY_CARDS", str(cards))
    return Settings(workspace=tmp_path / "ws", spacing_mm=SPACING)


def ingest(settings: Settings) -> dict[str, CaseOutcome]:
    """Ingest both sets; return what became of each case."""
    listings = [list_source(own, settings.workspace.parent / own, settings) for own in CASES.values()]
    outcomes = [outcome for listing in listings for outcome in ingest_batch(listing.requests, settings)]
    return {outcome.case_id: outcome for outcome in outcomes}


def counted(outcomes: dict[str, CaseOutcome]) -> dict[tuple[str, str], int]:
    return dict(Counter((name.partition("/")[0], outcome.outcome) for name, outcome in outcomes.items()))


def test_a_changed_card_or_harmoniser_ingests_the_cases_concerned_and_old_versions_stay_readable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert counted(ingest(settings)) == {("spx_kits", "ingested"): 2, ("spx_spleen", "ingested"): 2}
    workspace = open_workspace(settings)
    tables, lake = workspace.tables, workspace.lake
    seen = tables.versions()
    first = tables.cases(at_versions=seen)
    voxels = [lake.read_patch(row, (0, 0, 0), SHAPE).array for row in first.to_dict("records")]

    assert counted(ingest(settings)) == {("spx_kits", "unchanged"): 2, ("spx_spleen", "unchanged"): 2}
    assert tables.versions() == seen

    card = settings.workspace.parent / "cards" / "spx_kits.yaml"
    card.write_text(card.read_text().replace(LICENCE, "spdx: CC-BY-4.0", 1))
    assert counted(ingest(settings)) == {("spx_kits", "ingested"): 2, ("spx_spleen", "unchanged"): 2}
    changed = tables.cases().set_index("case_id")
    assert changed.groupby("dataset")["revision"].max().to_dict() == {"spx_kits": 2, "spx_spleen": 1}
    assert changed.groupby("dataset")["licence"].first()["spx_kits"] == "CC-BY-4.0"

    for module in (harmonise, case_rows, ingest_case):
        monkeypatch.setattr(module, "HARMONISER_VERSION", "next")
    assert counted(ingest(settings)) == {("spx_kits", "ingested"): 2, ("spx_spleen", "ingested"): 2}
    name = changed.index[0]
    assert [row["changed"] for row in case_history(tables, name).versions] == [[], ["card"], ["harmoniser"]]
    assert len(tables.labels().drop_duplicates(["case_id", "class_name"])) == len(tables.labels())

    again = tables.cases(at_versions=seen)
    assert again["ingest_key"].tolist() == first["ingest_key"].tolist()
    for row, before in zip(again.to_dict("records"), voxels, strict=True):
        np.testing.assert_array_equal(lake.read_patch(row, (0, 0, 0), SHAPE).array, before)


def test_ingest_leaves_a_withdrawn_case_out_and_says_so(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(ingest(settings))
    tables = open_workspace(settings).tables
    tables.withdraw([names[0]], "consent withdrawn")
    told = f"withdrawn: consent withdrawn; `ctfactory catalog restore {names[0]}` brings it back"
    seen = tables.versions()
    outcome = ingest(settings)[names[0]]
    assert (outcome.outcome, outcome.message) == ("unchanged", told)
    for module in (harmonise, case_rows, ingest_case):
        monkeypatch.setattr(module, "HARMONISER_VERSION", "next")
    outcomes = ingest(settings)
    assert [outcomes[name].outcome for name in names] == ["unchanged", "ingested", "ingested", "ingested"]
    assert names[0] not in set(tables.cases()["case_id"])
    assert names[0] in set(tables.cases(at_versions=seen, history=True)["case_id"])


def test_a_case_withdrawn_during_its_ingest_stays_out(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(ingest(settings)))
    store = ingest_case._store

    def withdrawn_meanwhile(workspace: object, *arguments: object) -> str:
        open_workspace(settings).tables.withdraw([name], "faulty")
        return store(workspace, *arguments)

    for module in (harmonise, case_rows, ingest_case):
        monkeypatch.setattr(module, "HARMONISER_VERSION", "next")
    monkeypatch.setattr(ingest_case, "_store", withdrawn_meanwhile)
    outcome = ingest(settings)[name]
    assert outcome.outcome == "unchanged"
    assert outcome.message.startswith("withdrawn: faulty")
    assert name not in set(open_workspace(settings).tables.cases()["case_id"])
