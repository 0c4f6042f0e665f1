"""Masks of one case of the lake by a checkpoint: the step that evaluation and pseudo-labelling share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalog.lake_read import StoredArray
from datasets_registry.class_rules import rule_switches
from imaging.sides import body_midline_x
from imaging.volume import Affine, Volume
from models.checkpoint import ModelMetadata, load_model, members, read_metadata
from models.infer import Prediction, Predictor
from models.infer_progress import PredictionProgress
from models.postprocess import clean, needs_middle
from models.settings import Precision
from tasks.gpu_lock import gpu_lock
from tasks.notices import tell
from tasks.progress import report_progress
from tasks.settings import Settings
from tasks.workspace import Workspace

TRAINED_CLASSES = "trained_classes"
"""Key of a checkpoint's metadata: names, separated by commas, of the classes its training cases annotate."""

WORTH_A_BAR_S = 5.0
"""A prediction expected to take less than this shows no progress of its own."""


def trained_classes(metadata: ModelMetadata) -> tuple[str, ...]:
    """Return the classes a checkpoint has seen annotated, in channel order; its other outputs mean nothing."""
    named = metadata.extra.get(TRAINED_CLASSES)
    return metadata.model.classes if named is None else tuple(named.split(","))


def load_predictor(checkpoints: Sequence[Path], settings: Settings) -> tuple[Predictor, ModelMetadata]:
    """Return a predictor by one checkpoint, or by several as an ensemble, as `settings` say, and what it predicts.

    A checkpoint may itself be the folder of an ensemble.
    It is kept: the cases of a process share it. Raises ValueError where the members of an ensemble differ in anything
    but their weights.
    """
    return _predictor(
        tuple(file for checkpoint in checkpoints for file in members(checkpoint)),
        settings.torch_device(),
        settings.window_overlap,
        settings.window_batch,
        settings.predict_precision,
        settings.threads,
        settings.test_time_variants,
    )


@lru_cache(maxsize=1)
def _predictor(
    checkpoints: tuple[Path, ...],
    device: str,
    overlap: float,
    batch: int | None,
    precision: Precision | None,
    threads: int | None,
    variants: int,
) -> tuple[Predictor, ModelMetadata]:
    if threads is not None:
        torch.set_num_threads(threads)
    first = require_ensemble(checkpoints)
    models = [load_model(path, device)[0] for path in checkpoints]
    predictor = Predictor(
        models, first, overlap=overlap, batch=batch, device=device, precision=precision, variants=variants
    )
    return predictor, first


def require_ensemble(checkpoints: Sequence[Path]) -> ModelMetadata:
    """Return the metadata of the first of `checkpoints`, without reading weights; ValueError where others do not fit.

    Checkpoints may be folders of ensembles. Members must agree in all but their weights.
    """
    files = [file for checkpoint in checkpoints for file in members(checkpoint)]
    first = read_metadata(files[0])
    for path in files[1:]:
        _check_fits(read_metadata(path), first, f"{path} and {files[0]}")
    return first


def _check_fits(metadata: ModelMetadata, first: ModelMetadata, which: str) -> None:
    ours, others = asdict(metadata.model), asdict(first.model)
    for name in ("classes", "spacing_mm", "hu_window", "patch"):
        if ours[name] != others[name]:
            raise ValueError(
                f"{which} are no ensemble: {name} is {ours[name]} and {others[name]}; give models trained alike"
            )
    if trained_classes(metadata) != trained_classes(first):
        raise ValueError(
            f"{which} are no ensemble: trained on {', '.join(trained_classes(metadata))} and on "
            f"{', '.join(trained_classes(first))}; give models trained alike"
        )


def tell_progress(progress: PredictionProgress) -> None:
    """Report how far one scan's prediction is, with time left and memory, unless it is soon done."""
    if progress.seconds + progress.seconds_left >= WORTH_A_BAR_S:
        report_progress("windows of a scan", progress.done, progress.windows, progress.left())


def predict_case(
    workspace: Workspace,
    case: Mapping[str, Any],
    checkpoint: Path | Sequence[Path],
    classes: Sequence[str] | None = None,
    *,
    report: Callable[[PredictionProgress], None] = tell_progress,
) -> Prediction:
    """Return the masks of one case of the lake, cleaned; see `predict_raw` and `clean_prediction`."""
    prediction, chosen = predict_raw(workspace, case, checkpoint, classes, report=report)
    image = workspace.lake.open_image(case)
    settings, say = workspace.settings, remarks_on(case)
    return clean_prediction(prediction, chosen, image.affine, lambda: Volume(image.read(), image.affine), settings, say)


def remarks_on(case: Mapping[str, Any]) -> Callable[[str], None]:
    """Return what tells a remark about a case, with its name."""

    def say(remark: str) -> None:
        tell(f"{case['case_id']}: {remark}")

    return say


def predict_raw(
    workspace: Workspace,
    case: Mapping[str, Any],
    checkpoint: Path | Sequence[Path],
    classes: Sequence[str] | None = None,
    *,
    report: Callable[[PredictionProgress], None] = tell_progress,
) -> tuple[Prediction, list[str]]:
    """Return the masks of one case of the lake as the network has them, and their classes; it is read slab by slab.

    checkpoint: one, or several that are an ensemble. classes: None predicts every class the model was trained on. What
    is done when memory runs out is told as a notice, and stands in the scores' remarks, which also come back from
    workers. On a GPU no other process of the factory predicts meanwhile. Raises ValueError when the case lies on
    another grid spacing than the model was trained at.
    """
    checkpoints = [checkpoint] if isinstance(checkpoint, Path) else list(checkpoint)
    with gpu_lock(workspace.settings.torch_device()):
        predictor, metadata = load_predictor(checkpoints, workspace.settings)
        expected = metadata.model.spacing_mm
        if not np.allclose(case["spacing_mm"], expected, rtol=0.01):
            found = [float(mm) for mm in case["spacing_mm"]]
            raise ValueError(
                f"{case['case_id']}: spacing {found} mm, but the model was trained at {list(expected)} mm; "
                f"ingest the cohort with CTFACTORY_SPACING_MM={list(expected)}"
            )

        chosen = list(classes or trained_classes(metadata))
        image = workspace.lake.open_image(case)
        return predictor.predict(image, chosen, report=report, say=remarks_on(case)), chosen


def clean_prediction(
    prediction: Prediction,
    classes: Sequence[str],
    affine: Affine,
    image: Callable[[], Volume],
    settings: Settings,
    say: Callable[[str], None] = tell,
) -> Prediction:
    """Return the prediction with its masks cleaned by the rules of `settings.cleaning`.

    classes: those that were predicted. affine: of the scan. image: gives the whole scan, RAS int16 HU, which is read
    only where there are sides to tell. say: told what could not be done, which joins the scores' remarks.
    """
    switches = rule_switches(settings.cleaning)
    midline_x = body_midline_x(image()) if needs_middle(classes, switches) else None
    cleaned = clean(prediction.bits, classes, affine=affine, midline_x=midline_x, switches=switches)
    for remark in cleaned.remarks:
        say(remark)
    scores = replace(prediction.scores, remarks=(*prediction.scores.remarks, *cleaned.remarks))
    return replace(prediction, bits=cleaned.bits, scores=scores, cleaned=cleaned)


def case_image(workspace: Workspace, case: Mapping[str, Any]) -> Volume:
    """Return the whole image of a case of the lake, int16 HU in RAS."""
    stored: StoredArray = workspace.lake.open_image(case)
    return Volume(stored.read(), stored.affine)
