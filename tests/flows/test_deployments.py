from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from datasets_registry.cards import load_card
from flows.deployments import build_deployments, flow_of, read_deployments


def test_every_deployment_loads_and_fits_its_flow() -> None:
    deployments = {item.name: item for item in build_deployments()}
    assert set(deployments) == {
        "weekly-fetch",
        "nightly-ingest",
        "nightly-pseudo-label",
        "weekly-evaluate",
        "weekly-promote",
    }
    for item in deployments.values():
        (schedule,) = item.schedules
        assert schedule.schedule.cron.count(" ") == 4
        assert schedule.schedule.timezone == "UTC"


def test_only_downloads_wait_until_they_are_switched_on() -> None:
    waiting = [item.name for item in build_deployments() if not all(one.active for one in item.schedules)]
    assert waiting == ["weekly-fetch"]


def test_fetch_is_asked_for_a_card_that_downloads_itself() -> None:
    (entry,) = [entry for entry in read_deployments() if entry["name"] == "weekly-fetch"]
    assert all(source.access == "open" for source in load_card(entry["parameters"]["dataset"]).sources)


def test_parameters_are_those_of_the_flow() -> None:
    for entry in read_deployments():
        inspect.signature(flow_of(entry).fn).bind(**entry["parameters"])


def test_an_entry_without_a_schedule_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments:\n- {name: lonely, entrypoint: flows/ingest.py:ingest, parameters: {}}\n")
    with pytest.raises(ValueError, match=r"'lonely' lacks \['schedules'\]"):
        read_deployments(file)
