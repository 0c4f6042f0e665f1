"""Write miniature data sets, each in its own native layout: those of the demo, or any card's."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from datasets_registry.cards import load_card
from datasets_registry.miniatures import MINIATURE_SETS, count_cases, write_external, write_local, write_miniature
from tasks.prefect_task import as_task
from tasks.progress import report_progress

EXTERNAL_COHORT = "external_demo"


@dataclass(frozen=True)
class Miniatures:
    """Folders of raw data by data set, the external cohort's, and the folder of the hidden truth."""

    raw: dict[str, Path]
    external: Path
    truth: Path


def write_miniatures(
    folder: Path, *, cases: int, external_cases: int, seed: int, datasets: tuple[str, ...] = MINIATURE_SETS
) -> Miniatures:
    """Write `cases` cases of each data set and an unlabelled external DICOM cohort below `folder`.

    The full truth goes to `folder`/hidden_truth, beside the raw folders and never in them. What is there already is
    kept: a folder appears under its final name only when it is complete.
    """
    truth = folder / "hidden_truth"
    raw = {name: folder / "raw" / name for name in datasets}
    external = folder / "raw" / EXTERNAL_COHORT
    for number, name in enumerate(datasets):
        report_progress("miniatures", number, len(datasets) + 1, name)
        if not raw[name].exists():
            aside = _fresh(raw[name])
            write_miniature(name, aside, cases=cases, seed=seed, truth_folder=truth)
            aside.rename(raw[name])
    report_progress("miniatures", len(datasets), len(datasets) + 1, EXTERNAL_COHORT)
    if not external.exists():
        aside = _fresh(external)
        write_external(aside, cases=external_cases, seed=seed, truth_folder=truth, dataset=EXTERNAL_COHORT)
        aside.rename(external)
    report_progress("miniatures", len(datasets) + 1, len(datasets) + 1)
    return Miniatures(raw, external, truth)


def write_miniature_set(card_id: str, folder: Path, *, cases: int, seed: int, variant: str | None = None) -> Path:
    """Write the miniature of one card, with what lies beside its cases in the real archive; return its raw folder.

    `folder`/registry/<card id> (with a label variant: <card id>-<variant>) is kept when it holds as many cases of the
    same seed, else it is written anew, with `cases` cases or as many as the set has. The full truth goes to
    `folder`/hidden_truth. The folder appears under its final name only when it is complete. Raises ValueError for a
    card without a miniature.
    """
    name = card_id if variant is None else f"{card_id}-{variant}"
    raw, note = folder / "registry" / name, folder / "registry" / f"{name}.json"
    card = load_card(card_id, variant=variant)
    local = card.layout.reader == "local"
    count = cases if local else min(cases, count_cases(card))
    if raw.is_dir() and _holds(note, count, seed):
        return raw
    note.unlink(missing_ok=True)
    aside = _fresh(raw)
    if local:
        write_local(aside, cases=count, seed=seed, truth_folder=folder / "hidden_truth")
    else:
        truth = folder / "hidden_truth"
        write_miniature(card_id, aside, cases=count, seed=seed, truth_folder=truth, variant=variant, extras=True)
    shutil.rmtree(raw, ignore_errors=True)
    aside.rename(raw)
    note.write_text(json.dumps({"cases": count, "seed": seed}), encoding="utf-8")
    return raw


def _holds(note: Path, cases: int, seed: int) -> bool:
    """Tell whether the note beside a raw folder says that it holds at least `cases` cases of `seed`."""
    if not note.is_file():
        return False
    found = json.loads(note.read_text(encoding="utf-8"))
    return bool(found["cases"] >= cases and found["seed"] == seed)


def _fresh(folder: Path) -> Path:
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


write_miniatures_task = as_task(write_miniatures, "write-miniatures")
write_miniature_set_task = as_task(write_miniature_set, "write-miniature-set")
