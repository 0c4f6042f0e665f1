"""A patch source in memory for the tests of training: bright and dark boxes, partly annotated."""

from __future__ import annotations

import numpy as np

from datasets_registry.taxonomy import class_info
from models.plan import Int3, TrainCase

LIVER, SPLEEN, AORTA = (class_info(name).channel for name in ("liver", "spleen", "aorta"))


class BoxSource:
    """Scans of 20 x 18 x 16 voxels with a liver (100 HU) and a spleen (200 HU) box.

    Even cases annotate the liver, odd ones the spleen and the aorta, which is absent.
    """

    def __init__(self, cases: int = 4, shape: Int3 = (20, 18, 16)) -> None:
        self.images: dict[str, np.ndarray] = {}
        self.bits: dict[str, np.ndarray] = {}
        self._cases = []
        for number in range(cases):
            random = np.random.default_rng(number)
            image = random.normal(-100, 5, shape)
            bits = np.zeros((1, *shape), np.uint32)
            for channel, corner, hu in ((LIVER, 2, 100), (SPLEEN, 10, 200)):
                x = corner + int(random.integers(2))
                box = (slice(x, x + 6), slice(5, 11), slice(4, 10))
                image[box] = hu
                bits[0][box] |= np.uint32(1 << channel)
            name = f"box/{number}"
            annotated = (LIVER,) if number % 2 == 0 else (SPLEEN, AORTA)
            foreground = {c: np.argwhere(bits[0] & np.uint32(1 << c)) for c in annotated if c != AORTA}
            self.images[name], self.bits[name] = image.astype(np.int16), bits
            self._cases.append(TrainCase(name, annotated, shape, foreground, "box"))

    def cases(self) -> list[TrainCase]:
        return self._cases

    def read(self, case_id, start_xyz, size_xyz):
        image = np.full(size_xyz, -1024, np.int16)
        bits = np.zeros((1, *size_xyz), np.uint32)
        shape = self.images[case_id].shape
        inside, into = [], []
        for start, size, n in zip(start_xyz, size_xyz, shape, strict=True):
            low, high = max(0, start), min(n, start + size)
            inside.append(slice(low, high))
            into.append(slice(low - start, high - start))
        image[tuple(into)] = self.images[case_id][tuple(inside)]
        bits[(slice(None), *into)] = self.bits[case_id][(slice(None), *inside)]
        return image, bits, tuple(into)
