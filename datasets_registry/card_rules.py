"""What a card's parts must agree on, and which classes were annotated in one case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datasets_registry.card_parts import CaseRule, LabelValue, Layout, require_classes
from datasets_registry.sources.spec import Source
from datasets_registry.taxonomy import class_names


def require_coverage(labels: Mapping[int, LabelValue], annotated: tuple[str, ...]) -> None:
    """Raise ValueError unless the values reach exactly the annotated classes and leave 0 to the background."""
    require_classes(annotated)
    if 0 in labels:
        raise ValueError("value 0 is background and is not declared")
    reached = {name for value in labels.values() for name in value.reached}
    if reached != set(annotated):
        raise ValueError(
            f"annotated_classes and labels disagree: only in annotated_classes {sorted(set(annotated) - reached)}, "
            f"only in labels {sorted(reached - set(annotated))}"
        )


def require_case_rules(
    labels: Mapping[int, LabelValue],
    annotated: tuple[str, ...],
    *,
    present_only: bool,
    always: tuple[str, ...],
    by_case: Sequence[CaseRule],
) -> None:
    """Raise ValueError for a rule about a class that is not annotated, or one under which a class is never known."""
    for field, names in [
        ("always_annotated", always),
        *((f"annotated_by_case of {_ids(r)}", r.annotated_classes) for r in by_case),
    ]:
        if extra := sorted(set(names) - set(annotated)):
            raise ValueError(f"{field} names {extra}, which annotated_classes does not")
    ruled = [one for rule in by_case for one in rule.case_ids]
    if twice := sorted({one for one in ruled if ruled.count(one) > 1}):
        raise ValueError(f"annotated_by_case speaks twice of {twice}")
    if always and not present_only:
        raise ValueError("always_annotated is for annotation_rule present; under declared every class always is")
    first = {name for value in labels.values() for name in value.named_first}
    if present_only and (never := sorted(set(annotated) - first - set(always))):
        raise ValueError(
            f"no value names {never} first, so they would never count as annotated; give them a value of their own or "
            "list them in always_annotated"
        )


def require_label_fields(
    layout: Layout, labels: Mapping[int, LabelValue], label_origin: str | None, label_model: str | None
) -> None:
    """Raise ValueError where labels, their files and their maker are not stated together, or no rule gives case ids."""
    # a `local` cohort finds its labels by name, without a glob
    if bool(labels) != (layout.label_glob is not None) and layout.reader != "local":
        raise ValueError("labels and layout.label_glob are given together or not at all")
    if bool(labels) != (label_origin is not None):
        raise ValueError("label_origin is human or model for a set with labels, null for one without")
    if (label_origin == "model") != (label_model is not None):
        raise ValueError(f"label_origin {label_origin!r} does not fit label_model {label_model!r}")
    if (layout.case_id is None) == (layout.case_id_regex is None) and layout.reader != "local":
        raise ValueError("layout gives either case_id_regex or a constant case_id")


def require_known_variants(sources: Sequence[Source], known: Sequence[str]) -> None:
    """Raise ValueError where a source is said to be for a label variant that the card does not have."""
    for source in sources:
        if extra := sorted(set(source.variants) - set(known)):
            raise ValueError(f"source {source.name} is for variants {extra}, but the card has {list(known)}")


def require_listed_ids(known: set[str], fields: Mapping[str, Sequence[str]]) -> None:
    """Raise ValueError where a field speaks of a case that the list of the set's cases does not know."""
    for field, ids in fields.items():
        if extra := sorted(set(ids) - known):
            raise ValueError(f"{field} speaks of {extra[:5]}, which case_ids does not list")


def _ids(rule: CaseRule) -> str:
    return f"{rule.case_ids[0]} ..." if len(rule.case_ids) > 1 else ", ".join(rule.case_ids)


def known_classes(
    labels: Mapping[int, LabelValue],
    annotated: tuple[str, ...],
    present_values: frozenset[int] | None,
    always: tuple[str, ...],
) -> tuple[str, ...]:
    """Return, in channel order, the classes of `annotated` whose structures were looked for in a case.

    present_values: the native values (or structures, by their value) that the case ships; None: all of them, by rule.
    A class is known when a value that names it first is present and none of those that may not be missing is absent:
    a lung with one of its lobes missing is unknown, not small.
    """
    if present_values is None:
        known = set(annotated)
    else:
        known = set(always)
        for name in annotated:
            first = {number: value for number, value in labels.items() if name in value.named_first}
            needed = {number for number, value in first.items() if not value.optional}
            if first.keys() & present_values and needed <= present_values:
                known.add(name)
    return tuple(name for name in class_names() if name in known and name in annotated)
