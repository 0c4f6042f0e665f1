"""Score rows as tables: per data set and class, per stratum, side by side with another model; and the summary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from datasets_registry.taxonomy import all_classes
from tasks.detection import detection_table, with_every_column
from tasks.evaluate_case import FIGURES, NOT_KNOWN
from tasks.statistics import bootstrap_mean_of_means, bootstrap_means, holm, paired_comparison

SLICE_MM = (1.5, 3.0, 5.0)
LESION_ML = (1.0, 10.0)
STRATA = ("role", "slices", "lesion size", "contrast", "scanner")
SURFACES = ("hd95_mm", "asd_mm")


def _order() -> dict[str, int]:
    """Return the place of each class, one's own among them, which a constant of the module would miss."""
    return {info.name: info.index for info in all_classes()}


def class_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of every figure per data set and class, in class order, with 95 % intervals over patients.

    Beside the means stand the cases they leave out: `scored` counts those with a DSC and an NSD, `both_empty` those
    where truth and prediction are (both NaN), `surfaces` those with distances (neither mask empty), `not_annotated`
    cases of the data set where nobody looked. `cases` = scored + both_empty.
    """
    return _mean_table(scores[~scores["known_absent"].astype(bool)], scores, "dataset")


def pooled_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return `class_table` over all data sets together."""
    pooled = scores.assign(dataset="all")
    return _mean_table(pooled[~pooled["known_absent"].astype(bool)], pooled, "dataset").drop(columns="dataset")


def strata_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return means per stratum and class: by role, slice distance, size of the largest lesion, contrast and scanner.

    A case whose row does not say is in the stratum `not known`; none is left out.
    """
    scored = scores[~scores["known_absent"].astype(bool)]
    tables: list[pd.DataFrame] = []
    whole: pd.DataFrame | None = None  # a question that parts nothing has the answers of all rows, worked out once
    for kind in STRATA:
        stratum = _stratum(scored, kind)
        inside = scored[stratum.notna()].assign(stratum=stratum.dropna())
        if inside.empty:
            continue
        parts_nothing = len(inside) == len(scored) and inside["stratum"].nunique() == 1
        if parts_nothing and whole is not None:
            table = whole.assign(stratum=inside["stratum"].iloc[0])
        else:
            table = _mean_table(inside, inside, "stratum", figures=("dsc", "nsd"))
            whole = table if parts_nothing else whole
        tables.append(table.drop(columns="not_annotated").assign(by=kind))
    if not tables:
        return pd.DataFrame(columns=["by", "stratum", "class_name", "cases", "scored", "both_empty", "dsc", "nsd"])
    together = pd.concat(tables, ignore_index=True)
    return together[["by", *(name for name in together.columns if name != "by")]]


def _stratum(scores: pd.DataFrame, kind: str) -> pd.Series:
    """Return the stratum of each row; None where the question does not arise."""
    if kind == "slices":
        return _band(scores["slice_mm"], SLICE_MM, "mm")
    if kind == "lesion size":
        sizes = _band(scores["largest_lesion_ml"], LESION_ML, "ml")
        none = scores["largest_lesion_ml"] == 0
        return sizes.mask(none, "no lesion").where(scores["largest_lesion_ml"].notna(), None)
    return scores[kind].fillna(NOT_KNOWN)


def _band(values: pd.Series, edges: Sequence[float], unit: str) -> pd.Series:
    names = [
        f"to {edges[0]:g} {unit}",
        *(f"over {low:g} to {high:g} {unit}" for low, high in itertools.pairwise(edges)),
        f"over {edges[-1]:g} {unit}",
    ]
    place = np.searchsorted(edges, values.to_numpy(dtype=float))
    found = pd.Series([names[index] for index in place], index=values.index, dtype=object)
    return found.where(values.notna(), NOT_KNOWN)


def _mean_table(scored: pd.DataFrame, every: pd.DataFrame, key: str, figures: Sequence[str] = FIGURES) -> pd.DataFrame:
    cases = every.groupby(key)["case_id"].nunique()
    scored = scored.assign(patient=pd.factorize(scored["patient"])[0])  # numbers are compared faster than names
    rows = []
    for (value, name), part in scored.groupby([key, "class_name"]):
        row = {
            key: value,
            "class_name": name,
            "cases": len(part),
            "scored": int(part["dsc"].notna().sum()),
            "both_empty": int(part["dsc"].isna().sum()),
            "not_annotated": int(cases.loc[str(value)]) - part["case_id"].nunique(),
        }
        if set(SURFACES) <= set(figures):
            row["surfaces"] = int(part[SURFACES[0]].notna().sum())
        intervals = bootstrap_means(part[list(figures)].to_numpy(dtype=float), part["patient"].to_numpy())
        for figure, interval in zip(figures, intervals, strict=True):
            row |= {figure: interval.mean, f"{figure}_low": interval.low, f"{figure}_high": interval.high}
        rows.append(row)
    table = pd.DataFrame(rows)
    if table.empty:
        columns = [key, "class_name", "cases", "scored", "both_empty", "not_annotated", "surfaces"]
        return pd.DataFrame(columns=[*columns, *(f + e for f in figures for e in ("", "_low", "_high"))])
    order = table["class_name"].map(_order())
    return table.assign(order=order).sort_values([key, "order"]).drop(columns="order").reset_index(drop=True)


def generalisation_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row a data set: its role, its cases, the mean over its organ classes of the mean DSC and NSD with
    intervals, and the mean DSC of every class; as the paper compares cohorts its models have not seen."""
    organs = [info.name for info in all_classes() if not info.is_lesion]
    scored = scores[~scores["known_absent"].astype(bool)]
    rows = []
    for dataset, part in scored.groupby("dataset"):
        row: dict[str, object] = {
            "dataset": dataset,
            "role": part["role"].iloc[0],
            "cases": part["case_id"].nunique(),
        }
        of_organs = part[part["class_name"].isin(organs)]
        for figure in ("dsc", "nsd"):
            wide = of_organs.pivot_table(index=["case_id", "patient"], columns="class_name", values=figure)
            interval = bootstrap_mean_of_means(wide.to_numpy(), wide.index.get_level_values("patient").tolist())
            row |= {f"organ_{figure}": interval.mean}
            row |= {f"organ_{figure}_low": interval.low, f"organ_{figure}_high": interval.high}
        means = part.groupby("class_name")["dsc"].mean()
        rows.append(row | {name: means[name] for name in sorted(means.index, key=_order().__getitem__)})
    return pd.DataFrame(rows)


def comparison_table(a: pd.DataFrame, b: pd.DataFrame, figure: str = "dsc") -> pd.DataFrame:
    """Return per class how model `a` differs from `b` on the cases both were scored on.

    difference: mean of a - b with its 95 % interval; low above 0: a is better (for DSC and NSD). p_wilcoxon and
    p_bootstrap: see `Comparison`; p_holm: p_wilcoxon adjusted for the number of classes. scored: cases with both;
    one_only: cases where only one of the two has a figure, which no pair can count.
    """
    keys = ["case_id", "dataset", "class_name", "patient"]
    parts = [one[~one["known_absent"].astype(bool)][[*keys, figure]] for one in (a, b)]
    pairs = parts[0].merge(parts[1], on=keys, how="outer", suffixes=("_a", "_b"))
    rows = []
    for name, part in pairs.groupby("class_name"):
        ours, theirs = part[f"{figure}_a"].to_numpy(dtype=float), part[f"{figure}_b"].to_numpy(dtype=float)
        both = np.isfinite(ours) & np.isfinite(theirs)
        found = paired_comparison(ours, theirs, part["patient"].tolist())
        rows.append(
            {
                "class_name": name,
                "scored": int(both.sum()),
                "one_only": int((np.isfinite(ours) ^ np.isfinite(theirs)).sum()),
                "patients": found.difference.n,
                "a": float(ours[both].mean()) if both.any() else float("nan"),
                "b": float(theirs[both].mean()) if both.any() else float("nan"),
                "difference": found.difference.mean,
                "low": found.difference.low,
                "high": found.difference.high,
                "p_bootstrap": found.p_bootstrap,
                "p_wilcoxon": found.p_wilcoxon,
            }
        )
    table = pd.DataFrame(rows).sort_values("class_name", key=lambda names: names.map(_order())).reset_index(drop=True)
    return table.assign(p_holm=holm(table["p_wilcoxon"].to_numpy()))


def summary_metrics(scores: pd.DataFrame, min_ml: float) -> dict[str, float]:
    """Return the figures the gates look at; a figure nothing was measured for is left out.

    mean_organ_dsc/nsd: mean over organ classes (lesions left out) of each class's mean over all its scored cases, so
    that a class annotated in many cases does not outweigh a rare one; _low and _high: its 95 % interval.
    """
    organs = [info.name for info in all_classes() if not info.is_lesion]
    scores = with_every_column(scores)
    of_organs = scores[scores["class_name"].isin(organs)]
    per_class = of_organs.groupby("class_name")[["dsc", "nsd"]].mean()
    detection = detection_table(scores, min_ml)
    figures = {
        "mean_organ_dsc": per_class["dsc"].mean(),
        "mean_organ_nsd": per_class["nsd"].mean(),
        "worst_organ_dsc": per_class["dsc"].min(),
        "mean_lesion_dsc": scores[~scores["class_name"].isin(organs)].groupby("class_name")["dsc"].mean().mean(),
        "sensitivity": detection["sensitivity"].mean(),
        "specificity": detection["specificity"].mean(),
    }
    for figure in ("dsc", "nsd"):
        if of_organs[figure].notna().any():
            wide = of_organs.pivot_table(index=["case_id", "patient"], columns="class_name", values=figure)
            interval = bootstrap_mean_of_means(wide.to_numpy(), wide.index.get_level_values("patient").tolist())
            figures |= {f"mean_organ_{figure}_low": interval.low, f"mean_organ_{figure}_high": interval.high}
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for people: `dsc`, `dsc_low` and `dsc_high` become one text `0.931 [0.915, 0.944]`."""
    columns: dict[str, object] = {}
    for name in table.columns:
        low, high = f"{name}_low", f"{name}_high"
        if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in table.columns:
            continue
        if low in table.columns and high in table.columns:
            columns[name] = [
                _interval_text(*values) for values in zip(table[name], table[low], table[high], strict=True)
            ]
        else:
            columns[name] = table[name]
    return pd.DataFrame(columns, index=table.index)


def brief_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """Return what a terminal has room for of `class_table`."""
    return shown(classes)[["dataset", "class_name", "scored", "dsc", "nsd"]]


def brief_detection(detection: pd.DataFrame) -> pd.DataFrame:
    """Return what a terminal has room for of `detection_table`."""
    return shown(detection)[["class_name", "positives", "negatives", "sensitivity", "specificity", "f1"]]


def _interval_text(mean: float, low: float, high: float) -> str:
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.3f}" if not np.isfinite(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"
