"""What the data set commands print: fits the terminal, says the same as JSON, and exits by what it found."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console, RenderableType
from typer.testing import CliRunner

from datasets_registry.card_audit import audit, read_all
from datasets_registry.card_summary import Summary, summarise
from datasets_registry.cards import list_cards, load_card
from flows.cli_inspect import datasets_app
from flows.dataset_page import dataset_page
from flows.dataset_tables import class_grid, dataset_list, findings_table


def printed(table: RenderableType, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, color_system=None)
    console.print(table)
    lines: list[str] = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    return lines


@pytest.fixture(scope="module")
def summaries() -> list[Summary]:
    cards, _ = read_all()
    findings = audit(cards)
    return [summarise(card, findings) for card in cards]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `ctfactory datasets ...` in an empty folder and gives exit code and output."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(datasets_app, words)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout

    return command


@pytest.mark.parametrize("width", [80, 160])
def test_every_data_set_is_a_line_and_no_cell_is_cut(summaries: list[Summary], width: int) -> None:
    lines = printed(dataset_list(summaries, width), width)
    for summary in summaries:
        (line,) = (line for line in lines if line.split()[:1] == [summary.id])
        assert ("not stated" in line) == (summary.licence is None)
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_commercial_use_is_told_and_unknown_is_no_yes(summaries: list[Summary]) -> None:
    words = {line.split()[0]: line.split() for line in printed(dataset_list(summaries, 80), 80) if line.strip()}
    assert [words[card][3] for card in ("msd_liver", "lits", "abdomenct_1k")] == ["yes", "no", "?"]
    assert words["lits"][4:8] == ["131", "6", "27", "6"]


@pytest.mark.parametrize(("width", "blocks"), [(80, 2), (160, 1)])
def test_the_grid_has_a_mark_for_every_class_of_every_data_set(
    summaries: list[Summary], width: int, blocks: int
) -> None:
    lines = printed(class_grid(summaries, width), width)
    heads = [line for line in lines if line.startswith("data set")]
    assert len(heads) == blocks
    assert " ".join(heads).replace("data set", "").split() == [str(index) for index in range(1, 33)]
    marks = "".join("".join(line.split()[1:]) for line in lines if line.split()[:1] == ["btcv"])
    assert marks == "●" * 13 + "○" + "·" * 18
    assert any("31 colon tumor" in line for line in lines)


@pytest.mark.parametrize("card_id", list_cards())
def test_every_page_shows_values_rules_and_quirks_in_80_columns(card_id: str, tmp_path: Path) -> None:
    card = load_card(card_id)
    lines = printed(dataset_page(card, tmp_path), 80)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 80
    assert f"ctfactory ingest {card_id} --source" in text
    for value, meaning in card.labels.items():
        assert f"{value} {meaning.name}" in text
    for quirk in card.quirks:
        assert f"{' '.join(quirk.fact.split())} [{quirk.confidence}]" in text
    for fault in card.faulty_cases:
        assert f"{fault.case}: {fault.reason}" in text


def test_a_page_names_the_steps_for_files_that_a_person_must_fetch(tmp_path: Path) -> None:
    text = "\n".join(printed(dataset_page(load_card("lits"), tmp_path), 400))
    assert "open https://competitions.codalab.org/competitions/17094" in text
    assert f"put into {tmp_path / 'lits' / 'downloads'}" in text


def test_one_remark_about_many_files_is_one_line() -> None:
    card = load_card("lits")
    lines = printed(findings_table([one for one in audit([card]) if one.kind == "missing"]), 200)
    assert [line.strip() for line in lines] == [
        "lits",
        "sources  Training_Batch1.zip, Training_Batch2.zip: no digest; the first download records it",
    ]


def test_list_and_show_as_json_hold_what_the_card_says(run: Any) -> None:
    code, output = run("list", "--json")
    rows = {row["id"]: row for row in json.loads(output)}
    assert code == 0
    assert rows["chaos_ct"]["annotated_classes"] == ["liver"]
    assert rows["ircadb_01"]["coverage"]["spleen"] == "some cases"
    code, output = run("show", "amos22_ct", "--json")
    assert json.loads(output)["refused_cases"][0]["case_ids"] == ["0501-4999"]


def test_verify_passes_on_the_package_and_lists_what_is_unverified(run: Any) -> None:
    code, output = run("verify", "--json")
    found = json.loads(output)
    assert (code, found["consistent"]) == (0, True)
    assert {finding["kind"] for finding in found["findings"]} == {"unverified", "missing"}
    code, output = run("verify", "btcv")
    assert code == 0
    assert "1 cards: no contradiction" in output
    assert "hepatic_vessel" not in output


def test_verify_fails_on_a_contradiction_and_says_which(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    fields = yaml.safe_load(load_card("lits").model_dump_json())
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "ours.yaml").write_text(yaml.safe_dump({**fields, "id": "ours"}))
    monkeypatch.setenv("CTFACTORY_CARDS", str(tmp_path / "cards"))
    code, output = run("verify", "ours")
    assert code == 1
    assert "names msd_liver, whose card does not name ours" in " ".join(output.split())
    assert run("list")[0] == 0


def test_verify_of_a_raw_zone_or_card_that_is_not_there_is_an_error(run: Any) -> None:
    with pytest.raises(FileNotFoundError, match="--raw nowhere: no such folder"):
        run("verify", "--raw", "nowhere")
    with pytest.raises(KeyError, match="nearest: btcv"):
        run("verify", "bctv")
