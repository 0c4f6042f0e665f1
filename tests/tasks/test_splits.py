"""Splits as a training or an evaluation asks for them: sides, official splits, leaks refused or left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.splits import TEST
from tasks.settings import Settings
from tasks.splits import (
    LeakRefused,
    SplitChoice,
    cases_to_score,
    cases_to_train_on,
    deal_new_cases,
    leaking_pairs,
    plan_folds,
    read_case_list,
)
from tasks.workspace import Workspace, open_workspace

OFFICIAL = SplitChoice("official")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(Settings(workspace=tmp_path))


def commit(workspace: Workspace, case_id: str, group: str, *classes: str, role: str = "train") -> None:
    """Commit the rows of a case without arrays; `classes` are annotated and present."""
    dataset, native_id = case_id.split("/")
    key = case_id.encode().hex().ljust(64, "0")
    identity = {"case_id": case_id, "ingest_key": key}
    hu = dict.fromkeys(("hu_min", "hu_max", "hu_mean", "hu_p01", "hu_p50", "hu_p99"), 0.0)
    case = {
        **identity, **hu, "dataset": dataset, "native_id": native_id, "content_sha256": key, "raw_sha256": key,
        "split_group": group, "role": role, "path": "volumes", "manifest": "{}", "shape_x": 1, "shape_y": 1,
        "shape_z": 1, "spacing_mm": [1.0] * 3, "affine": np.eye(4).ravel().tolist(), "original_shape": [1, 1, 1],
        "original_affine": np.eye(4).ravel().tolist(), "original_orientation": "RAS", "steps": [], "flags": [],
        "card_digest": "c", "harmoniser_version": "1", "tumour_free": [],
    }  # fmt: skip
    labels: list[dict[str, Any]] = [
        {
            **identity, "class_name": name, "channel": number, "annotation": "shipped", "state": "annotated",
            "label_origin": "human", "voxels": 5, "ml": 1.0, "components": 1, "touches_border": False,
            "sampled_voxels": [0, 0, 0], "manifest": "{}",
        }
        for number, name in enumerate(classes)
    ]  # fmt: skip
    workspace.tables.commit_case(case, labels)


def ids(cases: Any) -> list[str]:
    return sorted(cases["case_id"])


@pytest.fixture
def lake(workspace: Workspace) -> Workspace:
    """Twelve cases of a set without a split of its own, and three of CT-ORG, whose scans 0 to 20 are its test part."""
    for number in range(12):
        commit(workspace, f"lits/{number}", f"t{number}", "liver", *(["liver_tumor"] if number % 6 == 0 else []))
    commit(workspace, "ct_org/3", "t3", "liver")  # the official test scan is LiTS 3
    commit(workspace, "ct_org/19", "h19", "liver")
    commit(workspace, "ct_org/100", "h100", "liver")
    commit(workspace, "ward/1", "t5", "liver", role="external")
    commit(workspace, "ward/2", "w2", "liver", role="external")
    return workspace


def test_cases_are_dealt_once_even_over_sets_and_rare_classes(lake: Workspace) -> None:
    planned = plan_folds(lake)
    assert lake.tables.cases()["fold"].isna().all()
    assert deal_new_cases(lake) == len(planned) == 15
    cases = lake.tables.cases().set_index("case_id")
    assert cases["fold"].dropna().to_dict() == {row["case_id"]: row["fold"] for row in planned}
    assert cases.filter(like="lits/", axis=0)["fold"].value_counts().to_dict() == dict.fromkeys(range(6), 2)
    assert cases["fold"]["lits/0"] != cases["fold"]["lits/6"]
    assert cases["fold"]["ct_org/3"] == cases["fold"]["lits/3"]
    assert cases.filter(like="ward/", axis=0)["fold"].isna().all()
    assert deal_new_cases(lake) == 0
    commit(lake, "kits/1", "k1", "liver")
    assert deal_new_cases(lake) == 1
    assert lake.tables.cases().set_index("case_id")["fold"][cases.index].equals(cases["fold"])


def test_the_test_is_never_trained_on_and_a_fold_is_held_out_beside_it(lake: Workspace) -> None:
    assert cases_to_train_on(lake, SplitChoice()).empty  # before cases have their folds
    deal_new_cases(lake)
    cases = lake.tables.cases(role="train")
    test, second = ids(cases[cases["fold"] == TEST]), ids(cases[cases["fold"] == 2])
    assert ids(cases_to_train_on(lake, SplitChoice())) == sorted(set(cases["case_id"]) - set(test))
    assert ids(cases_to_train_on(lake, SplitChoice(fold=2))) == sorted(set(cases["case_id"]) - {*test, *second})
    assert ids(cases_to_score(lake, SplitChoice(), None, ())) == test
    assert ids(cases_to_score(lake, SplitChoice(fold=2), None, ())) == second
    assert ids(cases_to_score(lake, SplitChoice(), ["ward"], ())) == ["ward/1", "ward/2"]
    assert {name.split("/")[0] for name in ids(cases_to_train_on(lake, SplitChoice(), ["ct_org"]))} == {"ct_org"}
    with pytest.raises(LookupError, match=r"\['ward'\] have no training case"):
        cases_to_train_on(lake, SplitChoice(), ["ward"])


def test_an_official_split_that_leaks_is_refused_with_the_pairs(lake: Workspace) -> None:
    deal_new_cases(lake)
    cases = lake.tables.cases()
    assert cases.set_index("case_id")["fold"]["lits/3"] != TEST
    assert leaking_pairs(cases, SplitChoice()) == []
    assert leaking_pairs(cases, OFFICIAL) == [("lits/3", "ct_org/3")]
    with pytest.raises(LeakRefused, match=r"--drop-leaking.*\n  lits/3 = ct_org/3") as refused:
        cases_to_train_on(lake, OFFICIAL)
    assert refused.value.pairs == (("lits/3", "ct_org/3"),)
    chosen = ids(cases_to_train_on(lake, SplitChoice("official", drop_leaking=True)))
    assert "lits/3" not in chosen
    assert [name for name in chosen if name.startswith("ct_org/")] == ["ct_org/100"]
    scored = ids(cases_to_score(lake, OFFICIAL, ["ct_org"], chosen))
    assert scored == ["ct_org/19", "ct_org/3"]


def test_a_list_of_ones_own_may_hold_nothing_that_is_kept_from_training(lake: Workspace, tmp_path: Path) -> None:
    deal_new_cases(lake)
    cases = lake.tables.cases()
    (tested, *_) = ids(cases[(cases["fold"] == TEST) & (cases["dataset"] == "lits")])
    kept = ids(cases[(cases["fold"] == 1) & (cases["dataset"] == "lits")])
    file = tmp_path / "cases.txt"
    file.write_text("\n".join(["# mine", "", *kept, "ward/2", tested]))
    wanted = SplitChoice(only=read_case_list(file))
    with pytest.raises(LeakRefused, match=rf"2 of these {len(kept) + 2} cases.*\n  {tested}\n  ward/2$"):
        cases_to_train_on(lake, wanted)
    without = ids(cases_to_train_on(lake, SplitChoice(only=wanted.only, drop_leaking=True)))
    assert set(without) <= set(kept)
    with pytest.raises(LookupError, match="1 of the 1 cases listed are not in the lake: lits/99"):
        cases_to_train_on(lake, SplitChoice(only=("lits/99",)))
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="no case in it"):
        read_case_list(file)


def test_scoring_what_was_trained_on_or_its_twin_is_refused(lake: Workspace) -> None:
    deal_new_cases(lake)
    with pytest.raises(LeakRefused, match=r"trained on 1 of these 2 cases.*\n  ward/1 = lits/5"):
        cases_to_score(lake, SplitChoice(), ["ward"], ["lits/5", "lits/7"])
    with pytest.raises(LeakRefused, match=r"ward/1 = lits/5"):
        cases_to_score(lake, SplitChoice(), ["ward"], ["lits/*"])  # published weights: any case of the set
    assert ids(cases_to_score(lake, SplitChoice(), ["ward"], ["kits/*"])) == ["ward/1", "ward/2"]
    lake.tables.withdraw(["lits/5"], "consent withdrawn")
    with pytest.raises(LeakRefused, match=r"ward/1 = lits/5"):
        cases_to_score(lake, SplitChoice(), ["ward"], ["lits/5"])
    choice = SplitChoice(drop_leaking=True)
    assert ids(cases_to_score(lake, choice, ["ward"], ["lits/5", "lits/7"])) == ["ward/2"]
    with pytest.raises(LookupError, match="1 left out, for the model was trained on them"):
        cases_to_score(lake, SplitChoice(only=("ward/1",), drop_leaking=True), None, ["lits/5"])


def test_choices_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="fold 5: expected 0 to 4"):
        SplitChoice(fold=5)
    for wrong in ({"split": "official", "fold": 1}, {"only": ("a/1",), "fold": 1}):
        with pytest.raises(ValueError, match="leave out either"):
            SplitChoice(**wrong)
    with pytest.raises(ValueError, match="expected default or official"):
        SplitChoice("mine")  # type: ignore[arg-type]
