"""The page the demo ends with: what went in, what was learnt, what was labelled, with pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from datasets_registry.taxonomy import all_classes
from flows.evaluate import EvaluateReport
from flows.ingest import IngestReport
from flows.pseudo_label import PseudoLabelReport
from tasks.evaluation_tables import shown
from tasks.hidden_truth import mean_organ_dsc
from tasks.promote import Promotion
from tasks.report import Link, Picture, Report, Section
from tasks.settings import Settings
from tasks.train import TrainOutcome

SHOWN_OVERLAYS = 3


@dataclass(frozen=True, eq=False)
class DemoResults:
    """What the steps of the demo returned, in their order; `pseudo_labels` is None when promotion was refused."""

    first_ingest: tuple[IngestReport, ...]
    second_ingest: tuple[IngestReport, ...]
    training: TrainOutcome
    evaluation: EvaluateReport
    promotion: Promotion
    pseudo_labels: PseudoLabelReport | None
    external_scores: pd.DataFrame
    seconds: dict[str, float]


def demo_report(results: DemoResults, settings: Settings) -> Report:
    """Return the report of one demo run."""
    summary = results.evaluation.evaluation.summary
    external = mean_organ_dsc(results.external_scores)
    return Report(
        title="CT label factory: run report",
        figures={
            "mean organ DSC, held-out cases": f"{summary['mean_organ_dsc']:.3f}",
            "mean organ NSD, held-out cases": f"{summary['mean_organ_nsd']:.3f}",
            "mean organ DSC, external cohort": "–" if pd.isna(external) else f"{external:.3f}",
            "lesion sensitivity / specificity": f"{summary.get('sensitivity', float('nan')):.2f} / "
            f"{summary.get('specificity', float('nan')):.2f}",
            "promotion": "champion" if results.promotion.promoted else "refused",
            "minutes": f"{sum(results.seconds.values()) / 60:.1f}",
        },
        sections=(
            _ingest_section(results),
            _training_section(results, settings),
            _evaluation_section(results, settings),
            _promotion_section(results),
            _pseudo_label_section(results, settings),
        ),
        facts={
            "workspace": str(settings.workspace),
            "grid": f"{settings.spacing_mm} mm",
            "model": results.training.model.uri,
            "MLflow run of the training": results.training.run_id,
            "MLflow run of the evaluation": results.evaluation.evaluation.run_id,
        },
    )


def _ingest_section(results: DemoResults) -> Section:
    rows = pd.DataFrame(
        [
            {
                "data set": first.dataset,
                **first.counts,
                "stray files skipped": first.skipped_files,
                "second run ingested": second.counts["ingested"],
                "second run unchanged": second.counts["unchanged"],
            }
            for first, second in zip(results.first_ingest, results.second_ingest, strict=True)
        ]
    )
    remarks = [
        {"case": item.case_id, "outcome": item.outcome, "remark": item.message}
        for report in results.first_ingest
        for item in report.remarks
    ]
    tables = [("", rows)]
    if remarks:
        tables.append(("Remarks", pd.DataFrame(remarks)))
    return Section("Ingest", "Every set was ingested twice; the second run must find nothing to do.", tuple(tables))


def _training_section(results: DemoResults, settings: Settings) -> Section:
    run = results.training
    curves = settings.workspace.absolute() / "training" / run.run_id / "loss.png"
    return Section(
        "Training",
        f"{run.steps} steps on {run.cases} partially labelled cases, {run.patches_per_second:.1f} patches a second, "
        f"{run.data_wait_share:.0%} of the time waiting for data.",
        pictures=(Picture(curves, "Loss over annotated classes only; thick: running mean."),),
    )


def _evaluation_section(results: DemoResults, settings: Settings) -> Section:
    evaluation = results.evaluation.evaluation
    overlays = evaluation.overlays[:SHOWN_OVERLAYS]
    return Section(
        "Evaluation on held-out cases",
        f"NSD at {settings.nsd_tolerance_mm:g} mm. A class is scored where annotators looked for it.",
        (
            ("Summary", evaluation.summary_table()),
            ("Lesion detection per patient, and lesion by lesion", shown(evaluation.detection)),
            ("Per data set and class, with 95 % intervals", shown(evaluation.classes)),
        ),
        (
            Picture(evaluation.picture, "DSC and NSD per class; one dot a data set."),
            *(Picture(path, f"{path.stem}: prediction filled, annotators' masks as lines.") for path in overlays),
        ),
    )


def _promotion_section(results: DemoResults) -> Section:
    return Section("Promotion", results.promotion.reason, (("", results.promotion.table()),))


def _pseudo_label_section(results: DemoResults, settings: Settings) -> Section:
    labels = results.pseudo_labels
    if labels is None:
        return Section("Pseudo-labels", "The challenger was refused, so the external cohort was not labelled.")
    order = {info.name: info.index for info in all_classes()}
    per_class = results.external_scores.groupby("class_name")["dsc"].agg(["count", "mean", "min"]).reset_index()
    per_class = per_class.sort_values("class_name", key=lambda names: names.map(order))
    overlays = [item.overlay for item in labels.outcomes if item.overlay is not None][:SHOWN_OVERLAYS]
    page = os.path.relpath(labels.page, settings.workspace.absolute())
    figures = pd.DataFrame(list(labels.figures.texts().items()), columns=["figure", "value"])
    return Section(
        "Pseudo-labels of the external cohort",
        f"By {labels.model_uri}; scored against the hidden truth on each scan's own grid.",
        (("The run", figures), ("Against the hidden truth", per_class)),
        tuple(Picture(Path(path), f"Masks of {Path(path).parent.name}") for path in overlays),
        (Link(page, "Page of the run: every case and decision"),),
    )
