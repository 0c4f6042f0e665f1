"""Which pseudo-labels a training learns from beside human labels, from where, and what it says of them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from catalog.queries import TRUSTED, labels_to_learn
from catalog.splits import twins_between
from models.licence import LICENCE, TERMS
from tasks.licences import strictest
from tasks.splits import ASIDE, HELD_OUT, LeakRefused, SplitChoice, sides
from tasks.workspace import Workspace

Trusted = Literal["accepted", "reviewed"]
PSEUDO_LABELS = "pseudo_labels.json"
"""Artifact of a training run that learnt from pseudo-labels: every annotation, and who made it."""

TOLD = (
    *("case_id", "annotation", "model_name", "model_version", "flow_run_id", "mlflow_run_id"),
    *("licence", "non_commercial"),
)


@dataclass(frozen=True)
class PseudoChoice:
    """What a training asks for. trusted: `accepted`, by the factory or a reviewer, or `reviewed`, by a reviewer alone.

    cohorts: external data sets whose scans enter, by their pseudo-labels alone. Of training sets no name is needed:
    their training cases get pseudo-labels for the classes that nobody annotated there.
    """

    trusted: Trusted
    cohorts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.trusted not in TRUSTED:
            raise ValueError(f"--use-pseudo {self.trusted}: expected {' or '.join(TRUSTED)}")

    @classmethod
    def of(cls, trusted: str | None, cohorts: tuple[str, ...] | list[str] | None) -> PseudoChoice | None:
        """Return the choice of a command's options; None without `trusted`, which cohorts need."""
        if trusted is None:
            if cohorts:
                raise ValueError(
                    f"--pseudo-cohort {', '.join(cohorts)}: found without --use-pseudo, expected --use-pseudo accepted "
                    "or reviewed with it; an external cohort enters training by its pseudo-labels alone"
                )
            return None
        chosen: Any = trusted  # checked when it is built
        return cls(chosen, tuple(dict.fromkeys(cohorts or ())))


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """cases: rows of all training cases, those of the cohorts among them. labels: the pseudo-labels to learn from."""

    cases: pd.DataFrame
    labels: pd.DataFrame


def pseudo_labels_to_learn(
    workspace: Workspace,
    pseudo: PseudoChoice,
    choice: SplitChoice,
    cases: pd.DataFrame,
    at_versions: Mapping[str, int] | None = None,
) -> PseudoLabels:
    """Return the cases to train on with those of the cohorts, and their pseudo-labels.

    cases: rows of the training cases of the split. Raises LookupError for a cohort that is not in the lake or is no
    external one, and when there is no such pseudo-label at all, which says where there are some; LeakRefused when a
    case of a cohort shows a scan that is held out (with `drop_leaking` such cases are left out).
    """
    every = workspace.tables.cases(at_versions=at_versions)
    external = set(every[every["role"] != "train"]["dataset"])
    if strangers := sorted(set(pseudo.cohorts) - external):
        raise LookupError(
            f"--pseudo-cohort {', '.join(strangers)}: not an external cohort of this lake, which holds "
            f"{sorted(external)}; pseudo-labels of training sets are used without naming them"
        )
    side = sides(every, choice)
    added = every[every["dataset"].isin(list(pseudo.cohorts))]
    pairs = twins_between(every, added["case_id"], every["case_id"][side.isin([HELD_OUT, ASIDE])])
    if pairs and not choice.drop_leaking:
        raise LeakRefused(
            f"training would leak: {len(pairs)} of the {len(added)} cases of {', '.join(pseudo.cohorts)} show a scan "
            "that is kept from training (held out or set aside); leave them out with --drop-leaking, or name others",
            pairs,
        )
    added = added[~added["case_id"].isin([one for one, _ in pairs])]
    joined = pd.concat([cases, added[~added["case_id"].isin(cases["case_id"])]], ignore_index=True)
    labels = labels_to_learn(workspace.tables, pseudo.trusted, joined["case_id"], at_versions)
    if labels.empty:
        everywhere = labels_to_learn(workspace.tables, pseudo.trusted, at_versions=at_versions)
        there = everywhere[everywhere["role"] != "train"]["dataset"].unique().tolist()
        remedy = f"; some lie in {', '.join(sorted(there))}: name it with --pseudo-cohort" if there else ""
        raise LookupError(
            f"--use-pseudo {pseudo.trusted}: no such pseudo-label in {len(joined)} training cases; run `ctfactory "
            f"pseudo-label`, or accept some with `ctfactory review accept`{remedy}"
        )
    return PseudoLabels(joined, labels)


def lineage(labels: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry an annotation that is learnt from: case, model, runs, licence, classes; sorted, JSON-able.

    labels: rows of `queries.labels_to_learn`. reviewed: those of the classes that a person looked at.
    """
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(labels, key=lambda row: (row["case_id"], row["annotation"], row["channel"])):
        told = {name: None if pd.isna(row[name]) else row[name] for name in TOLD}
        entry = entries.setdefault((row["case_id"], row["annotation"]), {**told, "classes": [], "reviewed": []})
        entry["classes"].append(row["class_name"])
        if row["reviewed"]:
            entry["reviewed"].append(row["class_name"])
    return list(entries.values())


def makers(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return what identifies the makers of these annotations, for tags: models and runs, separated by commas."""
    models = {f"models:/{one['model_name']}/{one['model_version']}" for one in entries if one["model_name"] is not None}
    runs = {one["flow_run_id"] for one in entries if one["flow_run_id"] is not None}
    return {"pseudo_models": ",".join(sorted(models)), "pseudo_runs": ",".join(sorted(runs))}


def licence_entries(entries: Sequence[Mapping[str, Any]], before: str | None) -> dict[str, str]:
    """Return the licence entries of a checkpoint that learnt from these annotations; {} where they bind nobody.

    before: licence that the weights it begins with have. Masks under a licence without commercial use bind what learns
    from them alike: the strictest of all is taken.
    """
    binding = sorted({one["licence"] or "not known" for one in entries if one["non_commercial"]})
    if not binding:
        return {}
    found = before
    for name in binding:
        found = name if found is None else strictest(found, name).licence
    terms = "non-commercial use only: it learnt from pseudo-labels under " + ", ".join(binding)
    return {LICENCE: found or binding[0], TERMS: terms}
