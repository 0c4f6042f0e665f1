"""Cleaning a whole body against the rules restated plainly, one float volume a class."""

from __future__ import annotations

from benchmarks.clean import check_same, faulty


def test_a_faulty_phantom_is_cleaned_as_the_plain_form_cleans_it() -> None:
    check_same(*faulty((72, 64, 60), specks=12, seed=2))  # 6.25 x 7 x 7.5 mm
