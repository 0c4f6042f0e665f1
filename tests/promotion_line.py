"""What tests of promotion are made of: a lake of rows with held-out cases, registered versions, evaluations of them.

Everything is real (Delta, a SQLite MLflow, safetensors) but the scores, which are made up; no scan is predicted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pandas as pd
import torch
from catalog_rows import make_case_row, make_label_row

from catalog.splits import TEST
from models.checkpoint import ModelMetadata, save_checkpoint
from models.settings import ModelSettings
from models.text import HashingTextEncoder, embed_classes
from models.universal import build_model
from tasks.evaluation_tables import summary_metrics
from tasks.evidence import ABOUT, EVALUATION_TAG, SCORES
from tasks.registry import TRAINING_CASES, ModelVersion, checkpoint_digest, fetch_checkpoint, register_checkpoint
from tasks.settings import Settings
from tasks.tracking import mlflow_client, tracked_run
from tasks.workspace import Workspace, open_workspace

CLASSES = ("liver", "spleen", "liver_tumor")
HELD_OUT = ("kits/1", "kits/2", "kits/3", "kits/4")
LEARNT = ("kits/5", "kits/6")
COHORT = ("ircadb/1", "ircadb/2")
GATES = """
target: research
cohorts: [ircadb]
groups:
  - {name: organs, kinds: [organ], bars: {dsc: 0.7, nsd: 0.6, worst_dsc: 0.5}}
  - {name: lesions, kinds: [tumour], bars: {sensitivity: 0.5, specificity: 0.5}}
champion: {drop: 0.02}
targets:
  research: {non_commercial: true, offline_encoder: true}
  production: {non_commercial: true, offline_encoder: false}
  commercial: {non_commercial: false, offline_encoder: true}
"""


def make_line(folder: Path, gates: str = GATES) -> Settings:
    """Return settings of a new workspace with four held-out cases, two learnt ones and an external cohort of two."""
    file = folder / "gates.yaml"
    file.write_text(gates)
    settings = Settings(workspace=folder / "work", gates=str(file), operator="tester")
    tables = open_workspace(settings).tables
    for case_id in (*HELD_OUT, *LEARNT, *COHORT):
        add_case(settings, case_id, "external" if case_id in COHORT else "train")
    folds = [(case_id, TEST) for case_id in HELD_OUT] + [(case_id, 0) for case_id in LEARNT]
    deal(settings, folds)
    assert tables.versions()["splits"] > 0
    return settings


def add_case(settings: Settings, case_id: str, role: str = "train", **changes: Any) -> None:
    dataset, native_id = case_id.split("/")
    case = make_case_row(dataset, native_id, fold=None, role=role, licence="CC-BY-4.0", non_commercial=False, **changes)
    open_workspace(settings).tables.commit_case(case, [make_label_row(case, name) for name in CLASSES])


def deal(settings: Settings, folds: Sequence[tuple[str, int]]) -> None:
    tables = open_workspace(settings).tables
    groups = tables.cases().set_index("case_id")["split_group"]
    tables.deal_folds([{"case_id": name, "split_group": groups[name], "fold": fold} for name, fold in folds])


def register(settings: Settings, seed: int = 0, learnt: Sequence[str] = LEARNT, **extra: str) -> ModelVersion:
    """Register an untrained network; `learnt` are the cases it claims to have seen."""
    torch.manual_seed(seed)
    network = ModelSettings(classes=CLASSES, patch=(16, 16, 16))
    rows = embed_classes(HashingTextEncoder(), "V1", network.classes)
    about = ModelMetadata(network, rows.encoder, rows.prompt, rows.digest, extra=extra)
    file = settings.workspace / f"{uuid4().hex}.safetensors"
    save_checkpoint(file, build_model(network, rows), about)
    with tracked_run(settings, "train", kind="train", tags={}):
        mlflow.log_text("\n".join(learnt), TRAINING_CASES)
        return register_checkpoint(file, settings, tags={})


def made_up_scores(case_ids: Sequence[str], dsc: float | Mapping[str, float] = 0.8) -> pd.DataFrame:
    """Return rows of an evaluation: organs, and in every other case a tumour, found. dsc: by class, or of all."""
    rows = []
    for number, case_id in enumerate(case_ids):
        for name in CLASSES:
            score = (dsc if isinstance(dsc, float) else dsc.get(name, 0.8)) + 0.01 * number
            absent = name == "liver_tumor" and number % 2 == 1
            nothing = float("nan") if absent else score
            rows.append(
                {
                    "case_id": case_id,
                    "dataset": case_id.split("/")[0],
                    "class_name": name,
                    "dsc": nothing,
                    "nsd": nothing,
                    "truth_ml": 0.0 if absent else 20.0,
                    "predicted_ml": 0.0 if absent else 19.0,
                    "known_absent": False,
                }
            )
    return pd.DataFrame(rows)


def evaluated(
    settings: Settings,
    model: ModelVersion,
    scores: pd.DataFrame,
    *,
    cohorts: Sequence[str] = (),
    held_out: str = "test",
    tag: bool = True,
    **about: Any,
) -> str:
    """Write an evaluation of `model` down, with files, digests and the row that vouches for them; return its run."""
    workspace = open_workspace(settings)
    with tracked_run(settings, "evaluate", kind="evaluate", tags={"model": model.uri}) as run_id:
        folder = settings.workspace / "aside" / run_id
        folder.mkdir(parents=True)
        scores.to_parquet(folder / SCORES)
        facts = {
            "format": 1,
            "model": {"name": model.name, "version": model.version},
            "weights_sha256": checkpoint_digest(fetch_checkpoint(model, settings)),
            "split": "default",
            "held_out": held_out,
            "cohorts": list(cohorts),
            "table_versions": workspace.tables.versions(),
            "scores_sha256": sha256(folder / SCORES),
            **about,
        }
        (folder / ABOUT).write_text(json.dumps(facts))
        mlflow.log_artifacts(str(folder))
        mlflow.log_metrics(summary_metrics(scores, settings.detection_min_ml))
    record(workspace, run_id, {name: sha256(folder / name) for name in (ABOUT, SCORES)})
    if tag and not cohorts:
        mlflow_client(settings).set_model_version_tag(model.name, str(model.version), EVALUATION_TAG, run_id)
    return run_id


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def record(workspace: Workspace, run_id: str, evidence: Mapping[str, str]) -> None:
    now = datetime.now(UTC)
    workspace.tables.record_run(
        {
            "run_id": uuid4().hex,
            "kind": "evaluate",
            "mlflow_run_id": run_id,
            "started": now,
            "ended": now,
            "outcome": "done",
            "counts": "{}",
            "table_versions": json.dumps(workspace.tables.versions()),
            "evidence": json.dumps(dict(evidence)),
        }
    )


def passing(settings: Settings, seed: int = 0, dsc: float = 0.8, **extra: str) -> ModelVersion:
    """Return a version that passes every gate while nobody is champion, or one whose scores are not above `dsc`."""
    model = register(settings, seed, **extra)
    evaluated(settings, model, made_up_scores(HELD_OUT, dsc))
    evaluated(settings, model, made_up_scores(COHORT, dsc), cohorts=["ircadb"])
    return model
