"""The state of the factory at a glance: cases, labels, quarantine, models, last runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from catalog import queries
from tasks.registry import list_versions
from tasks.settings import Settings
from tasks.workspace import open_workspace, row_dicts

LAST_RUNS = 10


@dataclass(frozen=True)
class Status:
    """Counts and names only, JSON-able.

    cases: data set to number of cases. labels: class to state to number of labels. quarantine: one record a refusal.
    models: version, aliases and run of each registered version. runs: the last runs, newest first.
    """

    lake: str
    cases: dict[str, int]
    labels: dict[str, dict[str, int]]
    quarantine: list[dict[str, Any]]
    models: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return asdict(self)


def read_status(settings: Settings) -> Status:
    """Return the status of the workspace that `settings` point to; an empty workspace gives empty tables."""
    tables = open_workspace(settings).tables
    counts = queries.status(tables)
    # a table of an earlier version has no column for the command yet
    wanted = ["dataset", "native_id", "code", "found", "expected", "remedy", "retry"]
    refused = tables.quarantined().reindex(columns=wanted)
    runs = tables.runs().tail(LAST_RUNS).iloc[::-1]
    return Status(
        lake=str(settings.lake),
        cases=counts["cases"],
        labels=counts["labels"],
        quarantine=row_dicts(refused),
        models=[
            {"name": model.name, "version": model.version, "aliases": list(model.aliases), "run_id": model.run_id}
            for model in list_versions(settings)
        ],
        runs=[
            {
                "started": str(row["started"])[:19],
                "kind": row["kind"],
                "outcome": row["outcome"],
                "counts": row["counts"],
                "flow_run_id": row["flow_run_id"],
            }
            for row in row_dicts(runs)
        ],
    )
