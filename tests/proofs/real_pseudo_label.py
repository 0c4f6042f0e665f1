"""The pseudo-labelling of a cohort, as the flow does it, with a journal of what the network was given."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pseudo_label_cohort import SPACING_MM

from tasks import pseudo_label_case
from tasks.pseudo_label import pseudo_label_batch
from tasks.pseudo_label_plan import plan_with
from tasks.pseudo_label_report import report_run
from tasks.pseudo_label_run import figures_of, run_facts
from tasks.pseudo_label_spec import PseudoLabelSpec
from tasks.settings import Settings
from tasks.teacher import teacher_of
from tasks.two_stages import StageTimes


def proof_settings(workspace: str | Path) -> Settings:
    """Return the settings of the runs that are killed."""
    return Settings(workspace=Path(workspace), spacing_mm=SPACING_MM, device="cpu", threads=1)


def label_cohort(workspace: str, cohort: str, model: str, journal: str) -> None:
    """Label `cohort` in the lake of `workspace` by the checkpoint `model`, and write the page of the run.

    journal: a file outside of the workspace that gets a line `predict <case>` before the network is given a case.
    """
    settings = proof_settings(workspace)
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def noted(real: Callable[..., Any]) -> Callable[..., Any]:
        def predict_raw(workspace: Any, case: Any, *more: Any, **named: Any) -> Any:
            os.write(descriptor, f"predict {case['case_id']}\n".encode())
            return real(workspace, case, *more, **named)

        return predict_raw

    pseudo_label_case.predict_raw = noted(pseudo_label_case.predict_raw)  # type: ignore[attr-defined]
    run, requests = plan_with(PseudoLabelSpec(cohort), teacher_of([Path(model)]), settings, ())
    times = StageTimes()
    outcomes = pseudo_label_batch(requests, settings, run=run, times=times)
    if failed := [item for item in outcomes if item.outcome == "failed"]:
        raise RuntimeError(f"{failed[0].case_id}: {failed[0].message}")
    report_run(run, outcomes, figures_of(run, outcomes, times), run_facts(run, {}, None, None), settings)
