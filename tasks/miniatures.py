"""Write the demo's miniature data sets, each in its own native layout."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from datasets_registry.miniatures import MINIATURE_SETS, write_external, write_miniature
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


def _fresh(folder: Path) -> Path:
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    return aside


write_miniatures_task = as_task(write_miniatures, "write-miniatures")
