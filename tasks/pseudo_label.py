"""Pseudo-label the cases of a cohort, the network at work on the next while the last is cleaned, scored and written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from imaging.errors import BadInput
from tasks.case_cluster import case_cluster
from tasks.gpu_lock import gpu_lock
from tasks.ingest import LOST_EXPECTED, LOST_REMEDY
from tasks.ingest_case import quarantine
from tasks.lost import Lost
from tasks.map_cases import map_cases
from tasks.prefect_task import as_task
from tasks.progress import CaseProgress
from tasks.pseudo_label_case import PseudoLabelOutcome, finish_case, look_and_predict, pseudo_label_case
from tasks.pseudo_label_plan import LabelRun, PseudoLabelRequest
from tasks.settings import Settings
from tasks.two_stages import StageTimes, in_two_stages
from tasks.workspace import open_workspace


def pseudo_label_batch(
    requests: Sequence[PseudoLabelRequest],
    settings: Settings,
    progress: CaseProgress | None = None,
    *,
    run: LabelRun,
    times: StageTimes | None = None,
) -> list[PseudoLabelOutcome]:
    """Return what became of each case, in order.

    In this process the second half of a case runs while the network is at work on the next, and the GPU is held for
    the whole batch; with Dask the cases are spread over the workers. times: of the two halves, added up.
    """
    progress = progress or pseudo_label_progress(len(requests))
    with case_cluster(settings) as cluster:
        if cluster is None:
            return _overlapped(requests, progress, run, times)
        results = map_cases(partial(pseudo_label_case, run=run), list(requests), settings, progress)
    return [_lost(item, run) if isinstance(item, Lost) else item for item in results]


def _overlapped(
    requests: Sequence[PseudoLabelRequest], progress: CaseProgress, run: LabelRun, times: StageTimes | None
) -> list[PseudoLabelOutcome]:
    taken = StageTimes()
    outcomes = []
    with progress.batch() as finished, gpu_lock(run.settings.torch_device()):
        for outcome in in_two_stages(
            lambda request: look_and_predict(request, run),
            lambda request, looked: finish_case(request, looked, run),
            requests,
            times=taken,
        ):
            outcomes.append(outcome)
            finished(outcome, ())
    if times is not None:
        times.add(taken)
    return outcomes


def pseudo_label_progress(cases: int) -> CaseProgress:
    """Return the counter of a cohort, over all its batches."""
    return CaseProgress("pseudo-label", cases, refused=lambda outcome: outcome.outcome == "failed")


def _lost(lost: Lost[PseudoLabelRequest], run: LabelRun) -> PseudoLabelOutcome:
    """Put a case that ended its workers into quarantine, by name."""
    case = lost.case.case
    problem = BadInput(
        lost.reason,
        lost.case.case_id,
        f"{lost.found}, in the last of {lost.tries} tries",
        LOST_EXPECTED[lost.reason],
        LOST_REMEDY[lost.reason].replace("ingest it", "label it"),
    )
    quarantine(
        open_workspace(run.settings),
        str(case["dataset"]),
        str(case["native_id"]),
        problem,
        raw_sha256=case["raw_sha256"],
        retry=f"ctfactory pseudo-label {run.spec.cohort}",
        flow_run_id=run.flow_run_id,
    )
    return PseudoLabelOutcome(lost.case.case_id, "failed", message=str(problem))


pseudo_label_batch_task = as_task(pseudo_label_batch, "pseudo-label-batch", retries=1, tags=["gpu"])
