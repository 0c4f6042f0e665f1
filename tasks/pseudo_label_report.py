"""From the rows that a pseudo-label run left in the tables to its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tasks.cohort_pictures import draw_pictures
from tasks.cohort_report import LABEL_COLUMNS, CohortReport, write_cohort_report
from tasks.notices import tell
from tasks.prefect_task import as_task
from tasks.pseudo_label_case import PseudoLabelOutcome
from tasks.pseudo_label_plan import LabelRun
from tasks.pseudo_label_run import FigureSheet
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

PAGE = "report.html"


def report_run(
    run: LabelRun,
    outcomes: Sequence[PseudoLabelOutcome],
    figures: FigureSheet,
    facts: Mapping[str, str],
    settings: Settings,
) -> Path:
    """Write the page of a run beside its exports, from what the tables say now, and return its path."""
    workspace = open_workspace(settings)
    rows = labels_of_run(workspace, run, outcomes)
    report = CohortReport(
        title=run.spec.report.title or f"Pseudo-labels of {run.spec.cohort} by {run.teacher.title}",
        rows=rows,
        outcomes={item.case_id: (item.outcome, item.message) for item in outcomes},
        human=_human_labels(workspace, run),
        figures={"cases": str(len(outcomes)), "labels": str(len(rows)), **figures.texts()},
        facts=facts,
        pictures=draw_pictures(workspace, rows, per_class=run.spec.report.pictures, tell=tell),
    )
    return write_cohort_report(report, run.export_folder / PAGE)


def labels_of_run(workspace: Workspace, run: LabelRun, outcomes: Sequence[PseudoLabelOutcome]) -> pd.DataFrame:
    """Return the label rows that the run made or found: of each case one annotation, and the classes asked for."""
    wanted = pd.DataFrame(
        [
            {"case_id": item.case_id, "annotation": item.annotation, "class_name": name}
            for item in outcomes
            if item.annotation is not None
            for name in item.classes
        ],
        columns=["case_id", "annotation", "class_name"],
    )
    rows = workspace.tables.labels(dataset=run.spec.cohort, state="pseudo", columns=list(LABEL_COLUMNS))
    return rows.merge(wanted, on=["case_id", "annotation", "class_name"])


def _human_labels(workspace: Workspace, run: LabelRun) -> pd.DataFrame:
    """Return volume and HU of what people annotated and found, of the classes of the run."""
    rows = workspace.tables.labels(state="annotated", columns=["class_name", "voxels", "ml", "hu_mean"])
    return rows[(rows["voxels"] > 0) & rows["class_name"].isin(run.classes)]


report_task = as_task(report_run, "cohort-report")
