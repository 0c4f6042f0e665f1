"""The cohort with planted trouble: reproducible, read by the card `local`, accepted by an ingest's checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from datasets_registry.cards import load_card
from datasets_registry.layouts import reader_for
from datasets_registry.miniatures import write_troubled
from datasets_registry.miniatures.trouble import TROUBLES, troubled_patient
from datasets_registry.taxonomy import class_info
from imaging.bits import get_channel
from imaging.checks import check_hu


def test_half_of_the_scans_are_troubled_in_turn_and_all_are_read(tmp_path: Path) -> None:
    planted = write_troubled(tmp_path / "raw", cases=12, seed=3, truth_folder=tmp_path / "truth")
    assert Counter(one.trouble for one in planted) == {"none": 6, **dict.fromkeys(TROUBLES, 1)}
    card = load_card("local")
    reader = reader_for(card)
    cases = {case.native_id: case for case in reader.list_cases(tmp_path / "raw", card).cases}
    assert set(cases) == {one.native_id for one in planted}
    for case in cases.values():
        check_hu(reader.read_case(case, card).image, case.native_id)  # what an ingest refuses would prove nothing
    assert len(list((tmp_path / "truth" / "local").glob("*.npz"))) == 12


def test_the_same_seed_gives_the_same_scan_and_trouble_changes_it() -> None:
    plain = troubled_patient("x", 1, 0)
    for name, make in TROUBLES.items():
        one, again = make("x", 1, 0), make("x", 1, 0)
        assert np.array_equal(one.scan.image.array, again.scan.image.array)
        assert not np.array_equal(one.scan.image.array, plain.image.array), name
        assert one.scan.bits.shape[1:] == one.scan.image.shape


def test_a_missing_organ_is_not_in_the_truth() -> None:
    for turn in range(5):
        made = TROUBLES["missing_organ"]("x", 2, turn)
        assert made.organ is not None
        assert not get_channel(made.scan.bits, class_info(made.organ).channel).any()
