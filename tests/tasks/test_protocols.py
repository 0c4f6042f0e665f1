"""Protocols of challenges: typed, checked against card and taxonomy, and what is painted, named and averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from datasets_registry.taxonomy import class_info
from imaging.bits import empty_bits, set_channel
from tasks.protocol import FOLDER, list_protocols, load_protocol, read_protocol
from tasks.protocol_case import label_map, painted
from tasks.protocol_run import protocol_table

NAN = float("nan")


def test_every_ct_task_of_the_decathlon_and_btcv_has_one() -> None:
    tasks = ("colon", "hepatic_vessel", "liver", "lung", "pancreas", "spleen")
    assert list_protocols() == ["btcv", *(f"msd_{name}" for name in tasks)]
    for name in list_protocols():
        protocol = load_protocol(name)
        assert protocol.title
        # What nobody could look up says so.
        assert {one.level for one in protocol.confidence.values()} <= {"seen", "inferred", "recalled"}


def test_an_unknown_protocol_is_told_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="msd_liver"):
        load_protocol("msd_livr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": {1: {"name": "liver", "classes": ["lever"]}, 2: {"name": "c", "classes": ["liver_tumor"]}}},
            "lever",
        ),
        (
            {"labels": {1: {"name": "liver", "classes": ["spleen"]}, 2: {"name": "c", "classes": ["liver_tumor"]}}},
            "card",
        ),
        ({"regions": [{"name": "liver", "values": [3]}]}, "values \\[3\\]"),
        ({"tolerance_mm": None}, "tolerance_mm"),
        ({"tolerance_mm": -1}, "tolerance_mm"),
        ({"figures": ["iou"]}, "figures"),
        ({"submission": {"file": "liver.nii.gz"}}, "liver_{id}"),
        ({"confidence": {}}, "confidence"),
        ({"voxels": 1}, "voxels"),
        ({"id": "msd_lung"}, "the file's name"),
    ],
)
def test_a_protocol_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    values = yaml.safe_load((FOLDER / "msd_liver.yaml").read_text())
    file = tmp_path / "msd_liver.yaml"
    file.write_text(yaml.safe_dump({**values, **change}))
    with pytest.raises(ValueError, match=message):
        read_protocol(file)


def test_a_tumour_is_painted_over_its_organ() -> None:
    bits = empty_bits((4, 1, 1), 32)
    for name, voxels in (("liver", [0, 1, 2]), ("liver_tumor", [2]), ("spleen", [3])):
        mask = np.zeros((4, 1, 1), dtype=bool)
        mask[voxels] = True
        set_channel(bits, class_info(name).channel, mask)
    assert painted(bits, load_protocol("msd_liver")).ravel().tolist() == [1, 1, 2, 0]
    assert painted(bits, load_protocol("btcv")).ravel().tolist() == [6, 6, 6, 1]


def test_a_label_map_lies_on_the_grid_the_scan_was_read_on() -> None:
    # Lake: 4 voxels of 2 mm along X. The scan: the same space in 8 voxels of 1 mm that run from right to left.
    bits = empty_bits((4, 1, 1), 32)
    mask = np.array([True, False, False, False]).reshape(4, 1, 1)
    set_channel(bits, class_info("spleen").channel, mask)
    scan = np.diag([-1.0, 1.0, 1.0, 1.0])
    scan[0, 3] = 6.5
    case = {
        "affine": np.diag([2.0, 1.0, 1.0, 1.0]).ravel().tolist(),
        "original_shape": [8, 1, 1],
        "original_affine": scan.ravel().tolist(),
    }
    found = label_map(bits, case, load_protocol("msd_spleen"))
    # Centres lie at 6.5, 5.5, ..., 0.5, -0.5 mm; those within 1 mm of the voxel at 0 mm are its own.
    assert found.array.ravel().tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert np.array_equal(found.affine, scan)


def test_names_of_a_submission() -> None:
    assert load_protocol("msd_liver").submission.name("132") == "liver_132.nii.gz"
    assert load_protocol("msd_liver").submission.name("liver_132") == "liver_132.nii.gz"
    btcv = load_protocol("btcv").submission
    assert btcv.name("0061") == "label0061.nii.gz"
    assert btcv.cases is not None
    assert (len(btcv.cases), btcv.cases[0], btcv.cases[-1]) == (20, "0061", "0080")


def rows(*values: tuple[str, str, float, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"case_id": case, "region": region, "dsc": dsc, "nsd": nsd, "patient": case, "truth": "raw labels"}
            for case, region, dsc, nsd in values
        ]
    )


def test_regions_are_averaged_and_what_is_empty_is_counted() -> None:
    table = protocol_table(
        rows(
            ("1", "liver", 0.9, 0.8),
            ("2", "liver", 0.7, 0.6),
            ("1", "cancer", 0.5, 0.3),
            ("2", "cancer", NAN, NAN),
            ("1", "liver without cancer", 0.1, 0.1),
        ),
        load_protocol("msd_liver"),
    ).set_index("region")
    assert table.loc["liver", "dsc"] == pytest.approx(0.8)
    assert table.loc["cancer", ["cases", "scored", "both_empty"]].tolist() == [2, 1, 1]
    # The mean of the regions 0.8 and 0.5; the liver without its tumour is shown, and in no average.
    assert table.loc["average", "dsc"] == pytest.approx(0.65)
    assert table.loc["average", "nsd"] == pytest.approx(0.5)
    assert table.loc["liver without cancer", "dsc"] == pytest.approx(0.1)


def test_pairs_weigh_a_region_by_its_cases() -> None:
    protocol = load_protocol("msd_liver").model_copy(update={"average": "mean_of_pairs"})
    found = protocol_table(
        rows(("1", "liver", 0.9, 0.9), ("2", "liver", 0.6, 0.6), ("1", "cancer", 0.3, 0.3)), protocol
    )
    assert found.set_index("region").loc["average", "dsc"] == pytest.approx(0.6)


def test_a_table_of_nothing_says_so() -> None:
    table = protocol_table(pd.DataFrame([]), load_protocol("msd_spleen")).set_index("region")
    assert table.loc["spleen", "cases"] == 0
    assert np.isnan(table.loc["average", "dsc"])
