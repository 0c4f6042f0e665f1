"""Deciding about labels: take a run's pseudo-labels back, bring them back, accept or reject one. Each is an event."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

import pandas as pd
import pyarrow as pa

from catalog.label_events import ACCEPTED, KEY, NEEDED, REJECTED, RESTORED, RETRACTED, first_of_each
from catalog.table_reads import frame_of
from catalog.tables import Tables
from datasets_registry.taxonomy import class_info

Verdict = Literal["accepted", "rejected"]
_MODEL = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
_MADE = (*KEY, "state", "model_name", "model_version", "flow_run_id", "mlflow_run_id")


def retract(tables: Tables, run: str, *, who: str, why: str) -> pd.DataFrame:
    """Take back every pseudo-label of a run; return those taken back now (columns `label_events.KEY`), sorted.

    run: id of a pseudo-labelling or review run, of its flow run, of the MLflow run that trained the model, or
    models:/NAME/VERSION. Labels on superseded versions of cases, and of withdrawn cases, are among them: they must not
    come back with the case. What people annotated is never touched. A second call takes back nothing, or what the run
    added since. The bits and rows stay, for histories and for `restore`, and garbage collection keeps them.
    LookupError where the run made no pseudo-label, ValueError without a reason.
    """
    reason = _reason("labels retract", why)
    made = _made_by_run(tables, run)
    fresh = _but(made, standing_retractions(tables, run))
    tables.record_events(_events(fresh, RETRACTED, who, reason, run))
    return fresh


def restore(tables: Tables, run: str, *, who: str, why: str) -> pd.DataFrame:
    """Bring back what `retract` took back under the same name of the run; return those labels, sorted.

    A label that another retraction takes back too stays retracted. LookupError lists the retractions that stand where
    there is none of that name; none is left either after a first call, so that is told apart: it returns no row.
    """
    reason = _reason("labels restore", why)
    events = tables.events()
    known = events[events["event"] == RETRACTED]
    if run not in set(known["run_id"]):
        names = sorted(set(known["run_id"].dropna()))
        raise LookupError(f"labels restore: {run!r} was not retracted; retracted were {', '.join(names) or 'none'}")
    fresh = standing_retractions(tables, run)
    tables.record_events(_events(fresh, RESTORED, who, reason, run))
    return fresh


def judge(
    tables: Tables,
    case_id: str,
    classes: Sequence[str],
    verdict: Verdict,
    *,
    who: str,
    why: str,
    annotation: str | None = None,
) -> pd.DataFrame:
    """Accept or reject the pseudo-labels of a case for some classes; return those whose verdict is new.

    annotation: which one is meant where models made several; default the one that goes before the others, reviewed or
    not. KeyError for a class without a pseudo-label there, ValueError without a reason or for another verdict.
    """
    reason = _reason(f"review of {case_id}", why)
    if verdict not in (ACCEPTED, REJECTED):
        raise ValueError(f"review of {case_id}: verdict {verdict!r}, expected {ACCEPTED} or {REJECTED}")
    labels = pseudo_labels(tables, case_id, classes, annotation)
    fresh = labels[labels["verdict"] != verdict]
    tables.record_events(_events(fresh, verdict, who, reason, None))
    return fresh[list(KEY)].reset_index(drop=True)


def pseudo_labels(tables: Tables, case_id: str, classes: Sequence[str], annotation: str | None = None) -> pd.DataFrame:
    """Return the pseudo-label of each class of the current version of a case, as `judge` chooses them, by channel."""
    names = [class_info(name).name for name in classes]
    if not names:
        raise ValueError(f"review of {case_id}: found no class, expected those that were looked at")
    rows = tables.label_rows(
        case_ids=[case_id], state="pseudo", annotation=annotation, class_name=None, columns=[*KEY, *NEEDED]
    )
    rows = rows.filter(pa.array([name in names for name in rows["class_name"].to_pylist()], pa.bool_()))
    chosen = frame_of(rows.take(pa.array(first_of_each(rows, rows["channel"].to_numpy().astype("int64")))))
    if missing := [name for name in names if name not in set(chosen["class_name"])]:
        named = "" if annotation is None else f" in the annotation {annotation}"
        raise KeyError(
            f"{case_id}: no pseudo-label of {', '.join(missing)}{named} to review; `ctfactory catalog show {case_id}` "
            "lists its labels (human ones are not reviewed)"
        )
    return chosen.sort_values("channel").reset_index(drop=True)


def _reason(where: str, why: str) -> str:
    if not why.strip():
        raise ValueError(f"{where}: found no reason, expected why; it is kept with the labels")
    return why.strip()


def _made_by_run(tables: Tables, run: str) -> pd.DataFrame:
    """Return the pseudo-labels that a run or model version made, on whatever version of a case."""
    labels = frame_of(tables.label_rows(state="pseudo", columns=_MADE, history=True))
    if run.startswith("models:/"):
        match = _MODEL.fullmatch(run)
        if match is None:
            raise ValueError(f"{run}: expected models:/NAME/VERSION; an alias means another version tomorrow")
        made = labels[(labels["model_name"] == match["name"]) & (labels["model_version"] == match["version"])]
    else:
        runs = tables.runs()
        same = runs[(runs[["run_id", "flow_run_id", "mlflow_run_id"]] == run).any(axis=1)]
        ids = {run, *same["run_id"].dropna(), *same["flow_run_id"].dropna()}
        made = labels[labels["flow_run_id"].isin(ids) | (labels["mlflow_run_id"] == run)]
    if made.empty:
        makers = labels["flow_run_id"].dropna().unique().tolist()[-5:]
        raise LookupError(
            f"{run}: made no pseudo-label of this lake, expected the id of a run, or models:/NAME/VERSION, that did; "
            f"the last runs that did: {', '.join(makers) or 'none'}"
        )
    return _sorted(made)


def standing_retractions(tables: Tables, run: str) -> pd.DataFrame:
    """Return the labels that a retraction of that name takes back now."""
    events = tables.events()
    own = events[events["event"].isin([RETRACTED, RESTORED]) & (events["run_id"] == run)]
    last = own.drop_duplicates(list(KEY), keep="last")
    return _sorted(last[last["event"] == RETRACTED])


def _sorted(labels: pd.DataFrame) -> pd.DataFrame:
    return labels[list(KEY)].drop_duplicates().sort_values(list(KEY)).reset_index(drop=True)


def _but(labels: pd.DataFrame, without: pd.DataFrame) -> pd.DataFrame:
    """Return the labels that are not among `without`."""
    marked = labels.merge(without, on=list(KEY), how="left", indicator=True)
    return labels[(marked["_merge"] == "left_only").to_numpy()].reset_index(drop=True)


def _events(labels: pd.DataFrame, event: str, who: str, why: str, run: str | None) -> list[dict[str, Any]]:
    rows = labels[list(KEY)].itertuples(index=False, name=None)
    about = {"event": event, "who": who, "why": why, "run_id": run}
    return [{"event_id": uuid4().hex, **dict(zip(KEY, row, strict=True)), **about} for row in rows]
