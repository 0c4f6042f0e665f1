"""The `fetch` flow: a data set's files come to the raw zone."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.run_record import recorded_run
from tasks.fetch import FetchReport, fetch_task
from tasks.settings import Settings


@flow(name="fetch", flow_run_name="fetch {dataset}", validate_parameters=False)
def fetch(
    dataset: str, settings: Settings | None = None, variant: str | None = None, only: Sequence[str] = ()
) -> FetchReport:
    """Download, check and unpack the files that the card `dataset` names; return where the reader finds them.

    Afterwards the raw zone holds them and the ledger says what came when and from where. A second run does nothing.
    Where a person has to register or fetch a file, it stops before the first byte and says each step. variant: the
    label variant whose files are wanted. only: sources by name, instead of all that are needed.
    """
    settings = settings or Settings()
    with recorded_run("fetch", settings, {"dataset": dataset}) as record:
        report = fetch_task(dataset, settings, variant=variant, only=tuple(only))
        record.counts = {
            "files": len(report.files),
            "downloaded": sum(file.outcome == "downloaded" for file in report.files),
            "unpacked": len(report.unpacked),
        }
        create_table_artifact(
            [{"file": file.name, "outcome": file.outcome, "bytes": file.bytes} for file in report.files],
            key=f"fetch-{dataset.replace('_', '-').lower()}",
            description=f"{dataset}: {record.counts}, root {report.root}",
        )
        return report
