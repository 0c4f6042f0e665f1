"""Which pseudo-labels a training sees: human labels first, cohorts by name, no leak, and whose they were is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_cases import SHAPE, commit_tiny, label_tiny

from catalog.label_decisions import judge, retract
from catalog.splits import TEST
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from tasks.patches import LakePatchSource, training_source
from tasks.pseudo_choice import PseudoChoice, licence_entries, lineage, makers
from tasks.settings import Settings
from tasks.splits import LeakRefused, SplitChoice
from tasks.workspace import Workspace, open_workspace

LIVER, SPLEEN, AORTA = (class_info(name).channel for name in ("liver", "spleen", "aorta"))
ACCEPTED = PseudoChoice("accepted")
WARD = PseudoChoice("accepted", ("ward",))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    # a/1: a liver by people, a liver and a spleen by a model; ward/1: nothing by people, an external cohort
    found = open_workspace(Settings(workspace=tmp_path))
    commit_tiny(found, "a", "1", fold=1, classes=("liver",))
    label_tiny(found, "a/1", "pseudo-v1", {"liver": (0, 0, 0), "spleen": (2, 2, 2)})
    commit_tiny(found, "ward", "1", fold=0, role="external", classes=())
    label_tiny(found, "ward/1", "pseudo-v1", {"spleen": (3, 3, 3)}, non_commercial=True, licence="CC-BY-NC-4.0")
    return found


def _cases(source: LakePatchSource) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    return {case.case_id: (case.annotated, case.pseudo) for case in source.cases()}


def test_pseudo_labels_enter_where_they_are_asked_for_and_external_cohorts_where_they_are_named(
    workspace: Workspace,
) -> None:
    assert _cases(training_source(workspace)) == {"a/1": ((LIVER,), ())}
    own = training_source(workspace, pseudo=ACCEPTED)
    assert _cases(own) == {"a/1": ((SPLEEN, LIVER), (SPLEEN,))}
    assert own.annotated_classes() == ("spleen", "liver")
    assert _cases(training_source(workspace, pseudo=WARD)) == {
        "a/1": ((SPLEEN, LIVER), (SPLEEN,)),
        "ward/1": ((SPLEEN,), (SPLEEN,)),
    }
    # an unreviewed one is no reviewed one
    judge(workspace.tables, "ward/1", ["spleen"], "accepted", who="x", why="y")
    reviewed = training_source(workspace, pseudo=PseudoChoice("reviewed", ("ward",)))
    assert _cases(reviewed) == {"a/1": ((LIVER,), ()), "ward/1": ((SPLEEN,), ())}


def test_a_patch_takes_each_class_from_its_own_annotation(workspace: Workspace) -> None:
    _, bits, _ = training_source(workspace, pseudo=ACCEPTED).read("a/1", (0, 0, 0), SHAPE)
    # the model's liver at (0, 0, 0) is not the label: people drew it at (1, 2, 3)
    assert np.argwhere(get_channel(bits, LIVER)).tolist() == [[1, 2, 3]]
    assert np.argwhere(get_channel(bits, SPLEEN)).tolist() == [[2, 2, 2]]


def test_retracted_and_rejected_labels_are_not_learnt_from(workspace: Workspace) -> None:
    then = workspace.tables.versions()
    judge(workspace.tables, "a/1", ["spleen"], "rejected", who="x", why="y")
    assert _cases(training_source(workspace, pseudo=WARD))["a/1"] == ((LIVER,), ())
    retract(workspace.tables, "models:/universal/1", who="x", why="y")
    with pytest.raises(LookupError, match="--use-pseudo accepted: no such pseudo-label in 2 training cases"):
        training_source(workspace, pseudo=WARD)
    # a run that began before goes on with what it read
    assert "ward/1" in _cases(training_source(workspace, pseudo=WARD, at_versions=then))


def test_an_external_case_that_shows_a_held_out_scan_is_refused_or_dropped(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "test", fold=TEST, group="shared")
    commit_tiny(workspace, "twin", "1", fold=0, role="external", classes=(), group="shared")
    label_tiny(workspace, "twin/1", "pseudo-v1", {"aorta": (1, 1, 1)})
    asked = PseudoChoice("accepted", ("ward", "twin"))
    with pytest.raises(LeakRefused, match="1 of the 2 cases of ward, twin show a scan that is kept from training"):
        training_source(workspace, pseudo=asked)
    left = training_source(workspace, pseudo=asked, choice=SplitChoice(drop_leaking=True))
    assert sorted(_cases(left)) == ["a/1", "ward/1"]


def test_human_labels_of_an_external_cohort_stay_out_of_training(workspace: Workspace) -> None:
    commit_tiny(workspace, "ward", "2", fold=0, role="external", classes=("liver",))
    label_tiny(workspace, "ward/2", "pseudo-v1", {"liver": (0, 0, 0), "aorta": (1, 1, 1)})
    assert _cases(training_source(workspace, pseudo=WARD))["ward/2"] == ((AORTA,), (AORTA,))


def test_a_stated_absence_goes_before_what_a_model_found(workspace: Workspace) -> None:
    commit_tiny(workspace, "b", "1", fold=1, classes=("liver", "liver_tumor"))
    commit_tiny(workspace, "c", "1", fold=1, classes=("liver",), tumour_free=["liver_tumor"])
    label_tiny(workspace, "c/1", "pseudo-v1", {"liver_tumor": (1, 1, 1)})
    source = training_source(workspace, pseudo=ACCEPTED)
    tumour = class_info("liver_tumor").channel
    (case,) = [case for case in source.cases() if case.case_id == "c/1"]
    assert (case.annotated, case.pseudo) == ((LIVER, tumour), ())
    assert not get_channel(source.read("c/1", (0, 0, 0), SHAPE)[1], tumour).any()


def test_cohorts_that_are_none_are_refused(workspace: Workspace) -> None:
    with pytest.raises(LookupError, match=r"--pseudo-cohort a: not an external cohort.*\['ward'\]"):
        training_source(workspace, pseudo=PseudoChoice("accepted", ("a",)))
    with pytest.raises(ValueError, match="--use-pseudo all: expected accepted or reviewed"):
        PseudoChoice.of("all", None)
    with pytest.raises(ValueError, match="--pseudo-cohort ward: found without --use-pseudo"):
        PseudoChoice.of(None, ["ward"])
    retract(workspace.tables, "flow-1", who="x", why="y")
    label_tiny(workspace, "ward/1", "pseudo-v2", {"aorta": (1, 1, 1)}, flow_run_id="flow-2")
    with pytest.raises(LookupError, match="some lie in ward: name it with --pseudo-cohort"):
        training_source(workspace, pseudo=ACCEPTED)


def test_a_training_knows_whose_pseudo_labels_it_learnt_from(workspace: Workspace) -> None:
    entries = training_source(workspace, pseudo=WARD).lineage
    told = [(one["case_id"], one["annotation"], one["classes"], one["flow_run_id"]) for one in entries]
    assert told == [("a/1", "pseudo-v1", ["spleen"], "flow-1"), ("ward/1", "pseudo-v1", ["spleen"], "flow-1")]
    assert makers(entries) == {"pseudo_models": "models:/universal/1", "pseudo_runs": "flow-1"}
    assert lineage([]) == []


def test_a_model_takes_over_the_licence_of_masks_without_commercial_use(workspace: Workspace) -> None:
    entries = training_source(workspace, pseudo=WARD).lineage
    found = licence_entries(entries, None)
    assert found["licence"] == "CC-BY-NC-4.0"
    assert found["licence_terms"].startswith("non-commercial use only")
    assert licence_entries(training_source(workspace, pseudo=ACCEPTED).lineage, None) == {}


def test_the_strictest_licence_of_weights_and_masks_is_taken(workspace: Workspace) -> None:
    entries = training_source(workspace, pseudo=WARD).lineage
    assert licence_entries(entries, "CC BY-NC-ND 4.0")["licence"] == "CC BY-NC-ND 4.0"
    assert "CC-BY-NC-4.0" in licence_entries(entries, "CC-BY-4.0")["licence"]
