"""The `factory` flow: the whole line on miniatures, from raw folders to pseudo-labels and a report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from datasets_registry.miniatures import MINIATURE_SETS
from flows.calibrate import calibrate
from flows.evaluate import evaluate
from flows.factory_report import DemoResults, demo_report
from flows.ingest import IngestReport, ingest
from flows.promote import promote
from flows.pseudo_label import pseudo_label
from flows.train import train
from tasks.calibration import TooFewMasks
from tasks.case_cluster import case_cluster
from tasks.hidden_truth import mean_organ_dsc, score_exports_task
from tasks.miniatures import EXTERNAL_COHORT, write_miniatures_task
from tasks.notices import tell
from tasks.report import markdown_table, write_report_task
from tasks.settings import Settings


@dataclass(frozen=True)
class FactoryPlan:
    """What the demo runs: which miniatures and how many, from which seed, trained by which preset."""

    datasets: tuple[str, ...] = MINIATURE_SETS
    cases: int = 8
    external_cases: int = 6
    seed: int = 2023
    preset: str = "demo"


@dataclass(frozen=True, eq=False, kw_only=True)
class FactoryReport(DemoResults):
    """Everything the demo made, its page, and the two figures a reader should see."""

    report: Path

    @property
    def held_out_dsc(self) -> float:
        """Mean DSC over organs on the held-out miniatures."""
        return self.evaluation.evaluation.summary["mean_organ_dsc"]

    @property
    def external_dsc(self) -> float:
        """Mean DSC over organs on the external cohort, against the hidden truth; NaN when nothing was labelled."""
        return mean_organ_dsc(self.external_scores)


class _Stopwatch:
    """Seconds spent between laps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Book the time since the last lap under `name`."""
        now = time.monotonic()
        self.seconds[name] = now - self._last
        self._last = now


@flow(name="factory", validate_parameters=False)
def factory(settings: Settings | None = None, plan: FactoryPlan | None = None) -> FactoryReport:
    """Run the whole line on miniatures: write, ingest twice, train, evaluate, promote, calibrate, pseudo-label, report.

    Afterwards the workspace holds a lake, an MLflow registry with a champion, exports of the external cohort and a
    report page. A second run finds the miniatures ingested, trains another version and lets it challenge the champion.
    """
    settings, plan = settings or Settings(), plan or FactoryPlan()
    watch = _Stopwatch()
    miniatures = write_miniatures_task(
        settings.workspace.absolute() / "miniatures",
        cases=plan.cases,
        external_cases=plan.external_cases,
        seed=plan.seed,
        datasets=plan.datasets,
    )
    watch.lap("miniatures")
    first = _ingest_all(miniatures.raw, miniatures.external, settings)
    watch.lap("ingest")
    second = _ingest_all(miniatures.raw, miniatures.external, settings)
    watch.lap("second ingest")
    training = train(plan.preset, settings)
    watch.lap("train")
    evaluation = evaluate(training.model.uri, settings)
    watch.lap("evaluate")
    promotion = promote(training.model.uri, settings)
    # A refused challenger labels nothing: the champion does, if there is one.
    labels, external_scores = None, pd.DataFrame(columns=["case_id", "class_name", "dsc"])
    if promotion.promoted:
        _calibrate_if_it_finds_enough(training.model.uri, settings)
        watch.lap("calibrate")
        labels = pseudo_label(EXTERNAL_COHORT, f"models:/{settings.model_name}@champion", settings)
        external_scores = score_exports_task(list(labels.outcomes), miniatures.truth)
    watch.lap("pseudo-label")
    results = DemoResults(first, second, training, evaluation, promotion, labels, external_scores, watch.seconds)
    page = write_report_task(demo_report(results, settings), settings.workspace.absolute() / "report.html")
    create_markdown_artifact(
        f"# Run report\n\n`{page}`\n\n{markdown_table(evaluation.evaluation.summary_table())}", key="factory"
    )
    watch.lap("report")
    return FactoryReport(**vars(results), report=page)


def _calibrate_if_it_finds_enough(model: str, settings: Settings) -> None:
    try:
        calibrate(model, settings)
    except TooFewMasks as few:
        tell(f"{few}; without a calibration every pseudo-label is for review")


def _ingest_all(raw: dict[str, Path], external: Path, settings: Settings) -> tuple[IngestReport, ...]:
    with case_cluster(settings):
        reports = [ingest(dataset, folder, settings) for dataset, folder in raw.items()]
        reports.append(ingest("local", external, settings, cohort=EXTERNAL_COHORT))
    return tuple(reports)
