"""Environment variables that must stand before Prefect, MLflow and torch are imported."""

from __future__ import annotations

import os
import warnings

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Nothing is reported to anybody and nothing asks questions."""

# The command prints its own lines; Prefect's go to its server, where the run's page shows them, and MLflow announces
# each table and file it touches.
_CONSOLE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def prepare_environment(*, verbose: bool) -> None:
    """Switch telemetry off and, unless `verbose`, the libraries' own chatter; what the user has set stays."""
    if not verbose:
        warnings.filterwarnings("ignore", module=r"mlflow(\.|$)")
    for name, value in {**QUIET, **({} if verbose else _CONSOLE)}.items():
        os.environ.setdefault(name, value)
