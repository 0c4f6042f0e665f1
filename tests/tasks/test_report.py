from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tasks.report import Picture, Report, Section, markdown_table, write_report


def test_report_is_one_file_with_its_pictures_inside(tmp_path: Path) -> None:
    picture = tmp_path / "overlay.png"
    Image.fromarray(np.zeros((4, 6), dtype=np.uint8)).save(picture)
    table = pd.DataFrame({"class": ["liver <b>"], "dsc": [0.91234], "nsd": [float("nan")]})
    section = Section("Scores", "text", (("", table),), (Picture(picture, "an overlay"),))
    page = write_report(Report("Run", {"DSC": "0.9"}, (section,)), tmp_path / "report.html")
    picture.unlink()
    html = page.read_text()
    assert "data:image/png;base64," in html
    assert "liver &lt;b&gt;" in html
    assert "0.912" in html
    assert "<td>–</td>" in html
    assert "http://" not in html
    assert "https://" not in html


def test_markdown_table_shows_dashes_for_what_was_not_measured() -> None:
    table = pd.DataFrame({"class": ["liver"], "dsc": [None]})
    assert markdown_table(table).splitlines() == ["| class | dsc |", "| --- | --- |", "| liver | – |"]
