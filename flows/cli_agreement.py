"""`ctfactory agreement`: how alike the label sets of two annotators, or of annotators and a model, are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_context import flow_context
from flows.cli_options import AsJson, Workspace, settings_for, split_names

if TYPE_CHECKING:
    from tasks.agreement_sets import LabelFolder, LabelSet

Values = dict[str, tuple[int, ...]]


def agreement(
    cohort: Annotated[str | None, typer.Option(help="With --annotation: only cases of this data set.")] = None,
    annotation: Annotated[
        list[str] | None, typer.Option(help="An annotation of the lake, `shipped` or a model's; give two or more.")
    ] = None,
    folder: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FOLDER with CASE.nii.gz, CASE/one.nii.gz or CASE/segmentations/CLASS.nii.gz; NAME=FOLDER:FILE "
            "for CASE/FILE. Give two or more."
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option(
            help="Values of the label maps: kidney=1+2,kidney_tumour=2; NAME:kidney=1,... for one set. Default: the "
            "taxonomy's numbers."
        ),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes, separated by commas.")] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Compare label sets of the same scans pair by pair: DSC and NSD per class with 95 % intervals, and a figure.

    Counts a case only where both sets looked for the class; where both found nothing it is in no mean, but is told.
    """
    from flows.agreement import agreement as agreement_flow
    from flows.console import console, print_json, print_table
    from tasks.agreement import Study
    from tasks.agreement_sets import Annotation
    from tasks.workspace import row_dicts

    sets: list[LabelSet] = [Annotation(name) for name in annotation or ()]
    sets += _folders(folder or [], values or [])
    study = Study(tuple(sets), cohort, tuple(split_names(classes)) if classes else None)
    settings = settings_for(workspace)
    with flow_context(settings, as_json=as_json):
        found = agreement_flow(study, settings)
    if as_json:
        print_json(
            {"mlflow_run_id": found.run_id, "folder": str(found.folder), "classes": row_dicts(found.table)},
        )
        return
    rows = [
        (
            row["pair"],
            row["class_name"],
            row["cases"],
            row["both_empty"],
            *(_interval(row, score) for score in ("dsc", "nsd")),
            _figure(row["hd95_mm"]),
            _figure(row["volume_error_ml"]),
        )
        for row in row_dicts(found.table)
    ]
    columns = ("pair", "class", "cases", "both empty", "DSC", "NSD", "HD95 mm", "volume error ml")
    print_table(f"Agreement, 95 % intervals over patients, NSD at {settings.nsd_tolerance_mm:g} mm", columns, rows)
    console.print(f"{found.scores['case_id'].nunique()} cases; {found.picture}", soft_wrap=True)


def _interval(row: dict[str, float | None], score: str) -> str:
    mean, low, high = (_figure(row[name]) for name in (score, f"{score}_low", f"{score}_high"))
    return mean if low == "–" else f"{mean} [{low}, {high}]"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _folders(folders: list[str], values: list[str]) -> list[LabelFolder]:
    """Return the label sets that --folder and --values name."""
    from tasks.agreement_sets import LabelFolder

    by_set: dict[str, Values] = {}
    for text in values:
        name, colon, rest = text.rpartition(":")
        by_set[name if colon else ""] = _values(rest, text)
    sets = []
    for text in folders:
        name, equals, place = text.partition("=")
        if not equals or not place:
            raise ValueError(f"--folder {text}: expected NAME=FOLDER or NAME=FOLDER:FILE")
        path, file = (place, "") if Path(place).is_dir() else place.rpartition(":")[::2]
        chosen = by_set.get(name, by_set.get(""))
        about = {} if chosen is None else {"values": chosen}
        sets.append(LabelFolder(name, Path(path or place), file=(file or None) if path else None, **about))
    unknown = set(by_set) - {""} - {one.name for one in sets}
    if unknown:
        raise ValueError(f"--values names {', '.join(sorted(unknown))}, which no --folder has")
    return sets


def _values(text: str, whole: str) -> Values:
    """Return the values of each class of `kidney=1+2,kidney_tumour=2`."""
    found: Values = {}
    for part in split_names(text):
        name, equals, numbers = part.partition("=")
        digits = numbers.split("+")
        if not equals or not name or not all(number.isdigit() and int(number) > 0 for number in digits):
            raise ValueError(f"--values {whole}: {part!r} is not CLASS=VALUE or CLASS=VALUE+VALUE, values above 0")
        found[name] = tuple(int(number) for number in digits)
    return found
