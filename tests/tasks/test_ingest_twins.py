"""Twins at ingest: every planted copy of the miniatures is found, grouped and flagged, whatever came first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from catalog import schema
from catalog.twins import TwinIndex
from datasets_registry.miniatures import miniature_cards, twin_groups
from datasets_registry.miniatures.case_scans import scan_of
from datasets_registry.miniatures.numbers import case_numbers, count_cases, native_id_of
from flows.cli_splits import splits_app
from imaging.fingerprint import slice_profile
from imaging.nifti import write_nifti
from imaging.resample import orient_ras
from imaging.volume import Volume
from tasks.ingest import ingest_batch, list_source
from tasks.settings import Settings
from tasks.splits import deal_new_cases
from tasks.workspace import Workspace, open_workspace, row_dicts

SPACING = (12.0, 12.0, 12.0)
CASES = 2
SHAPE = (40, 32, 24)
AFFINE = np.array([[8.0, 0, 0, -150], [0, 9.0, 0, -140], [0, 0, 10.0, -100], [0, 0, 0, 1]])


def test_every_planted_twin_is_found_and_no_other_case() -> None:
    """Re-oriented, cropped, windowed, with the true spacing and with a false one; and all sets that have no twin."""
    index, profiles = TwinIndex(), {}
    for card in miniature_cards():
        for number in case_numbers(card, min(CASES, count_cases(card)), extras=True):
            name = f"{card.id}/{native_id_of(card, number)}"
            profiles[name] = slice_profile(orient_ras(scan_of(card, number, 7, SPACING).image))
            index.put(name, profiles[name])
    planted = twin_groups(CASES)
    assert sum(map(len, planted)) >= 20
    for name, profile in profiles.items():
        assert profile is not None, name
        expected = next((group for group in planted if name in group), {name})
        assert {match.name for match in index.find(profile)} == expected


def scan(seed: int) -> NDArray[np.int16]:
    """Return a patient as (X, Y, Z) HU: trunk, muscle, a liver and a spine that no other seed has."""
    rng = np.random.default_rng(seed)
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    phase = rng.uniform(0, 6, 4)
    for z in range(SHAPE[2]):
        inside = ((x - 20) / (15 + 2 * np.sin(z / 3 + phase[0]))) ** 2 + (
            (y - 16) / (12 + np.cos(z / 4 + phase[1]))
        ) ** 2
        hu[:, :, z][inside < 1] = -90
        hu[:, :, z][inside < 0.7 + 0.1 * np.sin(z / 5 + phase[2])] = 45
        hu[19:22, 6 : 9 + z % 2, z] = 600
        hu[24 : 28 + int(3 + 2 * np.sin(z / 2 + phase[3])), 14:20, z] = 110
    return hu + (rng.normal(0, 8, SHAPE) * (hu > -500)).astype(np.int16)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "ws", spacing_mm=(8.0, 9.0, 10.0))


def ingest(settings: Settings, folder: Path, cohort: str, hu: NDArray[Any], affine: NDArray[Any] = AFFINE) -> Workspace:
    """Ingest one scan of a folder of one's own; its case id is `<cohort>/<pseudonym>`."""
    folder = folder / cohort
    folder.mkdir()
    write_nifti(Volume(hu, affine), folder / "one.nii.gz")
    listing = list_source("local", folder, settings, cohort=cohort)
    outcomes = ingest_batch(listing.requests, settings)
    assert [outcome.outcome for outcome in outcomes] == ["ingested"], outcomes
    return open_workspace(settings)


LABELLED = {
    "lits": ("volume-{}.nii", "segmentation-{}.nii"),
    "ct_org": ("OrganSegmentations/volume-{}.nii.gz", "OrganSegmentations/labels-{}.nii.gz"),
}


def ingest_labelled(settings: Settings, folder: Path, card_id: str, number: int, hu: NDArray[np.int16]) -> Workspace:
    """Ingest one scan, with a label, as case `number` of a data set."""
    image, label = (folder / card_id / name.format(number) for name in LABELLED[card_id])
    for path, voxels in ((image, hu), (label, (hu > 100).astype(np.uint8))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(Volume(voxels, AFFINE), path)
    listing = list_source(card_id, folder / card_id, settings)
    assert [one.outcome for one in ingest_batch(listing.requests, settings)] == ["ingested"]
    return open_workspace(settings)


def same_scan(workspace: Workspace, cohort: str) -> list[str]:
    """Return the flags about twins of a cohort's only case, with data sets for case ids."""
    (row,) = workspace.tables.cases(dataset=cohort).to_dict("records")
    return [re.sub(r"/\S+", "", flag) for flag in row["flags"] if flag.startswith("same_scan")]


def test_a_changed_copy_shares_the_group_and_says_how(settings: Settings, tmp_path: Path) -> None:
    hu = scan(1)
    ingest(settings, tmp_path, "first", hu)
    ingest(settings, tmp_path, "other", scan(2))
    noise = np.random.default_rng(3).normal(0, 5, hu.shape)
    changed = (np.clip(hu, -175, 250) + noise)[1:-1, 1:-1, 3:-2][::-1, :, ::-1]
    workspace = ingest(settings, tmp_path, "copy", changed.astype(np.float32), np.eye(4))
    assert [same_scan(workspace, cohort) for cohort in ("first", "other", "copy")] == [
        [],
        [],
        ["same_scan: first (how: content)"],
    ]
    groups = workspace.tables.cases().set_index("dataset")["split_group"]
    assert groups["copy"] == groups["first"] != groups["other"]


def test_a_scan_between_two_joins_the_groups_of_both(settings: Settings, tmp_path: Path) -> None:
    """Two parts with too little in common are joined by the whole scan that comes last."""
    hu = scan(4)
    ingest(settings, tmp_path, "upper", hu[:, :, 11:])
    workspace = ingest(settings, tmp_path, "lower", hu[:, :, :13])
    assert workspace.tables.cases()["split_group"].nunique() == 2
    workspace = ingest(settings, tmp_path, "whole", hu)
    assert same_scan(workspace, "whole") == [
        "same_scan: lower (how: content)",
        "same_scan: upper (how: content)",
    ]
    cases = workspace.tables.cases()
    assert cases["split_group"].nunique() == 1
    assert cases["split_group"].iloc[0] == min(group for _, group in workspace.tables.written_groups().values())


def test_declared_twins_share_a_group_though_their_voxels_differ(settings: Settings, tmp_path: Path) -> None:
    ingest_labelled(settings, tmp_path, "lits", 30, scan(5))
    workspace = ingest_labelled(settings, tmp_path, "ct_org", 30, scan(6))
    assert same_scan(workspace, "ct_org") == ["same_scan: lits (how: declared)"]
    cases = workspace.tables.cases()
    assert cases["split_group"].nunique() == 1
    assert deal_new_cases(workspace) == 2
    assert workspace.tables.cases()["fold"].nunique() == 1
    at = ["--workspace", str(settings.workspace)]
    shown = CliRunner().invoke(splits_app, ["show", *at, "--json"])
    assert shown.exit_code == 0, shown.output
    assert '"case_ids": [\n        "ct_org/30",\n        "lits/30"' in shown.stdout
    table = CliRunner().invoke(splits_app, ["show", *at])
    assert "2 cases, 1 groups of twins, 0 of them training and external" in table.stdout
    # LiTS has no split of its own; CT-ORG's has scan 30 in its training part
    assert "0 leaks" in CliRunner().invoke(splits_app, ["show", "--split", "official", *at]).stdout
    again = CliRunner().invoke(splits_app, ["find-twins", *at])
    assert "2 cases with a fingerprint: 0 pairs alike, 0 new links" in again.stdout
    assert "0 cases were given a fold" in CliRunner().invoke(splits_app, ["make", *at]).stdout


@pytest.mark.parametrize(("numbers", "seeds"), [((30, 30), (5, 6)), ((30, 135), (8, 8))], ids=["declared", "alike"])
def test_twins_that_no_look_at_ingest_has_seen_are_linked_before_folds_are_dealt(
    settings: Settings, tmp_path: Path, numbers: tuple[int, int], seeds: tuple[int, int]
) -> None:
    """As after a kill between the commit of a case and its second look, its twin having come in at the same moment."""
    here = ingest_labelled(settings, tmp_path, "lits", numbers[0], scan(seeds[0]))
    elsewhere = settings.model_copy(update={"workspace": tmp_path / "elsewhere"})
    there = ingest_labelled(elsewhere, tmp_path, "ct_org", numbers[1], scan(seeds[1]))
    (row,) = row_dicts(there.tables.cases())
    fingerprint = there.tables.fingerprints({row["case_id"]: row["revision"]})[row["case_id"]]
    content = {"content_sha256": "0" * 64, "split_group": "0" * 16, "fingerprint": fingerprint}
    here.tables.commit_case(
        {name: row[name] for name in row.keys() & schema.CASES.keys() - {*schema.FILLED_IN}} | content
    )
    assert here.tables.cases()["split_group"].nunique() == 2
    assert deal_new_cases(here) == 2
    cases = here.tables.cases()
    assert cases["split_group"].nunique() == cases["fold"].nunique() == 1
