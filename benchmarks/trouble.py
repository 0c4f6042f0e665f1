"""A cohort of 60 miniatures with planted trouble: how much of it is noticed, and how many good scans are held up.

`python -m benchmarks.trouble [WORKSPACE]` takes the champion of a demo's workspace (`ctfactory demo -w WORKSPACE`), or
trains one there, calibrates it on held-out and on ten other labelled patients, labels the cohort and appends two lines
to `results.jsonl`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import RESULTS, Result, commit
from catalog.splits import TEST
from datasets_registry.miniatures import Planted, write_miniature, write_troubled
from datasets_registry.taxonomy import class_info
from flows.calibrate import calibrate
from flows.demo import demo_settings
from flows.environment import prepare_environment
from flows.factory import FactoryPlan, factory
from flows.local_server import prefect_api
from models.checkpoint import read_metadata
from tasks.calibration import Calibration
from tasks.calibration_run import load_calibration
from tasks.case_rows import unwritten_rows
from tasks.decide import Decision, bars_of, case_decision, decide
from tasks.ingest import ingest_batch, list_source
from tasks.label_scores import case_quality, score_labels
from tasks.plausibility_reference import HumanReference, human_reference
from tasks.prediction import case_image, predict_case, trained_classes
from tasks.registry import CHAMPION, alias_version, fetch_checkpoint
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace, row_dicts

CASES, SEED = 60, 23
COHORT = f"troubled_{SEED}"
LABELLED, LABELLED_CASES, LABELLED_SEED = "totalsegmentator_v2", 10, 5
"""A cohort with human labels of many organs, which the demo's model has not seen."""
CAUGHT, HELD_UP = 0.90, 0.10
"""Bars: of the planted scans at least, of the good ones at most."""
RIGHT_CODES = {
    "mirrored": ("mirrored", "mirrored_perhaps"),
    "shifted_hu": ("hu_shift", "hu_scale"),
    "cropped": ("cropped",),
    "noise": ("noise",),
    "metal": ("metal",),
}
"""Codes that are the right reason for each trouble; for a missing organ see `noticed`."""


@dataclass(frozen=True)
class Judged:
    """One scan of the cohort: what was planted, what became of it, and whether for the right reason."""

    planted: Planted
    case: Decision
    decisions: dict[str, Decision]
    right: bool


def noticed(planted: Planted, case: Decision, decisions: dict[str, Decision]) -> bool:
    """Tell whether a scan ended in review or reject for what was planted in it.

    For a missing organ: its own mask was not accepted, whether it is empty (`missing`) or of something else.
    """
    if case.decision == "accept":
        return False
    if planted.organ is not None:
        own = decisions[planted.organ]
        return own.decision != "accept" and bool({"missing", "z", "low"} & set(own.codes))
    return bool(set(RIGHT_CODES.get(planted.trouble, ())) & set(case.codes))


def judge_case(
    workspace: Workspace, case: dict[str, Any], checkpoint: Path, reference: HumanReference, calibration: Calibration
) -> dict[str, Decision]:
    """Return the decision on every organ and vessel of one case, by plain calls of the steps of a pseudo-label run.

    Lesions are left out: the demo's model has not learnt them (DSC below 0.2), and each of its lesion masks is refused.
    """
    known = [name for name in trained_classes(read_metadata(checkpoint)) if not class_info(name).is_lesion]
    prediction, image = predict_case(workspace, case, checkpoint, known), case_image(workspace, case)
    rows = unwritten_rows(prediction.bits, image, known, case)
    quality = case_quality(workspace, case, image)
    scores = score_labels(rows, prediction, reference, quality)
    bars = bars_of(workspace.settings)
    return {name: decide(own, calibration, quality, bars) for name, own in scores.items()}


def judge_cohort(settings: Settings, folder: Path) -> list[Judged]:
    """Write and ingest the cohort, and judge every scan; RuntimeError where the ingest refuses one."""
    planted = {
        one.native_id: one
        for one in write_troubled(folder / "raw", cases=CASES, seed=SEED, truth_folder=folder / "truth", dataset=COHORT)
    }
    outcomes = ingest_batch(list_source("local", folder / "raw", settings, cohort=COHORT).requests, settings)
    refused = [f"{one.case_id}: {one.message}" for one in outcomes if one.outcome == "quarantined"]
    if refused:
        raise RuntimeError(f"the ingest refused {len(refused)} scans that the scores should see: {refused[:3]}")
    version = alias_version(CHAMPION, settings)
    assert version is not None
    calibration = load_calibration(version, settings)
    assert calibration is not None
    workspace, checkpoint = open_workspace(settings), fetch_checkpoint(version, settings)
    held_out = set(workspace.tables.cases(fold=TEST)["case_id"])
    reference = human_reference(workspace, without=held_out)
    judged = []
    for case in row_dicts(workspace.tables.cases(COHORT)):
        one = planted[str(case["native_id"])]
        decisions = judge_case(workspace, case, checkpoint, reference, calibration)
        whole = case_decision(decisions)
        judged.append(Judged(one, whole, decisions, noticed(one, whole, decisions)))
    return judged


def print_table(judged: Sequence[Judged]) -> tuple[float, float]:
    """Print what became of each kind of scan; return the shares of planted scans noticed and of good ones held up."""
    print(f"{'planted':<14} {'scans':>5} {'accept':>7} {'review':>7} {'reject':>7} {'right reason':>13}")
    for kind in dict.fromkeys(one.planted.trouble for one in sorted(judged, key=lambda one: one.planted.trouble)):
        own = [one for one in judged if one.planted.trouble == kind]
        counts = [sum(one.case.decision == verdict for one in own) for verdict in ("accept", "review", "reject")]
        right = "" if kind == "none" else f"{sum(one.right for one in own)}"
        print(f"{kind:<14} {len(own):>5} {counts[0]:>7} {counts[1]:>7} {counts[2]:>7} {right:>13}")
    bad = [one for one in judged if one.planted.trouble != "none"]
    good = [one for one in judged if one.planted.trouble == "none"]
    for one in judged:
        if not one.right and (one.planted.trouble != "none" or one.case.decision != "accept"):
            print(f"  {one.planted.trouble} ({one.planted.detail}): {one.case.decision}, {one.case.reason}")
    caught = sum(one.right for one in bad) / len(bad)
    held_up = sum(one.case.decision != "accept" for one in good) / len(good)
    masks = [one for scan in good for one in scan.decisions.values()]
    accepted = sum(one.decision == "accept" for one in masks) / len(masks)
    print(
        f"noticed for the right reason {caught:.0%} of {len(bad)} (bar {CAUGHT:.0%}); good scans held up {held_up:.0%} "
        f"of {len(good)} (bar {HELD_UP:.0%}); masks of good scans accepted {accepted:.0%}"
    )
    return caught, held_up


def run(workspace: Path) -> tuple[float, float]:
    """Measure with the champion of a workspace, which is made where there is none."""
    prepare_environment(verbose=False)
    settings = demo_settings(workspace)
    with prefect_api(settings):
        version = alias_version(CHAMPION, settings)
        if version is None:
            factory(settings)
            version = alias_version(CHAMPION, settings)
            if version is None:
                raise RuntimeError(f"{workspace}: the demo's model was not promoted; see its report")
        _calibrate(version.uri, settings)
    with tempfile.TemporaryDirectory() as folder:
        return print_table(judge_cohort(settings, Path(folder)))


def _calibrate(model: str, settings: Settings) -> None:
    """Calibrate on the demo's held-out cases and on a cohort that humans labelled: the former are few."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_miniature(LABELLED, raw, cases=LABELLED_CASES, seed=LABELLED_SEED, truth_folder=Path(folder) / "truth")
        ingest_batch(list_source(LABELLED, raw, settings).requests, settings)
    calibrate(model, settings, [*FactoryPlan.datasets, LABELLED])


def main() -> None:
    with tempfile.TemporaryDirectory() as aside:
        caught, held_up = run(Path(sys.argv[1]) if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir() else Path(aside))
    lines = [
        Result("trouble_noticed", round(caught, 4), CAUGHT, round(caught / CAUGHT, 3), "share of scans; bar", commit()),
        Result("good_passed", round(1 - held_up, 4), 1 - HELD_UP, round((1 - held_up) / (1 - HELD_UP), 3),
               "share of scans; bar", commit()),
    ]  # fmt: skip
    with RESULTS.open("a") as stream:
        stream.writelines(json.dumps(asdict(line)) + "\n" for line in lines)


if __name__ == "__main__":
    main()
