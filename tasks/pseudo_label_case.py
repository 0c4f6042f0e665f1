"""One case of a pseudo-label run: predict, then clean, score, decide, commit, export, draw.

The first half is the network's, the second half everything else's, so that the second half of a case can run while the
first half of the next one does. What is behind the commit is made up, where it is missing, from the masks in the lake.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from catalog.errors import LakeDamage
from imaging.bits import Bits
from imaging.errors import BadInput
from imaging.volume import Volume
from models.infer import Prediction
from tasks.ingest_case import quarantine
from tasks.label_scores import case_quality
from tasks.prediction import case_image, clean_prediction, predict_raw, remarks_on
from tasks.pseudo_label_files import FilesMade, files_of_case, write_files
from tasks.pseudo_label_plan import LabelRun, PseudoLabelRequest
from tasks.pseudo_label_rows import judged_rows, rejudged_rows
from tasks.workspace import Workspace, open_workspace, row_dicts

Outcome = Literal["labelled", "rejudged", "completed", "unchanged", "failed"]
"""rejudged: the masks were there, and were decided upon anew by another calibration or other bars. completed: labels
were there, and files behind them were made up. Neither predicts again.
"""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_COLUMNS = ("class_name", "state", "annotation", "quality_score", "decision", "manifest", "retracted")


@dataclass(frozen=True)
class PseudoLabelOutcome:
    """What became of one case, and the files made for it.

    annotation: its masks' name in the lake. decisions: number of classes by decision. segmentation: the multi-label
    NIfTI, where that was asked for.
    """

    case_id: str
    outcome: Outcome
    classes: tuple[str, ...] = ()
    mean_probability: float | None = None
    segmentation: Path | None = None
    overlay: Path | None = None
    message: str = ""
    annotation: str | None = None
    decisions: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, eq=False)
class Looked:
    """How far a case is before the second half: predicted, labelled already (`rows`), or failed.

    classes: those no human has annotated there. prediction: as the network gave it. rows: of the annotation there.
    judged: whether those rows were decided by this run's calibration and bars.
    """

    classes: tuple[str, ...] = ()
    prediction: Prediction | None = None
    rows: tuple[dict[str, Any], ...] = ()
    judged: bool = True
    failure: str | None = None


def pseudo_label_case(request: PseudoLabelRequest, run: LabelRun) -> PseudoLabelOutcome:
    """Label one case; classes a human annotated there are left alone, and a second call does nothing.

    The outcome is `failed`, with the reason, when the scan cannot be read or predicted (then it is in quarantine too)
    and when its files cannot be written; the others of the run go on.
    """
    return finish_case(request, look_and_predict(request, run), run)


def look_and_predict(request: PseudoLabelRequest, run: LabelRun) -> Looked:
    """Return the raw masks of one case, for all classes of the run, unless it has labels of this kind already.

    A scan that cannot be predicted goes to quarantine.
    """
    workspace = open_workspace(run.settings)
    labels = row_dicts(workspace.tables.labels(case_ids=[request.case_id], columns=_COLUMNS, retracted=True))
    human = {row["class_name"] for row in labels if row["state"] == "annotated"}
    classes = tuple(name for name in run.classes if name not in human)
    if not classes:
        return Looked()
    # A run that was undone must not come back by itself: who wants its labels restores them.
    if rows := _there_already(labels, classes, run):
        return Looked(classes, rows=rows, judged=str(rows[0]["annotation"]).endswith(f"-{run.judged_by}"))
    try:
        prediction, _ = predict_raw(workspace, request.case, run.teacher.checkpoints, run.classes)
    except (LakeDamage, ValueError) as problem:
        return Looked(classes, failure=_refuse(workspace, request, run, problem))
    return Looked(classes, prediction=prediction)


def finish_case(request: PseudoLabelRequest, looked: Looked, run: LabelRun) -> PseudoLabelOutcome:
    """Clean, score, decide, commit, export and draw what `look_and_predict` left; return what became of the case."""
    case_id = request.case_id
    if looked.failure is not None:
        return PseudoLabelOutcome(case_id, "failed", looked.classes, message=looked.failure)
    if not looked.classes:
        return PseudoLabelOutcome(case_id, "unchanged", message="a human annotated every class asked for")
    if any(row["retracted"] for row in looked.rows):
        message = "these labels were retracted; `ctfactory labels restore RUN` brings them back"
        return PseudoLabelOutcome(case_id, "unchanged", looked.classes, message=message)
    workspace = open_workspace(run.settings)
    outcome: Outcome
    files = files_of_case(run, request, looked.rows) if looked.judged else None
    if files is not None:
        return _outcome(request, "unchanged", looked.classes, looked.rows, files)
    try:
        image = case_image(workspace, request.case)
        if looked.prediction is not None:
            outcome, (bits, rows, message) = "labelled", _label(workspace, run, request, looked, image)
        elif not looked.judged:
            outcome, (bits, rows, message) = "rejudged", _judge_again(workspace, run, request, looked, image)
        else:
            bits, rows = _stored_bits(workspace, request, looked.rows), looked.rows
            outcome, message = "completed", ""
    except (LakeDamage, ValueError) as problem:
        failure = _refuse(workspace, request, run, problem)
        return PseudoLabelOutcome(case_id, "failed", looked.classes, message=failure)
    try:
        files = write_files(run, request, rows, bits, image)
    except (OSError, ValueError) as problem:  # the labels stand; a full disk, a source that is not there
        return _outcome(request, "failed", looked.classes, rows, FilesMade(), f"labelled, but not exported: {problem}")
    return _outcome(request, outcome, looked.classes, rows, files, message)


def _there_already(labels: list[dict[str, Any]], classes: tuple[str, ...], run: LabelRun) -> tuple[dict[str, Any], ...]:
    """Return the rows of an annotation by the same weights and rules that has all of `classes`, () without one.

    One made for more classes serves as well. First come those that were not retracted, of them those decided upon by
    this run's calibration and bars.
    """
    ours = [row for row in labels if str(row["annotation"]).startswith(f"{run.base}-")]
    gone = {row["annotation"] for row in ours if row["retracted"]}
    names = {str(row["annotation"]) for row in ours}
    for annotation in sorted(names, key=lambda name: (name in gone, not name.endswith(f"-{run.judged_by}"), name)):
        rows = tuple(row for row in labels if row["annotation"] == annotation and row["class_name"] in classes)
        if {row["class_name"] for row in rows} == set(classes):
            return rows
    return ()


def _label(
    workspace: Workspace, run: LabelRun, request: PseudoLabelRequest, looked: Looked, image: Volume
) -> tuple[Bits, tuple[dict[str, Any], ...], str]:
    """Clean, score, decide and commit what was predicted; return the masks, their rows and remarks."""
    if looked.prediction is None:
        raise ValueError(f"{request.case_id}: nothing was predicted")
    say = remarks_on(request.case)
    prediction = clean_prediction(looked.prediction, run.classes, image.affine, lambda: image, run.settings, say)
    quality = case_quality(workspace, request.case, image)
    rows = judged_rows(run, request, prediction, image, quality, looked.classes)
    rows = _commit(workspace, run, request, prediction.bits, rows)
    return prediction.bits, tuple(rows), "; ".join(prediction.scores.remarks)


def _judge_again(
    workspace: Workspace, run: LabelRun, request: PseudoLabelRequest, looked: Looked, image: Volume
) -> tuple[Bits, tuple[dict[str, Any], ...], str]:
    """Decide by the calibration and bars of now on masks in the lake, and commit that under a name of its own."""
    annotation = str(looked.rows[0]["annotation"])
    found = row_dicts(workspace.tables.labels(case_ids=[request.case_id], annotation=annotation))
    rows = [row for row in found if row["class_name"] in looked.classes]
    bits = _stored_bits(workspace, request, looked.rows)
    quality = case_quality(workspace, request.case, image)
    again = _commit(workspace, run, request, bits, rejudged_rows(run, rows, quality, looked.classes))
    return bits, tuple(again), f"the masks of {annotation}, decided upon anew"


def _commit(
    workspace: Workspace, run: LabelRun, request: PseudoLabelRequest, bits: Bits, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Write the masks under their own name beside the scan, then make them visible with one commit."""
    attributes = {"model": run.teacher.title, "classes": list(run.classes)}
    manifest = workspace.lake.write_annotation(request.case["path"], str(rows[0]["annotation"]), bits, attributes)
    rows = [{**row, "manifest": manifest.to_json()} for row in rows]
    workspace.tables.commit_labels(rows)
    return rows


def _stored_bits(workspace: Workspace, request: PseudoLabelRequest, rows: tuple[dict[str, Any], ...]) -> Bits:
    row = {**request.case, "manifest": rows[0]["manifest"]}
    return np.asarray(workspace.lake.open_bits(row, str(rows[0]["annotation"])).read())


def _refuse(workspace: Workspace, request: PseudoLabelRequest, run: LabelRun, problem: LakeDamage | ValueError) -> str:
    """Put a scan that cannot be labelled into quarantine; return why, in one line."""
    retry = f"ctfactory pseudo-label {run.spec.cohort}"
    if isinstance(problem, LakeDamage):
        what = BadInput(
            "unreadable",
            f"{request.case_id}: {problem.file}",
            problem.found,
            problem.expected,
            "restore the file from a copy, or ingest the case again",
        )
    elif isinstance(problem, BadInput):
        what = problem
    else:
        what = BadInput("not_predicted", request.case_id, str(problem), "a scan the model can predict", f"then {retry}")
    case = request.case
    quarantine(
        workspace,
        str(case["dataset"]),
        str(case["native_id"]),
        what,
        raw_sha256=case["raw_sha256"],
        retry=retry,
        flow_run_id=run.flow_run_id,
    )
    return str(problem)


def _outcome(
    request: PseudoLabelRequest,
    outcome: Outcome,
    classes: tuple[str, ...],
    rows: tuple[dict[str, Any], ...],
    files: FilesMade,
    message: str = "",
) -> PseudoLabelOutcome:
    found = [float(row["quality_score"]) for row in rows if row["quality_score"] is not None]
    decided = [str(row["decision"]) for row in rows if row["decision"] is not None]
    return PseudoLabelOutcome(
        request.case_id,
        outcome,
        classes,
        sum(found) / len(found) if found else None,
        files.segmentation,
        files.overlay,
        message,
        annotation=str(rows[0]["annotation"]),
        decisions=tuple((name, decided.count(name)) for name in dict.fromkeys(sorted(decided))),
    )
