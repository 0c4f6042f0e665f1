"""What training may see: the lake behind a `PatchSource`, on two tiny committed cases."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tiny_cases import SHAPE, SPACING_MM, commit_tiny

from catalog.errors import LakeDamage
from catalog.splits import TEST
from datasets_registry.taxonomy import all_classes, class_info
from models.loader import open_batches
from models.plan import SamplingPlan
from models.sampling import Batch, PatchSampler
from models.settings import ModelSettings, TrainSettings
from tasks.patches import LakePatchSource, training_source
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(Settings(workspace=tmp_path))


def _source(workspace: Workspace, **options: Any) -> LakePatchSource:
    return training_source(workspace, **options)


def test_a_patch_is_read_where_it_was_asked_for_and_padded_with_air(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    image, bits, inside = _source(workspace).read("a/1", (1, 2, 3), (2, 2, 2))
    # HU counts 20 a step in x, 4 in y, 1 in z; z = 4 lies outside
    assert image.tolist() == [[[31, -1024], [35, -1024]], [[51, -1024], [55, -1024]]]
    assert inside == (slice(0, 2), slice(0, 2), slice(0, 1))
    liver = np.uint32(1) << np.uint32(class_info("liver").channel)
    assert bits[0, 0, 0, 0] == liver
    assert bits.sum() == liver


def test_labels_of_another_class_table_are_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("left_renal_vein", "right_renal_vein")
    for number, order in enumerate((names, names[::-1])):
        rows = [f"{{index: {33 + place}, name: {name}, kind: vessel}}" for place, name in enumerate(order)]
        (tmp_path / f"{number}.yaml").write_text(f"classes: [{', '.join(rows)}]")
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "0.yaml"))
    commit_tiny(workspace, "a", "1", fold=1, shown="left_renal_vein", classes=names)
    assert _source(workspace).annotated_classes() == names
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "1.yaml"))
    with pytest.raises(
        ValueError, match=r"a/1: left_renal_vein lies in bit 32 of the lake, in bit 33 by the class table"
    ):
        _source(workspace)


def test_held_out_external_and_twin_cases_stay_out(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "train", fold=1)
    commit_tiny(workspace, "a", "test", fold=TEST, group="shared")
    commit_tiny(workspace, "b", "twin", fold=TEST, group="shared")
    commit_tiny(workspace, "c", "outside", fold=2, role="external")
    assert [case.case_id for case in _source(workspace).cases()] == ["a/train"]


def test_a_stated_absence_is_a_negative_and_nothing_else_is(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    commit_tiny(workspace, "b", "1", fold=1, classes=("liver",), tumour_free=["liver_tumor", "pancreas_tumor"])
    liver, tumour = class_info("liver").channel, class_info("liver_tumor").channel
    source = _source(workspace)
    annotated = {case.case_id: case.annotated for case in source.cases()}
    # nobody annotates pancreas_tumor anywhere, so there is nothing to tell it from
    assert annotated == {"a/1": (liver, tumour), "b/1": (liver, tumour)}
    assert source.annotated_classes() == ("liver", "liver_tumor")
    off = open_workspace(workspace.settings.model_copy(update={"tumour_free_negatives": False}))
    assert {case.case_id: case.annotated for case in _source(off).cases()}["b/1"] == (liver,)


MODEL = ModelSettings(classes=("liver", "liver_tumor"), spacing_mm=SPACING_MM, patch=(8, 8, 8))


def _batches(source: LakePatchSource, numbers: range, readers: int) -> list[Batch]:
    sampler = PatchSampler(source, MODEL, TrainSettings(batch=3, seed=1))
    with open_batches(sampler, numbers, readers, 0) as found:
        return [packed.unpack() for packed in found]


def test_reader_processes_and_a_restart_give_the_lake_in_the_same_order_bit_for_bit(workspace: Workspace) -> None:
    for number in range(4):
        commit_tiny(workspace, "ab"[number % 2], str(number), fold=1)
    source = _source(workspace)
    alone = _batches(source, range(6), 0)
    assert alone[0].valid.any()
    assert not alone[0].valid.all()  # the scan is smaller than the patch
    for others in (_batches(source, range(6), 1), [*_batches(source, range(2), 2), *_batches(source, range(2, 6), 2)]):
        for ours, theirs in zip(others, alone, strict=True):
            assert ours.case_ids == theirs.case_ids
            for name in ("image", "target", "annotated", "valid"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_padding_is_air_to_the_network_and_known_to_be_none_of_the_scan(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    batch = PatchSampler(_source(workspace), MODEL, TrainSettings(batch=1, shift_share=0.0)).batch(0)
    # air lies below the window's low end of -175 HU; 0 HU would be 0.41
    assert (batch.image[~batch.valid] == 0).all()
    assert not batch.target[~batch.valid.expand_as(batch.target)].any()
    assert batch.valid.sum() == np.prod(SHAPE)


def test_a_reader_gets_how_to_read_and_not_the_positions_of_all_cases(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    source = _source(workspace)
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(sent.read("a/1", (0, 0, 0), SHAPE)[1], source.read("a/1", (0, 0, 0), SHAPE)[1])
    with pytest.raises(RuntimeError, match="draw at home"):
        sent.cases()


def test_weights_share_out_the_patches_of_a_catalog(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)  # liver; liver_tumor annotated and absent
    commit_tiny(workspace, "a", "2", fold=1)
    commit_tiny(workspace, "b", "1", fold=1, classes=("liver",))
    commit_tiny(workspace, "c", "1", fold=1, classes=("spleen",), shown="spleen")
    commit_tiny(workspace, "c", "2", fold=1, classes=("spleen",))  # shows a liver that nobody annotated
    model = ModelSettings(classes=("spleen", "liver", "liver_tumor"), spacing_mm=SPACING_MM, patch=(8, 8, 8))
    train = TrainSettings(foreground=0.5, dataset_weights={"b": 2.0}, class_weights={"spleen": 3.0}, lesion_weight=9.0)
    plan = SamplingPlan(_source(workspace).cases(), model, train)
    # foreground: spleen 3, liver 1, the tumour nowhere; livers count 1, 1 and 2. The rest: 1, 1, 2, 1 and 1 of 6.
    expected = {
        ("liver", "a/1"): 0.5 * 1 / 4 * 1 / 4, ("liver", "a/2"): 0.5 * 1 / 4 * 1 / 4,
        ("liver", "b/1"): 0.5 * 1 / 4 * 2 / 4, ("spleen", "c/1"): 0.5 * 3 / 4,
        **{(None, name): 0.5 / 6 for name in ("a/1", "a/2", "c/1", "c/2")}, (None, "b/1"): 0.5 * 2 / 6,
    }  # fmt: skip
    random, drawn = np.random.default_rng(0), Counter[tuple[str | None, str]]()
    for _ in range(3000):
        pick = plan.draw(random)
        drawn[None if pick.channel is None else all_classes()[pick.channel].name, pick.case.case_id] += 1
    assert set(drawn) == set(expected)
    found = [drawn[key] for key in expected]
    assert chisquare(found, np.array(list(expected.values())) * 3000).pvalue > 0.01
    assert plan.shares().datasets == pytest.approx({"a": 0.0625 + 1 / 6, "b": 0.0625 + 1 / 6, "c": 0.375 + 1 / 6})


@pytest.mark.parametrize("readers", [0, 2])
@pytest.mark.parametrize("shard", ["0/c/0/0/0", "labels/shipped/0/c/0/0/0/0"])
def test_damage_met_by_a_reader_names_case_and_file(workspace: Workspace, shard: str, readers: int) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    source = _source(workspace)
    path = str(workspace.tables.cases(case_ids=["a/1"])["path"].iloc[0])
    file = workspace.settings.lake.folder / path / shard
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(LakeDamage) as caught:
        _batches(source, range(20), readers)
    assert (caught.value.case_id, caught.value.file) == ("a/1", f"{path}/{shard}")


def test_classes_restrict_what_is_learnt(workspace: Workspace) -> None:
    commit_tiny(workspace, "a", "1", fold=1)
    assert _source(workspace, classes=["liver"]).annotated_classes() == ("liver",)
    with pytest.raises(KeyError, match="liver_tumor"):
        _source(workspace, classes=["liver tumour"])


def test_an_empty_lake_says_what_was_looked_for(workspace: Workspace) -> None:
    with pytest.raises(LookupError, match="held out: test"):
        _source(workspace)
