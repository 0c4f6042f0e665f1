"""Predict one scan: a file, a DICOM folder or a case of the lake; masks come out in the scan's own geometry."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.overlay import overlay_png
from imaging.resample import grid_for, resample_image
from imaging.resample_masks import resample_masks
from models.checkpoint import ModelMetadata
from models.infer import FreeText
from models.infer_progress import PredictionProgress
from models.infer_scan import ArrayScan
from models.licence import LICENCE
from models.text import embed_titles, same_encoder, text_encoder
from tasks.export import export_classes, export_free_text, original_grid
from tasks.notices import tell, tell_licence
from tasks.prediction import case_image, clean_prediction, load_predictor, trained_classes
from tasks.registry import fetch_checkpoint, model_version
from tasks.scan_input import ScanOnGrid, scan_of_path
from tasks.settings import Settings
from tasks.workspace import existing_workspace, row_dicts

PROMPT_COLOUR = "#ffffff"


@dataclass(frozen=True)
class PredictRequest:
    """What to predict and by what.

    scan: path of a NIfTI or NRRD file or of a folder with one DICOM series, or the id of a case in the lake.
    models: models:/NAME@ALIAS and the like, or paths of .safetensors files; several are an ensemble.
    classes: None for all that the model was trained on. prompts: free texts to look for besides, experimental.
    text_encoder: None for the one the checkpoint names. out: folder for the files, None for WORKSPACE/predictions/ID.
    """

    scan: str
    models: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    prompts: tuple[str, ...] = ()
    text_encoder: str | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Found:
    """One class or free text in the scan: its volume, and the mean probability inside it (nan where it is empty)."""

    name: str
    ml: float
    mean_probability: float
    experimental: bool
    file: Path


@dataclass(frozen=True)
class PredictOutcome:
    """What was found in a scan, and the files written."""

    scan: str
    models: tuple[str, ...]
    found: tuple[Found, ...]
    segmentation: Path | None
    overlay: Path
    remarks: tuple[str, ...]
    seconds: float


def predict_scan(
    request: PredictRequest, settings: Settings, report: Callable[[PredictionProgress], None] | None = None
) -> PredictOutcome:
    """Predict one scan and write `segmentation.nii.gz`, its .json, `overlay.png` and a mask for each free text.

    A scan on another grid than the model's is resampled there, and its masks back. report: see `Predictor.stream`.
    Raises BadInput for a scan that cannot be CT, KeyError for an unknown class with the nearest ones, ValueError for
    prompts that the model's text encoder did not make and for a folder of several scans, FileNotFoundError.
    """
    started = time.monotonic()
    labels, checkpoints = zip(*(_checkpoint(model, settings) for model in request.models), strict=True)
    predictor, metadata = load_predictor(checkpoints, settings)
    classes = _classes(request, metadata)
    free_text = _free_text(request, metadata, settings)
    scan = _read(request.scan, metadata.model.spacing_mm, settings)
    prediction = predictor.predict(ArrayScan(scan.image.array), classes, free_text, report=report, say=tell)
    prediction = clean_prediction(prediction, classes, scan.image.affine, lambda: scan.image, settings)
    target = request.out or settings.workspace.absolute() / "predictions" / scan.name
    about = {
        "scan": scan.name,
        "models": list(labels),
        "spacing_mm": list(metadata.model.spacing_mm),
        "scan_licence": scan.licence,
        "model_licence": metadata.extra.get(LICENCE),
        "note": "made by a model, not by an annotator",
    }
    by_words = {**about, "text_encoder": metadata.encoder, "prompt": metadata.prompt}
    bits = resample_masks(prediction.bits, scan.image.affine, scan.original)
    channels = prediction.scores.channels
    segmentation = export_classes(bits, scan.original, classes, target, about) if classes else None
    files: dict[str, Path | None] = dict.fromkeys(classes, segmentation)
    for text in request.prompts:
        files[text] = export_free_text(bits, scan.original, channels[text], text, target, by_words)
    del bits
    shown = {channels[name]: (class_info(name).title, class_info(name).colour) for name in classes}
    shown |= {channels[text]: (f"{text} (experimental)", PROMPT_COLOUR) for text in request.prompts}
    title = f"{scan.name}, {', '.join(labels)}"
    overlay = overlay_png(scan.image, prediction.bits, shown, target / "overlay.png", title)
    found = tuple(
        Found(
            name,
            float(get_channel(prediction.bits, channels[name]).sum()) * scan.image.voxel_ml,
            prediction.mean_prob[name],
            name in request.prompts,
            file,
        )
        for name, file in files.items()
        if file is not None
    )
    seconds = time.monotonic() - started
    return PredictOutcome(scan.name, labels, found, segmentation, overlay, prediction.scores.remarks, seconds)


def _checkpoint(model: str, settings: Settings) -> tuple[str, Path]:
    """Return how a model is called in what is written, and its checkpoint."""
    if model.endswith(".safetensors"):
        tell_licence(Path(model).name, Path(model))
        return Path(model).name, Path(model).absolute()
    version = model_version(model, settings)
    return version.uri, fetch_checkpoint(version, settings)


def _classes(request: PredictRequest, metadata: ModelMetadata) -> list[str]:
    known = trained_classes(metadata)
    if request.classes is None:
        return list(known)
    wanted = list(metadata.model.select(request.classes))
    untrained = [name for name in wanted if name not in known]
    if untrained:
        raise ValueError(f"the model was not trained on {', '.join(untrained)}; it was trained on {', '.join(known)}")
    return wanted


def _free_text(request: PredictRequest, metadata: ModelMetadata, settings: Settings) -> FreeText | None:
    """Return the embeddings of the prompts by the encoder that made the model's own."""
    if not request.prompts:
        return None
    for text in request.prompts:
        if text in metadata.model.classes or not text.strip():
            raise ValueError(f"--prompt {text!r}: a class of the model, or nothing; ask for classes by --classes")
    if len(set(request.prompts)) != len(request.prompts):
        raise ValueError(f"--prompt: {', '.join(request.prompts)} repeats a text; give each once")
    if metadata.model.text_encoder in ("one_hot", "random"):
        raise ValueError(
            f"--prompt: the model's text encoder is {metadata.model.text_encoder!r}, which knows no words; use a model "
            "trained with hashing or open_clip"
        )
    encoder = text_encoder(request.text_encoder or metadata.model.text_encoder)
    if not same_encoder(encoder.id, metadata.encoder):
        raise ValueError(
            f"--prompt: text encoder {encoder.id!r}, but the model's classes were embedded by {metadata.encoder!r}; "
            "name that one by --text-encoder"
        )
    rows = embed_titles(encoder, metadata.prompt, list(request.prompts), settings.workspace / "embeddings")
    return FreeText(request.prompts, rows)


def _read(scan: str, spacing_mm: tuple[float, float, float], settings: Settings) -> ScanOnGrid:
    path = Path(scan)
    if path.exists():
        return scan_of_path(path, spacing_mm)
    try:
        workspace = existing_workspace(settings)
        case = row_dicts(workspace.tables.cases(case_ids=[scan]))[0]
    except (FileNotFoundError, IndexError):
        raise FileNotFoundError(
            f"{scan}: no such file or folder, and no such case in the lake {settings.lake}; give a NIfTI or NRRD file, "
            "a folder with one DICOM series, or a case id (`ctfactory catalog cases`)"
        ) from None
    image = case_image(workspace, case)
    if not np.allclose(image.spacing_mm, spacing_mm, rtol=0.01):
        image = resample_image(image, grid_for(image, spacing_mm))
    return ScanOnGrid(scan, image, original_grid(case), str(case["licence"]))
