"""The `ingest` flow: a data set's folder becomes cases and labels in the lake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.batches import batch_runner, run_batches
from flows.run_record import recorded_run
from tasks.fetch import fetch_task
from tasks.ingest import count_outcomes, ingest_batch_task, ingest_progress, list_source_task
from tasks.ingest_case import CaseOutcome
from tasks.settings import Settings

DOWNLOAD = "download"
"""The source that stands for the card's own files."""


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did: counts by outcome, and every case that was refused or remarked on."""

    dataset: str
    counts: dict[str, int]
    skipped_files: int
    remarks: tuple[CaseOutcome, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every case was in the lake already."""
        return self.counts["ingested"] == 0 and self.counts["quarantined"] == 0


@flow(name="ingest", flow_run_name="ingest {dataset}", validate_parameters=False, task_runner=batch_runner)
def ingest(
    dataset: str,
    source: Path | str,
    settings: Settings | None = None,
    cohort: str | None = None,
    variant: str | None = None,
) -> IngestReport:
    """Read every case below `source` by the card `dataset`, harmonise it, write it to the lake and commit its rows.

    Afterwards each readable case is in the lake and its human labels are in the tables; each bad one is in quarantine
    with the reason. A second run with the same files, card and settings does nothing. cohort: the name under which a
    folder read by the card `local` enters the lake. variant: which of the card's label variants to read. The source
    "download" fetches the card's files first, and reads those.
    """
    settings = settings or Settings()
    name = cohort or dataset
    with recorded_run("ingest", settings, {"dataset": name}) as record:
        folder = fetch_task(dataset, settings, variant=variant).root if source == DOWNLOAD else Path(source)
        listing = list_source_task(
            dataset, folder, settings, cohort=cohort, variant=variant, flow_run_id=record.flow_run_id
        )
        progress = ingest_progress(name, len(listing.requests))
        slug = name.replace("_", "-").lower()
        ingested = run_batches(ingest_batch_task, listing.requests, settings, progress, key=f"ingest-{slug}-progress")
        outcomes = [*listing.refused, *ingested]
        record.counts = count_outcomes(outcomes)
        report = IngestReport(
            dataset=name,
            counts=record.counts,
            skipped_files=listing.skipped_files,
            remarks=tuple(outcome for outcome in outcomes if outcome.message),
        )
        create_table_artifact(
            [{"case": item.case_id, "outcome": item.outcome, "remark": item.message} for item in outcomes],
            key=f"ingest-{slug}",
            description=f"{name}: {report.counts}, {report.skipped_files} stray files skipped",
        )
        return report
