"""The phantom: one anatomical adult with all classes of the taxonomy, varied by a seed, drawn on any grid."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets_registry.miniatures.body_map import BodyMap, draw_body_map
from datasets_registry.miniatures.frame import AIR_HU, frame
from datasets_registry.miniatures.lesions import choose_counts, grow
from datasets_registry.miniatures.organs import organs
from datasets_registry.miniatures.peculiar import apply_peculiar
from datasets_registry.miniatures.shape import Paint, Shape
from datasets_registry.taxonomy import class_info, class_names
from imaging.bits import Bits, empty_bits
from imaging.volume import Affine, Volume

EDGE_SHARE = 0.12
"""Share that each neighbour adds to a voxel, the softness of edges in a real scan."""
STEADY = ("trunk", "spine", "pelvis", "ribs", "table", "diaphragm", "lungs", "vessels", "colon", "bowel")
"""Groups whose parts join others, so that they move and scale less from case to case."""
SIZES: dict[str, float] = {"bladder": 0.14, "gall_bladder": 0.12, "spleen": 0.09, "genital": 0.1, "stomach": 0.06}
"""Spread of the scale (standard deviation of its logarithm) where a group varies more than the usual 0.045."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """One patient: the shapes in painting order, the map from world to body frame, and the lesions grown."""

    shapes: tuple[Shape, ...]
    body: BodyMap
    female: bool
    lesions: Mapping[str, int]


def make_anatomy(seed: int, lesions: Mapping[str, int] | None = None, peculiar: Iterable[str] = ()) -> Anatomy:
    """Return the patient of a seed; the same seed gives the same patient.

    lesions: class name -> how many (0: surely none, at most the number of its sites); classes not named are drawn by
    probability. peculiar: names of `peculiar.PECULIAR`. Raises KeyError for a class the phantom cannot grow and for an
    unknown peculiarity, ValueError for a negative count.
    """
    rng = _stream(seed, "patient")
    female = bool(rng.random() < 0.5)
    counts = choose_counts(_stream(seed, "lesions"), lesions or {})
    shapes = [*frame(), *organs(female)]
    for name, count in counts.items():
        shapes += grow(name, count, _stream(seed, name))
    shapes = apply_peculiar(shapes, peculiar)
    contrast = float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.15))
    varied = _varied(shapes, seed, contrast)
    return Anatomy(tuple(varied), draw_body_map(_stream(seed, "body")), female, counts)


def render(
    anatomy: Anatomy, shape: tuple[int, int, int], affine: Affine, noise_hu: float = 12.0, seed: int = 0
) -> tuple[Volume, Bits]:
    """Return the CT of a patient and the full truth on the same grid.

    shape, affine: any grid, voxel index to RAS mm, any axis order. noise_hu: standard deviation of the image noise.
    Returns the image, int16 HU, and the class bits (W, X, Y, Z). Both are the same on every call.
    """
    affine = np.asarray(affine, dtype=np.float64)
    grid = anatomy.body.on_grid(shape, affine)
    image = np.full(shape, AIR_HU, dtype=np.float32)
    bits = empty_bits(shape, len(class_names()))
    noise = _stream(seed, "noise")
    texture = _smooth_noise(noise, shape)
    for item in anatomy.shapes:
        for piece in item.solid.pieces():
            box = grid.box(*piece.bounds())
            if box is not None:
                mask = piece.inside(grid.x[box], grid.y[box], grid.z[box])
                _paint(item, mask, image[box], bits[(slice(None), *box)], texture[box])
    for axis in range(3):
        image = _blurred(image, axis, EDGE_SHARE)
    image += np.float32(noise_hu) * _smooth_noise(noise, shape)
    return Volume(np.clip(np.rint(image), -1024, 3071).astype(np.int16), affine), bits


def _paint(
    item: Shape, mask: NDArray[np.bool_], image: NDArray[np.float32], bits: Bits, texture: NDArray[np.float32]
) -> None:
    """Paint one piece in place; image, texture (X, Y, Z) and bits (W, X, Y, Z) are views of its box."""
    if item.paint is Paint.WITHIN:
        allowed = _selector(item.within, bits.shape[0])
        mask = mask & ((bits & allowed) != 0).any(axis=0)
        kept = bits & allowed if class_info(item.class_name or "").is_lesion else bits
    else:
        if item.paint is Paint.FREE:
            mask = mask & ~bits.any(axis=0) & (image < 100)
        kept = np.zeros_like(bits)
    own = _selector((item.class_name,) if item.class_name else (), bits.shape[0])
    np.copyto(bits, kept | own, where=mask)
    hu = np.float32(item.hu)
    np.copyto(image, hu + np.float32(item.texture_hu) * texture if item.texture_hu else hu, where=mask)


def _selector(names: tuple[str, ...], words: int) -> Bits:
    """Return (W, 1, 1, 1) words with the bit of each named class set."""
    selector = np.zeros((words, 1, 1, 1), dtype=np.uint32)
    for name in names:
        channel = class_info(name).channel
        selector[channel // 32] |= np.uint32(1) << np.uint32(channel % 32)
    return selector


def _varied(shapes: list[Shape], seed: int, contrast: float) -> list[Shape]:
    """Return the shapes with each group moved, scaled and brightened a little, all parts of a group alike."""
    anchors: dict[str, Shape] = {}
    for item in shapes:
        anchors.setdefault(item.group, item)
    result = []
    for item in shapes:
        rng = _stream(seed, f"group {item.group}")
        steady = item.group in STEADY
        shift = np.clip(rng.normal(0, 1.0 if steady else 3.0, 3), -7, 7)
        spread = 0.012 if steady else SIZES.get(item.group, 0.045)
        scale = float(np.exp(np.clip(rng.normal(0, spread), -2 * spread, 2 * spread)))
        hu = item.hu
        if item.class_name is not None and 60 < hu < 250:  # enhancing tissue follows the contrast agent
            hu *= contrast * float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07))
        solid = item.solid.moved(anchors[item.group].centre, scale, (float(shift[0]), float(shift[1]), float(shift[2])))
        result.append(replace(item, solid=solid, hu=hu))
    return result


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Return noise of standard deviation 1, correlated between neighbours as reconstructed CT is."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    share = 0.22
    for axis in range(3):
        noise = _blurred(noise, axis, share)
    return noise * np.float32(((1 - 2 * share) ** 2 + 2 * share**2) ** -1.5)


def _blurred(array: NDArray[np.float32], axis: int, share: float) -> NDArray[np.float32]:
    """Return the array with `share` of each neighbour along one axis mixed in; the edge counts as its own neighbour."""
    array = np.moveaxis(array, axis, 0)
    result = array * np.float32(1 - 2 * share)
    result[1:] += np.float32(share) * array[:-1]
    result[:-1] += np.float32(share) * array[1:]
    result[0] += np.float32(share) * array[0]
    result[-1] += np.float32(share) * array[-1]
    return np.moveaxis(result, 0, axis)


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """Return random numbers for one purpose, so that a change in one part leaves the others as they are."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])
