"""Where card files lie: the package's folder, and folders of one's own named by CTFACTORY_CARDS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from datasets_registry.nearest import nearest_text

CARDS = Path(__file__).with_name("cards")
VARIABLE = "CTFACTORY_CARDS"
"""Environment variable with one or more folders of user cards, separated as in PATH; read when a card is asked for."""


def card_folders() -> tuple[Path, ...]:
    """Return the folders that are searched for cards, the package's first.

    Raises FileNotFoundError for a folder of CTFACTORY_CARDS that does not exist: a mistyped path must not look like
    cards that nobody wrote.
    """
    own = [Path(entry).expanduser() for entry in os.environ.get(VARIABLE, "").split(os.pathsep) if entry.strip()]
    for folder in own:
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{VARIABLE}: {folder} is no folder; name one that holds <id>.yaml files, or unset it"
            )
    return (CARDS, *own)


def list_card_files(folder: Path | None = None) -> dict[str, Path]:
    """Return card id -> file of `folder`, or of all `card_folders()`, sorted by id.

    Raises ValueError naming both files where two folders hold the same id: which one counts must not be guessed.
    """
    files: dict[str, Path] = {}
    for place in card_folders() if folder is None else (folder,):
        for path in sorted(place.glob("*.yaml")):
            if path.stem in files:
                raise ValueError(
                    f"card {path.stem}: declared by {files[path.stem]} and by {path}; an id of another card cannot be "
                    "taken again, rename the file and its field id"
                )
            files[path.stem] = path
    return dict(sorted(files.items()))


def find_card_file(card_id: str, folder: Path | None = None) -> Path:
    """Return the file of a card; a KeyError lists the nearest ids."""
    files = list_card_files(folder)
    if card_id not in files:
        own = f"; {VARIABLE} names folders of your own" if folder is None else ""
        raise KeyError(f"no card {card_id!r}; {nearest_text(card_id, files)}; cards are cards/<id>.yaml{own}")
    return files[card_id]


def read_card_file(card_id: str, path: Path) -> dict[str, Any]:
    """Return the fields that a card file states; ValueError names card and place for one that is no such file."""
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"card {card_id}: not readable as YAML: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError(
            f"card {card_id}: found {type(fields).__name__}, expected a mapping of fields such as id: {card_id}"
        )
    if fields.get("id") != card_id:
        raise ValueError(
            f"card {card_id}: field id is {fields.get('id')!r}, expected the file's name {card_id!r}; rename one"
        )
    return fields


if TYPE_CHECKING:
    _SafeLoader = yaml.SafeLoader
else:  # the C parser is four times as fast, where libyaml is installed
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _StrictLoader(_SafeLoader):
    """YAML in which a key given twice is an error; the plain loader silently keeps the last, a lost label value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                place = node.value[number][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", place)
        return super().construct_mapping(node, deep)
