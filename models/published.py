"""The authors' checkpoints: read without running their code, renamed to our keys, written once as safetensors."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy import class_info, class_names
from models.checkpoint import ModelMetadata, load_weights, save_checkpoint
from models.settings import ModelSettings
from models.text import PUBLISHED_ENCODER, WIDTH, TextEmbeddings
from models.universal import build_model

PUBLISHED_CLASSES = class_names()[:32]
"""The classes of the published files in their order, which is that of the taxonomy's first 32."""

TRAINED_ON = (
    "abdomenct_12organ",
    "abdomenct_1k",
    "amos22_ct",
    "btcv",
    "chaos_ct",
    "ct_org",
    "kits",
    "lits",
    "msd_colon",
    "msd_hepatic_vessel",
    "msd_liver",
    "msd_lung",
    "msd_pancreas",
    "msd_spleen",
    "pancreas_ct",
    "word",
)
"""Data sets whose cases the published weights have seen; which of them is not published, so all count as seen."""

ADDRESS = "https://huggingface.co/ljwztc/CLIP-Driven-Universal-Model/resolve/main/"


@dataclass(frozen=True)
class Published:
    """One published network. backbone: its name here. file: at ADDRESS. mark: in the keys of its weights alone."""

    backbone: str
    file: str
    mark: str


PUBLISHED = {
    "unet": Published("unet", "clip_driven_universal_unet.pth", "down_tr64"),
    "swinunetr": Published("swinunetr_v09", "clip_driven_universal_swin_unetr.pth", "swinViT"),
}
WITHOUT_BACKBONE = ("swinViT", "encoder", "decoder")
"""Keys with one of these in their name come without `backbone.`."""


def published(name: str) -> Published:
    """Return the published network called `name`; a KeyError lists the nearest."""
    if name not in PUBLISHED:
        raise KeyError(
            f"no published checkpoint with backbone {name!r}; {nearest_text(name, PUBLISHED)}; "
            f"known: {', '.join(PUBLISHED)}"
        )
    return PUBLISHED[name]


def convert(
    path: Path, backbone: str, out: Path, extra: Mapping[str, str], classes: Sequence[str] = PUBLISHED_CLASSES
) -> ModelMetadata:
    """Write the authors' file `path` as the safetensors file `out`, and return its metadata.

    backbone: `unet` or `swinunetr`. classes: what the file's outputs are, in its order. extra: strings for the
    metadata. Raises ValueError for a file that holds code or is not whole, for other classes than those, and for
    weights that do not fit, listing every missing, unexpected and misshapen key.
    """
    found = published(backbone)
    content = read_pickle(path)
    net = content.get("net")
    if not isinstance(net, dict) or not all(isinstance(value, Tensor) for value in net.values()):
        held = ", ".join(sorted(map(str, content))) or "nothing"
        raise ValueError(f"{path}: found {held}, expected the network's weights under `net`; use the authors' file")
    state = our_keys(net)
    _require_backbone(path, backbone, state)
    _require_classes(path, content, state, classes)
    rows = state["organ_embedding"].float().numpy()
    settings = ModelSettings(found.backbone, tuple(classes), "open_clip:ViT-B-32:openai", "V1")
    embeddings = TextEmbeddings(rows, PUBLISHED_ENCODER, settings.prompt, settings.classes)
    model = build_model(settings, embeddings)
    load_weights(model, state, str(path))
    metadata = ModelMetadata(settings, PUBLISHED_ENCODER, settings.prompt, embeddings.digest, extra=extra)
    save_checkpoint(out, model, metadata)
    return metadata


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the content of a file of torch.save that holds tensors and plain values; nothing in it is run.

    Raises FileNotFoundError, or ValueError naming the code found in it, or that the file is not whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the .pth file of the authors, or its URL")
    try:
        # mapped where the format allows it: the optimiser's state, two thirds of a published file, is not read
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        code = _code_named(path, str(error))
        if code:
            raise ValueError(
                f"{path}: found {code}, code that runs when the file is opened as a plain pickle; expected tensors and "
                "plain values only; nothing was run. Get the file from the authors; if you made it yourself, save the "
                "weights alone: torch.save({'net': model.state_dict()}, FILE)"
            ) from None
        raise ValueError(f"{path}: not a file of torch.save, or a damaged one; download it again") from error
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not a whole file of torch.save ({error}); download it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: found {type(content).__name__}, expected a dict with the weights under `net`")
    return content


def _code_named(path: Path, message: str) -> str:
    """Return what the pickle asks for that is neither a tensor nor plain, empty when it is not known."""
    if zipfile.is_zipfile(path):
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))
    # the older format has no such list; the reader names the first it met
    _, marker, rest = message.partition("GLOBAL ")
    return rest.split()[0].rstrip(".") if marker else ""


def our_keys(net: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under our names: the component that all keys share in front dropped, `backbone.` put back."""
    first = {key.partition(".")[0] for key in net}
    shared = len(first) == 1 and all("." in key for key in net)
    state = {}
    for key, value in net.items():
        name = key.partition(".")[2] if shared else key
        if any(part in name for part in WITHOUT_BACKBONE) and not name.startswith("backbone."):
            name = f"backbone.{name}"
        state[name] = value
    return state


def _require_backbone(path: Path, backbone: str, state: Mapping[str, Tensor]) -> None:
    others = [name for name, one in PUBLISHED.items() if any(one.mark in key for key in state) and name != backbone]
    if others and not any(published(backbone).mark in key for key in state):
        raise ValueError(f"{path}: holds the weights of {others[0]}, not of {backbone}; use --backbone {others[0]}")


def _require_classes(
    path: Path, content: Mapping[str, Any], state: Mapping[str, Tensor], classes: Sequence[str]
) -> None:
    """Raise ValueError unless the file's outputs are `classes`, as far as the file tells."""
    for name in classes:
        class_info(name)
    rows = state.get("organ_embedding")
    if rows is None or rows.dim() != 2 or rows.shape[1] != WIDTH:
        shape = "none" if rows is None else str(tuple(rows.shape))
        raise ValueError(f"{path}: organ_embedding {shape}, expected ({len(classes)}, {WIDTH}); use the authors' file")
    if len(rows) != len(classes):
        raise ValueError(
            f"{path}: {len(rows)} classes, expected {len(classes)} ({classes[0]} to {classes[-1]}); name what its "
            "outputs are, in their order, with --classes"
        )
    named = content.get("classes")
    if named is not None and list(named) != list(classes):
        places = [i for i, (one, other) in enumerate(zip(named, classes, strict=False)) if one != other]
        at = places[0] if places else min(len(named), len(classes))
        raise ValueError(
            f"{path}: its classes differ from those expected from output {at + 1} on: found {', '.join(named[at:])}; "
            f"expected {', '.join(classes[at:])}; give the file's own order with --classes"
        )


def sides_apart(classes: Sequence[str], rows: NDArray[np.float32]) -> list[str]:
    """Return the classes whose row is not nearest to that of their mirror partner, as it is in CLIP's embeddings.

    rows: (C, 512), one a class. Where classes are named here, their order in the file is in doubt.
    """
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T - 2 * np.eye(len(rows))
    mirrors = {name: class_info(name).mirror for name in classes}
    return [
        name
        for place, name in enumerate(classes)
        if mirrors[name] in classes and classes[int(cosines[place].argmax())] != mirrors[name]
    ]
