"""`ctfactory export`: labels of the catalog as files, in each scan's own geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import EXIT_CASES_REFUSED, AsJson, Workspace, settings_for, split_names


def export(
    names: Annotated[list[str], typer.Argument(help="Cohorts (data sets of the lake) or case ids (COHORT/ID).")],
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="nifti, nifti_per_class, seg_nrrd, dicom_seg, rtstruct, abdomenatlas; several separated by commas.",
        ),
    ] = "nifti",
    model: Annotated[
        str | None, typer.Option(help="Only masks by this version: models:/NAME/VERSION, an alias or a number.")
    ] = None,
    annotation: Annotated[str | None, typer.Option(help="Only masks of this annotation, such as `shipped`.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes, separated by commas.")] = None,
    include: Annotated[
        str | None, typer.Option(help="`review`: masks that wait for a reviewer, too; default only accepted ones.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="research, public or commercial: what the files are for. Refuses what is not allowed.")
    ] = "research",
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with the raw files, which dicom_seg and rtstruct refer to; default the raw zone's."),
    ] = None,
    keep_patient: Annotated[
        bool,
        typer.Option(
            "--keep-patient", help="DICOM labels keep patient and study of their series, as a PACS needs; else neither."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default WORKSPACE/exports.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Write the labels that count: human ones, and a model's where the factory or a reviewer accepted them.

    Each case gets OUT/COHORT/ID with the masks, statistics.csv and segmentation.json; its files appear once all are
    written. A second run writes only what changed. Exit code 3 when a case was refused or failed.
    """
    from flows.console import console, print_json, print_table
    from flows.export import export as export_flow
    from tasks.export_plan import ExportPlan

    if include not in (None, "review"):
        raise ValueError(f"--include {include}: expected `review`; rejected and retracted masks are never exported")
    settings = settings_for(workspace)
    plan = ExportPlan(
        tuple(names),
        tuple(split_names(formats)),
        profile,
        None if classes is None else tuple(split_names(classes)),
        model,
        annotation,
        include == "review",
        source,
        out,
        keep_patient,
    )
    with flow_context(settings, as_json=as_json):
        report = export_flow(plan, settings)
    if as_json:
        print_json({**report.counts, "folder": report.folder, "cases": [vars(item) for item in report.outcomes]})
    else:
        rows = [(item.case_id, item.outcome, len(item.classes), item.message) for item in report.outcomes]
        print_table("Exported", ("case", "outcome", "classes", "remark"), rows)
        told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in report.counts.items())
        console.print(f"{told}; files in {report.folder}", soft_wrap=True)
    if report.counts["refused"] or report.counts["failed"]:
        raise typer.Exit(EXIT_CASES_REFUSED)
