"""Synthetic miniatures of the data sets: an adult phantom with every class, written in each set's native layout.

`write_miniature("btcv", folder, cases=2, seed=1, truth_folder=elsewhere)` writes a raw folder that the set's own reader
reads; `write_external` writes an unlabelled DICOM cohort. Nothing here is real data, and nothing is read on import.
`MINIATURE_SETS` are the sets of the demonstration, one for each kind of native layout; any card of NIfTI pairs or of a
Decathlon task works too.
"""

from datasets_registry.miniatures.phantom import Anatomy, make_anatomy, render
from datasets_registry.miniatures.write import write_external, write_miniature

MINIATURE_SETS: tuple[str, ...] = ("btcv", "kits", "chaos_ct", "msd_pancreas", "pancreas_ct")

__all__ = ["MINIATURE_SETS", "Anatomy", "make_anatomy", "render", "write_external", "write_miniature"]
