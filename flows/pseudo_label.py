"""The `pseudo_label` flow: a cohort in the lake gets masks made by a registered model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.batches import batch_runner, run_batches
from flows.run_record import recorded_run
from tasks.pseudo_label import PseudoLabelOutcome, plan_cohort, pseudo_label_batch_task, pseudo_label_progress
from tasks.registry import model_version
from tasks.settings import Settings


@dataclass(frozen=True)
class PseudoLabelReport:
    """What became of each case of the cohort, by which model, and where the exports lie."""

    cohort: str
    model_uri: str
    model_version: int
    outcomes: tuple[PseudoLabelOutcome, ...]
    export_folder: Path

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases labelled, unchanged and failed."""
        counts = Counter(outcome.outcome for outcome in self.outcomes)
        return {name: counts[name] for name in ("labelled", "unchanged", "failed")}


@flow(name="pseudo-label", flow_run_name="pseudo-label {cohort}", validate_parameters=False, task_runner=batch_runner)
def pseudo_label(
    cohort: str,
    model: str = "models:/universal@champion",
    settings: Settings | None = None,
    classes: Sequence[str] | None = None,
) -> PseudoLabelReport:
    """Label every case of `cohort` with `model`.

    Afterwards the masks lie beside each scan in the lake, their rows say `pseudo` with the model version, and each case
    has a NIfTI in its own geometry and an overlay picture. Human labels are never touched. A second run with the same
    version does nothing.
    """
    settings = settings or Settings()
    version = model_version(model, settings)
    with recorded_run("pseudo-label", settings, {"cohort": cohort}) as record:
        requests = plan_cohort(cohort, version, settings, classes=classes, flow_run_id=record.flow_run_id)
        slug = cohort.replace("_", "-").lower()
        progress = pseudo_label_progress(len(requests))
        outcomes = run_batches(
            pseudo_label_batch_task, requests, settings, progress, key=f"pseudo-label-{slug}-progress"
        )
        report = PseudoLabelReport(cohort, version.uri, version.version, tuple(outcomes), requests[0].export_folder)
        record.counts, record.model_version = report.counts, str(version.version)
        create_table_artifact(
            [
                {
                    "case": item.case_id,
                    "outcome": item.outcome,
                    "classes": len(item.classes),
                    "mean probability": item.mean_probability,
                    "remark": item.message,
                }
                for item in outcomes
            ],
            key=f"pseudo-label-{slug}",
            description=f"{cohort} by {version.uri}: {report.counts}",
        )
        return report
