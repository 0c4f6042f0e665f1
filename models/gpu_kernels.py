"""Finding the GPU kernels that Triton builds, which comes with the CUDA builds of PyTorch only."""

from __future__ import annotations

import functools
import logging
from importlib import import_module
from types import ModuleType


@functools.cache
def gpu_kernels(name: str) -> ModuleType | None:
    """Return the module `models.<name>`, or None, with a warning, where its kernels cannot be built.

    Its `try_out()` runs each of its kernels once.
    """
    try:
        found = import_module(f"models.{name}")
        found.try_out()
    except Exception as error:  # whatever Triton or its compiler lack, PyTorch's own form gives the same numbers
        logging.getLogger(__name__).warning("no GPU kernels of %s (%s); a slower form is used", name, error)
        return None
    return found
