"""What may be done with a label: the strictest of the licences of the scan and of the model that made it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from datasets_registry.cards import list_cards, load_card
from models.checkpoint import read_metadata
from models.licence import LICENCE
from tasks.registry import ModelVersion, fetch_checkpoint, training_cases
from tasks.settings import Settings

Profile = Literal["research", "public", "commercial"]
PROFILES: tuple[Profile, ...] = get_args(Profile)

NON_COMMERCIAL, NO_DERIVATIVES = "non-commercial", "no-derivatives"
SHARE_ALIKE, ATTRIBUTION = "share-alike", "attribution"
UNKNOWN = "NOASSERTION"
"""SPDX's word for a licence that nobody states."""
NC_ONLY = "LicenseRef-non-commercial"
"""Stands beside a licence whose publisher restricts use to research in the same breath (GPL-3.0 of WORD)."""

STRICTNESS = (ATTRIBUTION, SHARE_ALIKE, NO_DERIVATIVES, NON_COMMERCIAL)
"""Terms from the mildest to the strictest. Naming the author costs nothing. Share-alike fixes the terms of what is made
from it, but lets it be passed on and sold. No-derivatives keeps what is made from it, such as a mask, from being passed
on at all. Non-commercial bars the use itself. A licence that is not known grants none of this: strictest of all."""

_FIXED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("CC0-1.0", "PDDL-1.0", "UNLICENSE"), frozenset[str]()),
    **dict.fromkeys(("APACHE-2.0", "MIT", "BSD-2-CLAUSE", "BSD-3-CLAUSE"), frozenset({ATTRIBUTION})),
    **dict.fromkeys(
        ("GPL-2.0-ONLY", "GPL-3.0-ONLY", "GPL-3.0-OR-LATER", "AGPL-3.0-ONLY"), frozenset({ATTRIBUTION, SHARE_ALIKE})
    ),
    NC_ONLY.upper(): frozenset({NON_COMMERCIAL}),
}
_CC_PARTS = {"BY": ATTRIBUTION, "SA": SHARE_ALIKE, "ND": NO_DERIVATIVES, "NC": NON_COMMERCIAL}


class LicenceRefused(ValueError):
    """A label whose licence the export profile does not allow."""


@dataclass(frozen=True)
class LabelLicence:
    """The strictest licence a label inherits.

    licence: SPDX expression; "A AND B" where neither covers the terms of the other; None = not known.
    non_commercial: whether it forbids commercial use; None = not known. sources: what each part says, such as
    "scan: CC-BY-4.0".
    """

    licence: str | None
    non_commercial: bool | None
    sources: tuple[str, ...] = ()

    @property
    def terms(self) -> frozenset[str] | None:
        """What it demands, of `STRICTNESS`; None = not known."""
        return terms_of(self.licence)


def terms_of(licence: str | None) -> frozenset[str] | None:
    """Return the terms of a licence or of several joined by AND, of `STRICTNESS`; None where one is not known.

    Names are SPDX identifiers, or "CC BY-NC-ND 4.0" as people write them.
    """
    if licence is None or not licence.strip():
        return None
    terms: set[str] = set()
    for part in _parts(licence):
        known = _terms_of_one(part)
        if known is None:
            return None
        terms |= known
    return frozenset(terms)


def _parts(licence: str) -> list[str]:
    return [part.strip() for part in re.split(r"\s+AND\s+", licence)]


def _terms_of_one(name: str) -> frozenset[str] | None:
    spelt = re.sub(r"[\s_]+", "-", name.strip()).upper()
    if spelt in _FIXED:
        return _FIXED[spelt]
    match = re.fullmatch(r"CC-(BY(?:-(?:NC|ND|SA))*)-\d\.\d", spelt)
    return frozenset(_CC_PARTS[part] for part in match[1].split("-")) if match else None


def licence_of(licence: str | None, non_commercial: Any = "by licence", what: str = "scan") -> LabelLicence:
    """Return the licence of one thing alone, such as a human label, which has its scan's.

    non_commercial: what a card or row says besides; True wins over a licence that allows commercial use; null (None,
    NaN) says nothing, and the licence decides.
    """
    terms = terms_of(licence)
    barred = non_commercial in (True, 1)  # NaN and None are neither
    besides = ", non-commercial" if barred and NON_COMMERCIAL not in (terms or ()) else ""
    source = f"{what}: {licence or 'not stated'}{besides}"
    if terms is None:
        return LabelLicence(None, True if barred else None, (source,))
    if barred and NON_COMMERCIAL not in terms:
        return LabelLicence(f"{licence} AND {NC_ONLY}", True, (source,))
    return LabelLicence(licence, NON_COMMERCIAL in terms, (source,))


def strictest(
    scan_licence: str | None, teacher_licence: str | None, scan_non_commercial: Any = "by licence"
) -> LabelLicence:
    """Return the licence that a label of a scan by a teacher (a model) inherits; None stands for not known.

    The licence whose terms hold all of the other's; where neither does, both ("CC-BY-SA-4.0 AND CC-BY-NC-4.0"). One
    that is not known makes the whole not known. teacher_licence: see `teacher_licence`. scan_non_commercial: see
    `licence_of`.
    """
    return joined([licence_of(scan_licence, scan_non_commercial), licence_of(teacher_licence, what="model")])


def joined(licences: Sequence[LabelLicence]) -> LabelLicence:
    """Return the strictest of several licences, as `strictest` does; sources are those of all."""
    sources = tuple(dict.fromkeys(source for one in licences for source in one.sources))
    barred = [one.non_commercial for one in licences]
    non_commercial = True if True in barred else None if None in barred else False
    parts = dict.fromkeys(part for one in licences for part in _parts(one.licence or UNKNOWN))
    terms = {part: _terms_of_one(part) for part in parts}
    if None in terms.values():
        return LabelLicence(None, non_commercial, sources)
    kept = [
        part
        for number, part in enumerate(parts)
        if not any(
            _covers(terms[other], terms[part], earlier=place < number)
            for place, other in enumerate(parts)
            if place != number
        )
    ]
    return LabelLicence(" AND ".join(kept), non_commercial, sources)


def _covers(other: frozenset[str] | None, terms: frozenset[str] | None, *, earlier: bool) -> bool:
    """Tell whether `other` demands all of `terms`, and more or came first."""
    return other is not None and terms is not None and (other > terms or (other == terms and earlier))


def teacher_licence(version: ModelVersion, settings: Settings) -> str | None:
    """Return the licence of a model version: of its weights where they came from others, and of all it was trained on.

    A model learns from its training scans, so whether masks by it may be sold is not clearer than whether the scans
    may: the strictest of their cards counts. None where one of them, or a data set without a card, states no licence.
    """
    weights = read_metadata(fetch_checkpoint(version, settings)).extra.get(LICENCE)
    datasets = sorted({case.split("/")[0] for case in training_cases(version, settings)})
    return licence_of_training(weights, datasets)


def licence_of_training(weights: str | None, datasets: Iterable[str]) -> str | None:
    """Return the strictest of a weight file's licence (None: made here) and the cards' of the data sets trained on."""
    known = set(list_cards())
    found = [licence_of(weights, what="weights")] if weights is not None else []
    for dataset in datasets:
        if dataset not in known:
            return None
        stated = load_card(dataset).licence
        found.append(licence_of(stated.spdx, stated.non_commercial, what=dataset))
    return joined(found).licence if found else None


def check_profile(profile: str, licence: LabelLicence, where: str) -> None:
    """Raise LicenceRefused, naming the source and the way out, where `profile` may not hold a label of this licence.

    research: everything, under its own terms. public: what may be passed on, so neither no-derivatives (a mask is made
    from the scan) nor not known. commercial: what may be passed on and sold. ValueError for another profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r}, expected one of {', '.join(PROFILES)}")
    if profile == "research":
        return
    terms = licence.terms
    if terms is None and licence.non_commercial is not True:
        reason = "no licence is known, which is never read as permission"
    elif profile == "commercial" and (licence.non_commercial is not False or NON_COMMERCIAL in (terms or ())):
        reason = "commercial use is forbidden"
    elif terms is None:
        reason = "no licence is known, which is never read as permission"
    elif NO_DERIVATIVES in terms:
        reason = "what is made from it, such as a mask, must not be passed on"
    else:
        return
    raise LicenceRefused(
        f"{where}: profile {profile} refuses licence {licence.licence or 'not known'} "
        f"({'; '.join(licence.sources) or 'no source'}): {reason}; "
        "export it with --profile research, leave it out, or label it by a model and on scans that allow it"
    )
