"""The digest of a model's weights: by it a version is known, and one changed byte is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from models.checkpoint import members

WEIGHTS = "weights_sha256"
"""Tag of every version and of its logged model: the digest of its weights at registration."""

_BLOCK = 1 << 20


class WeightsChanged(ValueError):
    """The stored weights of a version are not the ones that were registered."""


def checkpoint_digest(path: Path) -> str:
    """Return the SHA-256 of a checkpoint, of each file its name, length and bytes, in the order of names.

    path: a safetensors file, or the folder of several that predict together. FileNotFoundError where there is none.
    """
    return files_digest(members(path))


def files_digest(files: Sequence[Path]) -> str:
    """Return the same of the members of a checkpoint."""
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda one: one.name):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
