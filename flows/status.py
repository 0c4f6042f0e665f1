"""Tables of `ctfactory status`."""

from __future__ import annotations

from datasets_registry.taxonomy import class_names
from flows.console import console, print_table
from tasks.status import Status

QUARANTINE_COLUMNS = ("code", "found", "expected", "remedy", "retry")


def print_status(status: Status) -> None:
    """Print the status as tables, the most looked-for first."""
    console.print(f"lake: {status.lake}", soft_wrap=True, highlight=False)
    print_table("Cases", ("data set", "cases"), list(status.cases.items()))
    states = sorted({state for counts in status.labels.values() for state in counts})
    rows = [
        (name, *[status.labels[name].get(state, 0) for state in states])
        for name in class_names()
        if name in status.labels
    ]
    print_table("Labels per class and state", ("class", *states), rows)
    print_table(
        "Quarantine",
        ("case", "code", "found", "expected", "remedy", "try again"),
        [
            (f"{row['dataset']}/{row['native_id']}", *(row[name] for name in QUARANTINE_COLUMNS))
            for row in status.quarantine
        ],
    )
    print_table(
        "Models",
        ("model", "version", "aliases", "MLflow run"),
        [(row["name"], row["version"], ", ".join(row["aliases"]), row["run_id"]) for row in status.models],
    )
    print_table(
        "Last runs",
        ("started", "kind", "outcome", "counts"),
        [(row["started"], row["kind"], row["outcome"], row["counts"]) for row in status.runs],
    )
