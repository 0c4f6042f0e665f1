"""A whole cohort by the protocol of a challenge: its table, and a folder that is ready to be uploaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, NoCasesFound, reader_for
from tasks.evaluate_case import CaseRequest
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.notices import tell
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.protocol import Protocol
from tasks.protocol_case import LAKE, ProtocolRequest, evaluate_protocol_case
from tasks.settings import Settings
from tasks.statistics import bootstrap_mean, bootstrap_mean_of_means, bootstrap_means
from tasks.workspace import Workspace, open_workspace, row_dicts

AVERAGE = "average"


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """rows: one a case and region. table: one a region, then the average. submission: folder written, and what of the
    challenge's test scans is not in it."""

    protocol: Protocol
    rows: pd.DataFrame
    table: pd.DataFrame
    submission: Path | None = None
    missing: tuple[str, ...] = ()

    def metrics(self) -> dict[str, float]:
        """Return `protocol/msd_liver/dsc/cancer` and so on; what was not measured is left out."""
        found = {
            f"protocol/{self.protocol.id}/{figure}/{str(row['region']).replace(' ', '_')}": row[figure]
            for row in self.table.to_dict("records")
            for figure in self.protocol.figures
        }
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def run_protocol(
    protocol: Protocol,
    scored: pd.DataFrame,
    checkpoint: Path,
    weights: str,
    settings: Settings,
    *,
    raw: Path | None = None,
    submission: Path | None = None,
) -> ProtocolResult:
    """Score `cases` rows by a protocol, and write the label maps of a submission.

    raw: folder the data set was ingested from, whose label files are then the truth; default WORKSPACE/raw/<data set>
    where it holds them; else the lake's labels are brought back to the original grid, which is told. submission: an
    empty or new folder; it gets the cases scored and the data set's test and unlabelled scans, and an archive beside
    it. Raises FileExistsError for a folder with files, and ValueError for cases of another data set.
    """
    workspace = open_workspace(settings)
    target = _empty_folder(submission)
    # label maps lie in the folder that the challenge names, inside what is packed
    inner = None if target is None else target / (protocol.submission.folder or "")
    files = _raw_files(protocol, scored, raw, settings)
    unlabelled = _unlabelled(workspace, protocol, scored) if target is not None else scored.iloc[:0]
    requests = [
        ProtocolRequest(CaseRequest(case, checkpoint, weights), protocol, _own(files, case, protocol), inner, is_scored)
        for cases, is_scored in ((scored, True), (unlabelled, False))
        for case in row_dicts(cases)
    ]
    progress = CaseProgress(f"protocol {protocol.id}", len(requests))
    results = map_cases(partial(evaluate_protocol_case, settings=settings.for_workers()), requests, settings, progress)
    lost = [item for item in results if isinstance(item, Lost)]
    if lost:
        raise RuntimeError(f"{lost[0].case.case.case['case_id']}: {lost[0].found}; give workers more memory or time")
    rows = pd.DataFrame([row for item in results if not isinstance(item, Lost) for row in item])
    if len(rows) and (rows["truth"] == LAKE).any():
        tell(
            f"protocol {protocol.id}: truth is the lake's labels brought back to the original grid, not the data set's "
            "own files; name their folder with --raw for figures as the challenge has them"
        )
    missing: tuple[str, ...] = ()
    if target is not None:
        there = {str(name) for name in (*scored["native_id"], *unlabelled["native_id"])}
        missing = tuple(one for one in protocol.submission.cases or () if one not in there)
        shutil.make_archive(str(target), "zip", target)
    return ProtocolResult(protocol, rows, protocol_table(rows, protocol), target, missing)


def _own(files: Mapping[str, CaseFiles], case: Mapping[str, Any], protocol: Protocol) -> CaseFiles | None:
    """Return the raw files of a case; those of another data set, scored by the same rules, are not looked for."""
    return files.get(case["native_id"]) if case["dataset"] == protocol.dataset else None


def _empty_folder(submission: Path | None) -> Path | None:
    if submission is None:
        return None
    if submission.exists() and any(submission.iterdir()):
        raise FileExistsError(f"--submission {submission}: the folder holds files; name a new or an empty one")
    return submission.absolute()


def _raw_files(
    protocol: Protocol, scored: pd.DataFrame, raw: Path | None, settings: Settings
) -> Mapping[str, CaseFiles]:
    """Return native id -> raw files; empty where there is no raw folder."""
    card = load_card(protocol.dataset)
    folder = raw or settings.raw_folder / protocol.dataset
    if raw is None and not folder.is_dir():
        return {}
    try:
        listed = reader_for(card).list_cases(folder.absolute(), card)
    except NoCasesFound:
        if raw is None:
            return {}
        raise
    found = {case.native_id: case for case in listed.cases}
    if raw is not None and (lacking := sorted(set(scored["native_id"]) - set(found))):
        raise FileNotFoundError(
            f"--raw {raw}: {len(lacking)} of {len(scored)} cases are not in it: {', '.join(lacking[:5])}; give the "
            f"folder that {protocol.dataset} was ingested from"
        )
    return found


def _unlabelled(workspace: Workspace, protocol: Protocol, scored: pd.DataFrame) -> pd.DataFrame:
    """Return the cases of the scored data sets that a submission holds beside: test scans, and those without labels."""
    datasets = set(scored["dataset"]) or {protocol.dataset}
    cases = workspace.tables.cases()
    own = cases[cases["dataset"].isin(datasets) & ~cases["case_id"].isin(scored["case_id"])]
    labels = workspace.tables.labels(case_ids=own["case_id"], state="annotated", columns=["class_name"])
    wanted = ~own["case_id"].isin(labels["case_id"]) | own["native_id"].isin(protocol.submission.cases or ())
    return own[wanted].sort_values("case_id")


def protocol_table(rows: pd.DataFrame, protocol: Protocol) -> pd.DataFrame:
    """Return the mean of each figure per region with 95 % intervals over patients, then the protocol's average.

    cases = scored + both_empty (truth and prediction both empty: no score). An average leaves out regions that the
    protocol marks so.
    """
    figures = list(protocol.figures)
    table = []
    for region in protocol.regions:
        part = rows[rows["region"] == region.name] if len(rows) else rows
        row: dict[str, object] = {"region": region.name, "cases": len(part), "scored": 0, "both_empty": 0}
        if len(part):
            row |= {"scored": int(part["dsc"].notna().sum()), "both_empty": int(part["dsc"].isna().sum())}
            intervals = bootstrap_means(part[figures].to_numpy(dtype=float), part["patient"].tolist())
            for figure, interval in zip(figures, intervals, strict=True):
                row |= {figure: interval.mean, f"{figure}_low": interval.low, f"{figure}_high": interval.high}
        table.append(row)
    averaged = [region.name for region in protocol.regions if region.averaged]
    inside = rows[rows["region"].isin(averaged)] if len(rows) else rows
    row = {"region": AVERAGE, "cases": inside["case_id"].nunique() if len(inside) else 0}
    for figure in figures if len(inside) else ():
        if protocol.average == "mean_of_pairs":
            interval = bootstrap_mean(inside[figure], inside["patient"].tolist())
        else:
            wide = inside.pivot_table(index=["case_id", "patient"], columns="region", values=figure, dropna=False)
            interval = bootstrap_mean_of_means(wide.to_numpy(), wide.index.get_level_values("patient").tolist())
        row |= {figure: interval.mean, f"{figure}_low": interval.low, f"{figure}_high": interval.high}
    columns = ["region", "cases", "scored", "both_empty"]
    columns += [figure + end for figure in figures for end in ("", "_low", "_high")]
    return pd.DataFrame([*table, row], columns=columns)


run_protocol_task = as_task(run_protocol, "run-protocol", tags=["model"])
