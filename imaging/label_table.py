"""Names and colours of label values, as viewers read them: inside a NIfTI file, for ITK-SNAP and for 3D Slicer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

EXTENSION_CODE = 0
"""Code of the NIfTI extension with the label table. CARET's own is 30, whose content nibabel (5.4) cannot give; under 0
both nibabel and the reader of TotalSegmentator's multi-label files find it."""


@dataclass(frozen=True)
class LabelEntry:
    """One label value. name: without spaces. title: as people say it. colour: "#rrggbb"."""

    value: int
    name: str
    title: str
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 0 to 255."""
        digits = self.colour.lstrip("#")
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def caret_label_table(entries: Sequence[LabelEntry]) -> bytes:
    """Return the label table as CARET XML, the form that TotalSegmentator and Connectome Workbench write into NIfTI."""
    root = ElementTree.Element("CaretExtension")
    volume = ElementTree.SubElement(root, "VolumeInformation", Index="0")
    table = ElementTree.SubElement(volume, "LabelTable")
    for entry in entries:
        red, green, blue = (f"{part / 255:.6f}" for part in entry.rgb)
        label = ElementTree.SubElement(table, "Label", Key=str(entry.value), Red=red, Green=green, Blue=blue, Alpha="1")
        label.text = entry.name
    ElementTree.SubElement(volume, "VolumeType").text = "Label"
    xml: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return xml


def itksnap_table(entries: Sequence[LabelEntry]) -> str:
    """Return a label description file of ITK-SNAP: value, red, green, blue, alpha, visible, in meshes, "title"."""
    lines = ["# ITK-SnAP Label Description File", '0 0 0 0 0 0 0 "Clear Label"']
    for entry in entries:
        red, green, blue = entry.rgb
        lines.append(f'{entry.value} {red} {green} {blue} 1 1 1 "{entry.title}"')
    return "\n".join(lines) + "\n"


def slicer_table(entries: Sequence[LabelEntry]) -> str:
    """Return a colour table (.ctbl) of 3D Slicer: value, name, red, green, blue, alpha."""
    lines = ["# Color table file", f"# {len(entries) + 1} values", "0 background 0 0 0 0"]
    for entry in entries:
        red, green, blue = entry.rgb
        lines.append(f"{entry.value} {entry.name} {red} {green} {blue} 255")
    return "\n".join(lines) + "\n"
