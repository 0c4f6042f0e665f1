"""The `ingest-miniatures` flow: miniatures of any cards, or all of them, written, ingested and counted in one table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow

from datasets_registry.cards import CARDS, list_cards, load_card
from flows.console import console, print_json, print_table
from flows.ingest import IngestReport, ingest
from tasks.case_cluster import case_cluster
from tasks.ingest_case import CaseOutcome
from tasks.miniatures import write_miniature_set_task
from tasks.progress import report_progress
from tasks.settings import Settings
from tasks.workspace import open_workspace

ALL = "all"
SEED = 2023
COLUMNS = ("card", "cases", "ingested", "unchanged", "quarantined", "expected faults", "annotated classes", "seconds")


@dataclass(frozen=True)
class MiniatureIngest:
    """What became of the miniature of one card.

    annotated: classes annotated in any of its cases. unexpected: refused cases that the card does not declare as faulty
    or ruled out. seconds: writing and ingesting.
    """

    report: IngestReport
    annotated: int
    unexpected: tuple[CaseOutcome, ...]
    seconds: float

    @property
    def nothing_to_do(self) -> bool:
        """Whether every case was in the lake already, those left aside that the card rules out."""
        return self.report.counts["ingested"] == 0 and not self.unexpected

    def row(self) -> tuple[str | int | float, ...]:
        """Return the line of the summary, in the order of `COLUMNS`."""
        counts = self.report.counts
        expected = counts["quarantined"] - len(self.unexpected)
        return (self.report.dataset, sum(counts.values()), *counts.values(), expected, self.annotated, self.seconds)


@flow(name="ingest-miniatures", validate_parameters=False)
def ingest_miniatures(
    cards: Sequence[str], settings: Settings | None = None, *, cases: int = 2, variant: str | None = None
) -> tuple[MiniatureIngest, ...]:
    """Write the miniatures of `cards` below WORKSPACE/miniatures, where they are not there yet, and ingest them.

    Afterwards the lake holds `cases` synthetic cases of each card, or as many as the set has; cases that a set is known
    to hold and that must not enter are in quarantine. A second run writes and ingests nothing.
    """
    settings = settings or Settings()
    results = []
    with case_cluster(settings):
        for place, card_id in enumerate(cards):
            report_progress("data sets", place, len(cards), card_id)
            started = time.monotonic()
            folder = settings.workspace.absolute() / "miniatures"
            raw = write_miniature_set_task(card_id, folder, cases=cases, seed=SEED, variant=variant)
            report = ingest(card_id, raw, settings, variant=variant)
            results.append(
                MiniatureIngest(
                    report, _annotated_classes(card_id, settings), _unexpected(report), time.monotonic() - started
                )
            )
    report_progress("data sets", len(cards), len(cards))
    return tuple(results)


def cards_of(dataset: str, variant: str | None = None) -> list[str]:
    """Return the card ids that the command's word means: every card of the package for `all`, else the one card.

    Raises KeyError for an unknown card or variant, ValueError for a variant of all cards.
    """
    if dataset != ALL:
        return [load_card(dataset, variant=variant).id]
    if variant is not None:
        raise ValueError(f"--variant {variant} belongs to one data set; name it instead of {ALL}")
    return list_cards(CARDS)


def print_ingest_all(results: Sequence[MiniatureIngest], *, as_json: bool) -> None:
    """Print one line a card, the refused cases that no card announced, and whether there was anything to do."""
    if as_json:
        print_json(
            [
                {**dict(zip(COLUMNS, one.row(), strict=True)), "unexpected": [vars(case) for case in one.unexpected]}
                for one in results
            ]
        )
        return
    print_table("Miniatures", COLUMNS, [one.row() for one in results])
    unexpected = [(case.case_id, case.message) for one in results for case in one.unexpected]
    if unexpected:
        print_table("Refused, and not announced by the card", ("case", "reason"), unexpected)
    total = {name: sum(one.report.counts[name] for one in results) for name in results[0].report.counts}
    told = ", ".join(f"{count} {name}" for name, count in total.items())
    nothing = "nothing to do: " if all(one.nothing_to_do for one in results) else ""
    sets = f"{len(results)} data set{'s' if len(results) != 1 else ''}"
    console.print(f"{sets}: {nothing}{told}, {len(unexpected)} of them unexpected")


def _annotated_classes(card_id: str, settings: Settings) -> int:
    labels = open_workspace(settings).tables.labels(dataset=card_id)
    return int(labels["class_name"].nunique())


def _unexpected(report: IngestReport) -> tuple[CaseOutcome, ...]:
    """Return the refused cases that the card neither lists as faulty nor rules out by their number."""
    card = load_card(report.dataset)
    ruled_out = {*card.faults, *(native_id for part in card.refused_cases for native_id in part.case_ids)}
    announced = {f"{card.id}/{native_id}" for native_id in ruled_out}
    return tuple(case for case in report.remarks if case.outcome == "quarantined" and case.case_id not in announced)
