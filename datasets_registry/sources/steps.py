"""What a person has to do for files that do not download themselves, written out step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets_registry.cards import Card
from datasets_registry.sources import gdrive
from datasets_registry.sources.ledger import LEDGER
from datasets_registry.sources.spec import GdriveSource, ManualSource, Source, SynapseSource


def reason_to_ask(source: Source, *, terms_accepted: bool, synapse_token: bool) -> str | None:
    """Return why `source` needs a person first; None when it downloads itself."""
    if isinstance(source, ManualSource):
        return "it has no address to download from"
    if isinstance(source, SynapseSource):
        return None if synapse_token else "Synapse gives files to signed-in people only"
    if source.access != "open" and not terms_accepted:
        return f"it asks for {source.access} first"
    return None


def missing_steps(card: Card, missing: Sequence[tuple[Source, str]], folder: Path) -> str:
    """Return the steps that bring the missing files; the same command goes on afterwards.

    missing: sources with the reason why each needs a person. folder: where the files go.
    """
    names = ", ".join(source.name for source, _ in missing)
    lines = [f"{card.id}: a person must fetch {names}"]
    steps: list[str] = []
    for page in dict.fromkeys(_page(card, source) for source, _ in missing):
        steps.append(f"open {page}" if page else "find the data set's page; the card knows none")
    licence = card.licence.spdx or "not stated; treat as research only"
    steps.append(f"read and accept the terms there (licence: {licence})")
    steps += [text for text in dict.fromkeys(_account(source) for source, _ in missing) if text]
    steps += dict.fromkeys(text for source, _ in missing for text in _own_steps(source))
    steps.append(f"put into {folder.absolute()}:")
    lines += [f"  {number}. {text}" for number, text in enumerate(steps, start=1)]
    lines += [f"     - {_file_line(source, reason)}" for source, reason in missing]
    lines += [f"  or: {text}" for text in dict.fromkeys(_instead(card, source) for source, _ in missing) if text]
    lines.append(f"  {len(steps) + 1}. run the same command again; it goes on from there")
    others = sorted(path.name for path in folder.glob("[!.]*") if path.name != LEDGER)
    if others:
        lines.append(f"  (the folder holds, under other names: {', '.join(others[:10])})")
    return "\n".join(lines)


def _page(card: Card, source: Source) -> str | None:
    own = getattr(source, "page", None)
    return own or card.landing_page


def _account(source: Source) -> str | None:
    if isinstance(source, ManualSource) and source.account:
        return f"you need {source.account}"
    if isinstance(source, SynapseSource):
        return "sign in to Synapse and join the project"
    return {
        "registration": "register there and sign in",
        "application": "apply there for access and wait for the permission",
    }.get(source.access)


def _own_steps(source: Source) -> tuple[str, ...]:
    if isinstance(source, ManualSource):
        return source.steps
    if isinstance(source, GdriveSource):
        return (f"download from {gdrive.browser_address(source)}",)
    return ()


def _file_line(source: Source, reason: str) -> str:
    digest = next((f"{kind} {value}" for kind in ("sha256", "md5") if (value := getattr(source, kind))), "")
    known = f"; {digest}" if digest else ""
    return f"{source.name} ({reason}{known})"


def _instead(card: Card, source: Source) -> str | None:
    if isinstance(source, SynapseSource):
        return (
            "make a personal access token (permissions view and download) and set CTFACTORY_SYNAPSE_TOKEN; the file "
            "is then downloaded"
        )
    if not isinstance(source, ManualSource) and source.access != "open":
        return f"once you have done so, set CTFACTORY_TERMS_ACCEPTED='[\"{card.id}\"]' and it is downloaded"
    return None
