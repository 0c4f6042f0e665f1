"""What a reader sees of a lake while, or after, something went wrong with its writer."""

from __future__ import annotations

from pathlib import Path

from catalog.lake import Lake
from catalog.tables import Tables
from catalog.verify import verify


def labels_of(lake: Path) -> dict[str, set[tuple[str, str]]]:
    """Return the annotations and classes of every visible case; nothing where there are no tables yet."""
    if not (lake / "tables" / "cases" / "_delta_log" / f"{0:020}.json").is_file():
        return {}
    tables = Tables(lake)
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in tables.cases()["case_id"]}
    labels = tables.labels()
    for case_id, annotation, class_name in zip(
        labels["case_id"], labels["annotation"], labels["class_name"], strict=True
    ):
        found[case_id].add((annotation, class_name))
    return found


def half_written(lake: Path, whole: dict[str, set[tuple[str, str]]]) -> list[str]:
    """Return what is visible and not whole: a case without all labels, a file that its row does not describe."""
    seen = labels_of(lake)
    found = [
        f"{name}: labels {seen[name] ^ whole[name]} too few or too many" for name in seen if seen[name] != whole[name]
    ]
    if not seen:
        return found
    stored, tables = Lake(lake), Tables(lake)
    found += [str(damage) for damage in verify(tables, stored, read_data=True)]
    for _, row in tables.cases().iterrows():
        stored.open_image(row).read()
    for _, row in tables.labels().drop_duplicates(["case_id", "annotation"]).iterrows():
        stored.open_bits(row, row["annotation"]).read()
    return found
