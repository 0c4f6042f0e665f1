"""Ingest: list the cases of a source, then read, harmonise, write and commit each; a bad case goes to quarantine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from catalog.keys import content_sha256, ingest_key, split_group
from catalog.splits import assign_folds
from datasets_registry.cards import load_card
from datasets_registry.layouts import CaseFiles, raw_digest, reader_for
from imaging.errors import BadInput
from imaging.resample import orient_ras
from tasks.case_rows import case_row, label_row, volume_flags
from tasks.harmonise import HARMONISER_VERSION, HarmonisedCase, harmonise
from tasks.map_cases import map_cases
from tasks.prefect_task import as_task
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

SHIPPED_ANNOTATION = "shipped"
"""Name of the label group that holds a data set's own labels; the rows' state and origin tell who made them."""

Outcome = Literal["ingested", "unchanged", "quarantined"]


@dataclass(frozen=True)
class IngestRequest:
    """One case to ingest: which files, under which card, into which fold."""

    card_id: str
    files: CaseFiles
    fold: int
    flow_run_id: str | None = None


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one case; `message` says why it was refused, or what to look at."""

    case_id: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class SourceListing:
    """The cases of a source folder, ready to be divided into batches, and those refused while listing."""

    requests: tuple[IngestRequest, ...]
    refused: tuple[CaseOutcome, ...]
    skipped_files: int


def list_source(
    card_id: str, source: Path, settings: Settings, *, cohort: str | None = None, flow_run_id: str | None = None
) -> SourceListing:
    """Return what `source` holds according to the card; cases refused here are in quarantine already.

    cohort: name under which a `local` folder enters the lake, instead of the card's id.
    Raises FileNotFoundError, with the layout expected, when no case is found.
    """
    card = load_card(card_id)
    dataset = cohort or card.id
    listing = reader_for(card).list_cases(source, card)
    workspace = open_workspace(settings)
    for native_id, problem in listing.problems:
        _quarantine(workspace, dataset, native_id, problem, None, flow_run_id)
    existing = workspace.tables.cases(dataset=dataset)
    known = dict(zip(existing["native_id"], existing["fold"], strict=True))
    folds = assign_folds(dataset, [case.native_id for case in listing.cases], known, settings.folds)
    return SourceListing(
        requests=tuple(
            IngestRequest(card_id, replace(case, dataset=dataset), folds[case.native_id], flow_run_id)
            for case in listing.cases
        ),
        refused=tuple(
            CaseOutcome(f"{dataset}/{native_id}", "quarantined", str(problem))
            for native_id, problem in listing.problems
        ),
        skipped_files=listing.skipped_files,
    )


def ingest_case(request: IngestRequest, settings: Settings) -> CaseOutcome:
    """Return what became of one case; it is committed, known already, or in quarantine with the reason."""
    started = time.monotonic()
    workspace = open_workspace(settings)
    files, dataset = request.files, request.files.dataset
    where = f"{dataset}/{files.native_id}"
    raw_sha256: str | None = None
    try:
        raw_sha256 = raw_digest(files)
        card = load_card(request.card_id)
        key = ingest_key(raw_sha256, card.digest(), HARMONISER_VERSION, settings.spacing_mm)
        if workspace.tables.has(where, key):
            return CaseOutcome(where, "unchanged", seconds=time.monotonic() - started)
        raw = reader_for(card).read_case(files, card)
        harmonised = harmonise(raw, card, settings.spacing_mm, where)
        upright = orient_ras(raw.image)
        hashes = {"raw_sha256": raw_sha256, "content_sha256": content_sha256(upright.array, upright.affine)}
        message = _store(workspace, request, harmonised, {"ingest_key": key, **hashes}, list(raw.notes))
    except BadInput as problem:
        _quarantine(workspace, dataset, files.native_id, problem, raw_sha256, request.flow_run_id)
        return CaseOutcome(where, "quarantined", str(problem), time.monotonic() - started)
    return CaseOutcome(where, "ingested", message, time.monotonic() - started)


def _store(
    workspace: Workspace, request: IngestRequest, harmonised: HarmonisedCase, hashes: dict[str, str], notes: list[str]
) -> str:
    """Write the arrays, then commit the rows; return remarks about the case.

    hashes: ingest_key, raw_sha256 and content_sha256.
    """
    files, dataset = request.files, request.files.dataset
    card = load_card(request.card_id)
    case_id = f"{dataset}/{files.native_id}"
    annotations = {} if harmonised.bits is None else {SHIPPED_ANNOTATION: harmonised.bits}
    stored = workspace.lake.write_case(
        dataset, files.native_id, hashes["ingest_key"], harmonised.image, harmonised.geometry, labels=annotations
    )
    provenance = {
        "state": "annotated" if card.label_origin == "human" else "pseudo",
        "label_origin": card.label_origin,
        "model_name": card.label_model,
        "flow_run_id": request.flow_run_id,
        "manifest": stored.annotation_manifest(SHIPPED_ANNOTATION).to_json(),
    }
    rows = [
        label_row(
            annotations[SHIPPED_ANNOTATION],
            harmonised.image,
            name,
            case={"case_id": case_id, "ingest_key": hashes["ingest_key"]},
            annotation=SHIPPED_ANNOTATION,
            sampled_voxels=workspace.settings.sampled_voxels,
            provenance={**provenance, "split_status": harmonised.split_status.get(name)},
        )
        for name in harmonised.annotated
    ]
    # Twins, the same scan shipped twice, share a group; the tables show one fold for all of a group.
    group = split_group(hashes["content_sha256"])
    known = workspace.tables.cases()
    twins = known[(known["split_group"] == group) & (known["case_id"] != case_id)]["case_id"]
    flags = [*notes, *volume_flags(rows, harmonised.image.voxel_ml), *(f"same scan as {twin}" for twin in twins)]
    row = case_row(
        harmonised,
        card,
        dataset=dataset,
        native_id=files.native_id,
        keys={**hashes, "split_group": group},
        fold=request.fold,
        flags=flags,
        stored={"path": stored.path, "manifest": stored.manifest.to_json()},
        flow_run_id=request.flow_run_id,
    )
    workspace.tables.commit_case(row, rows)
    return "; ".join(flags)


def _quarantine(
    workspace: Workspace,
    dataset: str,
    native_id: str,
    problem: BadInput,
    raw_sha256: str | None,
    flow_run_id: str | None,
) -> None:
    workspace.tables.quarantine(
        [
            {
                "dataset": dataset,
                "native_id": native_id,
                **problem.record(),
                "raw_sha256": raw_sha256,
                "flow_run_id": flow_run_id,
            }
        ]
    )


def ingest_batch(requests: Sequence[IngestRequest], settings: Settings, what: str = "cases") -> list[CaseOutcome]:
    """Return what became of each case of a batch, in order."""
    return map_cases(
        partial(ingest_case, settings=settings), list(requests), dask_address=settings.dask_address, what=what
    )


def count_outcomes(outcomes: Sequence[CaseOutcome]) -> dict[str, int]:
    """Return how many cases were ingested, unchanged and quarantined; all three keys are always there."""
    counts = Counter(outcome.outcome for outcome in outcomes)
    return {name: counts[name] for name in ("ingested", "unchanged", "quarantined")}


list_source_task = as_task(list_source, "list-source")
ingest_batch_task = as_task(ingest_batch, "ingest-batch", retries=2, retry_delay_seconds=10, tags=["cases"])
