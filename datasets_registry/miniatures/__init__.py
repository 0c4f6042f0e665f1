"""Synthetic miniatures of the data sets: an adult phantom with every class, written in each set's native layout.

`write_miniature("btcv", folder, cases=2, seed=1, truth_folder=elsewhere)` writes a raw folder that the set's own reader
reads; `write_local` and `write_external` write cohorts of a hospital. Nothing here is real data, and nothing is read on
import. `twin_groups` names the cases that show one scan in several sets. `MINIATURE_SETS` are the sets of the
demonstration.
"""

from datasets_registry.miniatures.local_set import write_external, write_local
from datasets_registry.miniatures.numbers import count_cases, miniature_cards
from datasets_registry.miniatures.phantom import Anatomy, make_anatomy, render
from datasets_registry.miniatures.trouble import Planted, write_troubled
from datasets_registry.miniatures.twins import twin_groups
from datasets_registry.miniatures.write import write_miniature

MINIATURE_SETS: tuple[str, ...] = ("btcv", "kits", "chaos_ct", "msd_pancreas", "pancreas_ct")

__all__ = [
    "MINIATURE_SETS",
    "Anatomy",
    "Planted",
    "count_cases",
    "make_anatomy",
    "miniature_cards",
    "render",
    "twin_groups",
    "write_external",
    "write_local",
    "write_miniature",
    "write_troubled",
]
