"""The page of one data set: what it is, how to get it, what its files and values mean, what to beware of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from datasets_registry.card_ids import compact_ids
from datasets_registry.card_parts import Level
from datasets_registry.cards import Card, load_card
from datasets_registry.sources.spec import Source
from datasets_registry.sources.steps import missing_steps, reason_to_ask
from datasets_registry.taxonomy import class_info
from flows.dataset_tables import LEVEL_STYLE

IDS_SHOWN = 12
"""Ranges of ids written out; the rest is counted."""


def dataset_page(card: Card, raw_folder: Path) -> RenderableType:
    """Return the page of a card, for a terminal of any width; raw_folder: where downloads of all data sets lie."""
    parts: list[RenderableType] = [Text(card.title, "bold"), *_what(card)]
    for title, content in (
        ("How to get it", _how_to_get(card, raw_folder)),
        ("Folder", [Text(card.layout.tree.rstrip()), Text(f"reader {card.layout.reader}", "dim")]),
        ("Label values", _values(card)),
        ("Cases", list(_cases(card))),
        ("Overlaps", [_overlaps(card)] if card.overlaps else []),
        ("Quirks and how they are handled", list(_quirks(card))),
        ("How well it is known", [_evidence(card)] if card.confidence else []),
    ):
        if content:
            parts += [Text(), Rule(title, align="left", style="dim"), Padding(Group(*content), (0, 0, 0, 2))]
    return Group(*parts)


def _what(card: Card) -> list[RenderableType]:
    counts = [
        f"{number} {name}"
        for name in ("total", "labelled", "unlabelled", "train", "val", "test")
        if (number := getattr(card.counts, name)) is not None
    ]
    use = {
        True: "no commercial use",
        False: "commercial use allowed",
        None: "commercial use not stated, so not allowed",
    }
    grid = _pairs()
    grid.add_row("id", f"{card.id} ({card.role}, access {card.access})")
    grid.add_row("licence", f"{card.licence.spdx or 'not stated'}; {use[card.licence.non_commercial]}")
    if card.licence.note:
        grid.add_row("", Text(card.licence.note, "dim"))
    cited = [card.citation.short, card.citation.doi and f"doi {card.citation.doi}", card.citation.also]
    grid.add_row("cite", "; ".join(filter(None, cited)) or "not stated")
    grid.add_row("page", card.landing_page or "none")
    grid.add_row("scans", ", ".join(counts) or "not stated")
    if card.counts.note:
        grid.add_row("", Text(card.counts.note, "dim"))
    if card.tumour_free:
        grid.add_row("tumour-free", f"no patient has {', '.join(card.tumour_free)}")
    for name, text in card.tumour_present.items():
        grid.add_row("tumours", f"{name} in {text}")
    return [grid]


def _how_to_get(card: Card, raw_folder: Path) -> list[RenderableType]:
    if not card.sources:
        place = "point --source at a folder of this tree" if card.access == "private" else "no source is known"
        return [Text(f"{place}: ctfactory ingest {card.id} --source FOLDER{_variant_option(card)}")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("file", "from", "digest", ""):
        table.add_column(heading, overflow="fold")
    for source in card.sources:
        remark = "" if source.needed else "only when named"
        if source.variants:
            remark = f"variant {', '.join(source.variants)}"
        table.add_row(source.name, _place_of(source), _digest(source), Text(remark, "dim"))
    asked = [
        (source, reason)
        for source in card.sources
        if source.needed and (reason := reason_to_ask(source, terms_accepted=False, synapse_token=False)) is not None
    ]
    parts: list[RenderableType] = [table, Text()]
    if asked:
        parts.append(Text(missing_steps(card, asked, raw_folder / card.id / "downloads"), overflow="fold"))
    parts.append(Text(f"ctfactory ingest {card.id} --source download{_variant_option(card)}", "bold"))
    return parts


def _variant_option(card: Card) -> str:
    return "" if card.label_variant == load_card(card.id).label_variant else f" --variant {card.label_variant}"


def _place_of(source: Source) -> str:
    """Return where a source lies, in one line."""
    fields = ("url", "record", "collection", "bucket", "entity", "file", "folder", "page")
    stated = next((str(value) for name in fields if (value := getattr(source, name, None))), "")
    return f"{source.kind} {stated}".rstrip()


def _digest(source: Source) -> Text:
    for kind in ("sha256", "md5"):
        if value := getattr(source, kind):
            return Text(f"{kind} {value[:12]}…")
    return Text("changes with each download" if source.volatile else "not stated", "yellow")


def _values(card: Card) -> list[RenderableType]:
    if not card.labels:
        return [Text("no labels")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("value", justify="right")
    table.add_column("name", overflow="fold")
    table.add_column("classes", overflow="fold")
    unmapped: list[str] = []
    for value, meaning in card.labels.items():
        classes = [_class(name) for name in meaning.classes]
        if meaning.split is not None:
            classes.append(f"{_class(meaning.split[0])} or {_class(meaning.split[1])}, by side")
        if classes:
            table.add_row(str(value), meaning.name, " + ".join(classes))
        else:
            unmapped.append(f"{value} {meaning.name}")
    parts: list[RenderableType] = [table]
    if unmapped:
        parts.append(Text(f"no class of ours: {', '.join(unmapped)}", "dim"))
    if card.label_origin == "model":
        parts.append(Text(f"made by a model ({card.label_model}), so they are pseudo-labels", "yellow"))
    if len(card.variants) > 1:
        parts.append(Text())
        parts.append(Text(f"These are the labels of variant {card.label_variant}; the others, by --variant:"))
    for name, variant in card.label_variants.items():
        known = ", ".join(_class(one) for one in variant.annotated_classes)
        parts.append(Text(f"{name}: {variant.note or ''} Classes {known}"))
    return parts


def _class(name: str) -> str:
    return f"{class_info(name).index} {name}"


def _cases(card: Card) -> Iterator[RenderableType]:
    """Yield every rule that holds for single cases of the data set or of one of its variants."""
    if card.annotation_rule == "present":
        always = f"; always: {', '.join(card.always_annotated)}" if card.always_annotated else ""
        yield Text(f"A class is known only in the cases that ship its structure{always}.")
    grid = _pairs()
    if card.case_ids:
        grid.add_row("numbers", _ids(card.case_ids))
    if card.unlabelled_case_ids:
        grid.add_row("without label", _ids(card.unlabelled_case_ids))
    for part, ids in card.official_splits.items():
        grid.add_row(f"official {part}", _ids(ids))
    for name in card.variants:
        one = card.with_variant(name)
        for rule in one.annotated_by_case:
            text = f"{_ids(rule.case_ids)}: only {', '.join(rule.annotated_classes)}"
            grid.add_row("fewer classes", _known(text + _in_variant(card, name), rule.confidence))
    for fault in card.faulty_cases:
        grid.add_row("refused", _known(f"{fault.case}: {fault.reason}", fault.confidence))
    for refused in card.refused_cases:
        grid.add_row("refused", _known(f"{_ids(refused.case_ids)}: {refused.reason}", refused.confidence))
    for spacing in card.unreliable_spacing:
        grid.add_row("false spacing", _known(f"{_ids(spacing.case_ids)}: {spacing.reason}", spacing.confidence))
    for name in card.variants:
        for flag in card.with_variant(name).case_flags:
            where = _ids(flag.case_ids) if flag.case_ids else "every labelled case"
            text = f"{where}: {flag.reason} ({flag.code})"
            grid.add_row("flag", _known(text + _in_variant(card, name), flag.confidence))
    for quality in card.label_quality:
        where = f"{_ids(quality.case_ids)}: " if quality.case_ids else ""
        text = f"{where}{', '.join(quality.classes)} {quality.quality}, {quality.reason}"
        grid.add_row("quality", _known(text, quality.confidence))
    for same in card.same_scan:
        grid.add_row("same scan", _known(f"{_ids(same.case_ids)}: {same.reason}", same.confidence))
    for free in card.tumour_free_cases:
        grid.add_row("no tumour", _known(f"{free.tumour}: {_ids(free.case_ids)}", free.confidence))
    if card.guard is not None:
        grid.add_row("guard", _known(card.guard.reason, card.guard.confidence))
    if grid.row_count:
        yield grid


def _in_variant(card: Card, name: str) -> str:
    return f" (variant {name})" if len(card.variants) > 1 else ""


def _overlaps(card: Card) -> RenderableType:
    grid = _pairs()
    for overlap in card.overlaps:
        pairs = f" ({_ids(overlap.case_ids)} = {_ids(overlap.other_case_ids)} there)" if overlap.case_ids else ""
        grid.add_row(overlap.dataset, _known(overlap.relation + pairs, overlap.confidence))
    return grid


def _quirks(card: Card) -> Iterator[RenderableType]:
    for quirk in card.quirks:
        yield _known(f"• {quirk.fact}", quirk.confidence)
        if quirk.handling:
            yield Padding(Text(f"→ {quirk.handling}", "cyan"), (0, 0, 0, 2))


def _evidence(card: Card) -> RenderableType:
    grid = _pairs()
    for field, evidence in card.confidence.items():
        grid.add_row(field, _known(evidence.text, evidence.level))
    return grid


def _known(text: str, level: Level) -> Text:
    return Text.assemble(text, " ", (f"[{level}]", LEVEL_STYLE[level]))


def _ids(ids: tuple[str, ...]) -> str:
    ranges = compact_ids(ids)
    more = f" … ({len(ids)} in all)" if len(ranges) > IDS_SHOWN else ""
    return ", ".join(ranges[:IDS_SHOWN]) + more


def _pairs() -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid
