"""The `pseudo_label` flow: a cohort in the lake gets masks made by a registered model, judged, exported and shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.runtime import flow_run

from flows.batches import batch_runner, run_batches
from flows.run_record import recorded_run
from tasks.gpu_use import watched_gpu
from tasks.pseudo_label import pseudo_label_batch_task, pseudo_label_progress
from tasks.pseudo_label_case import OUTCOMES, PseudoLabelOutcome
from tasks.pseudo_label_plan import plan_cohort
from tasks.pseudo_label_report import report_task
from tasks.pseudo_label_run import FigureSheet, figures_of, log_run, run_facts
from tasks.pseudo_label_spec import PseudoLabelSpec, make_spec, read_spec
from tasks.settings import Settings
from tasks.tracking import tracked_run
from tasks.training_data import log_data_licences
from tasks.two_stages import StageTimes


@dataclass(frozen=True)
class PseudoLabelReport:
    """What became of each case of the cohort, by which model, where the exports lie, and the page of the run."""

    cohort: str
    model_uri: str
    outcomes: tuple[PseudoLabelOutcome, ...]
    export_folder: Path
    page: Path
    figures: FigureSheet
    mlflow_run_id: str

    @property
    def counts(self) -> dict[str, int]:
        """Number of cases by outcome: labelled, rejudged, completed, unchanged, failed."""
        counts = Counter(outcome.outcome for outcome in self.outcomes)
        return {name: counts[name] for name in OUTCOMES}


def _run_name() -> str:
    """Return the name of the run that begins: with the cohort, or with the file that names it."""
    given = flow_run.parameters
    spec = given.get("spec")
    named = spec.get("cohort") if isinstance(spec, Mapping) else None if spec is None else Path(spec).stem
    return f"pseudo-label {given.get('cohort') or named}"


@flow(name="pseudo-label", flow_run_name=_run_name, validate_parameters=False, task_runner=batch_runner)
def pseudo_label(
    cohort: str | None = None,
    model: str | Sequence[str] | None = None,
    settings: Settings | None = None,
    classes: Sequence[str] | None = None,
    spec: str | Path | Mapping[str, Any] | None = None,
) -> PseudoLabelReport:
    """Label every case of `cohort` with `model`, several of which are an ensemble.

    spec: a YAML file or its values (`PseudoLabelSpec`); the other arguments win over it. Afterwards the masks lie
    beside each scan in the lake, their rows say `pseudo` with the model version, scores and a decision with its reason,
    each case has exports in its own geometry and an overlay picture, and there is a page about the run. Human labels
    are never touched. A second run with the same version predicts nothing and makes up files that are missing; so does
    one after a kill for what had been committed.
    """
    settings = settings or Settings()
    asked = _spec_of(cohort, model, classes, spec)
    about = {"cohort": asked.cohort, "models": list(asked.models)}
    with recorded_run("pseudo-label", settings, about) as record:
        run, requests = plan_cohort(asked, settings, flow_run_id=record.flow_run_id)
        slug = asked.cohort.replace("_", "-").lower()
        tags = {"flow_run_id": record.flow_run_id, "cohort": asked.cohort, "model": run.teacher.title}
        with tracked_run(
            settings,
            f"pseudo-label {asked.cohort}",
            kind="pseudo_label",
            tags=tags,
            table_versions=record.table_versions,
        ) as run_id:
            log_data_licences([one.case_id for one in requests], settings)
            record.mlflow_run_id, record.model_version = run_id, run.teacher.version
            times, progress = StageTimes(), pseudo_label_progress(len(requests))
            with watched_gpu(settings.torch_device()) as gpu:
                outcomes = run_batches(
                    pseudo_label_batch_task,
                    requests,
                    settings,
                    progress,
                    key=f"pseudo-label-{slug}-progress",
                    run=run,
                    times=times,
                )
            figures = figures_of(run, outcomes, times, gpu)
            facts = run_facts(run, record.table_versions, record.flow_run_id, run_id)
            page = report_task(run, outcomes, figures, facts, settings)
            log_run(run, record.table_versions, figures, page)
        report = PseudoLabelReport(
            asked.cohort, run.teacher.title, tuple(outcomes), run.export_folder, page, figures, run_id
        )
        record.counts = report.counts
        _publish(report, slug)
        return report


def _spec_of(
    cohort: str | None,
    model: str | Sequence[str] | None,
    classes: Sequence[str] | None,
    spec: str | Path | Mapping[str, Any] | None,
) -> PseudoLabelSpec:
    values = spec if isinstance(spec, Mapping) else {} if spec is None else read_spec(Path(spec))
    where = "spec" if spec is None or isinstance(spec, Mapping) else Path(spec).name
    models = [model] if isinstance(model, str) else model
    return make_spec(values, where, cohort=cohort, models=models, classes=classes)


def _publish(report: PseudoLabelReport, slug: str) -> None:
    """Show the run in Prefect: a table of its cases, a summary, a link to its page."""
    description = f"{report.cohort} by {report.model_uri}: {report.counts}"
    create_table_artifact(
        [
            {
                "case": item.case_id,
                "outcome": item.outcome,
                "classes": len(item.classes),
                **dict(item.decisions),
                "mean probability": item.mean_probability,
                "remark": item.message,
            }
            for item in report.outcomes
        ],
        key=f"pseudo-label-{slug}",
        description=description,
    )
    lines = [f"| {name} | {value} |" for name, value in report.figures.texts().items()]
    table = "\n".join(["| figure | value |", "| --- | --- |", *lines])
    link = report.page.as_uri()
    create_markdown_artifact(
        f"# {description}\n\n[Page of the run]({link})\n\n{table}", key=f"pseudo-label-{slug}-summary"
    )
    create_link_artifact(link, link_text="page of the run", key=f"pseudo-label-{slug}-page", description=description)
