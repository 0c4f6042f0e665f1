"""Who is champion: the aliases in MLflow, and the append-only table of moves that decides which of two moves wins.

MLflow sets an alias without looking at what it was. A move is therefore first a row of the table `promotions` under the
next number, which only one writer can add; then the aliases follow. What a kill leaves in between is finished by the
next move (`settle`): the alias names the old version or the new one, never none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pandas as pd
from mlflow.exceptions import MlflowException

from tasks.registry import CHAMPION, ModelVersion, alias_version, model_version, set_alias
from tasks.settings import Settings
from tasks.tracking import mlflow_client
from tasks.workspace import open_workspace, row_dicts

PREVIOUS = "previous"
"""Alias of the version that was champion before."""

DONE_TAG = "champion_move"
"""Tag of the registered model: the last move whose aliases were set."""

_NUMBERED = re.compile(r".+/(\d{6,})")


@dataclass(frozen=True)
class Standing:
    """Who is champion and who was before, and the number of the last move."""

    champion: ModelVersion | None
    previous: ModelVersion | None
    last_move: int


@dataclass(frozen=True)
class Mover:
    """Who moves the champion, why, and in which Prefect run."""

    who: str
    why: str
    flow_run_id: str | None = None


def settle(settings: Settings) -> Standing:
    """Return who is champion, after finishing a move that was killed between its row and its aliases."""
    last = _last_move(settings)
    if last is not None and _done(settings) != last["move_id"]:
        last = _follow(last, settings)
    return Standing(
        champion=alias_version(CHAMPION, settings),
        previous=alias_version(PREVIOUS, settings),
        last_move=0 if last is None else _number(str(last["move_id"])),
    )


def move_champion(
    to: ModelVersion,
    standing: Standing,
    move: str,
    mover: Mover,
    settings: Settings,
    *,
    gates: Sequence[Mapping[str, Any]] = (),
    evaluation_run_id: str | None = None,
) -> bool:
    """Make `to` the champion and the present one `previous`; False where another move came since `standing` was seen.

    Then nothing has changed. move: `promoted` or `rolled_back`.
    """
    before = standing.champion
    number = standing.last_move + 1
    move_id = f"{settings.model_name}/{number:06d}"
    row = _row(move_id, to, move, mover, settings, gates, evaluation_run_id)
    row |= {"champion_before": _version(before), "champion_after": str(to.version)}
    if not open_workspace(settings).tables.record_moves([row]):
        return False
    _follow(row, settings)
    return True


def note(
    about: ModelVersion,
    event: str,
    mover: Mover,
    settings: Settings,
    *,
    gates: Sequence[Mapping[str, Any]] = (),
    evaluation_run_id: str | None = None,
) -> None:
    """Write down what moved nothing: `refused`, `asked`, `approved`, `declined`."""
    champion = _version(alias_version(CHAMPION, settings))
    row = _row(f"{settings.model_name}/{event}/{uuid4().hex}", about, event, mover, settings, gates, evaluation_run_id)
    row |= {"champion_before": champion, "champion_after": champion}
    open_workspace(settings).tables.record_moves([row])


def moves(settings: Settings) -> pd.DataFrame:
    """Return every move and refusal of the settings' model, oldest first (columns of `catalog.schema.PROMOTIONS`)."""
    return open_workspace(settings).tables.moves(settings.model_name)


def _row(
    move_id: str,
    about: ModelVersion,
    move: str,
    mover: Mover,
    settings: Settings,
    gates: Sequence[Mapping[str, Any]],
    evaluation_run_id: str | None,
) -> dict[str, Any]:
    return {
        "move_id": move_id,
        "model_name": settings.model_name,
        "move": move,
        "version": str(about.version),
        "who": mover.who,
        "why": mover.why,
        "gates": json.dumps(list(gates)),
        "mlflow_run_id": evaluation_run_id,
        "flow_run_id": mover.flow_run_id,
    }


def _last_move(settings: Settings) -> dict[str, Any] | None:
    """Return the row of the last move that changed the champion."""
    every = moves(settings)
    numbered = every[every["move_id"].str.fullmatch(_NUMBERED.pattern)]
    rows = sorted(row_dicts(numbered), key=lambda row: _number(row["move_id"]))
    return rows[-1] if rows else None


def _number(move_id: str) -> int:
    match = _NUMBERED.fullmatch(move_id)
    return 0 if match is None else int(match[1])


def _done(settings: Settings) -> str | None:
    try:
        tags = mlflow_client(settings).get_registered_model(settings.model_name).tags
    except MlflowException:
        return None
    found: str | None = tags.get(DONE_TAG)
    return found


def _follow(move: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Let the aliases say what `move` decided, or a move that came meanwhile; return the one they follow."""
    while True:
        # The champion first: a kill between the two leaves a right champion and, until `settle`, an older `previous`.
        for version, alias in ((move["champion_after"], CHAMPION), (move["champion_before"], PREVIOUS)):
            if version is not None:
                set_alias(model_version(f"models:/{settings.model_name}/{version}", settings), alias, settings)
        mlflow_client(settings).set_registered_model_tag(settings.model_name, DONE_TAG, move["move_id"])
        last = _last_move(settings)
        # A slower process must not leave its older answer behind a newer one.
        if last is None or last["move_id"] == move["move_id"]:
            return move
        move = last


def _version(model: ModelVersion | None) -> str | None:
    return None if model is None else str(model.version)
