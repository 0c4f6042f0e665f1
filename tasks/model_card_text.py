"""A model card as Markdown, in the sections that model cards have (Mitchell et al., FAT* 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from datasets_registry.taxonomy import class_info
from models.licence import ATTRIBUTION, LICENCE, TERMS
from tasks.licences import LabelLicence, joined, licence_of
from tasks.registry import ModelVersion
from tasks.report import markdown_table
from tasks.training_data import row_licences

FEW_CASES = 10
"""A class that fewer cases annotate is named among the limits."""
DASH = "–"
INTENDED_USE = (
    "Masks of organs and lesions in CT of the adult abdomen, for research and for labels that people review. Not a "
    "medical device: no diagnosis, no treatment and no measurement of a patient may rest on its masks alone. Not for "
    "MR, cone-beam CT, children, or images that are not in HU."
)


@dataclass(frozen=True, eq=False)
class CardFacts:
    """What is known of a version.

    about: of its network, as `model_files.describe`. made_by: tags and parameters of its run. data: one row a data
    set. annotated: one row a class, None where nobody counted. evaluated: metrics of its evaluation on held-out cases,
    None before one. cohorts: the data sets and metrics of its other evaluations, by run. calibrated: metrics.
    """

    version: ModelVersion
    tags: Mapping[str, str]
    about: Mapping[str, Any]
    kind: str
    made_by: Mapping[str, str]
    cases: int | None
    data: pd.DataFrame
    annotated: pd.DataFrame | None
    evaluated: Mapping[str, float] | None
    evaluation: Mapping[str, Any]
    cohorts: Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]]
    calibrated: Mapping[str, float] | None


def card_text(facts: CardFacts) -> str:
    """Return the card: what the model is, is for and is not for, then what it was made from and how it did."""
    sections = [
        ("Intended use", INTENDED_USE),
        ("Limits", "\n".join(f"- {limit}" for limit in _limits(facts))),
        ("Licence", _licence(facts)),
        ("Figures", _figures(facts)),
        ("Training data", _data(facts)),
        ("Classes", _classes(facts)),
        ("Calibration", _calibration(facts)),
        ("Preprocessing and text embeddings", _preprocessing(facts.about)),
        ("Lineage", _lineage(facts)),
    ]
    head = f"# {facts.version.uri}\n\n{_summary(facts)}\n"
    return head + "".join(f"\n## {title}\n\n{text}\n" for title, text in sections)


def shortened(text: str, length: int, where: str) -> str:
    """Return whole sections of `text`, as many as fit into `length` characters, and a line that says where the rest is.

    where: words for that line.
    """
    if len(text) <= length:
        return text
    end = f"\n*Shortened: {where}.*\n"
    parts = text.split("\n## ")
    kept = parts[0]
    for part in parts[1:]:
        if len(kept) + len(part) + len("\n## ") + len(end) <= length:
            kept += "\n## " + part
    return kept[: length - len(end)] + end


def _summary(facts: CardFacts) -> str:
    trained, outputs = len(_trained(facts.about)), len(facts.about["classes"])
    members = len(facts.about["files"])
    network = f"`{facts.about['backbone']}` network" + (f", {members} members that predict together" * (members > 1))
    counts = {
        "classes": str(trained) if trained == outputs else f"{trained} of {outputs} outputs",
        "made by": f"`{facts.kind}`",
        "data sets": str(len(facts.data)),
        "cases": "not known" if facts.cases is None else str(facts.cases),
        "steps": str(facts.about["steps"]),
        "aliases": ", ".join(f"`{alias}`" for alias in facts.version.aliases) or "none",
    }
    return (
        f"Organs and lesions in abdominal CT by a {network} with text-driven heads (CLIP-Driven Universal Model, Liu "
        f"et al., ICCV 2023). {'; '.join(f'{name}: {value}' for name, value in counts.items())}."
    )


def _limits(facts: CardFacts) -> list[str]:
    limits = []
    if facts.about["text"] and any(one["stand_in"] for one in facts.about["text"]):
        limits.append(
            "Its class embeddings come from an **offline stand-in** for CLIP, which knows nothing of language: the "
            "text branch tells classes apart, no more."
        )
    if untrained := [one["name"] for one in facts.about["classes"] if not one["trained"]]:
        limits.append(f"No case annotated {_list(untrained)}: these outputs mean nothing.")
    if facts.annotated is not None:
        people = facts.annotated
        few = people[(people["annotated"] < FEW_CASES)]
        if len(few):
            named = [f"{row['class_name']} ({row['annotated']})" for row in few.to_dict("records")]
            limits.append(f"Annotated in fewer than {FEW_CASES} cases: {_list(named)}.")
        absent = [row["class_name"] for row in people.to_dict("records") if not row["present"] and not row["pseudo"]]
        if absent:
            limits.append(f"Annotated, but present in no case it learnt from: {_list(absent)}.")
    if facts.evaluated is None:
        limits.append("**Not evaluated on held-out cases**: how well it does is not known.")
    elif silent := [name for name in _trained(facts.about) if f"dsc/{name}" not in facts.evaluated]:
        limits.append(f"Not measured on held-out cases: {_list(silent)}.")
    if not facts.cohorts:
        limits.append("No evaluation on a cohort from elsewhere: how it does on other scanners is not known.")
    if facts.calibrated is None:
        limits.append("Not calibrated: its probabilities are no estimate of quality, and no mask is accepted unseen.")
    return limits


def model_licence(facts: CardFacts) -> LabelLicence:
    """Return the strictest licence of the weights a model began with and of all data it was trained on."""
    stated = facts.about["licence"].get(LICENCE)
    parts = [] if stated is None else [licence_of(stated, what="weights")]
    parts += row_licences(facts.data)
    return joined(parts or [licence_of(None, None, "data")])


def _licence(facts: CardFacts) -> str:
    strictest, weights = model_licence(facts), facts.about["licence"]
    commercial = {True: "forbidden", False: "allowed", None: "not known, so not allowed"}[strictest.non_commercial]
    text = f"Strictest of data and weights: **{strictest.licence or 'not known'}**; commercial use: {commercial}."
    if LICENCE in weights:
        terms = f", {weights[TERMS]}" if TERMS in weights else ""
        credit = f" Weights by {weights[ATTRIBUTION]}." if ATTRIBUTION in weights else ""
        text += f" It began with weights under {weights[LICENCE]}{terms}.{credit}"
    return text


def _figures(facts: CardFacts) -> str:
    parts = [_held_out_figures(facts)]
    for run_id, (cohorts, found) in facts.cohorts.items():
        known = {name: found[name] for name in ("mean_organ_dsc", "mean_organ_nsd", "mean_lesion_dsc") if name in found}
        told = ", ".join(f"{name} {value:.3f}" for name, value in known.items()) or "see the run"
        parts.append(f"Other cases of {_list(cohorts)}, run `{run_id}`: {told}.")
    return "\n\n".join(parts)


def _held_out_figures(facts: CardFacts) -> str:
    if facts.evaluated is None:
        return "None on held-out cases: `ctfactory evaluate` measures them."
    metrics, datasets = facts.evaluated, facts.evaluation.get("datasets", {})
    cases = f"{sum(datasets.values())} cases of {_list(sorted(datasets))}" if datasets else "held-out cases"
    rows = []
    for name in [one["name"] for one in facts.about["classes"]]:
        if not any(f"{figure}/{name}" in metrics for figure in ("dsc", "nsd", "sensitivity", "specificity")):
            continue
        row = {"class": class_info(name).title, "DSC": _interval(metrics, "dsc", name)}
        row |= {"NSD": _interval(metrics, "nsd", name)}
        row |= {figure: _figure(metrics, f"{figure}/{name}") for figure in ("sensitivity", "specificity")}
        rows.append(row)
    summary = ", ".join(f"{name} {value:.3f}" for name, value in sorted(metrics.items()) if "/" not in name)
    parts = [
        f"On {cases} (held out: {facts.evaluation.get('held_out', 'not known')}), run "
        f"`{facts.tags['evaluation_run_id']}`; in brackets the 95 % interval over patients.",
        markdown_table(pd.DataFrame(rows)) if rows else "",
        f"Over classes: {summary}." if summary else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _interval(metrics: Mapping[str, float], figure: str, name: str) -> str:
    low, high = metrics.get(f"{figure}_low/{name}"), metrics.get(f"{figure}_high/{name}")
    around = "" if low is None or high is None else f" ({low:.3f}–{high:.3f})"
    return _figure(metrics, f"{figure}/{name}") + around


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3f}" if name in metrics else DASH


def _data(facts: CardFacts) -> str:
    barred = {True: "yes", False: "no"}
    rows = [
        {
            "data set": row["title"] if isinstance(row["title"], str) else row["dataset"],
            "licence": row["licence"] if isinstance(row["licence"], str) else "not stated",
            "non-commercial": "not stated" if pd.isna(row["non_commercial"]) else barred[bool(row["non_commercial"])],
            "cases": DASH if pd.isna(row["cases"]) else str(row["cases"]),
        }
        for row in facts.data.to_dict("records")
    ]
    return markdown_table(pd.DataFrame(rows)) if rows else "Not known."


def _classes(facts: CardFacts) -> str:
    if facts.annotated is None:
        names = [one["title"] for one in facts.about["classes"] if one["trained"]]
        return f"Trained on: {_list(names)}. How many cases annotate each is told by the runs it was made from."
    table = facts.annotated.assign(class_name=[class_info(name).title for name in facts.annotated["class_name"]])
    titles = {
        "class_name": "class",
        "annotated": "cases annotated",
        "present": "of these present",
        "pseudo": "cases with a pseudo-label",
    }
    return markdown_table(table.rename(columns=titles))


def _calibration(facts: CardFacts) -> str:
    if facts.calibrated is None:
        return "None: `ctfactory calibrate` fits one on held-out cases."
    told = ", ".join(f"{name} {value:.3f}" for name, value in sorted(facts.calibrated.items()))
    return f"Run `{facts.tags['calibration_run_id']}`: {told or 'no figures'}."


def _preprocessing(about: Mapping[str, Any]) -> str:
    how = about["preprocessing"]
    spacing = " x ".join(f"{one:g}" for one in how["spacing_mm"])
    low, high = how["hu_window"]
    lines = [
        f"Orientation {how['orientation']}, spacing {spacing} mm, HU {low:g} to {high:g} mapped to 0 and 1, windows of "
        f"{' x '.join(str(one) for one in how['patch_voxels'])} voxels; {how['interpolation']}."
    ]
    for one in about["text"]:
        stand_in = " (**offline stand-in, not CLIP**)" if one["stand_in"] else ""
        lines.append(
            f"Text encoder `{one['encoder']}`{stand_in}, prompt {one['prompt']}, {len(one['classes'])} classes, "
            f"SHA-256 of the rows `{one['embeddings_sha256'][:16]}`."
        )
    return "\n\n".join(lines)


def _lineage(facts: CardFacts) -> str:
    made, tags = facts.made_by, facts.tags
    dirty = " with changes that are not committed" if made.get("code_dirty") == "true" else ""
    rows = {
        "MLflow run": facts.version.run_id,
        "flow run": made.get("flow_run_id"),
        "went on from": made.get("start_from"),
        "members": tags.get("members"),
        "pseudo-labels by": made.get("pseudo_models"),
        "pseudo-label runs": made.get("pseudo_runs"),
        "source": tags.get("source"),
        "held out": made.get("held_out"),
        "table versions": made.get("table_versions"),
        "code": f"{made.get('code_version', 'not known')}, {made.get('mlflow.source.git.commit', 'no commit')}{dirty}",
        "weights SHA-256": tags.get("weights_sha256", "not recorded"),
    }
    return "\n".join(f"- {name}: `{value}`" for name, value in rows.items() if value)


def _trained(about: Mapping[str, Any]) -> list[str]:
    return [str(one["name"]) for one in about["classes"] if one["trained"]]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
