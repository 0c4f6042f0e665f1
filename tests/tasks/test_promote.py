"""Gates and aliases, against a real SQLite MLflow."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from tasks.promote import EVALUATION_TAG, judge, promote_version
from tasks.registry import CHAMPION, alias_version, list_versions, model_version
from tasks.settings import Settings
from tasks.tracking import mlflow_client, tracked_run

GOOD = {
    "mean_organ_dsc": 0.8,
    "mean_organ_nsd": 0.8,
    "worst_organ_dsc": 0.5,
    "sensitivity": 1.0,
    "specificity": 1.0,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(workspace=tmp_path_factory.mktemp("promote"))


def _evaluated_version(settings: Settings, metrics: dict[str, float] | None) -> str:
    client = mlflow_client(settings)
    with tracked_run(settings, "evaluate", kind="evaluate", tags={}) as run_id:
        mlflow.log_metrics(metrics or {})
        artifacts = mlflow.get_artifact_uri()
    if not client.search_registered_models():
        client.create_registered_model(settings.model_name)
    version = client.create_model_version(settings.model_name, source=artifacts, run_id=run_id)
    if metrics is not None:
        client.set_model_version_tag(settings.model_name, version.version, EVALUATION_TAG, run_id)
    return f"models:/{settings.model_name}/{version.version}"


def test_a_figure_that_was_not_measured_fails_its_gate() -> None:
    gates = judge({"mean_organ_dsc": 0.9}, None, Settings())
    by_figure = {gate.figure: gate for gate in gates}
    assert by_figure["mean_organ_dsc"].passed
    assert not by_figure["sensitivity"].passed
    assert "not measured" in str(by_figure["sensitivity"])


def test_refusal_names_the_bar_and_leaves_the_champion(settings: Settings, tmp_path: Path) -> None:
    first = model_version(_evaluated_version(settings, GOOD), settings)
    assert promote_version(first, settings).promoted
    worse = model_version(_evaluated_version(settings, {**GOOD, "mean_organ_dsc": 0.75}), settings)
    decision = promote_version(worse, settings)
    assert not decision.promoted
    assert "mean_organ_dsc: 0.750, bar 0.780" in decision.reason
    champion = alias_version(CHAMPION, settings)
    assert champion is not None
    assert champion.version == first.version
    assert "the champion already" in promote_version(first, settings).reason


def test_a_version_without_an_evaluation_is_refused(settings: Settings) -> None:
    version = model_version(_evaluated_version(settings, None), settings)
    assert "never evaluated" in promote_version(version, settings).reason


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("models:/universal@nobody", LookupError, "universal with aliases"),
        ("models:/universal/99", LookupError, "not in the registry"),
        ("universal 3", ValueError, "expected models:/NAME@ALIAS"),
    ],
)
def test_unknown_models_say_what_there_is(settings: Settings, uri: str, error: type[Exception], message: str) -> None:
    _evaluated_version(settings, GOOD)
    with pytest.raises(error, match=message):
        model_version(uri, settings)


def test_versions_are_listed_newest_first(settings: Settings) -> None:
    _evaluated_version(settings, GOOD)
    numbers = [version.version for version in list_versions(settings)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers
