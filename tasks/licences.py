"""What may be done with a label: the strictest of the licences of the scan and of the model that made it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Profile = Literal["research", "public", "commercial"]


@dataclass(frozen=True)
class LabelLicence:
    """The strictest licence a label inherits. licence: its name, None = not known. non_commercial: None = not known.

    sources: what each part says, "scan: CC-BY-4.0".
    """

    licence: str | None
    non_commercial: bool | None
    sources: tuple[str, ...] = ()


def strictest(scan_licence: str | None, teacher_licence: str | None) -> LabelLicence:
    """Return the licence that a label of a scan by a teacher (a model) inherits; None stands for not known."""
    raise NotImplementedError


def check_profile(profile: str, licence: LabelLicence, where: str) -> None:
    """Raise ValueError that names the source where `profile` may not hold a label of this licence."""
    raise NotImplementedError
