"""A model card says what is known and what is not: data, licences, figures, limits; nothing is made up."""

from __future__ import annotations

import mlflow
import pandas as pd
import pytest
from catalog_rows import make_case_row
from small_model import checkpoint
from typer.testing import CliRunner

from flows.cli import app
from tasks.evidence import EVALUATION_TAG
from tasks.model_card import CARD, refresh_model_card
from tasks.model_card_text import shortened
from tasks.registry import TRAINING_CASES, ModelVersion, register_checkpoint, set_alias
from tasks.settings import Settings
from tasks.tracking import log_table, mlflow_client, tracked_run
from tasks.training_data import ANNOTATED, data_licences, log_data_licences
from tasks.workspace import open_workspace

SEEN = ("lits/1", "lits/2", "word/0001", "ours/a")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    made = Settings(workspace=tmp_path_factory.mktemp("card"))
    rows = [
        make_case_row("lits", "1", licence="CC-BY-NC-ND-4.0", non_commercial=True),
        make_case_row("lits", "2", licence="CC-BY-NC-ND-4.0", non_commercial=True),
        make_case_row("word", "0001", licence="CC-BY-4.0", non_commercial=False),
        make_case_row("ours", "a", licence=None, non_commercial=None),
    ]
    open_workspace(made).tables.commit_cases([(row, ()) for row in rows])
    return made


@pytest.fixture(scope="module")
def version(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    annotated = pd.DataFrame(
        {"class_name": ["spleen", "liver"], "annotated": [2, 40], "present": [0, 40], "pseudo": [0, 7]}
    )
    tags = {"start_from": "models:/universal/9", "pseudo_models": "models:/universal/8"}
    with tracked_run(settings, "train", kind="train", tags=tags, table_versions={"cases": 3}):
        mlflow.log_text("\n".join(SEEN), TRAINING_CASES)
        log_data_licences(SEEN, settings)
        log_table(annotated, ANNOTATED)
        file = checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")
        made = register_checkpoint(file, settings, tags={})
    set_alias(made, "challenger", settings)
    return made


def section(card: str, title: str) -> str:
    return card.split(f"\n## {title}\n")[1].split("\n## ")[0].strip()


def test_data_sets_come_with_licences_and_counts_and_what_nobody_states_is_not_known(settings: Settings) -> None:
    table = data_licences([*SEEN, "btcv/*"], settings).set_index("dataset")
    assert table["cases"].dropna().to_dict() == {"lits": 2, "ours": 1, "word": 1}  # nobody counted those of BTCV
    assert list(table.index) == ["btcv", "lits", "ours", "word"]
    assert table.loc["lits", "licence"] == "CC-BY-NC-ND-4.0"
    assert table["non_commercial"].dropna().to_dict() == {"lits": True, "word": False}
    assert pd.isna(table.loc["ours", "licence"])


def test_a_run_has_the_strictest_licence_of_its_data_as_tags(settings: Settings) -> None:
    with tracked_run(settings, "some", kind="evaluate", tags={}) as run_id:
        log_data_licences(["lits/1", "word/0001"], settings)
    tags = mlflow.get_run(run_id).data.tags
    assert (tags["data_licence"], tags["data_non_commercial"]) == ("CC-BY-NC-ND-4.0", "true")


def test_a_card_before_any_evaluation_says_so(settings: Settings, version: ModelVersion) -> None:
    card = refresh_model_card(version, settings)
    assert card.startswith(f"# {version.uri}\n\nOrgans and lesions in abdominal CT by a `tiny` network with")
    assert "classes: 2; made by: `train`; data sets: 3; cases: 4; steps: 0; aliases: `challenger`." in card
    limits = section(card, "Limits")
    assert "**Not evaluated on held-out cases**" in limits
    assert "offline stand-in" in limits
    assert "Annotated in fewer than 10 cases: spleen (2)." in limits
    assert "present in no case it learnt from: spleen." in limits
    assert "Not calibrated" in limits
    assert "| LiTS - Liver Tumor Segmentation benchmark | CC-BY-NC-ND-4.0 | yes | 2 |" in section(card, "Training data")
    assert "| ours | not stated | not stated | 1 |" in section(card, "Training data")
    assert "| liver | 40 | 40 | 7 |" in section(card, "Classes")
    # One set forbids commercial use; of another nothing is known, so no licence covers all.
    assert section(card, "Licence") == "Strictest of data and weights: **not known**; commercial use: forbidden."
    lineage = section(card, "Lineage")
    assert "- went on from: `models:/universal/9`" in lineage
    assert "- pseudo-labels by: `models:/universal/8`" in lineage
    assert f"- MLflow run: `{version.run_id}`" in lineage
    assert "spacing 12 x 12 x 15 mm, HU -175 to 250" in section(card, "Preprocessing and text embeddings")


def test_a_card_after_an_evaluation_shows_figures_with_intervals(settings: Settings, version: ModelVersion) -> None:
    client = mlflow_client(settings)
    metrics = {"dsc/liver": 0.9, "dsc_low/liver": 0.85, "dsc_high/liver": 0.94, "nsd/liver": 0.8, "mean_organ_dsc": 0.9}
    with tracked_run(settings, "evaluate", kind="evaluate", tags={"model": version.uri}) as evaluated:
        mlflow.log_metrics(metrics)
        mlflow.log_dict({"datasets": {"lits": 12, "word": 3}, "held_out": "test fold"}, "evaluation.json")
    client.set_model_version_tag(version.name, str(version.version), EVALUATION_TAG, evaluated)
    with tracked_run(settings, "evaluate", kind="evaluate", tags={"model": version.uri}) as elsewhere:
        mlflow.log_metrics({"mean_organ_dsc": 0.7})
        mlflow.log_dict({"datasets": {"ircadb_01": 20}}, "evaluation.json")
    done = CliRunner().invoke(
        app, ["models", "card", str(version.version)], env={"CTFACTORY_WORKSPACE": str(settings.workspace)}
    )
    assert done.exit_code == 0, done.output
    figures = section(done.stdout, "Figures")
    assert f"On 15 cases of lits, word (held out: test fold), run `{evaluated}`" in figures
    assert "| liver | 0.900 (0.850–0.940) | 0.800 | – | – |" in figures
    assert "Over classes: mean_organ_dsc 0.900." in figures
    assert f"Other cases of ircadb_01, run `{elsewhere}`: mean_organ_dsc 0.700." in figures
    limits = section(done.stdout, "Limits")
    assert "Not measured on held-out cases: spleen." in limits
    assert "Not evaluated" not in limits
    assert "No evaluation on a cohort" not in limits
    for run_id in (version.run_id, evaluated, elsewhere):
        assert mlflow.artifacts.load_text(f"runs:/{run_id}/{CARD}") == done.stdout
    assert client.get_model_version(version.name, str(version.version)).description == done.stdout
    assert client.get_run(version.run_id).data.tags["mlflow.note.content"] == done.stdout


def test_a_long_card_is_shortened_by_whole_sections_and_says_where_the_rest_is() -> None:
    text = "# head\n\nwords\n\n## one\n\n" + "a" * 50 + "\n\n## two\n\n" + "b" * 500 + "\n\n## three\n\nshort\n"
    found = shortened(text, 160, "see elsewhere")
    assert len(found) <= 160
    assert "## one" in found
    assert "## two" not in found
    assert "## three" in found
    assert found.endswith("*Shortened: see elsewhere.*\n")
    assert shortened(text, 10_000, "") == text
