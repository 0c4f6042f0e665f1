"""Lets a CPU torch live beside a CUDA torchvision: declares the two operator schemas whose absence breaks its import.

On CPU-only machines the package index may pair a CPU torch with a torchvision whose compiled part cannot load; then
`import torchvision` fails with `operator torchvision::nms does not exist`, and with it open_clip, torchmetrics and
Lightning. Nothing here runs detection operators, so their schemas are all that the import needs.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []  # a Library's definitions vanish when the object does


def compiled_part_loads() -> bool:
    """Return whether torchvision's compiled operators load here; True also where torchvision is not installed."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True
    for folder in spec.submodule_search_locations:
        for library in sorted(Path(folder).glob("_C*.*")):
            try:
                torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            except (OSError, RuntimeError):
                return False
            return True
    return False


def install() -> bool:
    """Declare the missing operators if torchvision could not be imported without them; return whether it did.

    Does nothing where torchvision is absent, already imported, or able to load its compiled part.
    """
    if _libraries or "torchvision" in sys.modules or compiled_part_loads():
        return False
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS.values():
        library.define(schema)  # type: ignore[no-untyped-call]
    _libraries.append(library)
    return True


install()
