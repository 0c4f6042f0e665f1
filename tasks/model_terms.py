"""What a model may be used for: the licences of its weights and training data, and who made its class embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from datasets_registry.cards import list_cards, load_card
from models.checkpoint import ModelMetadata, read_metadata
from models.licence import LICENCE, TERMS
from models.text import is_stand_in
from tasks.gate_rules import Target
from tasks.gates import SHOWN, Gate
from tasks.workspace import Workspace

ALL_OF = "/*"
"""End of an entry of the training cases that stands for a whole data set."""


def licence_gate(
    checkpoint: Path, training_cases: Sequence[str], workspace: Workspace, allowed: Target, target: str
) -> Gate:
    """Return whether the licences of the weights and of all training data fit the target.

    A licence that nobody states counts as one that forbids commercial use.
    """
    binding = [*_of_weights(checkpoint), *_of_data(training_cases, workspace)]
    return Gate(
        f"licences fit {target}",
        f"{len(binding)} forbid commercial use" if binding else "commercial use is allowed",
        "non-commercial is enough" if allowed.non_commercial else "commercial use allowed by every source",
        allowed.non_commercial or not binding,
        "; ".join(binding[:SHOWN]) + (f"; and {len(binding) - SHOWN} more" if len(binding) > SHOWN else ""),
    )


def encoder_gate(metadata: ModelMetadata, allowed: Target, target: str) -> Gate:
    """Return whether the encoder of the class embeddings fits the target: the offline stand-in is no CLIP."""
    encoders = sorted({metadata.encoder, *(one.encoder for one in metadata.extensions)})
    fits = allowed.offline_encoder or not any(is_stand_in(encoder) for encoder in encoders)
    return Gate(
        f"text encoder fits {target}",
        ", ".join(encoders),
        "any" if allowed.offline_encoder else "a trained text encoder",
        fits,
        "" if fits else "train with text_encoder open_clip:ViT-B-32:openai, or a local file of it",
    )


def _of_weights(checkpoint: Path) -> list[str]:
    extra = read_metadata(checkpoint).extra
    if LICENCE not in extra:
        return []
    return [f"weights: {extra[LICENCE]}, {extra.get(TERMS, 'terms not stated')}"]


def _of_data(training_cases: Sequence[str], workspace: Workspace) -> list[str]:
    """Return the data sets whose licence forbids commercial use, or is not known, with that licence."""
    whole_sets = sorted(name.removesuffix(ALL_OF) for name in training_cases if name.endswith(ALL_OF))
    named = [name for name in training_cases if not name.endswith(ALL_OF)]
    cases = workspace.tables.cases(case_ids=named, columns=["dataset", "licence", "non_commercial"], history=True)
    # null is "not known", which proves nothing
    bound = cases[cases["non_commercial"].map(lambda value: bool(pd.isna(value) or value))]
    found = [f"{dataset}: {_name(licence)}" for dataset, licence in _pairs(bound)]
    if gone := sorted(set(named) - set(cases["case_id"])):
        found.append(f"{len(gone)} training cases are not in the lake, licence not known: {', '.join(gone[:SHOWN])}")
    for dataset in whole_sets:
        licence = load_card(dataset).licence if dataset in list_cards() else None
        if licence is None or licence.non_commercial is not False:
            found.append(f"{dataset}: {_name(None if licence is None else licence.spdx)}")
    return found


def _pairs(cases: pd.DataFrame) -> list[tuple[str, object]]:
    unique = cases[["dataset", "licence"]].drop_duplicates().sort_values("dataset")
    return list(unique.itertuples(index=False, name=None))


def _name(licence: object) -> str:
    return licence if isinstance(licence, str) else "not known"
