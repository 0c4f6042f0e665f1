"""How human labels look: size, place, parts and HU of every class, from the `labels` table at one version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.workspace import Workspace


@dataclass(frozen=True, eq=False)
class HumanReference:
    """Figures of the human labels of a lake. table_versions: of the tables they come from."""

    table_versions: Mapping[str, int]


def human_reference(workspace: Workspace) -> HumanReference:
    """Return the reference of the tables as they are now; computed once per version of the tables."""
    raise NotImplementedError
