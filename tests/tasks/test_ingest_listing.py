"""What a listing hands on: the command that tries again, and a refusal of files from elsewhere."""

from __future__ import annotations

from pathlib import Path

from datasets_registry.cards import load_card
from tasks.ingest import retry_command
from tasks.settings import Settings


def test_retry_command_names_the_folder_and_the_options() -> None:
    card = load_card("btcv")
    found = retry_command(card, Path("my scans"), Settings(workspace=Path("work")), variant="gibson")
    assert found == "ctfactory ingest btcv --source 'my scans' --variant gibson --workspace work"


def test_retry_command_of_a_private_cohort_keeps_its_path_to_itself() -> None:
    found = retry_command(load_card("local"), Path("DOE_JANE"), Settings(), cohort="clinic")
    assert found == "ctfactory ingest local --source FOLDER --cohort clinic"
