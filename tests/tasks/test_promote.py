"""Promotion against a real SQLite MLflow and real tables: gates, moves, the audit, and attempts to cheat."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from promotion_line import (
    COHORT,
    GATES,
    HELD_OUT,
    LEARNT,
    add_case,
    deal,
    evaluated,
    made_up_scores,
    make_line,
    passing,
    register,
)

from catalog.splits import TEST
from models.licence import PUBLISHED_LICENCE
from tasks.champion import DONE_TAG, PREVIOUS, Mover, move_champion, moves, settle
from tasks.evidence import EVALUATION_TAG, SCORES
from tasks.gate_rules import load_gates
from tasks.gates import number_gate
from tasks.judgement import Judgement, judge_version
from tasks.promote import Promotion, promote_judged, promote_version, roll_back
from tasks.registry import (
    CHAMPION,
    WEIGHTS,
    ModelVersion,
    WeightsChanged,
    alias_version,
    checkpoint_digest,
    fetch_checkpoint,
    set_alias,
)
from tasks.settings import Settings
from tasks.tracking import mlflow_client

ME = Mover("tester", "a test")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, ModelVersion]:
    """A line with one version that passes every gate, and no champion."""
    settings = make_line(tmp_path_factory.mktemp("promote"))
    return settings, passing(settings)


@pytest.fixture
def line(made: tuple[Settings, ModelVersion]) -> Iterator[tuple[Settings, ModelVersion]]:
    yield made
    # Each test leaves nobody as champion: the module shares one registry, whose making takes seconds.
    client = mlflow_client(made[0])
    for alias in (CHAMPION, PREVIOUS):
        if alias_version(alias, made[0]) is not None:
            client.delete_registered_model_alias(made[0].model_name, alias)


def failed(judged: Judgement | Promotion) -> list[str]:
    return [gate.gate for gate in judged.gates if not gate.passed]


def champion_of(settings: Settings) -> int | None:
    found = alias_version(CHAMPION, settings)
    return None if found is None else found.version


def test_a_version_that_passes_every_gate_becomes_champion_and_the_audit_says_so(
    line: tuple[Settings, ModelVersion],
) -> None:
    settings, model = line
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == []
    assert promotion.promoted
    assert champion_of(settings) == model.version
    last = moves(settings).iloc[-1]
    assert (last["move"], last["version"], last["who"], last["why"]) == (
        "promoted",
        str(model.version),
        "tester",
        "a test",
    )
    assert len(json.loads(last["gates"])) == len(promotion.gates)
    assert "the champion already" in promote_version(model, settings, ME).reason
    table = mlflow_client(settings).list_artifacts(promotion.run_id)
    assert {"gates.json", "decision.json"} <= {item.path for item in table}


def test_judging_writes_nothing_down(line: tuple[Settings, ModelVersion]) -> None:
    settings, model = line
    before = len(moves(settings))
    assert judge_version(model, settings).passed
    assert len(moves(settings)) == before
    assert champion_of(settings) is None


def test_the_one_before_becomes_previous_and_a_rollback_changes_them_back(line: tuple[Settings, ModelVersion]) -> None:
    settings, first = line
    promote_version(first, settings, ME)
    second = passing(settings, seed=1, dsc=0.81)
    assert promote_version(second, settings, ME).promoted
    assert champion_of(settings) == second.version
    assert roll_back(settings, ME).model.version == first.version
    standing = settle(settings)
    assert standing.champion is not None
    assert standing.previous is not None
    assert (standing.champion.version, standing.previous.version) == (first.version, second.version)
    assert moves(settings)["move"].tolist()[-1] == "rolled_back"


def test_a_rollback_with_nothing_before_says_so(tmp_path: Path) -> None:
    settings = make_line(tmp_path)
    register(settings)
    with pytest.raises(LookupError, match="nothing to roll back to"):
        roll_back(settings, ME)


def test_a_class_that_is_worse_than_the_champions_is_refused_with_its_bound(
    line: tuple[Settings, ModelVersion],
) -> None:
    settings, first = line
    promote_version(first, settings, ME)
    # every case 0.05 lower in one class: the interval of equal differences has no width
    worse = register(settings, seed=2)
    evaluated(settings, worse, made_up_scores(HELD_OUT, {"liver": 0.9, "spleen": 0.75, "liver_tumor": 0.9}))
    evaluated(settings, worse, made_up_scores(COHORT), cohorts=["ircadb"])
    promotion = promote_version(worse, settings, ME)
    assert failed(promotion) == [f"no class worse than {first.uri}"]
    assert "spleen -0.050" in promotion.reason
    assert champion_of(settings) == first.version
    assert moves(settings)["move"].tolist()[-1] == "refused"


def test_bars_of_a_group_name_the_figure_and_the_class(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    poor = register(settings, seed=3)
    evaluated(settings, poor, made_up_scores(HELD_OUT, {"liver": 0.8, "spleen": 0.3}))
    evaluated(settings, poor, made_up_scores(COHORT), cohorts=["ircadb"])
    promotion = promote_version(poor, settings, ME)
    # liver 0.80 to 0.83, spleen 0.30 to 0.33: means 0.815 and 0.315
    assert failed(promotion) == ["organs: dsc", "organs: nsd", "organs: worst dsc"]
    assert "organs: dsc: 0.565, needed at least 0.700" in promotion.reason
    assert "0.315, needed at least 0.500 (spleen)" in promotion.reason


def test_a_version_without_an_evaluation_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=4)
    assert "never evaluated; run `ctfactory evaluate" in promote_version(model, settings, ME).reason


# --- attempts to cheat, each refused by the gate that is there for it ---


def test_an_edited_metric_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=5)
    run_id = evaluated(settings, model, made_up_scores(HELD_OUT))
    evaluated(settings, model, made_up_scores(COHORT), cohorts=["ircadb"])
    mlflow_client(settings).log_metric(run_id, "mean_organ_dsc", 0.99)
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["metrics are those of the scores"]
    assert "mean_organ_dsc shows 0.990, the scores give 0.815" in promotion.reason


def test_edited_scores_are_refused(line: tuple[Settings, ModelVersion], tmp_path: Path) -> None:
    settings, _ = line
    model = register(settings, seed=6)
    run_id = evaluated(settings, model, made_up_scores(HELD_OUT, 0.4))
    made_up_scores(HELD_OUT, 0.9).to_parquet(tmp_path / SCORES)
    mlflow_client(settings).log_artifact(run_id, str(tmp_path / SCORES))
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["evaluation is as it was written"]
    assert "scores.parquet has SHA-256" in promotion.reason


def test_swapped_weights_are_refused_at_each_load(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = passing(settings, seed=7)
    file = fetch_checkpoint(model, settings)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsChanged):
        fetch_checkpoint(model, settings)
    assert failed(promote_version(model, settings, ME)) == ["weights are those registered"]


def test_weights_swapped_together_with_their_tag_are_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model, other = passing(settings, seed=8), register(settings, seed=9)
    file = fetch_checkpoint(model, settings)
    file.write_bytes(fetch_checkpoint(other, settings).read_bytes())
    client = mlflow_client(settings)
    client.set_model_version_tag(model.name, str(model.version), WEIGHTS, checkpoint_digest(file))
    assert "these weights were evaluated" in failed(promote_version(model, settings, ME))


def test_the_report_of_another_model_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, good = line
    model, client = register(settings, seed=10), mlflow_client(settings)
    run_id = client.get_model_version(good.name, str(good.version)).tags[EVALUATION_TAG]
    client.set_model_version_tag(model.name, str(model.version), EVALUATION_TAG, run_id)
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["evaluation is as it was written"]
    assert f"it is of {good.uri}, expected {model.uri}" in promotion.reason


def test_the_report_of_another_split_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=11, learnt=[])
    evaluated(settings, model, made_up_scores(LEARNT), held_out="fold 0")
    assert {"evaluated on the held-out fold", "evaluated on today's held-out data"} <= set(
        failed(promote_version(model, settings, ME))
    )


def test_a_score_that_is_no_number_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    scores = made_up_scores(HELD_OUT)
    scores.loc[0, "dsc"] = np.nan
    model = register(settings, seed=12)
    evaluated(settings, model, scores)
    evaluated(settings, model, made_up_scores(COHORT), cohorts=["ircadb"])
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["scores are numbers"]
    assert "kits/1 liver" in promotion.reason


def test_a_missing_class_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    scores = made_up_scores(HELD_OUT)
    model = register(settings, seed=13)
    evaluated(settings, model, scores[scores["class_name"] != "spleen"])
    evaluated(settings, model, made_up_scores(COHORT), cohorts=["ircadb"])
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["every annotated class is scored"]
    assert "8 of 12 labels" in promotion.reason


def test_a_leaked_cohort_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=14, learnt=[*LEARNT, COHORT[0]])
    evaluated(settings, model, made_up_scores(HELD_OUT))
    evaluated(settings, model, made_up_scores(COHORT), cohorts=["ircadb"])
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["no leak in ircadb"]
    assert "ircadb/1" in promotion.reason


def test_a_missing_cohort_is_refused_and_so_is_a_part_of_it(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=15)
    evaluated(settings, model, made_up_scores(HELD_OUT))
    promotion = promote_version(model, settings, ME)
    assert failed(promotion) == ["cohort ircadb was evaluated"]
    assert "--cohort ircadb" in promotion.reason
    evaluated(settings, model, made_up_scores(COHORT[:1]), cohorts=["ircadb"])
    assert "1 of 2 cases" in promote_version(model, settings, ME).reason


def test_a_champion_without_a_comparable_evaluation_is_refused_as_stale(line: tuple[Settings, ModelVersion]) -> None:
    settings, good = line
    stale = register(settings, seed=16)
    evaluated(settings, stale, made_up_scores(HELD_OUT[:3]))
    set_alias(stale, CHAMPION, settings)
    promotion = promote_version(good, settings, ME)
    assert failed(promotion) == [f"no class worse than {stale.uri}"]
    assert "not evaluated on 1 of 4 cases" in promotion.reason
    assert champion_of(settings) == stale.version


def test_the_offline_encoder_is_refused_for_production_and_unknown_targets_name_the_nearest(
    line: tuple[Settings, ModelVersion],
) -> None:
    settings, good = line
    promotion = promote_version(good, settings, ME, target="production")
    assert failed(promotion) == ["text encoder fits production"]
    with pytest.raises(ValueError, match="target 'prodction': nearest: production"):
        promote_version(good, settings, ME, target="prodction")


def test_non_commercial_weights_and_data_are_refused_for_a_commercial_target(
    line: tuple[Settings, ModelVersion],
) -> None:
    settings, good = line
    assert promote_version(good, settings, ME, target="commercial").promoted
    mlflow_client(settings).delete_registered_model_alias(settings.model_name, CHAMPION)
    bound = passing(settings, seed=17, **PUBLISHED_LICENCE.entries("model.pth", "0" * 64))
    promotion = promote_version(bound, settings, ME, target="commercial")
    assert failed(promotion) == ["licences fit commercial"]
    assert "weights: CC BY-NC-ND 4.0" in promotion.reason


def test_a_reused_run_id_is_refused(line: tuple[Settings, ModelVersion]) -> None:
    settings, _ = line
    model = register(settings, seed=18)
    run_id = evaluated(settings, model, made_up_scores(HELD_OUT))
    client = mlflow_client(settings)
    client.delete_run(run_id)
    assert "deleted; expected FINISHED, active" in promote_version(model, settings, ME).reason
    training = client.get_model_version(model.name, str(model.version)).run_id
    client.set_model_version_tag(model.name, str(model.version), EVALUATION_TAG, training)
    assert "a run of kind 'train', expected 'evaluate'" in promote_version(model, settings, ME).reason


def test_of_two_promotions_at_once_one_wins(line: tuple[Settings, ModelVersion]) -> None:
    settings, first = line
    second = passing(settings, seed=19)
    judged = [judge_version(model, settings) for model in (first, second)]
    assert all(one.passed for one in judged)
    results: list[Promotion] = []
    start = threading.Barrier(2)

    def decide(one: Judgement) -> None:
        start.wait()
        results.append(promote_judged(one, settings, ME))

    threads = [threading.Thread(target=decide, args=(one,)) for one in judged]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [result for result in results if result.promoted]
    assert len(winners) == 1
    assert champion_of(settings) == winners[0].model.version
    (loser,) = [result for result in results if not result.promoted]
    assert "another promotion came first" in loser.reason


def test_data_that_changed_since_the_evaluation_is_refused(tmp_path: Path) -> None:
    settings = make_line(tmp_path)
    model = passing(settings)
    assert judge_version(model, settings).passed
    add_case(settings, "kits/7")
    deal(settings, [("kits/7", TEST)])
    assert "1 held out since: kits/7" in judge_version(model, settings).reason
    evaluated(settings, model, made_up_scores([*HELD_OUT, "kits/7"]))
    assert judge_version(model, settings).passed
    add_case(settings, "kits/7", ingest_key="f" * 64)
    assert "scan or labels changed since: kits/7" in judge_version(model, settings).reason


def test_a_move_that_was_killed_before_its_aliases_is_finished_by_the_next_look(tmp_path: Path) -> None:
    settings = make_line(tmp_path)
    first, second = passing(settings), register(settings, seed=1)
    assert promote_version(first, settings, ME).promoted
    standing = settle(settings)
    assert move_champion(second, standing, "promoted", ME, settings)
    client = mlflow_client(settings)
    client.set_registered_model_alias(settings.model_name, CHAMPION, str(first.version))
    client.set_registered_model_tag(settings.model_name, DONE_TAG, f"{settings.model_name}/000001")
    settled = settle(settings)
    assert settled.champion is not None
    assert settled.previous is not None
    assert (settled.champion.version, settled.previous.version) == (second.version, first.version)
    # an alias that a person set afterwards stays
    client.set_registered_model_alias(settings.model_name, CHAMPION, str(first.version))
    assert champion_of(settings) == settle(settings).champion.version == first.version  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("cohorts:", "cohort:"), "cohort: Extra inputs are not permitted; its keys are"),
        (("dsc: 0.7", "dice: 0.7"), "groups.0.bars.dice"),
        (("dsc: 0.7", "dsc: 70"), "expected 0 to 1"),
        (("kinds: [tumour]", "classes: [livr]"), "livr"),
        (("target: research", "target: reserch"), "nearest: research"),
    ],
)
def test_rules_with_a_wrong_key_or_value_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text(GATES.replace(*change))
    with pytest.raises(ValueError, match=message):
        load_gates(str(file))


def test_the_rules_that_are_shipped_load_and_a_name_that_is_none_is_told() -> None:
    assert load_gates("default").allowed("production").offline_encoder is False
    assert load_gates("demo").groups[0].name == "organs"
    with pytest.raises(FileNotFoundError, match="expected default, demo or the path"):
        load_gates("defualt")


def test_scores_beyond_one_are_no_scores() -> None:
    scores = made_up_scores(HELD_OUT)
    assert number_gate(scores).passed
    assert not number_gate(pd.concat([scores, scores.head(1).assign(dsc=1.2)])).passed
