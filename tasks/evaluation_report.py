"""The page of an evaluation: headline figures, tables with intervals, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from tasks.efficiency import Efficiency
from tasks.evaluation_tables import shown
from tasks.report import Picture, Report, Section

INTERVALS = (
    "In brackets: 95 % percentile bootstrap intervals over patients; of sensitivity and specificity, Wilson's. A class "
    "is scored where annotators looked for it. Both empty: truth and prediction hold nothing, which is no score."
)


def evaluation_report(
    model: str,
    summary: Mapping[str, float],
    tables: Mapping[str, pd.DataFrame],
    cost: Efficiency,
    pictures: Sequence[Picture],
    facts: Mapping[str, str],
) -> Report:
    """Return the report of one evaluation; tables: those of `log_evaluation`, by name."""
    by_name = {picture.path.stem: picture for picture in pictures}
    charts = ("class_scores", "boxes", "roc", "efficiency", "comparison", "reliability")
    overlays = [picture for name, picture in by_name.items() if name not in charts]
    worst = tuple(picture for picture in overlays if picture.path.stem.startswith("worst_"))
    samples = tuple(picture for picture in overlays if not picture.path.stem.startswith("worst_"))
    sections = [
        Section(
            "Per class",
            INTERVALS,
            (("All data sets together", shown(tables["pooled"])), ("Per data set", shown(tables["classes"]))),
            _named(by_name, "boxes", "class_scores"),
        ),
        Section("Cohorts", "", (("Mean over organ classes, and DSC of each class", shown(tables["generalisation"])),)),
        Section(
            "Lesions",
            "Per patient from the volume limit on, and lesion by lesion. AUC: of the mean probability in the mask. "
            "The chosen limit is optimistic where it was chosen on the cases it is reported on.",
            (("", shown(tables["detection"])),),
            _named(by_name, "roc"),
        ),
    ]
    if "comparison" in tables:
        sections.append(
            Section(
                "Side by side",
                "a is this model, b the other; differences of the same cases, p-values of the signed-rank test.",
                (("", tables["comparison"]),),
                _named(by_name, "comparison"),
            )
        )
    if "protocol" in tables:
        sections.append(
            Section(
                "By the challenge's protocol",
                f"On the original grid; truth: {', '.join(sorted(set(tables['protocol_cases'].get('truth', []))))}.",
                (("", shown(tables["protocol"])),),
            )
        )
    sections += [
        Section("Strata", "Not known: the catalog does not keep it.", (("", shown(tables["strata"])),)),
        Section("Worst cases", "Filled: prediction; lines: annotators.", pictures=worst),
        Section("One case of each data set", "", pictures=samples),
        Section("Cost", f"On {cost.device}.", (("", cost.table()),), _named(by_name, "efficiency")),
    ]
    if "reliability" in by_name:
        sections.append(Section("Reliability", "", pictures=_named(by_name, "reliability")))
    figures = {
        "mean organ DSC": _interval(summary, "mean_organ_dsc"),
        "mean organ NSD": _interval(summary, "mean_organ_nsd"),
        "sensitivity / specificity": f"{_number(summary, 'sensitivity')} / {_number(summary, 'specificity')}",
        "cases": str(sum(tables["generalisation"]["cases"])),
        "TFLOP a scan": f"{cost.tflops_per_scan:.2f}",
    }
    return Report(f"Evaluation of {model}", figures, tuple(sections), dict(facts))


def _named(by_name: Mapping[str, Picture], *names: str) -> tuple[Picture, ...]:
    return tuple(by_name[name] for name in names if name in by_name)


def _number(summary: Mapping[str, float], name: str) -> str:
    return f"{summary[name]:.3f}" if name in summary else "–"


def _interval(summary: Mapping[str, float], name: str) -> str:
    if f"{name}_low" not in summary:
        return _number(summary, name)
    return f"{summary[name]:.3f} [{summary[f'{name}_low']:.3f}, {summary[f'{name}_high']:.3f}]"
