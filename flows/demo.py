"""Settings of the demo, and the summary it ends with."""

from __future__ import annotations

from pathlib import Path

from flows.console import console, print_json, print_table
from flows.factory import FactoryReport
from tasks.evaluation_tables import brief_classes, brief_detection
from tasks.miniatures import EXTERNAL_COHORT
from tasks.settings import Settings

DEMO_SPACING_MM = (6.0, 6.0, 6.0)
"""Coarse, so that a network learns 32 classes on two cores in minutes."""


def demo_settings(workspace: Path) -> Settings:
    """Return the settings of the demo: everything embedded, below `workspace`, on a coarse grid."""
    return Settings(
        workspace=workspace,
        lake_root=None,
        mlflow_tracking_uri=None,
        prefect_home=None,
        spacing_mm=DEMO_SPACING_MM,
        # One voxel of the coarse grid: NSD then counts a surface that is off by no more than that.
        nsd_tolerance_mm=6.0,
        gates="demo",
        # On 6 mm voxels a good mask of a thin structure has a DSC near 0.7.
        accept_dsc=0.7,
    )


def print_demo(report: FactoryReport, settings: Settings, *, as_json: bool) -> None:
    """Print what the demo measured and the paths of everything it made."""
    workspace = settings.workspace.absolute()
    paths = {
        "report": report.report,
        "lake": settings.lake,
        "cohort page": None if report.pseudo_labels is None else report.pseudo_labels.page,
        "exports": None if report.pseudo_labels is None else report.pseudo_labels.export_folder,
        "miniatures": workspace / "miniatures",
        "MLflow": settings.mlflow_uri,
        "Prefect": settings.prefect_folder,
    }
    if as_json:
        print_json(
            {
                "held_out_mean_organ_dsc": report.held_out_dsc,
                "external_mean_organ_dsc": report.external_dsc,
                "promoted": report.promotion.promoted,
                "model": report.training.model.uri,
                "seconds": report.seconds,
                "paths": paths,
            }
        )
        return
    evaluation = report.evaluation.evaluation
    print_table(
        "Ingest",
        ("data set", "ingested", "unchanged", "quarantined", "second run"),
        [
            (
                first.dataset,
                *first.counts.values(),
                "nothing to do" if second.nothing_to_do else f"{second.counts}",
            )
            for first, second in zip(report.first_ingest, report.second_ingest, strict=True)
        ],
    )
    for title, table in (
        ("Held-out cases, per data set and class", brief_classes(evaluation.classes)),
        ("Lesion detection per patient", brief_detection(evaluation.detection)),
    ):
        print_table(title, list(table.columns), table.to_numpy().tolist())
    print_table(
        "Summary",
        ("figure", "value"),
        [
            ("mean organ DSC, held-out miniatures", report.held_out_dsc),
            (f"mean organ DSC, {EXTERNAL_COHORT}", report.external_dsc),
            ("mean organ NSD, held-out miniatures", evaluation.summary["mean_organ_nsd"]),
            ("lesion sensitivity", evaluation.summary.get("sensitivity")),
            ("lesion specificity", evaluation.summary.get("specificity")),
            ("model", report.training.model.uri),
            ("promotion", report.promotion.reason),
            ("minutes", sum(report.seconds.values()) / 60),
        ],
    )
    for name, path in paths.items():
        console.print(f"{name:<12} {path}", soft_wrap=True, highlight=False)
