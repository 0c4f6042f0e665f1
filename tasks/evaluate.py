"""Evaluate a checkpoint on cases it has not seen: every case once, those kept from an earlier evaluation not again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from tasks.evaluate_case import LESION_COLUMNS, SCORE_COLUMNS, CaseRequest, evaluate_case
from tasks.lost import require_all
from tasks.map_cases import map_cases
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.settings import Settings
from tasks.workspace import row_dicts


@dataclass(frozen=True, eq=False)
class CohortScores:
    """Of all cases: score rows (SCORE_COLUMNS), lesions (LESION_COLUMNS), and what each prediction took.

    reused: cases whose scores were kept from an earlier evaluation by the same weights, on the same labels, with the
    same settings.
    """

    scores: pd.DataFrame
    lesions: pd.DataFrame
    costs: pd.DataFrame
    reused: int


def evaluate_cases(cases: pd.DataFrame, checkpoint: Path, weights: str, settings: Settings) -> CohortScores:
    """Return the scores of all cases, one row a case and class, by the checkpoint whose weights have that digest."""
    requests = [CaseRequest(case, checkpoint, weights) for case in row_dicts(cases)]
    results = map_cases(
        partial(evaluate_case, settings=settings.for_workers()),
        requests,
        settings,
        CaseProgress("evaluate", len(requests)),
    )
    done = require_all(
        results,
        lambda request: str(request.case["case_id"]),
        "a score over the other cases would not be the model's: give workers more memory or time, or evaluate without "
        "CTFACTORY_DASK_ADDRESS",
    )
    return CohortScores(
        pd.DataFrame([row for item in done for row in item.rows], columns=list(SCORE_COLUMNS)),
        pd.DataFrame([row for item in done for row in item.lesions], columns=list(LESION_COLUMNS)),
        pd.DataFrame([item.cost for item in done]),
        sum(item.reused for item in done),
    )


evaluate_cases_task = as_task(evaluate_cases, "evaluate-cases", tags=["model"])
