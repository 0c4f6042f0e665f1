"""Everything around the organs: table, skin, fat, muscles, skeleton, diaphragm. No class but the femoral heads."""

from __future__ import annotations

import math

from datasets_registry.miniatures.geometry import Blob, Loft, Point, Solid, Tube
from datasets_registry.miniatures.shape import Paint, Shape

AIR_HU, FAT_HU, SKIN_HU, MUSCLE_HU, LUNG_HU = -1000.0, -103.0, 5.0, 55.0, -850.0
CORTEX_HU, MARROW_HU, DISC_HU, CORD_HU = 420.0, 190.0, 80.0, 32.0

SPINE: tuple[tuple[str, float, float], ...] = (
    ("L5", -66, -14),
    ("L4", -33, -11),
    ("L3", 0, -10),
    ("L2", 33, -15),
    ("L1", 66, -26),
    ("T12", 97, -38),
    ("T11", 126, -47),
    ("T10", 154, -53),
    ("T9", 181, -57),
    ("T8", 207, -59),
    ("T7", 232, -60),
    ("T6", 256, -60),
)
"""Vertebra, z and y of the middle of its body, mm."""

TRUNK: tuple[tuple[float, float, float, float, float], ...] = (
    (-300, 0, -4, 180, 118),
    (-230, 0, -4, 182, 122),
    (-170, 0, -2, 182, 128),
    (-100, 0, 0, 176, 130),
    (0, 0, 0, 168, 128),
    (90, 0, 0, 166, 126),
    (170, 0, -2, 164, 122),
    (300, 0, -6, 158, 112),
)
"""Outline of the skin: z, middle x and y, half width, half depth."""


def frame() -> list[Shape]:
    """Return the shapes in painting order, from the table to the bones."""
    return [*_trunk(), *_muscles(), *_chest(), *_spine(), *_pelvis(), *_ribs()]


def _inset(side: float, front: float, shift_y: float = 0.0) -> Loft:
    return Loft(tuple((z, x, y + shift_y, half_x - side, half_y - front) for z, x, y, half_x, half_y in TRUNK))


def _trunk() -> list[Shape]:
    top = Blob((0, -160, 0), (215, 26, 600), power=4, cuts=((0, 1, 0, -136),))
    return [
        Shape("table", "table", top, -60),
        Shape("table_core", "table", Blob((0, -160, 0), (211, 21, 600), power=4, cuts=((0, 1, 0, -140),)), -920),
        Shape("skin", "trunk", _inset(0, 0), SKIN_HU),
        Shape("fat", "trunk", _inset(3, 3), FAT_HU),
        Shape("wall", "trunk", _inset(21, 17), MUSCLE_HU),
        Shape("cavity", "trunk", _inset(33, 26, shift_y=2), FAT_HU),
    ]


def _muscles() -> list[Shape]:
    shapes = []
    for side, sign in (("right", 1), ("left", -1)):
        solids: dict[str, Solid] = {
            "back_muscle": Loft(
                (
                    (-125, sign * 24, -96, 16, 12),
                    (-70, sign * 36, -84, 30, 24),
                    (0, sign * 38, -76, 34, 27),
                    (100, sign * 33, -90, 30, 20),
                    (300, sign * 28, -94, 25, 15),
                )
            ),
            "psoas": Tube(
                (
                    (sign * 30, -16, 62),
                    (sign * 42, -10, 0),
                    (sign * 52, -4, -60),
                    (sign * 68, 14, -120),
                    (sign * 86, 30, -170),
                    (sign * 96, 16, -225),
                ),
                (8, 16, 21, 21, 18, 16),
            ),
            "iliacus": Blob((sign * 92, -2, -98), (15, 42, 46), tilt_deg=(0, 0, -sign * 38)),
            "gluteus_medius": Blob((sign * 122, -34, -120), (26, 54, 62), tilt_deg=(0, 0, -sign * 30)),
            "gluteus_maximus": Blob((sign * 82, -84, -170), (64, 30, 76), tilt_deg=(0, 0, sign * 18)),
            "thigh": Blob((sign * 104, 14, -215), (58, 66, 66)),
        }
        shapes += [Shape(f"{side}_{name}", "trunk", solid, MUSCLE_HU) for name, solid in solids.items()]
    pelvic_floor = Blob((0, -20, -238), (56, 52, 20))
    shapes.append(Shape("pelvic_floor", "trunk", pelvic_floor, MUSCLE_HU))
    return shapes


def _chest() -> list[Shape]:
    """Lungs first, then the diaphragm's domes, which lift the liver and the stomach into them."""
    right_lung = Loft(
        (
            (68, 92, -66, 14, 14),
            (90, 90, -54, 38, 38),
            (120, 82, -30, 47, 64),
            (160, 76, -10, 53, 82),
            (300, 72, -6, 52, 84),
        )
    )
    left_lung = Loft(
        (
            (64, -92, -66, 14, 14),
            (88, -90, -54, 38, 38),
            (120, -84, -30, 45, 62),
            (160, -78, -12, 50, 80),
            (300, -74, -8, 50, 82),
        )
    )
    crus = {side: Tube(((x, -4, 40), (x, -22, 100), (x * 0.6, -22, 150)), (6,)) for side, x in (("r", 8), ("l", -30))}
    return [
        Shape("mediastinum", "trunk", Blob((0, -10, 270), (46, 90, 120), power=4), 20),
        Shape("right_lung", "lungs", right_lung, LUNG_HU, "right_lung"),
        Shape("left_lung", "lungs", left_lung, LUNG_HU, "left_lung"),
        *_lung_vessels(),
        Shape("right_dome", "diaphragm", Blob((70, 3, 91), (76, 91, 78)), MUSCLE_HU),
        Shape("left_dome", "diaphragm", Blob((-70, 0, 88), (74, 88, 72)), MUSCLE_HU),
        Shape("middle_dome", "diaphragm", Blob((0, 20, 100), (70, 70, 62)), MUSCLE_HU),
        Shape("right_dome_fat", "diaphragm", Blob((70, 3, 88), (73, 87, 76)), FAT_HU),
        Shape("left_dome_fat", "diaphragm", Blob((-70, 0, 85), (71, 84, 70)), FAT_HU),
        Shape("middle_dome_fat", "diaphragm", Blob((0, 20, 97), (66, 66, 60)), FAT_HU),
        Shape("heart", "heart", Blob((-22, 26, 222), (62, 46, 52), tilt_deg=(0, 20, 15)), 95),
        Shape("heart_chamber_left", "heart", Blob((-42, 18, 224), (28, 26, 34)), 165),
        Shape("heart_chamber_right", "heart", Blob((8, 34, 226), (22, 22, 34)), 170),
        *(Shape(f"crus_{side}", "diaphragm", tube, MUSCLE_HU) for side, tube in crus.items()),
    ]


def _lung_vessels() -> list[Shape]:
    """Return the branches that the lungs show; they stay part of the lung."""
    shapes = []
    for side, sign in (("right_lung", 1), ("left_lung", -1)):
        for number, (x, y, z) in enumerate(((92, -40, 150), (105, 0, 178), (70, -62, 165), (80, 45, 190))):
            tube = Tube(((sign * 34, -16, 262), (sign * (x + 34) / 2, (y - 16) / 2, 215), (sign * x, y, z)), (5, 4, 2))
            shapes.append(Shape(f"{side}_vessel_{number}", "lungs", tube, 30, side, Paint.WITHIN, (side,)))
    return shapes


def _spine() -> list[Shape]:
    knots: list[Point] = [(0, y, z) for _, z, y in SPINE]
    shapes = [
        Shape("discs", "spine", Tube(tuple(knots), (17,)), DISC_HU),
    ]
    for name, z, y in SPINE:
        lumbar = name.startswith("L")
        wide, deep = (24, 17.5) if lumbar else (19, 16)
        bones: list[tuple[str, Blob]] = [
            ("body", Blob((0, y, z), (wide, deep, 13.5), power=4)),
            ("arch", Blob((0, y - 27, z - 3), (20, 17, 11), power=4)),
            ("spinous", Blob((0, y - 50, z - 10), (4.5, 20, 9), power=4)),
            ("transverse", Blob((0, y - 27, z - 2), (42 if lumbar else 32, 6, 6), power=4)),
        ]
        shapes += [Shape(f"{name}_{part}", "spine", blob, CORTEX_HU - 60) for part, blob in bones]
        marrow = Blob((0, y, z), (wide - 3.5, deep - 3.5, 11.5), power=4)
        shapes.append(Shape(f"{name}_marrow", "spine", marrow, MARROW_HU))
    canal = tuple((x, y - 26.0, z) for x, y, z in knots)
    shapes += [Shape("canal", "spine", Tube(((0, -52, -100), *canal), (9,)), CORD_HU)]
    return shapes


def _pelvis() -> list[Shape]:
    sacrum = (
        ("S1", Blob((0, -46, -103), (56, 22, 19), tilt_deg=(28, 0, 0), power=4)),
        ("S3", Blob((0, -86, -140), (40, 14, 28), tilt_deg=(28, 0, 0), power=4)),
        ("coccyx", Blob((0, -100, -184), (13, 8, 24))),
    )
    shapes = [Shape(name, "pelvis", blob, CORTEX_HU - 60) for name, blob in sacrum]
    shapes += [
        Shape("S1_marrow", "pelvis", Blob((0, -46, -103), (52, 17, 15), tilt_deg=(28, 0, 0), power=4), MARROW_HU - 60),
        Shape("S3_marrow", "pelvis", Blob((0, -86, -140), (36, 10, 24), tilt_deg=(28, 0, 0), power=4), MARROW_HU - 60),
    ]
    for side, sign in (("right", 1), ("left", -1)):
        solids: dict[str, tuple[Solid, Solid]] = {
            "ilium": (
                Blob((sign * 86, -32, -104), (10, 62, 58), tilt_deg=(0, sign * 12, -sign * 36)),
                Blob((sign * 86, -32, -104), (4.5, 56, 52), tilt_deg=(0, sign * 12, -sign * 36)),
            ),
            "acetabulum": (Blob((sign * 78, -16, -168), (28, 40, 36)), Blob((sign * 76, -16, -164), (20, 32, 29))),
            "pubis": (
                Tube(((sign * 66, 16, -178), (sign * 38, 40, -196), (sign * 9, 50, -206)), (12, 9, 10)),
                Tube(((sign * 66, 16, -178), (sign * 38, 40, -196), (sign * 9, 50, -206)), (8, 5, 6)),
            ),
            "ischium": (
                Tube(((sign * 66, -36, -182), (sign * 58, -46, -212), (sign * 46, -30, -245)), (16, 15, 12)),
                Tube(((sign * 66, -36, -182), (sign * 58, -46, -212), (sign * 46, -30, -245)), (11, 11, 8)),
            ),
            "femur": (
                Tube(((sign * 112, -16, -196), (sign * 132, -22, -212), (sign * 136, -22, -280)), (15, 20, 18)),
                Tube(((sign * 112, -16, -196), (sign * 132, -22, -212), (sign * 136, -22, -280)), (11, 15, 11)),
            ),
        }
        for name, (outer, inner) in solids.items():
            shapes.append(Shape(f"{side}_{name}", "pelvis", outer, CORTEX_HU))
            shapes.append(Shape(f"{side}_{name}_marrow", "pelvis", inner, MARROW_HU - 90))
        shapes += _femoral_head(side, sign)
    return shapes


def _femoral_head(side: str, sign: int) -> list[Shape]:
    """Return joint space, head and neck; the class holds both of the latter, as the sets that label it do."""
    name = f"{side}_head_of_femur"
    centre = (sign * 91.0, -9.0, -179.0)
    neck = (centre, (sign * 108.0, -14.0, -193.0))
    return [
        Shape(f"{side}_joint", "pelvis", Blob(centre, (28.5, 28.5, 28.5)), MUSCLE_HU + 20),
        Shape(f"{side}_head", "pelvis", Blob(centre, (26, 26, 26)), CORTEX_HU + 60, name),
        Shape(f"{side}_neck", "pelvis", Tube(neck, (19, 17)), CORTEX_HU + 60, name),
        Shape(f"{side}_head_marrow", "pelvis", Blob(centre, (21.5, 21.5, 21.5)), 290, name),
        Shape(f"{side}_neck_marrow", "pelvis", Tube(neck, (14.5, 13)), 250, name),
    ]


def _ribs() -> list[Shape]:
    """Return ribs 6-12: from the spine outwards and down along the chest wall, the lower the shorter."""
    shapes = []
    for number, (name, z, y) in enumerate(reversed(SPINE[5:])):
        reach = 2.45 - 0.2 * number
        points: list[Point] = []
        for step in range(9):
            angle = 0.25 + (reach - 0.25) * step / 8  # 0 at the spine, pi at the breastbone
            fall = 62.0 * (step / 8) ** 1.2
            points.append((141 * math.sin(angle), -3 - 104 * math.cos(angle), z - 4 - fall))
        for side, sign in (("right", 1), ("left", -1)):
            path = ((sign * 12.0, y - 24.0, z), *((sign * px, py, pz) for px, py, pz in points))
            shapes.append(Shape(f"{side}_rib_{name}", "ribs", Tube(path, (5.5,)), CORTEX_HU - 40))
    return shapes
