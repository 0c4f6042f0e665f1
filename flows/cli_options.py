"""Options and exit codes that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from catalog.tables import Tables
    from tasks.pseudo_choice import PseudoChoice
    from tasks.settings import Settings
    from tasks.splits import SplitChoice

EXIT_REFUSED = 1
EXIT_CASES_REFUSED = 3
EXIT_NOT_PROMOTED = 4

Workspace = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="Folder of lake, MLflow and exports; default CTFACTORY_WORKSPACE."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
Model = Annotated[
    str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, an alias (champion) or a version number.")
]
Datasets = Annotated[list[str] | None, typer.Option("--dataset", help="Only this data set; may be repeated.")]
PresetName = Annotated[
    str, typer.Option("--config", "-c", help="A preset (demo, paper) or a YAML file with the same keys.")
]

Split = Annotated[
    str,
    typer.Option(help="`default`: the folds of the lake. `official`: a set's own split where its card states one."),
]
Fold = Annotated[
    int | None, typer.Option(help="Hold out this fold, 0 to 4, of the default split (cross-validation), not the test.")
]
CaseList = Annotated[
    Path | None, typer.Option("--cases", exists=True, dir_okay=False, help="These cases only: a file, one id a line.")
]
DropLeaking = Annotated[
    bool, typer.Option("--drop-leaking", help="Leave out cases that would leak, instead of refusing the request.")
]

UsePseudo = Annotated[
    str | None,
    typer.Option(
        "--use-pseudo",
        help="Learn from pseudo-labels too, where nobody annotated a class: `accepted`, by the factory or a reviewer, "
        "or `reviewed` ones alone.",
    ),
]
PseudoCohort = Annotated[
    list[str] | None,
    typer.Option(help="With --use-pseudo: an external cohort whose scans enter by pseudo-labels; may be repeated."),
]


def pseudo_choice(trusted: str | None, cohorts: list[str] | None) -> PseudoChoice | None:
    """Return which pseudo-labels the options of a command ask for."""
    from tasks.pseudo_choice import PseudoChoice

    return PseudoChoice.of(trusted, cohorts)


def split_choice(split: str, fold: int | None, cases: Path | None, drop_leaking: bool) -> SplitChoice:
    """Return the split that the options of a command ask for."""
    from tasks.splits import SPLITS, SplitChoice, read_case_list

    if split not in SPLITS:
        raise ValueError(f"--split {split}: expected {' or '.join(SPLITS)}")
    only = None if cases is None else read_case_list(cases)
    return SplitChoice("official" if split == "official" else "default", fold, only, drop_leaking)


def split_names(text: str) -> list[str]:
    """Return the names of a list that is separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def settings_for(workspace: Path | None) -> Settings:
    """Return the settings of the environment and the TOML file, with the workspace of the command line."""
    from tasks.settings import Settings  # late: the command line must answer --help at once

    return Settings() if workspace is None else Settings(workspace=workspace)


def opened(workspace: Path | None) -> Tables:
    """Return the tables of a workspace that has some; looking must not make a lake where there is none."""
    from tasks.workspace import existing_workspace

    return existing_workspace(settings_for(workspace)).tables
