"""Names and keys of what is stored: the same scan, processed the same way, always gets the same ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.volume import Affine

KEY_PREFIX = 12
"""Characters of the ingest key that name a case's folder (48 bits, compared within one case only)."""

GROUP_PREFIX = 16
"""Characters of the content hash that name a split group."""

_SLAB_BYTES = 16 * 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be a folder name everywhere; raise ValueError that says what is wrong otherwise.

    kind: what the name is of, for the message. Letters, digits and `._+=-`, at most 100, the first a letter or digit.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{kind}: found {name!r}, expected 1-100 letters, digits or ._+=- beginning with a letter or digit; "
            "give the case a plain name in its data set's card"
        )
    return name


def case_id(dataset: str, native_id: str) -> str:
    """Return `<dataset>/<native id>`, the name of one scan across the whole factory. ValueError for unsafe names."""
    return f"{check_name('dataset', dataset)}/{check_name('native id', native_id)}"


def _plain_dtype(array: NDArray[Any]) -> str:
    """Return the little-endian dtype that voxels are hashed in, so that a re-typed copy keeps its hash."""
    if array.size == 0:
        return "<i2"
    low, high = array.min(), array.max()
    bounds = np.iinfo(np.int16)
    fits = bool(low >= bounds.min and high <= bounds.max)
    if array.dtype.kind in "iub":
        return "<i2" if fits else "<i8"
    whole = fits and bool(np.array_equal(array, np.rint(array)))
    return "<i2" if whole else "<f4"


def content_sha256(array: NDArray[Any], affine: Affine) -> str:
    """Return the SHA-256 (hex) of decoded voxels and their geometry.

    array: (X, Y, Z), RAS-oriented, HU as read, before resampling; integers and whole floats of the same value hash
    alike, whatever their dtype and memory order. affine: 4 x 4, RAS mm, compared to 0.001 mm.
    """
    dtype = _plain_dtype(array)
    # Adding 0.0 turns -0.0 into 0.0, which would otherwise hash differently.
    geometry = np.round(np.asarray(affine, dtype=np.float64), 3) + 0.0
    header = {"shape": [int(n) for n in array.shape], "dtype": dtype, "affine": geometry.tolist()}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    per_slice = max(1, int(np.prod(array.shape[:-1])) * np.dtype(dtype).itemsize)
    step = max(1, _SLAB_BYTES // per_slice)
    for start in range(0, array.shape[-1], step):
        slab = array[..., start : start + step].astype(dtype, copy=False)
        digest.update(np.ascontiguousarray(slab.T).data)  # (Z, Y, X): x runs fastest, as in the lake
    return digest.hexdigest()


def split_group(content: str) -> str:
    """Return the split group of a scan from its content hash: scans with equal content share one."""
    return content[:GROUP_PREFIX]


def ingest_key(raw_digest: str, card_digest: str, harmoniser_version: str, spacing_mm: Sequence[float]) -> str:
    """Return the key (64 hex) of one way of processing one scan; an equal key means there is nothing to do.

    raw_digest: SHA-256 of the raw files. card_digest: hash of the data set's card. harmoniser_version: changes when
    the same input would give other voxels. spacing_mm: of the lake grid, X Y Z.
    """
    parts = [raw_digest, card_digest, harmoniser_version, [round(float(mm), 6) for mm in spacing_mm]]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
