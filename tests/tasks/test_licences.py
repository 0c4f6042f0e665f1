"""What a label inherits from scan and model, and what each export profile refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_registry.cards import list_cards, load_card
from models.licence import PUBLISHED_LICENCE
from tasks.licences import (
    STRICTNESS,
    LabelLicence,
    LicenceRefused,
    check_profile,
    joined,
    licence_of,
    licence_of_training,
    strictest,
    terms_of,
)

KNOWN = ["CC0-1.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0",
         "CC BY-NC-ND 4.0", "GPL-3.0-only", "Apache-2.0"]  # fmt: skip


@pytest.mark.parametrize(
    ("scan", "teacher", "licence", "non_commercial"),
    [
        ("CC-BY-4.0", "CC-BY-4.0", "CC-BY-4.0", False),
        ("CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-SA-4.0", False),
        ("CC-BY-4.0", PUBLISHED_LICENCE.name, PUBLISHED_LICENCE.name, True),
        ("CC-BY-NC-SA-4.0", "CC-BY-4.0", "CC-BY-NC-SA-4.0", True),
        # neither covers the other: both hold
        ("CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0 AND CC-BY-NC-4.0", True),
        ("CC-BY-4.0", None, None, None),
        (None, "CC-BY-4.0", None, None),
        ("CC-BY-NC-4.0", None, None, True),
        ("terms of the hospital", "CC-BY-4.0", None, None),
    ],
)
def test_a_label_inherits_the_strictest(
    scan: str | None, teacher: str | None, licence: str | None, non_commercial: bool | None
) -> None:
    found = strictest(scan, teacher)
    assert (found.licence, found.non_commercial) == (licence, non_commercial)
    assert found.sources == (f"scan: {scan or 'not stated'}", f"model: {teacher or 'not stated'}")


@given(st.lists(st.sampled_from(KNOWN), min_size=1, max_size=4))
def test_no_term_is_lost_whatever_is_joined(names: list[str]) -> None:
    found = joined([licence_of(name) for name in names])
    wanted = frozenset().union(*(terms_of(name) or frozenset() for name in names))
    assert found.terms == wanted
    assert joined([found, found]).terms == wanted


def test_what_a_card_says_besides_its_licence_counts() -> None:
    word = load_card("word").licence
    found = licence_of(word.spdx, word.non_commercial)
    assert (found.licence, found.non_commercial) == ("GPL-3.0-only AND LicenseRef-non-commercial", True)
    assert found.sources == ("scan: GPL-3.0-only, non-commercial",)
    assert licence_of("CC-BY-4.0", float("nan")).non_commercial is False


def test_licence_of_every_card_is_understood_or_unknown_on_purpose() -> None:
    for card_id in list_cards():
        spdx = load_card(card_id).licence.spdx
        assert spdx is None or terms_of(spdx) is not None, f"{card_id}: {spdx}"


def test_a_model_inherits_what_it_was_trained_on() -> None:
    assert licence_of_training(None, ["msd_pancreas", "totalsegmentator_v2"]) == "CC-BY-SA-4.0"
    assert licence_of_training(None, ["msd_pancreas", "kits"]) == "CC-BY-NC-SA-4.0"
    assert licence_of_training("CC BY-NC-ND 4.0", ["msd_pancreas"]) == "CC BY-NC-ND 4.0 AND CC-BY-SA-4.0"
    assert licence_of_training(None, ["msd_pancreas", "btcv"]) is None  # BTCV states no licence
    assert licence_of_training(None, ["a cohort of our own"]) is None
    assert licence_of_training(None, []) is None


REFUSED = {
    "research": [],
    "public": [None, "CC-BY-ND-4.0", "CC BY-NC-ND 4.0"],
    "commercial": [None, "CC-BY-ND-4.0", "CC BY-NC-ND 4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"],
}


@pytest.mark.parametrize("profile", list(REFUSED))
@pytest.mark.parametrize("licence", [None, *KNOWN])
def test_a_profile_refuses_exactly_what_it_may_not_hold(profile: str, licence: str | None) -> None:
    if licence not in REFUSED[profile]:
        check_profile(profile, licence_of(licence), "c/1")
        return
    with pytest.raises(LicenceRefused, match=rf"c/1: profile {profile} refuses .*scan: .*--profile research"):
        check_profile(profile, licence_of(licence), "c/1")


def test_refusal_names_every_source_and_unknown_profiles_are_errors() -> None:
    with pytest.raises(LicenceRefused, match=r"scan: CC-BY-4.0; model: CC BY-NC-ND 4.0\): commercial use is forbidden"):
        check_profile("commercial", strictest("CC-BY-4.0", PUBLISHED_LICENCE.name), "c/1")
    with pytest.raises(ValueError, match="expected one of research, public, commercial"):
        check_profile("internal", LabelLicence("MIT", False), "c/1")
    assert STRICTNESS[-1] == "non-commercial"
