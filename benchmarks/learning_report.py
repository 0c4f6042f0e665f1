"""Writes `docs/learning.md`, its picture and the rows both are made from."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.learning_claims import Claim, Figure, Row, Rows, all_claims, class_dsc, rarest, tail_changes, title
from benchmarks.learning_jobs import read_rows
from benchmarks.learning_picture import draw

KEPT = "learning.json"
PAGE = "learning.md"
PICTURE = "pictures/learning.png"
INTRODUCTION = """# What the network learns from partial labels, shown on miniatures

Phantoms of the miniature data sets on a 6 mm grid, whose full truth is known and hidden from training. {sets}
Every figure is a mean over seeds (network and patches; the scans stay) with its standard deviation; scores are DSC
against the full truth on held-out patients of every set, a mean over classes of each class's mean over the scans that
show it. Phantoms are far more alike than patients: these figures compare ways of training, they do not forecast a score
on real scans.

![Figures of the study](pictures/learning.png)
"""
SETS = """Six sets with the classes
that their cards say: CHAOS (liver), MSD spleen, Pancreas-CT (pancreas), KiTS (kidneys), CT-ORG (liver, kidneys, lungs,
bladder), and those cases of FLARE23's pool that hold vessels, adrenals and bowel. The long tail adds three scans of
WORD, the only ones with a rectum and femoral heads. Lesions are left out: at 6 mm they are a few voxels (note 0003)."""
REPRODUCE = """## How to repeat it

```
python -m benchmarks.learning prepare build/learning.npz   # the scans, minutes
python -m benchmarks.learning run build/learning.npz --out build/learning {options}
python -m benchmarks.learning report build/learning        # this page, its picture, and learning.json
```

This page: {jobs} trainings of {steps} steps of {batch} patches of 48 x 48 x 48 voxels, {places}; the
first take {seconds:.0f} s each in the median with others beside them. On two CPU cores (`--device cpu`) a training of
600 steps of 2 patches takes two minutes.
A run that was stopped goes on where it was; `--only partial full --seeds 0` runs a part.
"""
ARMS = """## The ways of training

| name | what differs |
| --- | --- |
| partial | the masked loss on what each set annotates |
| full | the same network, steps and patches, every class annotated in every scan |
| naive | what a set does not annotate counts as background |
| only ... | one network for each set, with its classes only; all of them together get the steps of the one |
| extended | trained without stomach and aorta; these then get a head of their own, half the steps, all else frozen |
| tail as it comes | `rarity: -1`: a class is drawn as often as scans show it |
| tail even | `rarity: 0`, the default: classes alike |
| tail weighted | `rarity: 0.5`: a class counts by one over the root of the scans that show it |
"""


def write_report(folder: Path | None, docs: Path) -> list[Path]:
    """Write page, picture and rows below `docs` and return their paths.

    folder: what a run wrote; None takes the rows that lie in `docs`. Raises FileNotFoundError where there are none.
    """
    docs.mkdir(parents=True, exist_ok=True)
    kept = docs / KEPT
    if folder is not None:
        rows = [*read_rows(folder / "jobs"), *read_rows(folder)]
        if not rows:
            raise FileNotFoundError(f"{folder}: no rows of jobs; expected jobs/*.json, as `run --out {folder}` writes")
        kept.write_text(_lines(rows), encoding="utf-8")
    if not kept.is_file():
        raise FileNotFoundError(f"{kept}: no rows; give the folder that `python -m benchmarks.learning run` wrote")
    read = Rows(json.loads(kept.read_text(encoding="utf-8")))
    page, picture = docs / PAGE, docs / PICTURE
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(read, picture)
    page.write_text(_page(read), encoding="utf-8")
    return [page, picture, kept]


def _lines(rows: list[Row]) -> str:
    """Return a JSON list with one row a line."""
    return "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n"


def _page(rows: Rows) -> str:
    claims = all_claims(rows)
    parts = [INTRODUCTION.format(sets=SETS), _claims_table(claims), _does_not_hold(claims), ARMS]
    parts += [_class_table(rows), _tail_table(rows), _reproduce(rows)]
    return "\n".join(part for part in parts if part)


def _claims_table(claims: list[Claim]) -> str:
    lines = []
    for claim in claims:
        verdict = {True: "holds", False: "does not hold", None: "not measured"}[claim.holds]
        lines += [f"## {claim.title}: {verdict}", ""]
        if claim.figures:
            lines += ["| figure | mean | spread | by seed | bar | |", "| --- | --- | --- | --- | --- | --- |"]
            lines += [_figure_line(figure) for figure in claim.figures]
            lines.append("")
    return "\n".join(lines)


def _figure_line(figure: Figure) -> str:
    verdict = {True: "yes", False: "**no**", None: ""}[figure.holds]
    by_seed = ", ".join(f"{value:.3f}" for value in figure.values)
    return f"| {figure.what} | {figure.mean:.3f} | {figure.spread:.3f} | {by_seed} | {figure.bar} | {verdict} |"


def _does_not_hold(claims: list[Claim]) -> str:
    failed = [(claim, figure) for claim in claims for figure in claim.figures if figure.holds is False]
    open_claims = [claim.title for claim in claims if claim.holds is None]
    lines = ["## What does not hold", ""]
    lines += [f"- {figure.what}: {figure.mean:.3f}, expected {figure.bar} ({claim.title})." for claim, figure in failed]
    lines += [f"- Not measured: {name}." for name in open_claims]
    if len(lines) == 2:
        lines.append("Every figure with a bar reached it in the mean over the seeds.")
    return "\n".join([*lines, ""])


def _class_table(rows: Rows) -> str:
    seeds = rows.seeds("partial", "full", "naive")
    if not seeds:
        return ""
    annotated = rows.row("partial", seeds[0])["annotated_cases"]
    lines = [
        "## By class",
        "",
        "| class | annotated scans | partial | full | naive |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in rows.row("partial", seeds[0])["dsc"]:
        means = [_mean_over(rows, arm, seeds, name) for arm in ("partial", "full", "naive")]
        lines.append(f"| {title(name)} | {annotated[name]} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join([*lines, ""])


def _tail_table(rows: Rows) -> str:
    arms = ("tail as it comes", "tail even", "tail weighted")
    seeds = rows.seeds(*arms)
    if not seeds:
        return ""
    annotated = rows.row(arms[0], seeds[0])["annotated_cases"]
    changes = tail_changes(rows, "tail weighted", seeds)
    lines = [
        "## By class, long tail",
        "",
        "| class | annotated scans | as it comes | even | weighted | weighted - as it comes |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name in rarest(rows.row(arms[0], seeds[0]), len(annotated)):
        if name in changes:
            means = " | ".join(f"{_mean_over(rows, arm, seeds, name):.3f}" for arm in arms)
            lines.append(f"| {title(name)} | {annotated[name]} | {means} | {statistics.fmean(changes[name]):+.3f} |")
    return "\n".join([*lines, ""])


def _mean_over(rows: Rows, arm: str, seeds: list[int], name: str) -> float:
    return statistics.fmean(class_dsc(rows.row(arm, seed)["dsc"], name) for seed in seeds)


def _reproduce(rows: Rows) -> str:
    jobs: list[dict[str, Any]] = [row for row in rows.rows if "arm" in row]
    first = jobs[0]
    counts = Counter(row["device"] for row in jobs).most_common()
    most = counts[0][0]
    return REPRODUCE.format(
        options=f"--device {'cpu' if most == 'cpu' else 'cuda'} --steps {first['steps']} --batch {first['batch']}",
        steps=first["steps"],
        batch=first["batch"],
        jobs=len(jobs),
        places=" and ".join(f"{count} on {'a CPU' if name == 'cpu' else f'one {name}'}" for name, count in counts),
        seconds=statistics.median(row["seconds"]["training"] for row in jobs if row["device"] == most),
    )
