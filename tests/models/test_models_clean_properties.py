"""What holds of cleaning whatever the masks: settled after once, told in full, the same for any order of classes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_registry.class_rules import RULES, RuleSwitches
from datasets_registry.taxonomy import ClassInfo, all_classes
from imaging.bits import Bits, empty_bits, get_channel, set_channel
from imaging.components import count_components
from models.cleaned import Cleaned
from models.postprocess import clean

OWN = (
    ClassInfo(33, "lobe", "lobe", "organ", (0, 1), (0, 1), "#000000", 1, parents=("liver",), margin_mm=4, holes=True),
    ClassInfo(34, "lobe_tumor", "lobe tumor", "tumour", (0, 1), (0, 1), "#000000", parents=("lobe",), min_ml=0.06),
)
TABLE = (*all_classes(), *OWN)
FAMILIES = (
    ("right_kidney", "left_kidney", "kidney_tumor", "kidney_cyst", "liver"),
    ("liver", "hepatic_vessel", "liver_tumor", "gall_bladder", "lobe", "lobe_tumor"),
    ("right_lung", "left_lung", "lung_tumor", "spleen"),
    ("colon", "colon_tumor", "stomach", "right_kidney", "left_kidney"),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Bits, tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Draw noisy bits of two words, the classes predicted, an affine and a middle."""
    shape = draw(st.tuples(*[st.integers(1, 8)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.sampled_from(FAMILIES))
    bits = empty_bits(shape, len(TABLE), draw(st.sampled_from(["C", "F"])))
    rows = {row.name: row for row in TABLE}
    for name in names:
        own = random.random(shape) < random.choice([0.0, 0.02, 0.1, 0.4, 0.8])
        set_channel(bits, rows[name].channel, own)
        for parent in set(rows[name].parents) & set(names):
            set_channel(bits, rows[parent].channel, own & (random.random() < 0.5))
    spacing = draw(st.sampled_from([(2.0, 3.0, 5.0), (1.0, 1.0, 1.0), (6.0, 6.0, 6.0)]))
    affine = np.diag([*spacing, 1.0])
    affine[0, 3] = -spacing[0] * random.integers(0, shape[0] + 1)
    middle = random.choice([0.0, 1.5], shape[2]) if draw(st.booleans()) else None
    return bits, names, affine, middle


@given(cases())
@settings(max_examples=120, deadline=None)
def test_cleaning_a_cleaned_scan_changes_nothing(case: tuple[Bits, tuple[str, ...], np.ndarray, np.ndarray]) -> None:
    bits, names, affine, middle = case
    once = clean(bits, names, TABLE, affine=affine, midline_x=middle)
    twice = clean(once.bits, names, TABLE, affine=affine, midline_x=middle)
    assert not any("settle" in remark for remark in once.remarks)
    assert np.array_equal(twice.bits, once.bits)
    assert (twice.removed, twice.added, twice.record) == ({}, {}, {})
    check_what_holds(once, names, affine)
    check_the_record(bits, once)


def check_what_holds(once: Cleaned, names: tuple[str, ...], affine: np.ndarray) -> None:
    """Lesions lie in their organs and have their least volume; nothing is added to a scan but to organs and holes."""
    rows = {row.name: row for row in TABLE}
    for name in names:
        mask, row = get_channel(once.bits, rows[name].channel), rows[name]
        parents = [get_channel(once.bits, rows[parent].channel) for parent in row.parents if parent in names]
        if parents and len(parents) == len(row.parents):
            assert not (mask & ~np.any(parents, axis=0)).any()
        if row.components is not None and not any(name in rows[child].parents for child in names):
            assert count_components(mask) <= row.components


def check_the_record(bits: Bits, once: Cleaned) -> None:
    """What the rules tell adds up to how many voxels there are now, and to what went and came."""
    for row in TABLE:
        before, after = get_channel(bits, row.channel), get_channel(once.bits, row.channel)
        told = once.record.get(row.name, [])
        assert [entry["rule"] for entry in told] == [rule for rule in RULES if any(e["rule"] == rule for e in told)]
        assert int(before.sum()) + sum(int(e["added"]) - int(e["removed"]) for e in told) == int(after.sum())
        assert once.removed.get(row.name, 0) == int((before & ~after).sum())
        assert once.added.get(row.name, 0) == int((after & ~before).sum())


@given(cases(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_classes_does_not_count(
    case: tuple[Bits, tuple[str, ...], np.ndarray, np.ndarray], random: Random
) -> None:
    bits, names, affine, middle = case
    table = list(TABLE)
    random.shuffle(table)
    one = clean(bits, names, TABLE, affine=affine, midline_x=middle)
    other = clean(bits, names[::-1], table, affine=affine, midline_x=middle)
    assert np.array_equal(one.bits, other.bits)
    assert one.record == other.record


@given(cases(), st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_a_rule_alone_is_settled_too_and_the_only_one_told(
    case: tuple[Bits, tuple[str, ...], np.ndarray, np.ndarray], rule: str
) -> None:
    bits, names, affine, middle = case
    only = RuleSwitches(on=(rule,))
    once = clean(bits, names, TABLE, affine=affine, midline_x=middle, switches=only)
    assert {entry["rule"] for told in once.record.values() for entry in told} <= {rule}
    again = clean(once.bits, names, TABLE, affine=affine, midline_x=middle, switches=only)
    assert np.array_equal(again.bits, once.bits)


def test_what_lies_far_from_a_mirrored_name_is_unharmed_by_a_table_without_margins() -> None:
    """A table of one's own with no rule declared leaves every mask as it is."""
    bare = [replace(row, components=None, parents=(), mirror=None, side=None, min_ml=0.0, holes=False) for row in TABLE]
    bits = np.random.default_rng(0).integers(0, 2**32, (2, 5, 4, 3), dtype=np.uint32)
    bits[1] &= 3
    result = clean(bits, None, bare, affine=np.eye(4))
    assert np.array_equal(result.bits, bits)
    assert result.record == {}


def test_a_lesion_that_widens_a_part_of_an_organ_widens_the_organ() -> None:
    bits = empty_bits((8, 1, 1), len(TABLE))
    channels = {row.name: row.channel for row in TABLE}
    for name, voxels in {"liver": [0, 1], "lobe": [0, 1, 4], "lobe_tumor": [3, 4]}.items():
        set_channel(bits, channels[name], np.isin(np.arange(8), voxels)[:, None, None])
    # The lobe's second part goes and takes 4 out of it; the tumour is 4 and 6 mm from the first, within the 6.2 mm of a
    # voxel's diagonal, and brings the lobe back there.
    found = clean(bits, ("liver", "lobe", "lobe_tumor"), TABLE, affine=np.diag([2.0, 3.0, 5.0, 1.0]))
    lengths = {name: np.flatnonzero(get_channel(found.bits, channels[name])).tolist() for name in ("liver", "lobe")}
    assert lengths == {"liver": [0, 1, 3, 4], "lobe": [0, 1, 3, 4]}
    assert found.added == {"liver": 2, "lobe": 1}
