"""Questions to the tables, each one call, each answered by a plain table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from catalog.tables import Tables
from datasets_registry.taxonomy import class_info, class_names

Versions = Mapping[str, int] | None
VALUES = ("cases", "present", "voxels", "ml")
"""What a coverage matrix can hold."""


def status(tables: Tables) -> dict[str, Any]:
    """Return what the lake holds, JSON-able.

    `cases`: data set -> count. `labels`: class -> {state: count}. `quarantine`: data set -> {code: count}.
    `versions`: table -> committed version.
    """
    labels = tables.labels(columns=["class_name", "state"])
    refused = tables.quarantined()
    return {
        "cases": {str(name): int(n) for name, n in tables.cases()["dataset"].value_counts().sort_index().items()},
        "labels": _nested_counts(labels, "class_name", "state"),
        "quarantine": _nested_counts(refused, "dataset", "code"),
        "versions": tables.versions(),
    }


def _nested_counts(frame: pd.DataFrame, outer: str, inner: str) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for (first, second), n in sorted(Counter(zip(frame[outer], frame[inner], strict=True)).items()):
        counts.setdefault(str(first), {})[str(second)] = n
    return counts


def coverage(
    tables: Tables, value: str = "cases", state: str | None = None, at_versions: Versions = None
) -> pd.DataFrame:
    """Return a class x data set matrix; rows are all classes in channel order, 0 where nothing is labelled.

    value: "cases" (labelled, the class present or absent), "present" (cases that show it), "voxels" or "ml".
    state: annotated or pseudo, None for either (a case with several annotations of a class counts once).
    """
    if value not in VALUES:
        raise ValueError(f"coverage: value {value!r}, expected cases, present, voxels or ml")
    return coverages(tables, state, at_versions)[value]


def coverages(tables: Tables, state: str | None = None, at_versions: Versions = None) -> dict[str, pd.DataFrame]:
    """Return the matrix of `coverage` for each of `VALUES`, from one look at the tables."""
    versions = at_versions or tables.versions()
    counted = ("class_name", "state", "voxels", "ml", "committed_at")
    labels = effective_labels(tables, state=state, at_versions=versions, columns=counted)
    datasets = sorted(tables.cases(at_versions=versions)["dataset"].unique())
    return {
        "cases": _matrix(labels.assign(amount=1), datasets),
        "present": _matrix(labels[labels["voxels"] > 0].assign(amount=1), datasets),
        "voxels": _matrix(labels.assign(amount=labels["voxels"]), datasets),
        "ml": _matrix(labels.assign(amount=labels["ml"]), datasets),
    }


def _matrix(labels: pd.DataFrame, datasets: list[str]) -> pd.DataFrame:
    matrix = labels.pivot_table(
        index="class_name", columns="dataset", values="amount", aggfunc="sum", fill_value=0, observed=True
    )
    return matrix.reindex(index=list(class_names()), columns=datasets, fill_value=0)


def effective_labels(
    tables: Tables,
    dataset: str | None = None,
    state: str | None = None,
    at_versions: Versions = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one label row per case and class: the annotated one where there is one, else the newest pseudo-label.

    Columns as `Tables.labels()`, sorted by case and channel. state: keep only annotated or pseudo ones beforehand.
    columns: read only these, `state` and `committed_at` among them, beside those that name the case.
    """
    labels = tables.labels(dataset, state=state, at_versions=at_versions, columns=columns)
    human_first = labels.assign(rank=(labels["state"] != "annotated").astype(int))
    ordered = human_first.sort_values(
        ["case_id", "channel", "rank", "committed_at", "annotation"], ascending=[True, True, True, False, True]
    )
    return ordered.drop_duplicates(["case_id", "channel"]).drop(columns="rank").reset_index(drop=True)


def annotated_cases(tables: Tables, class_name: str, present: bool | None = None) -> pd.DataFrame:
    """Return the cases where annotators looked for a class, with their label row. present: only with / without it.

    A KeyError names the nearest classes where there is none of that name.
    """
    class_info(class_name)
    labels = tables.labels(class_name=class_name, state="annotated")
    if present is not None:
        labels = labels[(labels["voxels"] > 0) == present]
    return labels.reset_index(drop=True)


def made_by(tables: Tables, model_version: str, model_name: str | None = None) -> pd.DataFrame:
    """Return every label row a model version made."""
    labels = tables.labels(model_version=model_version)
    return labels if model_name is None else labels[labels["model_name"] == model_name].reset_index(drop=True)


def low_quality(tables: Tables, class_name: str, below: float) -> pd.DataFrame:
    """Return the pseudo-labels of a class with a quality score under `below`, the lowest first; KeyError as above."""
    class_info(class_name)
    labels = tables.labels(class_name=class_name, state="pseudo")
    return labels[labels["quality_score"] < below].sort_values(["quality_score", "case_id"]).reset_index(drop=True)


def run_snapshot(tables: Tables, run: str) -> dict[str, int]:
    """Return the table versions that a run read, for `at_versions` of other questions: its exact data, again.

    run: the id of the run, of its flow run or of its MLflow run; KeyError lists the last runs of the catalog.
    """
    runs = tables.runs()
    match = runs[(runs[["run_id", "flow_run_id", "mlflow_run_id"]] == run).any(axis=1)]
    if match.empty:
        last = [f"{row['run_id']} ({row['kind']})" for row in runs.tail(5).to_dict("records")][::-1]
        raise KeyError(f"unknown run {run!r}; the last ones: {', '.join(last) or 'none'}")
    return {str(name): int(version) for name, version in json.loads(match.iloc[-1]["table_versions"]).items()}
