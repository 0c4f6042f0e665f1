"""Which data a run stood on, and under which licences: per data set, with counts, and for training per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import mlflow
import pandas as pd

from datasets_registry.cards import list_cards, load_card
from datasets_registry.taxonomy import all_classes
from tasks.licences import LabelLicence, joined, licence_of
from tasks.patches import LakePatchSource
from tasks.settings import Settings
from tasks.tracking import log_table
from tasks.workspace import open_workspace

DATA_LICENCES = "data_licences"
"""Artifact of a run, .parquet and .html: one row a data set with title, licence, non_commercial and count of cases."""
ANNOTATED = "annotated"
"""Artifact of a training run, .parquet and .html: one row a class with the cases that people annotated, those
of them that show it, and the cases with a pseudo-label."""
WHOLE_SET = "*"


def data_licences(case_ids: Iterable[str], settings: Settings) -> pd.DataFrame:
    """Return one row a data set: dataset, title, licence, non_commercial (None: not known) and the count of cases.

    case_ids: of cases, or `lits/*` for a set of which nobody says how many cases were read: its count is null. The
    licence is the one each case came in with; of a set that is not in the lake, that of its card.
    """
    counts: Counter[str] = Counter()
    whole: set[str] = set()
    for case_id in case_ids:
        dataset, _, native = case_id.partition("/")
        if native == WHOLE_SET:
            whole.add(dataset)
        else:
            counts[dataset] += 1
    rows = open_workspace(settings).tables.cases(columns=["dataset", "licence", "non_commercial"], history=True)
    seen = rows.drop_duplicates(["dataset", "licence", "non_commercial"])
    known = set(list_cards())
    found = []
    for dataset in sorted({*counts, *whole}):
        card = load_card(dataset) if dataset in known else None
        stated = row_licences(seen[seen["dataset"] == dataset])
        if not stated and card is not None:
            stated = [licence_of(card.licence.spdx, card.licence.non_commercial, dataset)]
        licence = joined(stated or [licence_of(None, None, dataset)])
        found.append(
            {
                "dataset": dataset,
                "title": None if card is None else card.title,
                "licence": licence.licence,
                "non_commercial": licence.non_commercial,
                "cases": None if dataset in whole else counts[dataset],
            }
        )
    table = pd.DataFrame(found, columns=["dataset", "title", "licence", "non_commercial", "cases"])
    return table.astype({"non_commercial": "boolean", "cases": "Int64"})


def row_licences(table: pd.DataFrame) -> list[LabelLicence]:
    """Return what each row of `data_licences` states; a licence or use that is null is not known."""
    return [
        licence_of(
            None if pd.isna(row["licence"]) else str(row["licence"]),
            None if pd.isna(row["non_commercial"]) else bool(row["non_commercial"]),
            str(row["dataset"]),
        )
        for row in table.to_dict("records")
    ]


def log_data_licences(case_ids: Iterable[str], settings: Settings) -> None:
    """Log in the active run which data it stands on, and as tags the strictest licence of all (`data_licence`)."""
    table = data_licences(case_ids, settings)
    log_table(table, DATA_LICENCES)
    strictest = joined(row_licences(table))
    barred = "not known" if strictest.non_commercial is None else str(strictest.non_commercial).lower()
    mlflow.set_tags({"data_licence": strictest.licence or "not known", "data_non_commercial": barred})


def log_training_data(source: LakePatchSource, case_ids: Sequence[str], settings: Settings) -> None:
    """Log in the active training run its data sets, licences, and how many cases annotate each class.

    case_ids: every case the model has seen, also those of the version that it goes on from.
    """
    log_data_licences(case_ids, settings)
    annotated: Counter[int] = Counter()
    present: Counter[int] = Counter()
    pseudo: Counter[int] = Counter()
    for case in source.cases():
        by_people = set(case.annotated) - set(case.pseudo)
        annotated.update(by_people)
        present.update(by_people & case.foreground.keys())
        pseudo.update(case.pseudo)
    rows = [
        {
            "class_name": info.name,
            "annotated": annotated[info.channel],
            "present": present[info.channel],
            "pseudo": pseudo[info.channel],
        }
        for info in all_classes()
        if annotated[info.channel] or pseudo[info.channel]
    ]
    log_table(pd.DataFrame(rows, columns=["class_name", "annotated", "present", "pseudo"]), ANNOTATED)
