"""Classes of one's own, in a YAML file that CTFACTORY_TAXONOMY names: they go on where the published table ends."""

from __future__ import annotations

import colorsys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

TAXONOMY_VARIABLE = "CTFACTORY_TAXONOMY"
"""Environment variable with the file of one's own classes; read when a class is asked for."""

Kind = Literal["organ", "vessel", "tumour", "cyst"]


class OwnClass(BaseModel):
    """One row of such a file, with the fields of `ClassInfo`; what a row leaves out is filled in without knowledge.

    volume_ml, hu_mean: any volume from a voxel on and any HU, so that nothing is flagged. margin_mm, min_ml, holes:
    what the published table says of the kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int
    name: str = Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")
    title: str | None = None
    kind: Kind
    volume_ml: tuple[float, float] = (1e-3, 1e4)
    hu_mean: tuple[float, float] = (-1024.0, 3071.0)
    colour: str | None = Field(None, pattern=r"^#[0-9a-f]{6}$")
    components: int | None = None
    side: Literal["right", "left"] | None = None
    mirror: str | None = None
    parents: tuple[str, ...] = ()
    margin_mm: float | None = Field(None, ge=0)
    min_ml: float | None = Field(None, ge=0)
    holes: bool | None = None
    lies: Literal["right", "left"] | None = None

    def row(self) -> dict[str, Any]:
        """Return the fields of the class, title and colour made where none is given; no margin_mm where none is."""
        title = self.title or self.name.replace("_", " ")
        given = {name: value for name, value in self.model_dump().items() if value is not None}
        return {**given, "title": title, "colour": self.colour or _colour(self.index)}


def read_own_rows(path: Path, published: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a file of one's own, `classes: [{index: 33, name: left_renal_vein, kind: vessel}, ...]`.

    published: the rows they go on from. Raises FileNotFoundError, and ValueError that names file and row for an index
    that does not count on, a name or title that is taken, a field that is wrong, and a parent or partner that is no
    class.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{TAXONOMY_VARIABLE}: {path}: no such file; name a YAML file with `classes`, or unset it"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not readable as YAML: {error}") from None
    listed = content.get("classes") if isinstance(content, dict) and set(content) == {"classes"} else None
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise ValueError(f"{path}: expected `classes:` and below it a list such as {_EXAMPLE}")
    taken = {text for row in published for text in (row["name"], row["title"])}
    rows: list[dict[str, Any]] = []
    for index, fields in enumerate(listed, len(published) + 1):
        where = f"{path}: {fields.get('name', f'row {index - len(published)}')}"
        try:
            row = OwnClass.model_validate(fields).row()
        except ValidationError as error:
            told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise ValueError(f"{where}: {told}; expected a row such as {_EXAMPLE}") from None
        if row["index"] != index:
            raise ValueError(
                f"{where}: index {row['index']}, expected {index}: classes are appended and keep their index"
            )
        if clash := {row["name"], row["title"]} & taken:
            raise ValueError(f"{where}: {', '.join(sorted(clash))} is taken; give another name and title")
        taken |= {row["name"], row["title"]}
        rows.append(row)
    known = {row["name"] for row in (*published, *rows)}
    for row in rows:
        named = {*row["parents"], *([row["mirror"]] if "mirror" in row else [])}
        if strange := sorted(named - known):
            raise ValueError(f"{path}: {row['name']}: {', '.join(strange)} is no class; correct parents or mirror")
    parents = {row["name"]: row.get("parents", ()) for row in (*published, *rows)}
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        circle = " in ".join(error.args[1])
        raise ValueError(f"{path}: parents go round in a circle: {circle}; a class lies inside another one") from None
    return rows


_EXAMPLE = "{index: 33, name: left_renal_vein, kind: vessel}"


def _colour(index: int) -> str:
    """Return a colour for a class: steps of the golden ratio round the colour circle keep neighbours apart."""
    parts = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.65, 0.9)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
