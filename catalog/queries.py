"""Questions to the tables, each one call, each answered by a plain table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from catalog.columns import NOT_KEPT, coded
from catalog.label_events import KEY, NEEDED, counting, effective, first_of_each, is_text, label_codes, reviewed
from catalog.resolve import positions_of
from catalog.schema import LABELS
from catalog.table_reads import frame_of, sorted_labels
from catalog.tables import Tables
from datasets_registry.taxonomy import class_info, class_names

Versions = Mapping[str, int] | None
VALUES = ("cases", "present", "voxels", "ml")
"""What a coverage matrix can hold."""

TRUSTED = ("accepted", "reviewed")
"""Which pseudo-labels a training may be asked to learn from."""

TOLD = tuple(name for name in LABELS if name not in NOT_KEPT)
"""Columns of a label in answers: all but the files' manifest and the sampled voxels."""


def status(tables: Tables) -> dict[str, Any]:
    """Return what the lake holds, JSON-able.

    `cases`: data set -> count. `labels`: class -> {state: count}. `quarantine`: data set -> {code: count}.
    `versions`: table -> committed version.
    """
    labels = tables.labels(columns=["class_name", "state"])
    refused = tables.quarantined()
    return {
        "cases": {
            str(name): int(n)
            for name, n in tables.cases(columns=["dataset"])["dataset"].value_counts().sort_index().items()
        },
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
    counted = (*NEEDED, "voxels", "ml")
    rows = tables.label_rows(state=state, at_versions=versions, columns=counted)
    rows = rows.filter(pa.array(effective(rows)))
    datasets = sorted(tables.cases(at_versions=versions, columns=["dataset"])["dataset"].unique())
    places = (_places(rows["class_name"], class_names()), _places(rows["dataset"], datasets))
    voxels, ml = rows["voxels"].to_numpy(), rows["ml"].to_numpy()
    amounts = {"cases": None, "present": voxels > 0, "voxels": voxels, "ml": ml}
    shape = (len(class_names()), len(datasets))
    cells = places[0] * len(datasets) + places[1]
    matrices = {}
    for name, amount in amounts.items():
        counts = np.bincount(cells, amount, minlength=shape[0] * shape[1]).reshape(shape)
        matrices[name] = pd.DataFrame(
            counts if name == "ml" else counts.astype(np.int64),
            pd.Index(class_names(), name="class_name"),
            pd.Index(datasets, name="dataset", dtype="str"),
        )
    return matrices


def _places(column: pa.ChunkedArray, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each row's text in `names`."""
    codes, texts = coded(column)
    places: NDArray[np.int64] = pc.index_in(texts, value_set=pa.array(names, pa.string())).to_numpy()[codes]
    return places


def effective_labels(
    tables: Tables,
    dataset: str | None = None,
    state: str | None = None,
    at_versions: Versions = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one label row per case and class: the human one, else the newest reviewed, else the newest pseudo-label.

    Retracted and rejected ones never count: retracted by run, rejected by a reviewer, or by the factory where no
    reviewer accepted it. A later pseudo-label does not hide one that a reviewer accepted, or corrected.
    Columns as `Tables.labels()` and `verdict`, sorted by case and channel. state: keep only annotated or pseudo ones
    beforehand. columns: read only these, beside those that name the label and tell whether it counts.
    """
    asked = [*(LABELS if columns is None else columns), *NEEDED]
    rows = tables.label_rows(dataset, state=state, at_versions=at_versions, columns=asked)
    frame = frame_of(rows.filter(pa.array(effective(rows))))
    return frame.sort_values(["case_id", "channel"]).reset_index(drop=True)


def labels_to_learn(
    tables: Tables, trusted: str, case_ids: Iterable[str] | None = None, at_versions: Versions = None
) -> pd.DataFrame:
    """Return the pseudo-labels that a training may learn from, one a case and class, sorted by case and channel.

    trusted: `accepted`, by the factory or a reviewer, or `reviewed`, by a reviewer alone. Where people annotated the
    class there is none; of several the reviewed one, then the newest. Retracted and rejected ones never are.
    Columns as `Tables.labels()`, `verdict`, and `reviewed`: whether a person looked at it. ValueError for another word.
    """
    if trusted not in TRUSTED:
        raise ValueError(f"pseudo-labels to learn from: {trusted!r}, expected {' or '.join(TRUSTED)}")
    ids = None if case_ids is None else list(case_ids)
    rows = tables.label_rows(case_ids=ids, at_versions=at_versions, columns=[*KEY, *NEEDED])
    seen = reviewed(rows)
    good = seen | is_text(rows["decision"], "accept") if trusted == "accepted" else seen
    places = np.zeros(0, dtype=np.int64)
    if rows.num_rows:
        codes = label_codes(rows)
        human = is_text(rows["state"], "annotated")
        kept = np.flatnonzero(good & counting(rows) & ~np.isin(codes, codes[human]))
        places = kept[first_of_each(rows.take(pa.array(kept)), codes[kept])]
    chosen = rows.take(pa.array(places))
    whole = tables.label_rows(
        case_ids=chosen["case_id"].unique().to_pylist(),
        state="pseudo",
        at_versions=at_versions,
        columns=[*LABELS, "verdict"],
    )
    found = whole.filter(pa.array(positions_of(whole, chosen, KEY) >= 0))
    frame = frame_of(found).assign(reviewed=reviewed(found))
    return frame.sort_values(["case_id", "channel"]).reset_index(drop=True)


def labelled_cases(
    tables: Tables, class_name: str, state: str = "annotated", present: bool | None = None, at_versions: Versions = None
) -> pd.DataFrame:
    """Return the cases where annotators, or a model, looked for a class, each with its label row (columns `TOLD`).

    state: annotated or pseudo, without what was retracted or rejected. present: only where the class was found (True)
    or was not (False). A KeyError names the nearest classes where there is none of that name.
    """
    class_info(class_name)
    rows = tables.label_rows(class_name=class_name, state=state, columns=[*TOLD, "verdict"], at_versions=at_versions)
    labels = sorted_labels(rows.filter(pa.array(counting(rows))))
    return labels if present is None else labels[(labels["voxels"] > 0) == present].reset_index(drop=True)


def made_by(tables: Tables, model_version: str, model_name: str | None = None) -> pd.DataFrame:
    """Return every label row a model version made (columns `TOLD`)."""
    labels = tables.labels(model_version=model_version, columns=TOLD)
    return labels if model_name is None else labels[labels["model_name"] == model_name].reset_index(drop=True)


def low_quality(tables: Tables, class_name: str, below: float) -> pd.DataFrame:
    """Return the pseudo-labels of a class with a quality score under `below`, the lowest first; KeyError as above."""
    labels = labelled_cases(tables, class_name, "pseudo")
    return labels[labels["quality_score"] < below].sort_values(["quality_score", "case_id"]).reset_index(drop=True)


@dataclass(frozen=True)
class Snapshot:
    """What a run read: its record, the table versions, and the cases and labels (columns `TOLD`) they held."""

    run: dict[str, Any]
    versions: dict[str, int]
    cases: pd.DataFrame
    labels: pd.DataFrame


def snapshot(tables: Tables, run: str) -> Snapshot:
    """Return the exact rows that a run found in the tables, whatever was superseded or withdrawn since.

    run: as for `run_snapshot`. Cases and labels as `Tables.cases()` and `Tables.labels()` gave them then.
    """
    record = _run_record(tables, run)
    versions = _versions_of(record)
    return Snapshot(
        run=record,
        versions=versions,
        cases=tables.cases(at_versions=versions),
        labels=tables.labels(columns=TOLD, at_versions=versions),
    )


def run_snapshot(tables: Tables, run: str) -> dict[str, int]:
    """Return the table versions that a run read, for `at_versions` of other questions: its exact data, again.

    run: the id of the run, of its flow run or of its MLflow run; KeyError lists the last runs of the catalog.
    """
    return _versions_of(_run_record(tables, run))


def _versions_of(record: Mapping[str, Any]) -> dict[str, int]:
    return {str(name): int(version) for name, version in json.loads(record["table_versions"]).items()}


def _run_record(tables: Tables, run: str) -> dict[str, Any]:
    runs = tables.runs()
    match = runs[(runs[["run_id", "flow_run_id", "mlflow_run_id"]] == run).any(axis=1)]
    if match.empty:
        last = [f"{row['run_id']} ({row['kind']})" for row in runs.tail(5).to_dict("records")][::-1]
        raise KeyError(f"unknown run {run!r}; the last ones: {', '.join(last) or 'none'}")
    return {str(name): value for name, value in match.iloc[-1].items()}
