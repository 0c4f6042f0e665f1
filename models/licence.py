"""What may be done with weights that came from others: kept in a checkpoint's metadata, and said at each use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LICENCE, TERMS, ATTRIBUTION, SOURCE, DIGEST = "licence", "licence_terms", "attribution", "source", "source_sha256"
KEYS = (LICENCE, TERMS, ATTRIBUTION, SOURCE, DIGEST)
"""Entries of `ModelMetadata.extra` that every model made from such weights keeps."""


@dataclass(frozen=True)
class WeightLicence:
    """The licence of a weight file: its name, what that means in words, and whom to name."""

    name: str
    terms: str
    attribution: str

    def entries(self, source: str, sha256: str) -> dict[str, str]:
        """Return the entries of `extra` for weights that came from `source`, a file name or an address."""
        return dict(zip(KEYS, (self.name, self.terms, self.attribution, source, sha256), strict=True))


PUBLISHED_LICENCE = WeightLicence(
    "CC BY-NC-ND 4.0",
    "non-commercial use only; a changed version, a fine-tuned one too, must not be passed on",
    "CLIP-Driven Universal Model, Liu et al., ICCV 2023",
)


def licence_notice(name: str, extra: Mapping[str, str]) -> str | None:
    """Return the sentence to show when the model `name` is used, None when nothing binds its user."""
    if LICENCE not in extra:
        return None
    terms = f", {extra[TERMS]}" if TERMS in extra else ""
    credit = f" Weights by {extra[ATTRIBUTION]}." if ATTRIBUTION in extra else ""
    return f"{name}: licence {extra[LICENCE]}{terms}.{credit}"
