"""Which fold a scan belongs to: decided once, the same for the same ids, one fold for a whole split group."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pandas as pd

FOLDS = 5


def assign_folds(
    dataset: str,
    native_ids: Sequence[str],
    existing: Mapping[str, int] | None = None,
    n_folds: int = FOLDS,
    groups: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Return a fold (0 to n_folds - 1) per native id.

    Ids are ranked by the SHA-256 of `<dataset>/<id>` and dealt to the folds in turn, so that folds are even and do
    not follow the order of the files. groups: native id -> split group (default: each id its own); a group is dealt
    once. existing: split group (or, without groups, native id) -> fold given earlier, which is kept; its place in the
    ranking is passed over, so that an ingest that was interrupted goes on with the folds it would have given anyway.
    """
    known = dict(existing or {})
    group_of = {native_id: (groups or {}).get(native_id, native_id) for native_id in native_ids}
    ranked = sorted(group_of, key=lambda native_id: hashlib.sha256(f"{dataset}/{native_id}".encode()).hexdigest())
    for place, group in enumerate(dict.fromkeys(group_of[native_id] for native_id in ranked)):
        known.setdefault(group, place % n_folds)
    return {native_id: known[group_of[native_id]] for native_id in native_ids}


def group_folds(cases: pd.DataFrame) -> dict[str, int]:
    """Return split group -> fold of the training cases in a frame of `Tables.cases()`, as `assign_folds` takes it."""
    training = cases[cases["fold"].notna()]
    return {str(group): int(fold) for group, fold in zip(training["split_group"], training["fold"], strict=True)}


def shared_groups(cases: pd.DataFrame, training_ids: Sequence[str]) -> pd.DataFrame:
    """Return the cases outside `training_ids` that share a split group with a case inside: evaluation leaks there.

    Columns `case_id`, `dataset`, `split_group` and `twin` (one training case of the group); empty when sound.
    """
    inside = cases[cases["case_id"].isin(list(training_ids))]
    twin = inside.drop_duplicates("split_group").set_index("split_group")["case_id"]
    outside = cases[~cases["case_id"].isin(list(training_ids)) & cases["split_group"].isin(twin.index)]
    shared = outside[["case_id", "dataset", "split_group"]].reset_index(drop=True)
    return shared.assign(twin=shared["split_group"].map(twin))


def cases_per_fold(cases: pd.DataFrame) -> pd.DataFrame:
    """Return how many cases of `Tables.cases()` each data set (rows) has in each fold (columns, 0 first).

    The last column, "external", counts those that never enter training.
    """
    column = cases["fold"].astype(object).where(cases["role"] == "train", "external")
    counts = pd.crosstab(cases["dataset"], column)
    folds = sorted(name for name in counts.columns if name != "external")
    return counts.reindex(columns=[*folds, "external"], fill_value=0)


def twin_groups(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the split groups with more than one case of `Tables.cases()`, by group.

    Columns `split_group`, `fold` (None: nothing of it enters training), `case_ids` (list, sorted) and `across_roles`:
    whether the group holds training and external cases, so that an evaluation on those leaks.
    """
    rows = []
    for group, members in cases.groupby("split_group", sort=True):
        if len(members) > 1:
            folds = members["fold"].dropna()
            rows.append(
                {
                    "split_group": str(group),
                    "fold": int(folds.iloc[0]) if len(folds) else None,
                    "case_ids": sorted(members["case_id"]),
                    "across_roles": members["role"].nunique() > 1,
                }
            )
    return pd.DataFrame(rows, columns=["split_group", "fold", "case_ids", "across_roles"], dtype=object)
