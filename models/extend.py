"""More classes for a trained model without touching the ones it has, and its knowledge carried to another class list.

    model, metadata = load_model(path)
    model, metadata = add_classes(model, metadata, ["left_renal_vein", "right_renal_vein"])

The new classes get text rows and a head of their own; every older weight is frozen and the older classes are computed
by the same operations as before, so their logits stay the same to the last bit. `train` does this by itself where its
settings ask for more classes than the checkpoint it starts from: `train(source, replace(parent.model,
classes=parent.model.classes + new), ..., start_from=path)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets_registry.taxonomy import named_class
from models.checkpoint import Extension, ModelMetadata
from models.settings import ModelSettings
from models.text import TextEmbeddings, embed_classes, text_encoder
from models.universal import UniversalModel, build_model

HEAD = ("precls_conv", "GAP", "controller", "text_to_vision")
"""The layers of the text head of the classes that a model was first trained on."""


def add_classes(
    model: UniversalModel,
    metadata: ModelMetadata,
    names: Sequence[str],
    embeddings: TextEmbeddings | None = None,
    cache_dir: Path | None = None,
) -> tuple[UniversalModel, ModelMetadata]:
    """Return the model with a new head for `names`, all older weights frozen, and the metadata that says so.

    model: changed in place. names: names or titles of the class table. embeddings: rows of `names`, from any encoder,
    since the new head has a text layer of its own; None makes them as the model's own were made. The new weights are
    drawn from torch's generator. Raises KeyError for a class that the table does not have, ValueError for one that the
    model has already, and where the model's own text encoder is not at hand.
    """
    new = tuple(named_class(name).name for name in names)
    if known := [name for name in new if name in metadata.model.classes]:
        raise ValueError(f"the model has {', '.join(known)} already; add other classes, or fine-tune these")
    if not new or len(set(new)) != len(new):
        raise ValueError(f"classes to add: {', '.join(new) or 'none'}; name each new class once")
    if embeddings is None:
        embeddings = _own_embeddings(metadata, new, cache_dir)
    if embeddings.names != new:
        raise ValueError(f"embeddings are of {embeddings.names}, the classes to add are {new}")
    old = (*trunk_of(model), *(f"extensions.{number}" for number in range(len(model.extensions))))
    model.add_extension(embeddings.array, new)
    freeze(model, old)
    return model, replace(
        metadata,
        model=replace(metadata.model, classes=metadata.model.classes + new),
        extensions=(
            *metadata.extensions,
            Extension(new, embeddings.encoder, embeddings.prompt, embeddings.digest),
        ),
        frozen=old,
    )


def settings_from(
    parent: ModelSettings,
    add: Sequence[str] | None = None,
    instead: Sequence[str] | None = None,
    text_encoder: str | None = None,
) -> ModelSettings:
    """Return the settings of a network that goes on from `parent`: its own, but for the classes.

    add: names or titles of classes to append. instead: those of the classes that take the place of its own.
    text_encoder: for the rows of the classes named; default the parent's. Raises ValueError where both lists are given.
    """
    if add is not None and instead is not None:
        raise ValueError(
            "classes to add and classes to transfer to: found both, expected one; add first, then transfer"
        )
    old = () if instead is not None else parent.classes
    new = tuple(named_class(name).name for name in (instead if instead is not None else add or ()))
    if known := [name for name in new if name in old]:
        raise ValueError(f"the model has {', '.join(known)} already; add other classes, or fine-tune these")
    return replace(parent, classes=old + new, text_encoder=text_encoder or parent.text_encoder)


def trunk_of(model: UniversalModel) -> tuple[str, ...]:
    """Return the names of the parts that every model has: the backbone and the first head's layers."""
    return tuple(name for name, _ in model.named_children() if name != "extensions")


def freeze(model: UniversalModel, parts: Sequence[str]) -> None:
    """Let no training change the parts called `parts`, e.g. `backbone`; all others are trained."""
    model.requires_grad_(True)
    for part in parts:
        model.get_submodule(part).requires_grad_(False)


def transferred(
    model: UniversalModel, metadata: ModelMetadata, wanted: ModelSettings, embeddings: TextEmbeddings
) -> tuple[UniversalModel, ModelMetadata]:
    """Return a model of the classes of `wanted` that begins with the backbone of `model`, nothing frozen.

    embeddings: rows of the new classes. The head is driven by text, so it is taken over too when the rows are made by
    the encoder and prompt of the model's own; otherwise, text meaning something else, it begins anew. Extensions are
    left behind. Raises ValueError for another backbone.
    """
    if metadata.model.backbone != wanted.backbone:
        raise ValueError(f"the model's backbone is {metadata.model.backbone}, these settings ask for {wanted.backbone}")
    made = build_model(wanted, embeddings)
    same_text = (embeddings.encoder, embeddings.prompt) == (metadata.encoder, metadata.prompt)
    for part in ("backbone", *(HEAD if same_text else ())):
        made.get_submodule(part).load_state_dict(model.get_submodule(part).state_dict())
    return made, replace(
        metadata,
        model=wanted,
        encoder=embeddings.encoder,
        prompt=embeddings.prompt,
        embeddings_digest=embeddings.digest,
        extensions=(),
        frozen=(),
    )


def _own_embeddings(metadata: ModelMetadata, names: tuple[str, ...], cache_dir: Path | None) -> TextEmbeddings:
    made = embed_classes(text_encoder(metadata.model.text_encoder), metadata.prompt, names, cache_dir)
    if made.encoder != metadata.encoder:
        raise ValueError(
            f"text encoder: {metadata.model.text_encoder} is {made.encoder} here, but the model's rows are of "
            f"{metadata.encoder}; give that encoder's weights, or name another encoder for the new classes"
        )
    return made
