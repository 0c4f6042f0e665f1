"""`clean`: cleaning 32 classes of 300^3 voxels against the usual form with a float volume a class, same masks.

`clean rows`: cleaning and the figures of the label rows against the bar of 6 s, of which scores take a share too.
`clean memory`: a fresh process's peak while it cleans; the bits, or the floats, are in it.
The masks are a phantom's with what networks get wrong: specks of every class all over, a kidney's part under the other
one's name, joined lungs, cavities, a tumour that reaches too far.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import peak_gb, report, used_gb
from benchmarks.clean_reference import Masks, plain_clean
from benchmarks.side_by_side import record
from datasets_registry.miniatures.phantom import make_anatomy, render
from datasets_registry.taxonomy import all_classes, class_info, class_names
from imaging.bits import Bits, get_channel, set_channel
from imaging.sides import body_midline_x
from imaging.volume import Volume
from models.postprocess import clean
from tasks.case_rows import label_rows

SHAPE = (300, 300, 300)
SPACING_MM = (1.5, 1.5, 1.5)
SPECKS = 40
BAR_S = 6.0
LESIONS = {
    "kidney_tumor": 1,
    "liver_tumor": 2,
    "pancreas_tumor": 1,
    "lung_tumor": 1,
    "colon_tumor": 1,
    "kidney_cyst": 1,
}


def faulty(shape: tuple[int, int, int], specks: int = SPECKS, seed: int = 0) -> tuple[Volume, Bits]:
    """Return the image of a phantom, of 450 mm along each axis whatever its shape, and bits with faults."""
    affine = np.diag([*(450 / np.array(shape)), 1.0])
    affine[:3, 3] = -225
    image, bits = render(make_anatomy(3, LESIONS), shape, affine)
    random = np.random.default_rng(seed)
    for row in all_classes():
        for _ in range(specks):
            low = [int(random.integers(0, size - 6)) for size in shape]
            size = int(random.integers(1, 6))
            part = bits[(slice(None), *(slice(start, start + size) for start in low))]
            set_channel(part, row.channel, np.ones(part.shape[1:], dtype=bool))
    _exchange(bits, "right_kidney", "left_kidney", shape[2] // 2)
    right, left = (class_info(name).channel for name in ("right_lung", "left_lung"))
    lungs = get_channel(bits, right) | get_channel(bits, left)
    middle = slice(shape[0] // 2 - shape[0] // 10, shape[0] // 2 + shape[0] // 10)
    lungs[middle, shape[1] // 2, -4:] = True  # a bridge that joins them
    set_channel(bits, right, lungs)
    hollow = random.random(shape) < 0.0005
    bits[0][hollow] &= ~np.uint32(1 << class_info("liver").channel)
    return image, bits


def _exchange(bits: Bits, name: str, other: str, above: int) -> None:
    """Give the upper part of one class to another."""
    upper = bits[:, :, :, above:]
    part = get_channel(upper, class_info(name).channel)
    set_channel(upper, class_info(other).channel, part)
    upper[class_info(name).channel // 32] &= ~np.uint32(1 << class_info(name).channel % 32)


def floats(bits: Bits) -> Masks:
    """Return one float volume a class."""
    masks = np.zeros((len(class_names()), *bits.shape[1:]), dtype=np.float32)
    for channel in range(len(masks)):
        masks[channel] = get_channel(bits, channel)
    return masks


def right_side(image: Volume, middle: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the voxels right of the middle, (X, 1, Z)."""
    x = image.affine[0, 0] * np.arange(image.shape[0]) + image.affine[0, 3]
    return np.asarray(x[:, None, None] >= middle)


def check_same(image: Volume, bits: Bits) -> None:
    """Raise ValueError where the plain form gives other masks."""
    middle = body_midline_x(image)
    ours = clean(bits, affine=image.affine, midline_x=middle)
    plain = plain_clean(floats(bits), image.spacing_mm, right_side(image, middle))
    differ = {name: int((get_channel(ours.bits, c) != (plain[c] > 0.5)).sum()) for c, name in enumerate(class_names())}
    if any(differ.values()) or not ours.removed or ours.remarks:
        raise ValueError(f"clean: voxels that differ from the plain form: {differ}; remarks: {ours.remarks}")


def main() -> None:
    """Record time, time with label rows, and memory; ValueError where the masks differ."""
    check_same(*faulty((100, 100, 100)))
    image, bits = faulty(SHAPE)
    middle = body_midline_x(image)
    taken, rows_taken = [], []
    for _ in range(6):
        started = time.perf_counter()
        result = clean(bits, affine=image.affine, midline_x=middle)
        taken.append(time.perf_counter() - started)
        _rows(result.bits, image)
        rows_taken.append(time.perf_counter() - started)
    masks, right = floats(bits), right_side(image, middle)
    started = time.perf_counter()
    plain_clean(masks, image.spacing_mm, right)
    peer = time.perf_counter() - started
    del masks
    record("clean", statistics.median(taken[1:]), peer, "s")
    record("clean rows", statistics.median(rows_taken[1:]), BAR_S, "s")
    found = {form: peak_gb("benchmarks.clean", form)[1] for form in ("ours", "plain")}
    record("clean memory", found["ours"], found["plain"], "GB")


def _rows(bits: Bits, image: Volume) -> None:
    label_rows(
        bits,
        image,
        class_names(),
        case={"case_id": "bench/scan", "ingest_key": "0"},
        annotation="pseudo",
        sampled_voxels=256,
        provenance=lambda _: {},
    )


def child(form: str) -> None:
    """Clean once in this process, whose peak then counts, with masks made of boxes alone: nothing else takes memory."""
    random = np.random.default_rng(0)
    right = np.arange(SHAPE[0])[:, None, None] >= SHAPE[0] // 2
    bits = np.zeros((1, *SHAPE), dtype=np.uint32)
    for row in all_classes():
        for size in (60, *([4] * SPECKS)):
            low = [int(random.integers(0, extent - size)) for extent in SHAPE]
            part = bits[(slice(None), *(slice(start, start + size) for start in low))]
            set_channel(part, row.channel, np.ones(part.shape[1:], dtype=bool))
    before = used_gb()
    if form == "ours":
        affine = np.diag([*SPACING_MM, 1.0])
        clean(bits, affine=affine, midline_x=np.full(SHAPE[2], SPACING_MM[0] * SHAPE[0] / 2))
    else:
        plain_clean(floats(bits), SPACING_MM, right)
    report(before)


if __name__ == "__main__":
    child(sys.argv[1])
