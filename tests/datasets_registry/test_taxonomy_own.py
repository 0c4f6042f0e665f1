"""Classes of one's own go on where the published table ends, and keep their index."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_registry.taxonomy import all_classes, class_info, class_names, named_class, places_of

VEINS = """
classes:
  - {index: 33, name: left_renal_vein, kind: vessel, side: left, mirror: right_renal_vein, volume_ml: [1, 20]}
  - {index: 34, name: right_renal_vein, title: vein of the right kidney, kind: vessel, mirror: left_renal_vein}
"""


def declare(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    (folder / "own.yaml").write_text(text)
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(folder / "own.yaml"))


def test_own_classes_are_appended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    published = class_names()
    declare(monkeypatch, tmp_path, VEINS)
    assert class_names() == (*published, "left_renal_vein", "right_renal_vein")
    left = class_info("left_renal_vein")
    assert (left.channel, left.title, left.mirror, left.volume_ml) == (
        32,
        "left renal vein",
        "right_renal_vein",
        (1, 20),
    )
    assert len({info.colour for info in all_classes()}) == 34
    monkeypatch.delenv("CTFACTORY_TAXONOMY")
    assert class_names() == published


def test_a_class_is_known_by_name_and_title(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    declare(monkeypatch, tmp_path, VEINS)
    assert named_class("Vein of the right kidney").name == "right_renal_vein"
    assert named_class("right_renal_vein").index == 34
    assert named_class("inferior vena cava").name == "postcava"
    assert places_of(["Left Renal Vein", "liver"], ["liver", "left_renal_vein"]) == [1, 0]
    with pytest.raises(KeyError, match=r"'left renal vain'; nearest: left_renal_vein.*CTFACTORY_TAXONOMY"):
        named_class("left renal vain")
    with pytest.raises(KeyError, match=r"no class 'livr'; nearest: liver; it has liver, spleen"):
        places_of(["livr"], ["liver", "spleen"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [{index: 35, name: vein, kind: vessel}]", "vein: index 35, expected 33"),
        ("classes: [{index: 33, name: liver, kind: organ}]", "liver: liver is taken"),
        ("classes: [{index: 33, name: vein, title: aorta, kind: vessel}]", "vein: aorta is taken"),
        ("classes: [{index: 33, name: Vein, kind: vessel}]", "Vein: name: "),
        ("classes: [{index: 33, name: vein, kind: vein}]", "vein: kind: "),
        ("classes: [{index: 33, name: vein, kind: vessel, volume: 3}]", "vein: volume: "),
        ("classes: [{index: 33, name: vein, kind: vessel, parents: [kidney]}]", "vein: kidney is no class"),
        ("classes: [{index: 33, kind: vessel}]", "row 1: name: "),
        ("[1, 2]", "expected `classes:`"),
        ("classes: [", "not readable as YAML"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, message: str
) -> None:
    declare(monkeypatch, tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        class_names()
    assert "own.yaml" in str(error.value)


def test_a_table_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTFACTORY_TAXONOMY", str(tmp_path / "typo.yaml"))
    with pytest.raises(FileNotFoundError, match=r"CTFACTORY_TAXONOMY: .*typo\.yaml: no such file"):
        class_info("liver")
