"""The ingest step: a source folder becomes cases in the lake, rows in the tables, or rows in quarantine."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datasets_registry.cards import Card, load_card
from datasets_registry.guards import check_set
from datasets_registry.layouts import reader_for
from imaging.errors import BadInput
from tasks.ingest_case import CaseOutcome, IngestRequest, ingest_case, quarantine
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.settings import Settings
from tasks.workspace import open_workspace


@dataclass(frozen=True)
class SourceListing:
    """The cases of a source folder, ready to be divided into batches, and those refused while listing."""

    requests: tuple[IngestRequest, ...]
    refused: tuple[CaseOutcome, ...]
    skipped_files: int


def list_source(
    card_id: str,
    source: Path,
    settings: Settings,
    *,
    cohort: str | None = None,
    variant: str | None = None,
    flow_run_id: str | None = None,
) -> SourceListing:
    """Return what `source` holds according to the card; cases refused here are in quarantine already.

    cohort: name under which a `local` folder enters the lake, instead of the card's id. variant: label variant of the
    card, None for its default.
    Raises FileNotFoundError, with the layout expected, when no case is found, and BadInput for the files of another
    data set than the card's.
    """
    card = load_card(card_id, variant=variant)
    dataset = cohort or card.id
    listing = reader_for(card).list_cases(source.absolute(), card)
    check_set(listing, card)
    retry = retry_command(card, source, settings, cohort=cohort, variant=variant)
    workspace = open_workspace(settings)
    for native_id, problem in listing.problems:
        quarantine(workspace, dataset, native_id, problem, retry=retry, flow_run_id=flow_run_id)
    return SourceListing(
        requests=tuple(
            IngestRequest(card_id, replace(case, dataset=dataset), flow_run_id, variant, retry)
            for case in listing.cases
        ),
        refused=tuple(
            CaseOutcome(f"{dataset}/{native_id}", "quarantined", str(problem))
            for native_id, problem in listing.problems
        ),
        skipped_files=listing.skipped_files,
    )


def retry_command(
    card: Card, source: Path, settings: Settings, *, cohort: str | None = None, variant: str | None = None
) -> str:
    """Return the command that reads a folder again; of a private cohort without its path, which may name patients."""
    words = ["ctfactory", "ingest", card.id, "--source", "FOLDER" if card.access == "private" else str(source)]
    words += ["--cohort", cohort] if cohort is not None else []
    words += ["--variant", variant] if variant is not None else []
    if settings.workspace != Settings.model_fields["workspace"].default:
        words += ["--workspace", str(settings.workspace)]
    return shlex.join(words)


def ingest_batch(
    requests: Sequence[IngestRequest], settings: Settings, progress: CaseProgress | None = None
) -> list[CaseOutcome]:
    """Return what became of each case of a batch, in order; one that ended its Dask workers is in quarantine."""
    results = map_cases(partial(ingest_case, settings=settings.for_workers()), list(requests), settings, progress)
    return [_quarantine_lost(item, settings) if isinstance(item, Lost) else item for item in results]


def ingest_progress(name: str, cases: int) -> CaseProgress:
    """Return the counter of an ingest, over all its batches."""
    return CaseProgress(f"ingest {name}", cases, refused=lambda outcome: outcome.outcome == "quarantined")


LOST_EXPECTED = {
    "worker_lost": "a worker that lives through it",
    "out_of_memory": "less than a worker's memory",
    "timeout": "less than the time limit of a case",
}
LOST_REMEDY = {
    "worker_lost": "ingest it without CTFACTORY_DASK_ADDRESS to see the crash",
    "out_of_memory": "give workers more memory (CTFACTORY_WORKER_MEMORY_GIB, CTFACTORY_WORKERS) and ingest it again",
    "timeout": "ingest it without CTFACTORY_DASK_ADDRESS to see where it hangs, or raise CTFACTORY_CASE_LIMIT_S",
}


def _quarantine_lost(lost: Lost[IngestRequest], settings: Settings) -> CaseOutcome:
    """Put a case that ended its workers into quarantine, by name."""
    files = lost.case.files
    problem = BadInput(
        lost.reason,
        files.where,
        f"{lost.found}, in the last of {lost.tries} tries",
        LOST_EXPECTED[lost.reason],
        LOST_REMEDY[lost.reason],
    )
    quarantine(
        open_workspace(settings),
        files.dataset,
        files.native_id,
        problem,
        retry=lost.case.retry,
        flow_run_id=lost.case.flow_run_id,
    )
    return CaseOutcome(files.where, "quarantined", str(problem))


def count_outcomes(outcomes: Sequence[CaseOutcome]) -> dict[str, int]:
    """Return how many cases were ingested, unchanged and quarantined; all three keys are always there."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    return {name: counts[name] for name in ("ingested", "unchanged", "quarantined")}


list_source_task = as_task(list_source, "list-source")
ingest_batch_task = as_task(ingest_batch, "ingest-batch", retries=2, retry_delay_seconds=10, tags=["cases"])
