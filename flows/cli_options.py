"""Options and exit codes that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from catalog.tables import Tables
    from tasks.settings import Settings

EXIT_REFUSED = 1
EXIT_CASES_REFUSED = 3

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


def settings_for(workspace: Path | None) -> Settings:
    """Return the settings of the environment and the TOML file, with the workspace of the command line."""
    from tasks.settings import Settings  # late: the command line must answer --help at once

    return Settings() if workspace is None else Settings(workspace=workspace)


def opened(workspace: Path | None) -> Tables:
    """Return the tables of a workspace that has some; looking must not make a lake where there is none."""
    from tasks.workspace import existing_workspace

    return existing_workspace(settings_for(workspace)).tables
