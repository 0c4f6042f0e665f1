"""Judging one version: every gate of the rules, from its weights, its evaluations and today's data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from catalog.splits import twins_between
from models.checkpoint import read_metadata
from tasks.champion import Standing, settle
from tasks.evaluation_tables import summary_metrics
from tasks.evidence import Evidence, NoEvidence, evaluation_runs, held_out_run, read_evidence
from tasks.gate_rules import GateRules, load_gates
from tasks.gates import SHOWN, Gate, bar_gates, champion_gate, class_gate, gate_table, metric_gate, number_gate
from tasks.model_terms import encoder_gate, licence_gate
from tasks.prediction import trained_classes
from tasks.prefect_task import as_task
from tasks.registry import ModelVersion, WeightsChanged, checkpoint_digest, fetch_checkpoint, training_cases
from tasks.settings import Settings
from tasks.splits import SplitChoice, cases_to_score
from tasks.workspace import Workspace, open_workspace

HELD_OUT = "test"


@dataclass(frozen=True)
class Judgement:
    """Every gate of one version, and who was champion when it was judged. target: what the version is to be for."""

    model: ModelVersion
    target: str
    gates: tuple[Gate, ...]
    standing: Standing
    evaluation_run_id: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every gate is passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def reason(self) -> str:
        """The gates that are not passed, in words."""
        failed = [str(gate) for gate in self.gates if not gate.passed]
        return "refused: " + "; ".join(failed) if failed else f"passed all {len(self.gates)} gates"

    def table(self) -> pd.DataFrame:
        """Return one row a gate."""
        return gate_table(self.gates)


def judge_version(model: ModelVersion, settings: Settings, *, target: str | None = None) -> Judgement:
    """Return every gate of the settings' rules for `model`, as of now; only an interrupted move is finished.

    target: of the rules; default the one they name. Raises ValueError for a target they do not have.
    """
    rules = load_gates(settings.gates)
    target = target or rules.target
    allowed = rules.allowed(target)
    workspace, standing = open_workspace(settings), settle(settings)
    gates: list[Gate] = []
    metadata = None
    try:
        checkpoint = fetch_checkpoint(model, settings)
        metadata = read_metadata(checkpoint)
        weights = checkpoint_digest(checkpoint)
        gates.append(Gate("weights are those registered", weights[:12], weights[:12], True))
    except (WeightsChanged, OSError, ValueError) as problem:
        return Judgement(model, target, (stopped_gate("weights are those registered", problem),), standing)
    seen = training_cases(model, settings)
    gates += [
        licence_gate(checkpoint, seen, workspace, allowed, target),
        encoder_gate(metadata, allowed, target),
    ]
    run_id = held_out_run(model, settings)
    try:
        if run_id is None:
            raise NoEvidence(f"version {model.version} was never evaluated; run `ctfactory evaluate {model.version}`")
        evidence = read_evidence(run_id, model, workspace)
        gates.append(Gate("evaluation is as it was written", run_id, "digests of the catalog", True))
    except NoEvidence as problem:
        gates.append(stopped_gate("evaluation is as it was written", problem))
        return Judgement(model, target, tuple(gates), standing, run_id)
    gates += _evidence_gates(evidence, model, weights, seen, workspace, trained_classes(metadata))
    gates += bar_gates(evidence.scores, rules, settings.detection_min_ml)
    gates += _cohort_gates(rules, model, weights, seen, workspace)
    if standing.champion is not None and standing.champion.version != model.version:
        gates.append(_against_champion(evidence, standing.champion, rules, workspace))
    return Judgement(model, target, tuple(gates), standing, run_id)


def stopped_gate(gate: str, problem: Exception) -> Gate:
    """Return a gate that could not even be looked at, with the reason."""
    return Gate(gate, str(problem), "the files as they were written", False)


def _evidence_gates(
    evidence: Evidence,
    model: ModelVersion,
    weights: str,
    seen: list[str],
    workspace: Workspace,
    trained: tuple[str, ...],
) -> Iterator[Gate]:
    """Yield the gates on what was evaluated: these weights, today's held-out cases and labels, none of them learnt."""
    about, settings = evidence.about, workspace.settings
    yield _same_weights(evidence, weights)
    yield Gate(
        "evaluated on the held-out fold",
        f"{about['split']}, {about['held_out']}",
        f"default or official, {HELD_OUT}",
        about["held_out"] in (HELD_OUT, "official") and about["split"] in ("default", "official"),
        f"run `ctfactory evaluate {model.version}`" if about["held_out"] not in (HELD_OUT, "official") else "",
    )
    choice = SplitChoice("official" if about["split"] == "official" else "default", drop_leaking=True)
    today = cases_to_score(workspace, choice, None, seen)
    yield _same_snapshot(evidence, today, workspace)
    yield _no_leak(evidence, seen, workspace)
    labels = workspace.tables.labels(
        case_ids=today["case_id"], state="annotated", columns=["class_name"], at_versions=_versions(evidence)
    )
    yield class_gate(evidence.scores, labels[["case_id", "class_name"]], trained)
    yield number_gate(evidence.scores)
    yield metric_gate(evidence.logged, summary_metrics(evidence.scores, settings.detection_min_ml))


def _versions(evidence: Evidence) -> dict[str, int]:
    return {str(name): int(version) for name, version in evidence.about["table_versions"].items()}


def _same_weights(evidence: Evidence, weights: str) -> Gate:
    found = str(evidence.about["weights_sha256"])
    return Gate(
        "these weights were evaluated",
        found[:12],
        weights[:12],
        found == weights,
        "" if found == weights else "the version's weights are not those evaluated; evaluate again",
    )


def _same_snapshot(evidence: Evidence, today: pd.DataFrame, workspace: Workspace) -> Gate:
    """Return whether the cases scored are those that are held out now, with the same scans and human labels."""
    now, then = set(today["case_id"]), set(evidence.cases)
    remark = ""
    if now != then:
        new, gone = sorted(now - then), sorted(then - now)
        remark = "; ".join(
            f"{len(ids)} {what}: {', '.join(ids[:SHOWN])}"
            for ids, what in ((new, "held out since"), (gone, "no longer held out"))
            if ids
        )
    else:
        before = _content(workspace, then, _versions(evidence))
        after = _content(workspace, then, None)
        changed = sorted({case_id for case_id, *_ in before ^ after})
        if changed:
            remark = f"scan or labels changed since: {', '.join(changed[:SHOWN])}"
    return Gate(
        "evaluated on today's held-out data",
        f"{len(then)} cases",
        f"the {len(now)} held out now",
        not remark,
        remark and f"{remark}; evaluate again",
    )


def _content(workspace: Workspace, case_ids: set[str], versions: dict[str, int] | None) -> set[tuple[str, ...]]:
    """Return what the scores rest on: version of each scan, files of each human label."""
    cases = workspace.tables.cases(case_ids=case_ids, columns=["ingest_key"], at_versions=versions)
    labels = workspace.tables.labels(
        case_ids=case_ids, state="annotated", columns=["class_name", "manifest"], at_versions=versions
    )
    scans = zip(cases["case_id"], cases["ingest_key"], strict=True)
    files = zip(labels["case_id"], labels["class_name"], labels["annotation"], labels["manifest"], strict=True)
    return {*scans, *files}


def _no_leak(evidence: Evidence, seen: list[str], workspace: Workspace) -> Gate:
    """Return whether no scored case, nor a twin of it known by now, was trained on."""
    known = workspace.tables.cases(columns=["split_group"], history=True)
    whole_sets = {name.removesuffix("/*") for name in seen if name.endswith("/*")}
    of_sets = known["case_id"][known["case_id"].str.partition("/")[0].isin(whole_sets)]
    pairs = twins_between(known, evidence.cases, {*seen, *of_sets})
    named = ", ".join(one if one == other else f"{one} = {other}" for one, other in pairs[:SHOWN])
    return Gate(
        f"no leak in {', '.join(sorted(set(evidence.scores['dataset'])))}",
        f"{len(pairs)} scored cases were trained on",
        "0",
        not pairs,
        named and f"{named}; evaluate again with --drop-leaking",
    )


def _cohort_gates(
    rules: GateRules, model: ModelVersion, weights: str, seen: list[str], workspace: Workspace
) -> Iterator[Gate]:
    """Yield a gate for each cohort the rules ask for: evaluated, by these weights, whole, without a leak."""
    if not rules.cohorts:
        return
    found: dict[str, Evidence] = {}
    for run_id in evaluation_runs(model, workspace.settings):
        try:
            evidence = read_evidence(run_id, model, workspace)
        except NoEvidence:
            continue  # one that proves nothing is as if it were not there
        for cohort in set(evidence.about["cohorts"]):
            found.setdefault(cohort, evidence)
    for cohort in rules.cohorts:
        name = f"cohort {cohort} was evaluated"
        command = f"run `ctfactory evaluate {model.version} --cohort {cohort}`"
        if cohort not in found:
            yield Gate(name, "no evaluation that counts", "one", False, command)
            continue
        evidence = found[cohort]
        own = evidence.scores[evidence.scores["dataset"] == cohort]
        whole = set(cases_to_score(workspace, SplitChoice(drop_leaking=True), [cohort], seen)["case_id"])
        missing = sorted(whole - set(own["case_id"]))
        yield Gate(
            name,
            f"{len(whole) - len(missing)} of {len(whole)} cases",
            f"{len(whole)}",
            not missing,
            f"without {', '.join(missing[:SHOWN])}; {command}" if missing else "",
        )
        of_cohort = replace(evidence, scores=own)
        yield replace(_same_weights(of_cohort, weights), gate=f"these weights were evaluated on {cohort}")
        yield _no_leak(of_cohort, seen, workspace)
        yield replace(number_gate(own), gate=f"scores on {cohort} are numbers")


def _against_champion(evidence: Evidence, champion: ModelVersion, rules: GateRules, workspace: Workspace) -> Gate:
    """Return the gate against the champion, which must have been evaluated on the same cases."""
    name = f"no class worse than {champion.uri}"
    bar = f"lower bound at least {-rules.champion.drop:+.3f}"
    command = f"run `ctfactory evaluate {champion.version}` first"
    try:
        run_id = held_out_run(champion, workspace.settings)
        if run_id is None:
            raise NoEvidence("the champion was never evaluated")
        other = read_evidence(run_id, champion, workspace)
    except NoEvidence as problem:
        return Gate(name, str(problem), bar, False, command)
    if missing := sorted(set(evidence.cases) - set(other.cases)):
        found = f"the champion was not evaluated on {len(missing)} of {len(evidence.cases)} cases"
        return Gate(name, found, bar, False, f"{', '.join(missing[:SHOWN])}; {command}")
    then = _content(workspace, set(evidence.cases), _versions(other))
    if then != _content(workspace, set(evidence.cases), _versions(evidence)):
        return Gate(name, "the champion was evaluated on other scans or labels", bar, False, command)
    cases = workspace.tables.cases(case_ids=evidence.cases, columns=["split_group"])
    groups = dict(zip(cases["case_id"], cases["split_group"], strict=True))
    return champion_gate(evidence, other, rules.champion, groups, champion.uri)


judge_version_task = as_task(judge_version, "judge-version")
