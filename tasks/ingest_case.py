"""One case from its raw files to committed rows, or to quarantine with the reason."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from catalog.keys import content_sha256, ingest_key, split_group
from datasets_registry.cards import Card, load_card
from datasets_registry.layouts import CaseFiles, RawCase, raw_digest, reader_for
from imaging.errors import BadInput
from imaging.fingerprint import axis_profiles, encode
from imaging.memory import keep_freed_memory
from imaging.resample import orient_ras
from imaging.threads import beside
from tasks.case_rows import case_row, label_rows
from tasks.harmonise import HARMONISER_VERSION, HarmonisedCase, harmonise
from tasks.plausibility import plausibility_flags
from tasks.settings import Settings
from tasks.twins import Profiles, find_twins, link_rows
from tasks.workspace import Workspace, open_workspace

SHIPPED_ANNOTATION = "shipped"
"""Name of the label group that holds a data set's own labels; the rows' state and origin tell who made them."""

Outcome = Literal["ingested", "unchanged", "quarantined"]


@dataclass(frozen=True)
class IngestRequest:
    """One case to ingest: which files, under which card (and label variant, None: its default).

    retry: the command that tries again, kept with a refusal.
    """

    card_id: str
    files: CaseFiles
    flow_run_id: str | None = None
    variant: str | None = None
    retry: str | None = None


@dataclass(frozen=True)
class CaseOutcome:
    """What became of one case; `message` says why it was refused or is withdrawn, or what to look at."""

    case_id: str
    outcome: Outcome
    message: str = ""
    seconds: float = 0.0


def ingest_case(request: IngestRequest, settings: Settings) -> CaseOutcome:
    """Return what became of one case; it is committed, known already, or in quarantine with the reason."""
    keep_freed_memory()
    started = time.monotonic()
    workspace = open_workspace(settings)
    files = request.files
    raw_sha256: str | None = None
    if withdrawn := _withdrawn(workspace, files.where, started):
        return withdrawn
    try:
        raw_sha256 = raw_digest(files)
        card = load_card(request.card_id, variant=request.variant)
        key = ingest_key(raw_sha256, card.digest(), HARMONISER_VERSION, settings.spacing_mm)
        if workspace.tables.has(files.where, key):
            return CaseOutcome(files.where, "unchanged", seconds=time.monotonic() - started)
        raw = reader_for(card).read_case(files, card)
        with beside() as other:
            # hashing takes one core for as long as harmonising takes the other
            content = other.submit(_content_of, raw)
            harmonised = harmonise(raw, card, settings.spacing_mm, files)
        content_hash, profiles = content.result()
        hashes = {"ingest_key": key, "raw_sha256": raw_sha256, "content_sha256": content_hash}
        notes = list(raw.notes)
        del raw  # writing needs the memory
        message = _store(workspace, request, card, harmonised, hashes, profiles, notes)
    except BadInput as problem:
        quarantine(
            workspace,
            files.dataset,
            files.native_id,
            problem,
            raw_sha256=raw_sha256,
            retry=request.retry,
            flow_run_id=request.flow_run_id,
        )
        return CaseOutcome(files.where, "quarantined", str(problem), time.monotonic() - started)
    # A case that was withdrawn while this ran has stayed so; the files written here are garbage.
    return _withdrawn(workspace, files.where, started) or CaseOutcome(
        files.where, "ingested", message, time.monotonic() - started
    )


def _withdrawn(workspace: Workspace, case_id: str, started: float) -> CaseOutcome | None:
    reason = workspace.tables.withdrawn([case_id]).get(case_id)
    if reason is None:
        return None
    message = f"withdrawn: {reason}; `ctfactory catalog restore {case_id}` brings it back"
    return CaseOutcome(case_id, "unchanged", message, time.monotonic() - started)


def quarantine(
    workspace: Workspace,
    dataset: str,
    native_id: str,
    problem: BadInput,
    *,
    raw_sha256: str | None = None,
    retry: str | None = None,
    flow_run_id: str | None = None,
) -> None:
    """Record why a case was refused, and how to try again."""
    case = {"dataset": dataset, "native_id": native_id, "raw_sha256": raw_sha256}
    workspace.tables.quarantine([{**case, **problem.record(), "retry": retry, "flow_run_id": flow_run_id}])


def _content_of(raw: RawCase) -> tuple[str, Profiles]:
    """Return the content hash of the scan and the figures of its slices across X, Y and Z."""
    upright = orient_ras(raw.image)
    return content_sha256(upright.array, upright.affine), axis_profiles(upright)


def _store(
    workspace: Workspace,
    request: IngestRequest,
    card: Card,
    harmonised: HarmonisedCase,
    hashes: dict[str, str],
    profiles: Profiles,
    notes: list[str],
) -> str:
    """Write the arrays, then commit the rows; return remarks about the case.

    hashes: ingest_key, raw_sha256 and content_sha256. profiles: of the raw scan.
    """
    files = request.files
    annotations = {} if harmonised.bits is None else {SHIPPED_ANNOTATION: harmonised.bits}
    stored = workspace.lake.write_case(
        files.dataset, files.native_id, hashes["ingest_key"], harmonised.image, harmonised.geometry, labels=annotations
    )
    manifest = stored.annotation_manifest(SHIPPED_ANNOTATION).to_json()

    def provenance_of(name: str) -> dict[str, Any]:
        return {
            "state": "annotated" if card.label_origin == "human" else "pseudo",
            "label_origin": card.label_origin,
            "model_name": card.label_model,
            "flow_run_id": request.flow_run_id,
            "manifest": manifest,
            "split_status": harmonised.split_status.get(name),
        }

    rows: list[dict[str, Any]] = []
    if harmonised.bits is not None:
        rows = label_rows(
            harmonised.bits,
            harmonised.image,
            harmonised.annotated,
            case={"case_id": files.where, "ingest_key": hashes["ingest_key"]},
            annotation=SHIPPED_ANNOTATION,
            sampled_voxels=workspace.settings.sampled_voxels,
            provenance=provenance_of,
        )
    # Twins, the same scan shipped twice, share a group; a split gives all of a group one fold.
    group = split_group(hashes["content_sha256"])
    card_id = card.id if files.dataset == card.id else None
    look = partial(find_twins, workspace.tables, files.where, group, profiles, card_id, files.native_id)
    twins = look()
    flags = [
        *notes,
        *card.flags_of(files.native_id),
        *plausibility_flags(rows, harmonised.image.voxel_ml, card.spacing_fault(files.native_id)),
        *(f"same_scan: {twin.case_id} (how: {twin.how})" for twin in twins),
    ]
    row = case_row(
        harmonised,
        card,
        dataset=files.dataset,
        native_id=files.native_id,
        keys={**hashes, "split_group": group},
        flags=flags,
        stored={"path": stored.path, "manifest": stored.manifest.to_json()},
        flow_run_id=request.flow_run_id,
        fingerprint=None if profiles[2] is None else encode(profiles[2]),
    )
    link = partial(link_rows, files.where, group, flow_run_id=request.flow_run_id)
    workspace.tables.link_twins(link(twins))
    workspace.tables.commit_case(row, rows)
    # A twin ingested at the same moment is seen here by whichever of the two was committed last.
    late = [twin for twin in look() if twin not in twins]
    workspace.tables.link_twins(link(late))
    return "; ".join(flags)
