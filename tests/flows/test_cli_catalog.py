"""`ctfactory catalog` in this process, on a small workspace: pages, JSON, files, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from catalog.keys import ingest_key, split_group
from catalog.tables import Tables
from datasets_registry.taxonomy import class_info
from flows.cli_catalog import catalog_app

SEEN_ROLES = {"kits": "train", "ward": "external"}


def case_row(dataset: str, native_id: str, **changes: Any) -> dict[str, Any]:
    content = f"{dataset}{native_id}".ljust(64, "0")
    row = {
        "case_id": f"{dataset}/{native_id}",
        "dataset": dataset,
        "native_id": native_id,
        "ingest_key": ingest_key("raw", "card", "1", (0.8, 1.5, 2.5)),
        "content_sha256": content,
        "raw_sha256": "raw",
        "split_group": split_group(content),
        "fold": 2 if SEEN_ROLES[dataset] == "train" else None,
        "role": SEEN_ROLES[dataset],
        "path": f"volumes/{dataset}/{native_id}/x.zarr",
        "shape_x": 10,
        "shape_y": 20,
        "shape_z": 30,
        "spacing_mm": [0.8, 1.5, 2.5],
        "affine": np.diag([0.8, 1.5, 2.5, 1.0]).ravel().tolist(),
        "original_shape": [30, 10, 20],
        "original_affine": np.eye(4).ravel().tolist(),
        "original_orientation": "PLS",
        **dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), 40.0),
        "steps": ['{"step": "resample", "method": "linear"}', '{"step": "split", "of": "label"}'],
        "flags": ["[odd]spacing"],
        "licence": "CC-BY-4.0",
        "non_commercial": False,
        "card_digest": "card",
        "harmoniser_version": "1",
        "tumour_free": [],
        "manifest": '{"files":{}}',
    }
    return {**row, **changes}


def label_row(case: dict[str, Any], class_name: str, annotation: str = "shipped", **changes: Any) -> dict[str, Any]:
    row = {
        "case_id": case["case_id"],
        "ingest_key": case["ingest_key"],
        "class_name": class_name,
        "channel": class_info(class_name).channel,
        "annotation": annotation,
        "state": "annotated",
        "label_origin": "human",
        "voxels": 8,
        "ml": 1234.5,
        "components": 3,
        "touches_border": True,
        "sampled_voxels": [0, 0, 0],
        "manifest": '{"files":{}}',
    }
    return {**row, **changes}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # kits/1: liver there, kidney tumour absent, ingested twice; kits/2: kidney tumour there; ward/9: pseudo liver.
    root = tmp_path_factory.mktemp("workspace")
    tables = Tables(root / "lake")
    old = case_row("kits", "1", card_digest="old card", ingest_key="old key")
    one, two, nine = case_row("kits", "1"), case_row("kits", "2"), case_row("ward", "9")
    tables.commit_case(old)
    tables.commit_case(one, [label_row(one, "liver"), label_row(one, "kidney_tumor", voxels=0, ml=0.0, components=0)])
    tables.commit_case(two, [label_row(two, "kidney_tumor", ml=2.5)])
    tables.record_run(
        {
            "run_id": "run-1",
            "kind": "train",
            "started": datetime(2026, 1, 2, tzinfo=UTC),
            "outcome": "done",
            "counts": "{}",
            "table_versions": json.dumps(tables.versions()),
        }
    )
    made = {"state": "pseudo", "label_origin": "model", "model_name": "universal", "model_version": "4"}
    tables.commit_case(nine, [label_row(nine, "liver", "pseudo-v4", quality_score=0.75, **made)])
    return root


@pytest.fixture
def run(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs `ctfactory catalog ...` on the workspace and gives what it printed."""
    monkeypatch.setattr("flows.console.console._width", 160)

    def command(*words: str, at: Path = workspace) -> str:
        result = CliRunner().invoke(catalog_app, [*words, "-w", str(at)])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return command


def _cells(text: str, first: str) -> list[str]:
    """Return the words of the first line that begins with `first`, without it."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(first))
    return line.removeprefix(first).split()


def test_a_case_is_a_page(run: Any) -> None:
    page = run("show", "kits/1")
    assert "10 x 20 x 30 voxels of 0.8 x 1.5 x 2.5 mm (X Y Z, RAS), 8 x 30 x 75 mm" in page
    assert "30 x 10 x 20 voxels, axes to PLS" in page
    assert "CC-BY-4.0; commercial use allowed" in page
    assert "[odd]spacing" in page
    assert "split (of the label)" in page
    assert _cells(page, "version")[:3] == ["2", "of", "2,"]
    assert _cells(page, "liver") == ["annotated", "shipped", "1234.5", "3", "at", "the", "edge", "human", "counts"]
    assert _cells(page, "kidney tumor") == ["annotated", "shipped", "absent", "human", "counts"]
    assert "no label counts for: spleen" in page
    assert "fold 2" in page
    other = run("show", "ward/9")
    assert _cells(other, "liver")[-4:] == ["0.75", "universal", "4", "counts"]
    assert "never in training" in other


def test_a_case_is_json_without_bulk(run: Any) -> None:
    found = json.loads(run("show", "kits/1", "--json"))
    assert found["case"]["spacing_mm"] == [0.8, 1.5, 2.5]
    assert found["case"]["steps"][0] == {"step": "resample", "method": "linear"}
    assert "manifest" not in found["case"]
    assert [row["class_name"] for row in found["labels"]] == ["liver", "kidney_tumor"]
    assert not {"manifest", "sampled_voxels"} & set(found["labels"][0])


def test_an_unknown_case_and_an_empty_workspace_are_refused(run: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="nearest: kits/1"):
        run("show", "kits/11")
    with pytest.raises(FileNotFoundError, match="name the workspace with -w"):
        run("coverage", at=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_coverage_counts_cases_and_totals(run: Any) -> None:
    table = run("coverage")
    assert _cells(table, "class") == ["cases", "with", "it", "voxels", "ml", "kits", "ward"]
    assert _cells(table, "kidney tumor") == ["2", "1", "8", "2.5", "2", "·"]
    assert _cells(table, "spleen") == ["·"] * 6
    assert _cells(run("coverage", "--state", "any"), "liver") == ["2", "2", "16", "2,469.0", "1", "1"]
    assert _cells(run("coverage", "--value", "ml"), "liver")[-2:] == ["1,234.5", "·"]
    found = json.loads(run("coverage", "--json"))
    assert found["cases"]["kidney_tumor"] == {"kits": 2, "ward": 0}
    assert found["ml"]["kidney_tumor"] == {"kits": 2.5, "ward": 0.0}
    assert found["table_versions"]["cases"] == 4


def test_coverage_as_a_run_saw_it(run: Any) -> None:
    found = json.loads(run("coverage", "--run", "run-1", "--state", "any", "--json"))
    assert found["cases"]["liver"] == {"kits": 1}
    with pytest.raises(KeyError, match="the last ones: run-1"):
        run("coverage", "--run", "run-2")


def test_coverage_fits_a_narrow_terminal(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.console.console._width", 60)
    lines = run("coverage").splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("class") for line in lines) == 2
    assert not any("…" in line for line in lines)


def test_coverage_draws_the_long_tail(run: Any, tmp_path: Path) -> None:
    picture = tmp_path / "made" / "tail.png"
    assert str(picture) in run("coverage", "--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in picture.parent.iterdir()] == ["tail.png"]
    with pytest.raises(ValueError, match=r"expected \.png"):
        run("coverage", "--picture", str(tmp_path / "tail.jpg"))


@pytest.mark.parametrize(("option", "told"), [("--value", "cases, present, voxels"), ("--state", "annotated, pseudo")])
def test_coverage_refuses_words_it_does_not_know(run: Any, option: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"{option} litres: expected {told}"):
        run("coverage", option, "litres")


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_export_writes_four_files_and_says_how_many_rows(run: Any, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "out"
    assert "3 cases, 4 labels, 0 quarantine, 1 runs" in run("export", str(folder), "--format", form)
    expected = {"catalog.json", *(f"{name}.{form}" for name in ("cases", "labels", "quarantine", "runs"))}
    assert {path.name for path in folder.iterdir()} == expected
    with pytest.raises(FileExistsError, match="give --replace"):
        run("export", str(folder))
    assert json.loads(run("export", str(folder), "--replace", "--json"))["rows"]["labels"] == 4


def test_history_of_a_case_and_of_a_table(run: Any) -> None:
    page = run("history", "kits/1")
    assert page.split()[0] == "kits/1"
    assert "first" in page
    assert "version 2" in page
    assert "current" in page
    found = json.loads(run("history", "kits/1", "--json"))
    assert [row["changed"] for row in found["versions"]] == [[], ["card"]]
    assert "2 of 5 commits" in run("history", "--table", "cases", "--limit", "2")
    assert json.loads(run("history", "--table", "runs", "--json"))[0]["rows"] == 1
    for words in ((), ("kits/1", "--table", "cases")):
        with pytest.raises(ValueError, match="one of the two"):
            run("history", *words)


def test_query_prints_a_table_json_or_records(run: Any) -> None:
    pytest.importorskip("duckdb", reason="duckdb is not installed: pip install 'ct-label-factory[sql]'")
    text = "SELECT case_id, sum(ml) ml, any_value(quality_score) score FROM labels GROUP BY 1 ORDER BY 1"
    assert _cells(run("query", text), "kits/2") == ["2.5", "–"]
    assert json.loads(run("query", text, "--json"))[2] == {"case_id": "ward/9", "ml": 1234.5, "score": 0.75}
    assert "1 of 3 rows" in run("query", text, "--limit", "1")
    records = run("query", "SELECT * FROM cases ORDER BY case_id")
    assert _cells(records, "flags") == ["['[odd]spacing']"]
    with pytest.raises(ValueError, match="found DROP, expected one SELECT"):
        run("query", "DROP TABLE cases")


def test_query_without_duckdb_says_what_to_install(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(RuntimeError, match=r"pip install 'ct-label-factory\[sql\]'"):
        run("query", "SELECT 1")


def test_labels_are_listed_by_class_model_and_score(run: Any) -> None:
    assert [row["case_id"] for row in json.loads(run("cases", "--class", "kidney_tumor", "--json"))] == [
        "kits/1",
        "kits/2",
    ]
    present = json.loads(run("cases", "--class", "kidney_tumor", "--present", "--json"))
    assert [(row["case_id"], row["ml"]) for row in present] == [("kits/2", 2.5)]
    absent = run("cases", "--class", "kidney_tumor", "--absent")
    assert "kits/1" in absent
    assert "fold 2" in absent  # by name, as everywhere: 5 is the test
    assert [row["case_id"] for row in json.loads(run("made-by", "4", "--json"))] == ["ward/9"]
    assert run("made-by", "4", "--model", "another") == "none\n"
    assert [row["quality_score"] for row in json.loads(run("low-quality", "liver", "--below", "0.8", "--json"))] == [
        0.75
    ]
    assert run("low-quality", "liver") == "none\n"
    assert "ward/9" in run("low-quality", "liver", "--below", "0.8")
    with pytest.raises(ValueError, match="expected annotated or pseudo"):
        run("cases", "--class", "liver", "--state", "guessed")


def test_a_snapshot_holds_the_rows_that_a_run_read(run: Any) -> None:
    found = json.loads(run("snapshot", "run-1", "--json"))
    assert [row["case_id"] for row in found["cases"]] == ["kits/1", "kits/2"]
    assert [row["class_name"] for row in found["labels"]] == ["liver", "kidney_tumor", "kidney_tumor"]
    assert found["table_versions"]["cases"] == 3
    assert "2 cases, 3 labels" in run("snapshot", "run-1")


def test_cases_are_withdrawn_and_restored(run: Any, workspace: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(workspace, own)
    assert run("withdraw", "kits/1", "--reason", "consent withdrawn", at=own) == "kits/1: withdrawn\n"
    assert run("withdraw", "kits/1", "--reason", "again", at=own) == "kits/1: withdrawn already\n"
    assert "consent withdrawn" in run("show", "kits/1", at=own)
    assert "withdrawal" in run("history", "kits/1", at=own)
    assert "kits/1" not in run("cases", "--class", "kidney_tumor", at=own)
    assert json.loads(run("restore", "kits/1", "--json", at=own)) == {"restored": ["kits/1"], "unchanged": []}
    assert "kits/1" in run("cases", "--class", "kidney_tumor", at=own)
    assert "nothing to add" in run("migrate", at=own)
    assert json.loads(run("migrate", "--json", at=own))["added"]["cases"] == []
