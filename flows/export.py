"""The `export` flow: labels of the catalog as files for their users, in each scan's own geometry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.batches import batch_runner, run_batches
from flows.run_record import recorded_run
from tasks.export_cohort import OUTCOMES, ExportOutcome, export_batch_task, export_progress
from tasks.export_plan import ExportPlan, plan_export
from tasks.settings import Settings


@dataclass(frozen=True)
class ExportReport:
    """What became of each case, and where the files lie."""

    outcomes: tuple[ExportOutcome, ...]
    folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases exported, unchanged, left out, refused and failed."""
        counts = Counter(outcome.outcome for outcome in self.outcomes)
        return {name: counts[name] for name in OUTCOMES}


@flow(name="export", flow_run_name="export {plan.names}", validate_parameters=False, task_runner=batch_runner)
def export(plan: ExportPlan, settings: Settings | None = None) -> ExportReport:
    """Export the labels of the plan's cohorts and cases.

    Afterwards each case with accepted labels has a folder of files under the plan's, complete or not there at all. A
    second run writes only what changed. Lake and tables stay as they are, but for the record of the run.
    """
    settings = settings or Settings()
    with recorded_run("export", settings, {"names": list(plan.names), "profile": plan.profile}) as record:
        requests = plan_export(plan, settings)
        outcomes = run_batches(export_batch_task, requests, settings, export_progress(len(requests)), "export-progress")
        report = ExportReport(tuple(outcomes), (plan.out or settings.workspace / "exports").absolute())
        record.counts = report.counts
        create_table_artifact(
            [
                {"case": item.case_id, "outcome": item.outcome, "classes": len(item.classes), "remark": item.message}
                for item in outcomes
            ],
            key="export",
            description=f"{', '.join(plan.names)} as {', '.join(plan.formats)}, {plan.profile}: {report.counts}",
        )
        return report
