"""The abdominal organs and vessels of the phantom, in painting order: what comes later takes the voxel."""

from __future__ import annotations

from datasets_registry.miniatures.frame import FAT_HU
from datasets_registry.miniatures.geometry import Blob, Point, Tube
from datasets_registry.miniatures.shape import Paint, Shape

BLOOD_HU, ARTERY_HU, WALL_HU, GAS_HU = 165.0, 178.0, 62.0, -930.0

ASCENDING: tuple[Point, ...] = ((92, 26, -100), (100, 16, -50), (100, 8, 2), (94, 24, 18), (76, 58, 8))
TRANSVERSE: tuple[Point, ...] = ((76, 58, 8), (44, 80, -8), (0, 86, -14), (-44, 82, -6), (-80, 62, 26), (-106, 24, 54))
DESCENDING: tuple[Point, ...] = ((-106, 24, 54), (-112, -4, 20), (-112, -6, -40), (-100, 8, -88), (-72, 28, -112))
SIGMOID: tuple[Point, ...] = ((-72, 28, -112), (-40, 36, -122), (-8, 16, -116), (10, -14, -108), (6, -36, -114))
RECTUM: tuple[Point, ...] = (
    (6, -36, -114),
    (4, -52, -138),
    (0, -64, -164),
    (0, -58, -190),
    (0, -52, -210),
    (0, -58, -236),
)
STOMACH: tuple[Point, ...] = ((-66, 0, 138), (-72, 20, 112), (-62, 44, 86), (-36, 60, 68), (-6, 64, 60), (18, 58, 62))
DUODENUM: tuple[Point, ...] = (
    (22, 57, 62),
    (42, 48, 58),
    (54, 32, 44),
    (54, 28, 14),
    (46, 28, -6),
    (20, 40, -16),
    (-8, 44, -14),
    (-30, 40, 0),
    (-36, 42, 18),
)
PORTAL: tuple[Point, ...] = (
    (-84, -24, 92),
    (-54, 2, 76),
    (-22, 24, 66),
    (8, 26, 62),
    (24, 24, 78),
    (38, 20, 98),
    (52, 18, 106),
)
LOOPS: tuple[tuple[Point, ...], ...] = (
    ((-40, 44, 20), (-58, 52, 6), (-84, 40, -12), (-82, 28, -36), (-60, 32, -46), (-30, 42, -40), (0, 46, -42)),
    ((0, 46, -42), (36, 44, -38), (64, 40, -46), (66, 34, -70), (40, 40, -72), (6, 44, -68), (-34, 42, -70)),
    ((-34, 42, -70), (-64, 40, -76), (-70, 62, -60), (-62, 78, -42), (-30, 82, -44), (4, 84, -46), (38, 80, -42)),
    ((38, 80, -42), (64, 68, -56), (58, 72, -80), (30, 82, -76), (-6, 84, -74), (-40, 78, -76), (-46, 70, -100)),
    ((-46, 70, -100), (-14, 72, -102), (18, 72, -104), (48, 62, -106), (52, 42, -98), (70, 30, -94)),
)


def organs(female: bool) -> list[Shape]:
    """Return the organs of one sex in painting order."""
    return [
        *_solid_organs(),
        *_kidneys(),
        *_adrenals(),
        *_bowel(),
        *_upper_gut(),
        *_pelvic(female),
        *_vessels(),
        *_liver_vessels(),
    ]


def _solid_organs() -> list[Shape]:
    under = (-0.62, -0.12, -1.0, -78.0)  # the liver's lower surface rises towards the midline
    return [
        Shape("liver_right", "liver", Blob((70, 3, 89), (73, 87, 76), cuts=(under,)), 110, "liver"),
        Shape("liver_tip", "liver", Blob((102, 4, 44), (33, 62, 56)), 110, "liver"),
        Shape("liver_left", "liver", Blob((4, 52, 114), (66, 38, 34), tilt_deg=(0, 14, 12)), 110, "liver"),
        Shape(
            "gall_bladder", "gall_bladder", Blob((58, 58, 42), (16, 22, 24), tilt_deg=(25, 0, 0)), 10, "gall_bladder"
        ),
        Shape("spleen", "spleen", Blob((-101, -36, 104), (29, 47, 50), tilt_deg=(20, 0, -18)), 122, "spleen"),
    ]


def _kidneys() -> list[Shape]:
    shapes = []
    for side, sign, x, y, z in (("right", 1, 66, -34, 30), ("left", -1, -68, -36, 42)):
        name = f"{side}_kidney"
        tilt = (-10.0, sign * 9.0, -sign * 20.0)
        hilum = (x - sign * 17.0, y + 9.0, z - 2.0)
        layers = (
            ("fat", Blob((x, y, z), (36, 33, 63), tilt), FAT_HU, None),
            ("cortex", Blob((x, y, z), (29, 26, 55), tilt), 190.0, name),
            ("medulla", Blob((x - sign * 2, y + 1, z), (21, 18, 45), tilt), 152.0, name),
            ("sinus", Blob(hilum, (17, 9, 19), tilt), FAT_HU + 40, None),
        )
        shapes += [Shape(f"{name}_{part}", name, blob, hu, kind) for part, blob, hu, kind in layers]
    return shapes


def _adrenals() -> list[Shape]:
    """Return the adrenals, each a body and a limb; thick ones, so that a 6 mm grid still sees them."""
    shapes = []
    for side, sign, x, y, z in (("right", 1, 37, -27, 98), ("left", -1, -45, -16, 99)):
        name = f"{side}_adrenal_gland"
        body = Blob((x, y, z), (8.5, 17, 15), tilt_deg=(0, 0, sign * 20), power=2)
        limb = Blob((x + sign * 6, y - 8, z - 7), (6.5, 13, 13), tilt_deg=(0, 0, sign * 45))
        cushion = Blob((x + sign * 2, y - 2, z - 2), (13, 21, 20), tilt_deg=(0, 0, sign * 20))
        shapes += [
            Shape(f"{name}_fat", name, cushion, FAT_HU),
            Shape(f"{name}_body", name, body, 78, name),
            Shape(f"{name}_limb", name, limb, 78, name),
        ]
    return shapes


def _bowel() -> list[Shape]:
    shapes = []
    for number, path in enumerate(LOOPS):
        contents = 18.0 if number % 2 else 42.0
        shapes += [
            Shape(f"loop_{number}", "bowel", Tube(path, (13.5,)), WALL_HU + 18, "intestine"),
            Shape(f"loop_{number}_content", "bowel", Tube(path, (9.5,)), contents, "intestine", texture_hu=14),
        ]
    gas = Tube(LOOPS[2][3:], (9,), cuts=((0, -1, 0, -83),))
    shapes.append(Shape("loop_gas", "bowel", gas, GAS_HU, "intestine"))
    for name, path, radii in (
        ("ascending", ASCENDING, (29, 27, 24, 23, 22)),
        ("transverse", TRANSVERSE, (22, 22, 21, 21, 22, 21)),
        ("descending", DESCENDING, (21, 18, 17, 17, 17)),
        ("sigmoid", SIGMOID, (17,)),
    ):
        inner = tuple(radius - 4.0 for radius in radii)
        shapes += [
            Shape(f"{name}_wall", "colon", Tube(path, radii), 45, "colon"),
            Shape(f"{name}_stool", "colon", Tube(path, inner), -15, "colon", texture_hu=70),
        ]
    shapes += [
        Shape("transverse_gas", "colon", Tube(TRANSVERSE, (17.5,), cuts=((0, -1, 0, -78),)), GAS_HU, "colon"),
        Shape("ascending_gas", "colon", Tube(ASCENDING, (21,), cuts=((0, -1, 0, -22),)), GAS_HU, "colon"),
        Shape("sigmoid_gas", "colon", Tube(SIGMOID, (12.5,), cuts=((0, -1, 0, -34),)), GAS_HU, "colon"),
    ]
    return shapes


def _upper_gut() -> list[Shape]:
    esophagus: tuple[Point, ...] = (
        (-4, -24, 300),
        (-5, -22, 230),
        (-8, -16, 190),
        (-16, -8, 160),
        (-32, -2, 146),
        (-46, 0, 142),
    )
    thin = tuple(radius - 5.0 for radius in (34, 33, 30, 25, 20, 16))
    head = Blob((28, 36, 30), (19, 17, 24))
    body: tuple[Point, ...] = ((22, 38, 42), (6, 45, 58), (-18, 42, 70), (-46, 20, 80), (-72, -2, 88))
    return [
        Shape("esophagus_wall", "esophagus", Tube(esophagus, (10.5,)), 48, "esophagus"),
        Shape("esophagus_gas", "esophagus", Tube(esophagus[:4], (3.5,)), -400, "esophagus"),
        Shape("stomach_wall", "stomach", Tube(STOMACH, (34, 33, 30, 25, 20, 16)), 72, "stomach"),
        Shape("stomach_fluid", "stomach", Tube(STOMACH, thin), 22, "stomach", texture_hu=10),
        Shape("stomach_gas", "stomach", Tube(STOMACH, thin, cuts=((0, -1, 0, -56),)), GAS_HU, "stomach"),
        Shape("duodenum_wall", "duodenum", Tube(DUODENUM, (14, 14, 13, 13, 13, 12, 12, 12, 12)), 74, "duodenum"),
        Shape("duodenum_fluid", "duodenum", Tube(DUODENUM, (8.5,)), 24, "duodenum"),
        Shape("pancreas_head", "pancreas", head, 92, "pancreas"),
        Shape("pancreas_body", "pancreas", Tube(body, (15, 13, 13.5, 13, 11)), 92, "pancreas"),
    ]


def _pelvic(female: bool) -> list[Shape]:
    inner = Blob((0, 30, -168), (38, 31, 28))
    shapes = [
        Shape("bladder_wall", "bladder", Blob((0, 30, -168), (41, 34, 31)), 40, "bladder"),
        Shape("bladder_urine", "bladder", inner, 5, "bladder"),
    ]
    if female:
        uterus = Blob((0, -16, -150), (28, 22, 40), tilt_deg=(-28, 0, 0))
        shapes += [
            Shape("uterus", "genital", uterus, 105, "prostate_or_uterus"),
            Shape("uterus_cavity", "genital", Blob((0, -14, -146), (9, 5, 18), (-28, 0, 0)), 60, "prostate_or_uterus"),
        ]
    else:
        prostate = Blob((0, -6, -204), (27, 21, 20))
        shapes.append(Shape("prostate", "genital", prostate, 92, "prostate_or_uterus"))
    return [
        *shapes,
        Shape("rectum_wall", "rectum", Tube(RECTUM, (17, 19, 20, 19, 16, 13)), 52, "rectum"),
        Shape("rectum_stool", "rectum", Tube(RECTUM[:5], (12, 14, 14.5, 13, 8)), -30, "rectum", texture_hu=80),
    ]


def _vessels() -> list[Shape]:
    """Return the great vessels; iliac, renal and mesenteric vessels carry blood but no class."""
    cava: tuple[Point, ...] = (
        (20, 12, -56),
        (18, 14, 0),
        (18, 10, 40),
        (20, 2, 80),
        (26, -10, 120),
        (24, -6, 158),
        (20, 2, 184),
    )
    aorta: tuple[Point, ...] = (
        (-22, -36, 300),
        (-22, -36, 230),
        (-20, -32, 180),
        (-16, -22, 140),
        (-13, -8, 100),
        (-12, 5, 60),
        (-11, 15, 20),
        (-8, 18, -8),
        (-4, 17, -38),
    )
    shapes = []
    for side, sign in (("right", 1), ("left", -1)):
        iliac: tuple[Point, ...] = ((-4, 17, -38), (sign * 30, 20, -84), (sign * 60, 44, -150), (sign * 78, 66, -230))
        vein: tuple[Point, ...] = ((20, 12, -54), (sign * 34, 8, -92), (sign * 58, 28, -150), (sign * 70, 54, -230))
        shapes += [
            Shape(f"{side}_iliac_vein", "vessels", Tube(vein, (10, 9, 8, 8)), BLOOD_HU - 15),
            Shape(f"{side}_iliac_artery", "vessels", Tube(iliac, (8, 7, 6, 5)), ARTERY_HU),
            Shape(f"{side}_renal_vein", "vessels", Tube(((sign * 48, -22, 36), (18, 8, 40)), (4.5,)), BLOOD_HU),
        ]
    mesenteric: tuple[Point, ...] = ((9, 28, 56), (10, 44, 30), (8, 56, 0), (4, 62, -40))
    return [
        *shapes,
        Shape("mesenteric_vein", "vessels", Tube(mesenteric, (6,)), BLOOD_HU),
        Shape("mesenteric_artery", "vessels", Tube(((-11, 8, 76), (-9, 28, 58), (-6, 32, 20)), (4.5,)), ARTERY_HU),
        Shape("postcava", "vessels", Tube(cava, (11, 11.5, 11.5, 12, 13, 13.5, 13)), BLOOD_HU - 8, "postcava"),
        Shape(
            "portal_and_splenic",
            "vessels",
            Tube(PORTAL, (6.5, 6.5, 6.8, 8, 8.5, 8.5, 7)),
            BLOOD_HU + 15,
            "portal_vein_and_splenic_vein",
        ),
        Shape(
            "celiac_stem",
            "vessels",
            Tube(((-13, -4, 97), (-11, 14, 101), (-10, 24, 101)), (6.5,)),
            ARTERY_HU,
            "celiac_trunk",
        ),
        Shape("celiac_hepatic", "vessels", Tube(((-10, 24, 101), (12, 30, 97)), (5.5, 5)), ARTERY_HU, "celiac_trunk"),
        Shape("celiac_splenic", "vessels", Tube(((-10, 24, 101), (-32, 22, 95)), (5.5, 5)), ARTERY_HU, "celiac_trunk"),
        Shape("aorta", "vessels", Tube(aorta, (12.5, 12.5, 12.5, 12, 12, 11.5, 11, 11, 10.5)), ARTERY_HU, "aorta"),
    ]


def _liver_vessels() -> list[Shape]:
    """Return the hepatic veins, which meet in the cava, and the portal branches; all inside the liver."""
    branches: dict[str, tuple[tuple[Point, ...], tuple[float, ...]]] = {
        "right_hepatic_vein": (((26, -8, 152), (72, -8, 138), (108, 6, 106), (118, 14, 70)), (7, 6.5, 5.5, 4.5)),
        "middle_hepatic_vein": (((25, -4, 154), (44, 22, 134), (62, 46, 100)), (7, 6, 4.5)),
        "left_hepatic_vein": (((23, 0, 154), (4, 34, 136), (-26, 56, 118)), (6.5, 6, 4.5)),
        "right_portal": (((50, 18, 106), (74, 10, 100)), (7.5, 7)),
        "right_anterior_portal": (((74, 10, 100), (96, 44, 112), (104, 62, 112)), (6.5, 5.5, 4.5)),
        "right_posterior_portal": (((74, 10, 100), (98, -26, 84), (112, -44, 70)), (6.5, 5.5, 4.5)),
        "left_portal": (((46, 19, 106), (24, 44, 116), (-10, 60, 112)), (6.5, 6, 4.5)),
    }
    return [
        Shape(name, "liver", Tube(path, radii), BLOOD_HU + 12, "hepatic_vessel", Paint.WITHIN, ("liver",))
        for name, (path, radii) in branches.items()
    ]
