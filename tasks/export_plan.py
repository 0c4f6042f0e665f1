"""Which labels of the catalog an export takes: per case and class the one that counts, if it was accepted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from catalog.label_events import ACCEPTED, NEEDED, counting
from catalog.queries import effective_labels
from catalog.schema import LABELS
from catalog.tables import Tables
from datasets_registry.cards import list_cards, load_card
from datasets_registry.layouts import reader_for
from datasets_registry.layouts.cases import NoCasesFound
from datasets_registry.taxonomy import class_info
from tasks.export import DICOM_FORMATS, check_formats
from tasks.licences import PROFILES
from tasks.registry import model_version
from tasks.settings import Settings
from tasks.workspace import existing_workspace, row_dicts

EXPORTER_VERSION = "1"
"""Part of every export's key: raise it when the bytes of an export change."""
ANNOTATED, REVIEWED, PSEUDO = "annotated", "reviewed", "pseudo"


@dataclass(frozen=True)
class ExportPlan:
    """What to export, and how.

    names: cohorts (data sets of the lake) and case ids. formats, profile: see `tasks.export.export_case`. classes: None
    for all. model: only masks by this version. annotation: only those of this annotation. include_review: masks that
    nobody accepted yet, too. source: folder with the raw files, for DICOM labels and the scan itself; None: the raw
    folder of the workspace, where it is there. out: None for WORKSPACE/exports.
    """

    names: tuple[str, ...]
    formats: tuple[str, ...] = ("nifti",)
    profile: str = "research"
    classes: tuple[str, ...] | None = None
    model: str | None = None
    annotation: str | None = None
    include_review: bool = False
    source: Path | None = None
    out: Path | None = None
    keep_patient: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """One case to export: its row, the label rows it takes, and where to.

    held_back: classes that wait for a review. source_files: raw files of the scan, None where they are not at hand;
    they stay out of the text form.
    """

    case: dict[str, Any]
    labels: tuple[dict[str, Any], ...]
    folder: Path
    plan: ExportPlan = field(repr=False)
    held_back: tuple[str, ...] = ()
    source_files: tuple[Path, ...] | None = field(default=None, repr=False)

    @property
    def key(self) -> str:
        """Hash of all that decides the files: equal key means nothing to do."""
        labels = [[row["class_name"], row["annotation"], row["manifest"], label_state(row)] for row in self.labels]
        told = [EXPORTER_VERSION, self.case["ingest_key"], labels, self.plan.formats, self.plan.profile,
                self.plan.keep_patient, self.source_files is not None]  # fmt: skip
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def plan_export(plan: ExportPlan, settings: Settings) -> list[ExportRequest]:
    """Return one request per case that has labels, by case id.

    Human labels always count; of a model's, those the factory or a reviewer accepted, with `include_review` those that
    wait for a reviewer too; rejected and retracted ones never. Raises LookupError for a name that is neither cohort nor
    case and for an annotation or version without labels there, KeyError for a class, ValueError for format or profile.
    """
    check_formats(plan.formats)
    if plan.profile not in PROFILES:
        raise ValueError(f"profile {plan.profile!r}, expected one of {', '.join(PROFILES)}")
    for name in plan.classes or ():
        class_info(name)
    tables = existing_workspace(settings).tables
    cases = _cases(tables, plan.names)
    labels = _labels(tables, sorted({str(row["dataset"]) for row in cases}), plan, settings)
    by_case: dict[str, list[dict[str, Any]]] = {}
    for row in row_dicts(labels):
        by_case.setdefault(str(row["case_id"]), []).append(row)
    wanted = [row for row in cases if row["case_id"] in by_case]
    if not wanted:
        raise LookupError(f"{', '.join(plan.names)}: {_why_nothing(plan)}")
    files = _source_files(wanted, plan, settings)
    out = plan.out or settings.workspace / "exports"
    return [
        ExportRequest(
            row,
            tuple(one for one in by_case[row["case_id"]] if _taken(one, plan)),
            out.absolute() / str(row["dataset"]),
            plan,
            tuple(str(one["class_name"]) for one in by_case[row["case_id"]] if not _taken(one, plan)),
            files.get(str(row["case_id"])),
        )
        for row in wanted
    ]


def _cases(tables: Tables, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the cohorts and cases named, each once, by case id."""
    if not names:
        raise ValueError("nothing to export: name cohorts (`ctfactory catalog coverage` lists them) or case ids")
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = tables.cases(case_ids=[name]) if "/" in name else tables.cases(dataset=name)
        if rows.empty:
            there = sorted(set(tables.cases(columns=["dataset"])["dataset"]))
            raise LookupError(f"{name!r}: no cohort and no case of the lake, which holds {there}; name one of these")
        found |= {str(row["case_id"]): row for row in row_dicts(rows)}
    return [found[case_id] for case_id in sorted(found)]


def _labels(tables: Tables, datasets: Sequence[str], plan: ExportPlan, settings: Settings) -> pd.DataFrame:
    """Return the label rows of the data sets that the plan is about, one a case and class."""
    if plan.annotation is None and plan.model is None:
        frames = [effective_labels(tables, dataset) for dataset in datasets]
        rows = pd.concat(frames, ignore_index=True)
    else:
        version = None if plan.model is None else model_version(plan.model, settings)
        found = []
        for dataset in datasets:
            arrow = tables.label_rows(
                dataset,
                annotation=plan.annotation,
                model_version=None if version is None else str(version.version),
                columns=[*LABELS, *NEEDED],
            )
            found.append(arrow.filter(counting(arrow)).to_pandas())
        rows = pd.concat(found, ignore_index=True)
        if version is not None:
            rows = rows[rows["model_name"] == version.name]
        rows = rows.sort_values("committed_at").drop_duplicates(["case_id", "class_name"], keep="last")
    if plan.classes is not None:
        rows = rows[rows["class_name"].isin(plan.classes)]
    return rows.sort_values(["case_id", "channel"]).reset_index(drop=True)


def label_state(row: Mapping[str, Any]) -> str:
    """Return what a label is to its reader: annotated, reviewed (a person looked at it) or pseudo."""
    if row["state"] == ANNOTATED:
        return ANNOTATED
    return REVIEWED if row.get("verdict") == ACCEPTED or row.get("review_state") == REVIEWED else PSEUDO


def _taken(row: Mapping[str, Any], plan: ExportPlan) -> bool:
    return plan.include_review or label_state(row) != PSEUDO or row.get("decision") == "accept"


def _why_nothing(plan: ExportPlan) -> str:
    which = [f"by {plan.model}"] if plan.model else []
    which += [f"of annotation {plan.annotation!r}"] if plan.annotation else []
    which += [f"of {', '.join(plan.classes)}"] if plan.classes else []
    told = " ".join(which)
    return f"no label {told + ' ' if told else ''}that counts; `ctfactory catalog labels` shows what there is"


def _source_files(
    cases: Sequence[Mapping[str, Any]], plan: ExportPlan, settings: Settings
) -> dict[str, tuple[Path, ...]]:
    """Return case id -> raw files of the scan, for the cases whose data set's folder is at hand.

    Nothing is looked for unless a format needs the source. A folder given that holds none of a data set's cases is
    left for the exporter to say so, case by case.
    """
    if not set(plan.formats) & {*DICOM_FORMATS, "abdomenatlas"}:
        return {}
    if plan.source is not None and not plan.source.is_dir():
        raise FileNotFoundError(f"--source {plan.source.name}: no such folder; give the one that was ingested")
    found: dict[str, tuple[Path, ...]] = {}
    cards = set(list_cards())
    for dataset in sorted({str(row["dataset"]) for row in cases}):
        card = load_card(dataset if dataset in cards else "local")
        folder = plan.source or settings.raw_folder / dataset
        if not folder.is_dir():
            continue
        try:
            listing = reader_for(card).list_cases(folder.absolute(), card)
        except NoCasesFound:
            continue
        found |= {f"{dataset}/{case.native_id}": case.image for case in listing.cases}
    return found
