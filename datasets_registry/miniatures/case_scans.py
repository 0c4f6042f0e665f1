"""The scan of one case of a miniature set: its own patient, or the same scan as in the set it was copied from."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import lru_cache

import numpy as np

from datasets_registry.cards import Card, load_card
from datasets_registry.miniatures.numbers import native_id_of, turn_of
from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.miniatures.scan_changes import AFTER, TWIN_CHANGES, Scan
from datasets_registry.miniatures.scans import lesions_of, native_grid
from datasets_registry.miniatures.styles import ScanStyle, style_of
from datasets_registry.miniatures.twins import origin_of

Spacing = tuple[float, float, float]


def scan_of(card: Card, number: int, seed: int, spacing_mm: Spacing | None = None) -> Scan:
    """Return the scan of case `number` of a set, as its file shows it, with the full truth.

    A copy shows the voxels of its origin with the change that `twins.origin_of` states. spacing_mm (x, y, z) replaces
    that of the set, and of the origin too. The same seed gives the same voxels. Nobody may change the arrays.
    """
    origin = origin_of(card.id, number)
    if origin is None:
        return _own_scan(card.id, number, seed, spacing_mm)
    return TWIN_CHANGES[origin.change](_own_scan(origin.card_id, origin.number, seed, spacing_mm))


@lru_cache(maxsize=8)  # copies and further files of one scan are written one after the other
def _own_scan(card_id: str, number: int, seed: int, spacing_mm: Spacing | None) -> Scan:
    card = load_card(card_id)
    style = style_of(card, number, spacing_mm)
    name = f"{card.id}/{native_id_of(card, number)}"
    return patient_scan(name, seed, style, lesions_of(turn_of(card, number), style, card))


def plain_scan(card: Card, name: str, seed: int, spacing_mm: Spacing | None = None, axes: str | None = None) -> Scan:
    """Return a scan in the style of a set whose patient is no case of it, such as one of an unlabelled part."""
    style = style_of(card, None, spacing_mm)
    style = style if axes is None else replace(style, axes=axes)
    return patient_scan(f"{card.id}/{name}", seed, style, lesions_of(0, style, None))


def patient_scan(name: str, seed: int, style: ScanStyle, lesions: dict[str, int]) -> Scan:
    """Return the scan of a patient; the name keeps patients of different sets apart."""
    case_seed = zlib.crc32(f"{name} {seed}".encode())
    anatomy = make_anatomy(case_seed, lesions, style.anatomy)
    shape, affine = native_grid(style, np.random.default_rng([case_seed, 1]))
    image, bits = render(anatomy, shape, affine, style.noise_hu, case_seed)
    scan = Scan(image, bits, anatomy, image.affine)
    for change in style.after:
        scan = AFTER[change](scan)
    return scan
