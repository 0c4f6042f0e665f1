"""What `ctfactory datasets verify` finds in the cards and in the raw zone, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.text import Text

from datasets_registry.card_audit import Finding, audit, class_sources, read_all
from datasets_registry.cards import load_card
from datasets_registry.raw_audit import RawFinding, audit_raw
from flows.console import console, print_json
from flows.dataset_tables import coverage_table, findings_table, raw_table


@dataclass(frozen=True)
class Verdict:
    """cards: how many were read. class_sources: class -> the data sets that annotate it, where all were looked at."""

    cards: int
    findings: tuple[Finding, ...]
    raw: tuple[RawFinding, ...]
    class_sources: dict[str, list[str]]

    @property
    def is_wrong(self) -> bool:
        """Whether something contradicts itself, or a downloaded file is not what it should be."""
        return any(one.kind == "inconsistent" for one in self.findings) or any(one.is_wrong for one in self.raw)


def verdict_of(datasets: Sequence[str], raw_folder: Path, *, read_data: bool) -> Verdict:
    """Return the findings about `datasets` (none: all), checked against all cards and the downloads.

    Raises KeyError, naming the nearest, for a data set without a card.
    """
    cards, broken = read_all()
    broken_ids = {finding.card for finding in broken}
    for dataset in datasets:
        if dataset not in broken_ids:
            load_card(dataset)
    findings = [one for one in (*broken, *audit(cards)) if not datasets or one.card in datasets]
    chosen = [card for card in cards if not datasets or card.id in datasets]
    return Verdict(
        cards=len(chosen) + sum(1 for card_id in broken_ids if not datasets or card_id in datasets),
        findings=tuple(findings),
        raw=tuple(audit_raw(raw_folder, chosen, read_data=read_data)),
        class_sources={} if datasets else class_sources(cards),
    )


def print_verdict(verdict: Verdict, *, as_json: bool) -> None:
    """Print contradictions first, then what is unverified, missing, or annotated by few."""
    if as_json:
        print_json(
            {
                "cards": verdict.cards,
                "consistent": not verdict.is_wrong,
                "findings": [asdict(finding) for finding in verdict.findings],
                "raw": [asdict(finding) for finding in verdict.raw],
                "class_sources": verdict.class_sources,
            }
        )
        return
    wrong, unverified, missing = (
        [one for one in verdict.findings if one.kind == kind] for kind in ("inconsistent", "unverified", "missing")
    )
    for title, table, rows in (
        ("Facts that no source was read for", findings_table(unverified), unverified),
        ("Facts that nobody states", findings_table(missing), missing),
        ("Classes that few data sets annotate", coverage_table(verdict.class_sources), verdict.class_sources),
        ("Downloaded files", raw_table(verdict.raw), verdict.raw),
        ("Contradictions", findings_table(wrong), wrong),
    ):
        if rows:
            console.print(Text(title, "bold cyan"), table, "", sep="\n", highlight=False)
    judged = "contradictions found, see above" if verdict.is_wrong else "no contradiction"
    console.print(
        f"{verdict.cards} cards: {judged}; {len(unverified)} facts unverified, {len(missing)} stated by nobody",
        style="red" if verdict.is_wrong else "green",
        highlight=False,
    )
