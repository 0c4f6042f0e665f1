"""One self-training round on miniatures: a teacher labels scans nobody labelled, and a student learns from both.

`prepare FILE` makes the scans; `run FILE --out DIR` trains and scores, keeping what is done; `report DIR` writes
`docs/self_training.md` and its picture. Without a command all three run, in some ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from benchmarks.learning_data import Study, StudyScan, StudySource, load_study
from benchmarks.learning_jobs import CLASSES, COLLECTION, Arm, Budget, read_rows, settings_for, write_row
from benchmarks.learning_prepare import prepare
from benchmarks.self_training_report import mean_dsc, write_report
from benchmarks.side_by_side import record
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.metrics import dice
from models.checkpoint import load_model
from models.infer import Prediction, predict_bits
from models.plan import Int3, TrainCase
from models.postprocess import clean
from models.sampling import Box
from models.train import train

ROOT = Path(__file__).parent.parent
LABELLED, CALIBRATION, COHORT, HELD_OUT = 3, 2, 5, 3
"""Scans of each set: with their set's own labels; the same, to calibrate on; with no label; to score on."""
BAR = 0.7
"""Expected DSC from which on a pseudo-label is accepted."""
TEACHER_STEPS, ROUND_STEPS = 300, 200
ROUND_LR = 1e-3
SEEDS = (0, 1, 2)
Name = Literal["more steps", "accepted", "everything"]
ARMS: tuple[Name, ...] = ("more steps", "accepted", "everything")
"""After the teacher, more steps: on the same labels alone; with accepted pseudo-labels; with all of them."""
USUAL = ARMS[:2]


@dataclass(frozen=True, eq=False)
class Parts:
    """The scans of each set, parted."""

    labelled: list[StudyScan]
    calibration: list[StudyScan]
    cohort: list[StudyScan]
    held_out: list[StudyScan]


def parts_of(study: Study) -> Parts:
    """Return the scans of the collection by what they are for."""
    parts = Parts([], [], [], study.held_out(COLLECTION))
    for dataset in COLLECTION:
        scans = study.training([dataset])
        parts.labelled.extend(scans[:LABELLED])
        parts.calibration.extend(scans[LABELLED : LABELLED + CALIBRATION])
        parts.cohort.extend(scans[LABELLED + CALIBRATION :])
    return parts


@dataclass(frozen=True, eq=False)
class PseudoLabelled:
    """A scan of the cohort with what the teacher found: scores (mean probability) by class, and the mask's true DSC."""

    scan: StudyScan
    prediction: Prediction
    expected: dict[str, float]
    true_dsc: dict[str, float]

    def labels(self, bar: float) -> StudyScan:
        """Return the scan with the classes whose expected DSC reaches the bar, and the masks of the teacher."""
        names = tuple(name for name, dsc in self.expected.items() if dsc >= bar)
        return replace(self.scan, annotated=names, bits=self.prediction.bits)


class MixedSource:
    """Patches of scans with labels of people and of scans with labels of the teacher, a `PatchSource`."""

    def __init__(self, human: Sequence[StudyScan], pseudo: Sequence[StudyScan]) -> None:
        self._human, self._pseudo = (StudySource(scans, CLASSES, "partial") for scans in (human, pseudo))
        self._theirs = {case.case_id for case in self._pseudo.cases()}

    def cases(self) -> Sequence[TrainCase]:
        """Return all scans; every class of the latter is a model's."""
        return [*self._human.cases(), *(replace(case, pseudo=case.annotated) for case in self._pseudo.cases())]

    def read(self, case_id: str, start_xyz: Int3, size_xyz: Int3) -> tuple[NDArray[np.int16], NDArray[np.uint32], Box]:
        """Return image, bits and the part inside the scan, of a box."""
        source = self._pseudo if case_id in self._theirs else self._human
        return source.read(case_id, start_xyz, size_xyz)


def run_seed(seed: int, study: Study, work: Path, *, threads: int, arms: Sequence[Name] = USUAL) -> dict[str, Any]:
    """Return the row of one seed: DSC of the teacher and of each arm, and how good the pseudo-labels were."""
    parts, began = parts_of(study), time.perf_counter()
    model, training = settings_for(Arm("teacher"), seed, Budget(TEACHER_STEPS, 2, "cpu", threads), study)
    teacher = train(StudySource(parts.labelled, CLASSES, "partial"), model, training, work / "teacher").checkpoint
    labelled = pseudo_label(teacher, parts)
    row: dict[str, Any] = {
        "job": f"round-{seed}",
        "seed": seed,
        "steps": [TEACHER_STEPS, ROUND_STEPS],
        "pseudo": quality_of(labelled),
        "weight": training.pseudo_weight,
        "share": training.pseudo_share,
        "dsc": {"teacher": score(teacher, parts.held_out)},
    }
    again = replace(training, steps=ROUND_STEPS, lr=ROUND_LR, seed=seed + 1000)
    bars = {"accepted": BAR, "everything": -1.0}
    for arm in arms:
        pseudo = [] if arm == "more steps" else [one.labels(bars[arm]) for one in labelled]
        folder = work / arm.replace(" ", "-")
        result = train(MixedSource(parts.labelled, pseudo), model, again, folder, start_from=teacher)
        row["dsc"][arm] = score(result.checkpoint, parts.held_out)
    row["seconds"] = round(time.perf_counter() - began, 1)
    return row


def pseudo_label(teacher: Path, parts: Parts) -> list[PseudoLabelled]:
    """Return the cohort's scans as the teacher labels them, with the DSC that the calibration expects."""
    calibration = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    scores: list[float] = []
    found: list[float] = []
    for scan in parts.calibration:
        prediction = _predict(teacher, scan)
        for name in (name for name in CLASSES if name in scan.annotated):  # what people drew there, and no more
            scores.append(_score_of(prediction, name))
            found.append(_dsc(prediction, scan, name))
    calibration.fit(scores, found)
    labelled = []
    for scan in parts.cohort:
        prediction = _predict(teacher, scan)
        expected = calibration.predict([_score_of(prediction, name) for name in CLASSES])
        true = {name: _dsc(prediction, scan, name) for name in CLASSES}
        labelled.append(PseudoLabelled(scan, prediction, dict(zip(CLASSES, map(float, expected), strict=True)), true))
    return labelled


def quality_of(labelled: Sequence[PseudoLabelled]) -> dict[str, float]:
    """Return how many of the teacher's masks were accepted, and the true DSC of those and of all."""
    pairs = [(one.expected[name], one.true_dsc[name]) for one in labelled for name in CLASSES]
    accepted = [dsc for bar, dsc in pairs if bar >= BAR]
    expected, true = np.array(pairs).T
    varies = expected.std() > 0 and true.std() > 0
    return {
        "masks": len(pairs),
        "accepted": len(accepted),
        "true_dsc_accepted": round(statistics.fmean(accepted), 4) if accepted else float("nan"),
        "true_dsc_all": round(statistics.fmean(dsc for _, dsc in pairs), 4),
        "correlation": round(float(np.corrcoef(expected, true)[0, 1]), 4) if varies else float("nan"),
    }


def score(checkpoint: Path, scans: Sequence[StudyScan]) -> dict[str, list[float | None]]:
    """Return class -> mean DSC on what the held-out scans' own sets annotate, and on their full truth."""
    drawn: dict[str, list[float]] = {name: [] for name in CLASSES}
    every: dict[str, list[float]] = {name: [] for name in CLASSES}
    for scan in scans:
        prediction = _predict(checkpoint, scan)
        for name in CLASSES:
            if scan.mask(name).any():
                dsc = _dsc(prediction, scan, name)
                every[name].append(dsc)
                if name in scan.annotated:
                    drawn[name].append(dsc)
    return {name: [_mean(drawn[name]), _mean(every[name])] for name in CLASSES}


def _mean(values: Sequence[float]) -> float | None:
    return round(statistics.fmean(values), 5) if values else None


def _predict(checkpoint: Path, scan: StudyScan) -> Prediction:
    model, metadata = load_model(checkpoint, "cpu")
    prediction = predict_bits(model, metadata, scan.image, classes=CLASSES)
    affine = np.diag([*metadata.model.spacing_mm, 1.0])
    return replace(prediction, bits=clean(prediction.bits, CLASSES, affine=affine).bits)


def _score_of(prediction: Prediction, name: str) -> float:
    """Return the mean probability inside a mask, 0 for an empty one."""
    return float(np.nan_to_num(prediction.mean_prob[name]))


def _dsc(prediction: Prediction, scan: StudyScan, name: str) -> float:
    truth = scan.mask(name)
    predicted = get_channel(prediction.bits, class_info(name).channel)
    return 1.0 if not truth.any() and not predicted.any() else dice(truth, predicted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for; without arguments the whole study in a folder that is removed again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.self_training", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("prepare").add_argument("file", type=Path)
    run = commands.add_parser("run")
    run.add_argument("file", type=Path)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    run.add_argument("--threads", type=int, default=2)
    run.add_argument("--arms", nargs="+", choices=ARMS, default=list(USUAL))
    report = commands.add_parser("report")
    report.add_argument("folder", type=Path)
    options = parser.parse_args(arguments if arguments is not None else [])
    if options.command == "prepare":
        prepare(options.file, training=LABELLED + CALIBRATION + COHORT, held_out=HELD_OUT, rare=1)
    elif options.command == "run":
        _run(options.file, options.out, options.seeds, options.threads, options.arms)
    elif options.command == "report":
        _report(options.folder)
    else:
        with tempfile.TemporaryDirectory(prefix="self-training-") as folder:
            file, out = Path(folder) / "scans.npz", Path(folder) / "out"
            prepare(file, training=LABELLED + CALIBRATION + COHORT, held_out=HELD_OUT, rare=1)
            _run(file, out, SEEDS, 2, USUAL)
            _report(out)


def _run(file: Path, out: Path, seeds: Sequence[int], threads: int, arms: Sequence[Name]) -> None:
    study = load_study(file)
    for seed in seeds:
        if not (out / f"round-{seed}.json").is_file():
            row = run_seed(seed, study, out / f"work-{seed}", threads=threads, arms=arms)
            write_row(out, row)
        row = next(row for row in read_rows(out) if row["seed"] == seed)
        told = ", ".join(f"{arm} {mean_dsc(row, arm):.3f}" for arm in row["dsc"])
        print(f"seed {seed}: mean DSC {told}; {row['pseudo']['accepted']} of {row['pseudo']['masks']} accepted")


def _report(folder: Path) -> None:
    rows = read_rows(folder)
    write_report(rows, ROOT / "docs")
    after, before = (statistics.fmean(mean_dsc(row, arm) for row in rows) for arm in ("accepted", "teacher"))
    # the ratio is peer / ours; of errors, so that larger is better as everywhere
    record("self-training, 1 - DSC", 1 - after, 1 - before, "")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
