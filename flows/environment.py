"""Environment variables that must stand before Prefect, MLflow and torch are imported."""

from __future__ import annotations

import os

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Nothing is reported to anybody and nothing asks questions."""

# The command prints its own lines; Prefect's go to its server, where the run's page shows them.
_CONSOLE = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def prepare_environment(*, verbose: bool) -> None:
    """Switch telemetry off and, unless `verbose`, the libraries' own chatter; what the user has set stays."""
    for name, value in {**QUIET, **({} if verbose else _CONSOLE)}.items():
        os.environ.setdefault(name, value)
