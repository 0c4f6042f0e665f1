"""Opening the page of a pseudo-label run of 500 scans and 32 classes in headless Chromium, against the bar of 2 s.

Time from the start of the navigation until the table stands and everything is loaded, as the browser itself measures
it. Without Chromium there is nothing to measure, and the benchmark says so.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.side_by_side import record
from datasets_registry.taxonomy import all_classes
from imaging.bits import empty_bits, set_channel
from imaging.overlay import overlay_strip
from imaging.volume import Volume
from tasks.cohort_pictures import CohortPicture, choose
from tasks.cohort_report import CohortReport, write_cohort_report

BAR_S = 2.0
REPEATS = 5
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TELLS = (
    # reading a height makes the browser lay the page out, which counts as opening it
    "<script>addEventListener('load', () => { document.body.offsetHeight; "
    "document.body.setAttribute('data-loaded-ms', performance.now()); })</script></body>"
)


def made_up_report(cases: int = 500, *, seed: int = 0) -> CohortReport:
    """Return a report of `cases` scans and all classes with invented scores, and pictures of noise."""
    chance = np.random.default_rng(seed)
    infos = all_classes()
    rows = []
    for case in range(cases):
        for info in infos:
            dsc = float(np.clip(chance.normal(0.86, 0.1), 0, 1))
            decision = "accept" if dsc >= 0.8 else "review" if dsc >= 0.5 else "reject"
            ml = float(chance.lognormal(4, 0.6))
            scores = {
                "boundary_entropy": chance.uniform(0.2, 0.9),
                "agreement": chance.uniform(0.7, 1),
                "z": {"volume": chance.normal(), "x": chance.normal(), "hu_mean": chance.normal()},
                "removed_share": chance.uniform(0, 0.05),
                "flags": [f"field_of_view: the scan ends {case} mm above the pelvis"] if case % 25 == 0 else [],
            }
            rows.append(
                {
                    "case_id": f"cohort/scan_{case:04d}",
                    "class_name": info.name,
                    "annotation": "pseudo-v1-0",
                    "voxels": 0 if chance.random() < 0.03 else int(ml * 300),
                    "ml": ml,
                    "hu_mean": float(chance.normal(90, 25)),
                    "components": 1,
                    "touches_border": False,
                    "quality_score": dsc,
                    "scores": json.dumps(scores),
                    "expected_dsc": dsc,
                    "decision": decision,
                    "reason": f"expected DSC {dsc:.2f}, bar 0.80",
                    "cleaning": "[]",
                    "independent": case % 50 != 0,
                    "manifest": "",
                }
            )
    table = pd.DataFrame(rows)
    names = [info.name for info in infos]
    human = pd.DataFrame(
        {
            "class_name": names * 200,
            "ml": chance.lognormal(4, 0.6, 200 * len(names)),
            "hu_mean": chance.normal(90, 25, 200 * len(names)),
        }
    )
    outcomes = dict.fromkeys(sorted(set(table["case_id"])), ("labelled", ""))
    return CohortReport(
        title=f"Pseudo-labels of {cases} made-up scans",
        rows=table,
        outcomes=outcomes,
        human=human,
        figures={"cases": str(cases), "labels": str(len(table))},
        facts={"made up": "yes"},
        pictures=_pictures(table, chance),
    )


def _pictures(rows: pd.DataFrame, chance: np.random.Generator) -> list[CohortPicture]:
    image = Volume(chance.normal(40, 80, (160, 120, 140)).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
    bits = empty_bits(image.shape, len(all_classes()))
    for info in all_classes():
        corner = chance.integers(0, 80, 3)
        box = np.zeros(image.shape, dtype=bool)
        box[tuple(slice(at, at + 30) for at in corner)] = True
        set_channel(bits, info.channel, box)
    shown = {info.channel: (info.title, info.colour) for info in all_classes()}
    whole = overlay_strip(image, bits, shown, height=300)
    small = overlay_strip(image, bits, shown, height=170)
    return [
        CohortPicture(place, name, case_id, f"{place}: {case_id}", whole if name is None else small)
        for place, name, case_id in choose(rows, per_class=True)
    ]


def browser() -> str | None:
    """Return the path of Chromium, None where there is none."""
    return next((found for found in map(shutil.which, BROWSERS) if found), None)


def load_seconds(page: Path, chromium: str) -> float:
    """Return the seconds until `page` is loaded and its table drawn, told by the page itself."""
    with tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "page.html"
        measured.write_text(page.read_text(encoding="utf-8").replace("</body>", _TELLS), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--dump-dom", measured.as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.search(r'data-loaded-ms="([\d.]+)"', dom)
    if found is None:
        raise RuntimeError(f"{page}: Chromium did not load it to its end")
    return float(found[1]) / 1000


def main() -> None:
    """Measure the page of 500 scans and record it as `report page`; peer: the bar."""
    chromium = browser()
    if chromium is None:
        print(f"report page: no browser here, expected one of {', '.join(BROWSERS)}; nothing measured")
        return
    with tempfile.TemporaryDirectory() as folder:
        page = write_cohort_report(made_up_report(), Path(folder) / "report.html")
        print(f"report page  {page.stat().st_size / 1e6:.1f} MB")
        taken = [load_seconds(page, chromium) for _ in range(REPEATS)]
    record("report page", statistics.median(taken), BAR_S, "s")


if __name__ == "__main__":
    main()
