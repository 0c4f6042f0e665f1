"""The jobs of the learning study: which network learns from what, how it is trained, and how it is scored."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.learning_data import Labels, Study, StudyScan, StudySource, annotated_cases
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.metrics import dice
from models.checkpoint import ModelMetadata, load_model
from models.infer import predict_bits
from models.sampling import window_hu
from models.settings import ModelSettings, TrainSettings, load_preset
from models.train import train
from models.universal import UniversalModel

COLLECTION = ("chaos_ct", "msd_spleen", "pancreas_ct", "kits", "ct_org", "flare23_pool")
"""Sets that each annotate a few classes; every class of the study is annotated by one or two of them."""
CLASSES = (
    "spleen",
    "right_kidney",
    "left_kidney",
    "gall_bladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "postcava",
    "pancreas",
    "right_adrenal_gland",
    "left_adrenal_gland",
    "duodenum",
    "right_lung",
    "left_lung",
    "bladder",
)
"""Organs and vessels that the collection annotates. Lesions are left out: at 6 mm they are a few voxels (note 0003)."""
ADDED = ("stomach", "aorta")
"""Classes that the extended network meets only after it was trained on the others."""
TAIL = (*COLLECTION, "word")
RARE = ("rectum", "left_head_of_femur", "right_head_of_femur")
"""Classes that only the last set of the tail annotates, which gives three scans to train on."""
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Arm:
    """One way to train.

    rarity: as in `TrainSettings`. added: classes met only in a second training. share: of the budget's steps; the
    networks for one set each share them, so that they take no longer together than one network for all.
    """

    name: str
    classes: tuple[str, ...] = CLASSES
    datasets: tuple[str, ...] = COLLECTION
    labels: Labels = "partial"
    rarity: float = 0.0
    added: tuple[str, ...] = ()
    share: float = 1.0

    @property
    def cost(self) -> float:
        """Steps of all its trainings, as a share of the budget's."""
        return self.share * (1.5 if self.added else 1.0)


def arms_of(study: Study) -> dict[str, Arm]:
    """Return every arm by name, in the order in which claims are shown."""
    each = 1 / len(COLLECTION)
    single = [Arm(f"only {name}", _classes_of(study, name), (name,), share=each) for name in COLLECTION]
    long_tail = (*CLASSES, *RARE)
    arms = [
        Arm("partial"),
        Arm("full", labels="full"),
        Arm("naive", labels="naive"),
        Arm("extended", tuple(name for name in CLASSES if name not in ADDED), added=ADDED),
        Arm("tail as it comes", long_tail, TAIL, rarity=-1.0),
        Arm("tail weighted", long_tail, TAIL, rarity=0.5),
        Arm("tail even", long_tail, TAIL),
        *single,
    ]
    return {arm.name: arm for arm in arms}


def _classes_of(study: Study, dataset: str) -> tuple[str, ...]:
    """Return the study's classes that a set annotates in any of its scans."""
    annotated = {name for scan in study.training([dataset]) for name in scan.annotated}
    return tuple(name for name in CLASSES if name in annotated)


@dataclass(frozen=True)
class Job:
    """One arm with one seed; `name` is that of its files."""

    arm: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the job's files."""
        return f"{self.arm.replace(' ', '-')}-{self.seed}"


def all_jobs(study: Study, seeds: Sequence[int] = SEEDS) -> list[Job]:
    """Return all jobs, claim by claim, so that a stop leaves whole claims behind."""
    arms = list(arms_of(study))
    partial, single, tail, extended, shown = arms[:3], arms[7:], arms[4:6], arms[3:4], arms[6:7]
    return [Job(arm, seed) for group in (partial, single, tail, extended, shown) for seed in seeds for arm in group]


@dataclass(frozen=True)
class Budget:
    """What every job is given alike. steps: optimiser steps. batch: patches a step. threads: of the CPU, a job."""

    steps: int
    batch: int
    device: str
    threads: int

    def extension_steps(self) -> int:
        """Return the steps of the second training, of new heads on a frozen network."""
        return max(1, self.steps // 2)


def settings_for(arm: Arm, seed: int, budget: Budget, study: Study) -> tuple[ModelSettings, TrainSettings]:
    """Return the demo's settings with the arm's classes and sampling and its share of the budget's steps."""
    steps = max(1, round(budget.steps * arm.share))
    preset = load_preset(
        "demo",
        model={"classes": arm.classes, "spacing_mm": study.spacing_mm},
        train={
            "steps": steps,
            "batch": budget.batch,
            "warmup": min(50, max(1, steps // 10)),
            "rarity": arm.rarity,
            "seed": seed,
            "device": budget.device,
            "threads": budget.threads,
            "save_every": 100,
        },
    )
    return preset.model, preset.train


def source_for(arm: Arm, study: Study) -> StudySource:
    """Return the patches that an arm learns from."""
    return StudySource(study.training(arm.datasets), arm.classes, arm.labels)


def run_job(job: Job, study: Study, budget: Budget, work: Path) -> dict[str, Any]:
    """Train and score one job and return its row; a job stopped earlier goes on from what `work` holds.

    The row: arm, seed, steps, batch, device, seconds by part, final losses; for each class the training scans that
    annotate it, and its `dsc`: data set -> mean DSC over the held-out scans that show the class, and their number.
    """
    arm = arms_of(study)[job.arm]
    model_settings, train_settings = settings_for(arm, job.seed, budget, study)
    began = time.perf_counter()
    result = train(source_for(arm, study), model_settings, train_settings, work / job.name)
    trained = time.perf_counter()
    model, metadata = load_model(result.checkpoint, budget.device)
    scans = study.held_out(arm.datasets)
    row: dict[str, Any] = {
        "job": job.name,
        "arm": arm.name,
        "seed": job.seed,
        "steps": budget.steps,
        "batch": budget.batch,
        "device": device_name(budget.device),
        "final_losses": {name: round(value, 4) for name, value in result.final_losses.items()},
        "annotated_cases": annotated_cases(study.training(arm.datasets), arm.classes),
        "dsc": score(model, metadata, scans, arm.classes, budget.device),
    }
    if arm.added:
        row["extension"] = extend(arm, job.seed, study, budget, result.checkpoint)
    scored = time.perf_counter()
    row["seconds"] = {"training": round(trained - began, 2), "the rest": round(scored - trained, 2)}
    return row


def extend(arm: Arm, seed: int, study: Study, budget: Budget, checkpoint: Path) -> dict[str, Any]:
    """Add the arm's later classes to its network, train their head alone, and return what came of it.

    classes: the new ones. largest_change: of any logit of an old class, over one window of each held-out scan.
    dsc: of old and new classes, as in `run_job`.
    """
    later = replace(arm, classes=arm.added)
    model_settings, train_settings = settings_for(arm, seed, budget, study)
    model_settings = replace(model_settings, classes=(*arm.classes, *arm.added))
    train_settings = replace(train_settings, steps=budget.extension_steps())
    result = train(
        source_for(later, study), model_settings, train_settings, checkpoint.parent / "extended", start_from=checkpoint
    )
    before, _ = load_model(checkpoint, budget.device)
    after, metadata = load_model(result.checkpoint, budget.device)
    scans = study.held_out(arm.datasets)
    return {
        "classes": list(arm.added),
        "steps": train_settings.steps,
        "largest_change": largest_change(before, after, metadata.model, arm.classes, scans, budget.device),
        "dsc": score(after, metadata, scans, (*arm.classes, *arm.added), budget.device),
    }


@torch.inference_mode()
def largest_change(
    before: UniversalModel,
    after: UniversalModel,
    settings: ModelSettings,
    classes: Sequence[str],
    scans: Sequence[StudyScan],
    device: str,
) -> float:
    """Return the largest difference of any logit of `classes` between two networks, over one window of each scan."""
    source = StudySource(scans, classes, "full")
    largest = 0.0
    for scan in scans:
        start = [(length - size) // 2 for length, size in zip(scan.image.shape, settings.patch, strict=True)]
        image, _, _ = source.read(scan.case_id, (start[0], start[1], start[2]), settings.patch)
        window = window_hu(image, settings.hu_window)[None, None].to(device)  # (1, 1, X, Y, Z)
        difference = before(window, classes) - after(window, classes)  # (1, C, X, Y, Z)
        largest = max(largest, float(difference.abs().max()))
    return largest


def score(
    model: UniversalModel, metadata: ModelMetadata, scans: Sequence[StudyScan], classes: Sequence[str], device: str
) -> dict[str, dict[str, list[float]]]:
    """Return class -> data set -> [mean DSC against the full truth, scans], over the scans that show the class."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in classes}
    for scan in scans:
        predicted = predict_bits(model, metadata, scan.image, device=device, classes=classes)
        for name in classes:
            truth = scan.mask(name)
            if truth.any():
                dsc = dice(truth, get_channel(predicted.bits, class_info(name).channel))
                found[name].setdefault(scan.dataset, []).append(dsc)
    return {
        name: {dataset: [round(sum(each) / len(each), 5), len(each)] for dataset, each in rows.items()}
        for name, rows in found.items()
    }


def device_name(device: str) -> str:
    """Return the name of the device as it is reported."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def write_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Write a job's row to `folder/<job>.json`, aside first, so that a stop leaves no half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{row['job']}.json"
    aside.write_text(json.dumps(row, indent=1), encoding="utf-8")
    aside.replace(folder / f"{row['job']}.json")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of the jobs that are done."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[!.]*.json"))]
