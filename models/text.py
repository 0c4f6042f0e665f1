"""The text branch: one vector per class from its name in a prompt, by CLIP or by a stand-in that needs no download."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from datasets_registry.nearest import nearest_text
from datasets_registry.taxonomy import class_info

WIDTH = 512
PROMPTS = {
    "V1": "A computerized tomography of a {name}.",
    "V2": "There is {name} in this computerized tomography.",
    "V3": "This computerized tomography has a {name}.",
    "V4": "A photo of a {name}.",
}
PUBLISHED_ENCODER = "published/clip-ViT-B-32"
"""The rows that come with the authors' checkpoints: OpenAI's CLIP as they ran it."""

_OPENAI_CLIP = frozenset((PUBLISHED_ENCODER, "open_clip/ViT-B-32/openai", "open_clip/ViT-B-32/40d365715913c9da"))
"""Ids of one set of weights: the published rows, the hub's tag, and OpenAI's own file by its SHA-256."""

_WHOLE_NAME = 3.0
_PROMPT_WORDS = frozenset(("a", "of", "there", "is", "in", "this", "has", "photo", "computerized", "tomography"))


class TextEncoder(Protocol):
    """Turns sentences into vectors; `id` names encoder and weights, and is stored with every model."""

    @property
    def id(self) -> str:
        """Name of the encoder and its weights."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), 512) float32."""


@dataclass(frozen=True, eq=False)
class TextEmbeddings:
    """One row per class, (C, 512) float32, with the encoder and prompt that made it and a digest of the numbers."""

    array: NDArray[np.float32]
    encoder: str
    prompt: str
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the rows in order."""
        return array_digest(self.array)


def array_digest(array: NDArray[np.float32]) -> str:
    """Return the SHA-256 of an array's shape and little-endian float32 values."""
    values = np.ascontiguousarray(array, dtype="<f4")
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()


class HashingTextEncoder:
    """Signed sums of hashed character n-grams (3 to 5 letters): offline, deterministic, related names lie near.

    The prompts' own words are left out: they are the same for every class and would drown what tells classes apart.
    Rows have a mean square of 1, about the size of CLIP's features; the text layer hardly sees rows of length 1.
    """

    id = "hashing-ngram-512-v1"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), 512) float32 rows of length sqrt(512) (a text without words of its own: zeros)."""
        return np.stack([self._row(text) for text in texts]).astype(np.float32)

    def _row(self, text: str) -> NDArray[np.float64]:
        row = np.zeros(WIDTH)
        words = [word.strip(".,") for word in text.lower().replace("_", " ").split()]
        name = f"<{' '.join(word for word in words if word not in _PROMPT_WORDS)}>"
        grams = [name[start : start + size] for size in (3, 4, 5) for start in range(len(name) - size + 1)]
        # the whole name too: sums of parts alone make "left" + "kidney" a mixture of other classes
        for gram, weight in [(gram, 1.0) for gram in grams] + [(name, _WHOLE_NAME)]:
            number = int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "little")
            row[number % WIDTH] += weight if number >> 63 else -weight
        norm = float(np.linalg.norm(row))
        return row * (WIDTH**0.5 / norm) if norm else row


class OneHotTextEncoder:
    """Row i has a single value at column i: no knowledge of names, for ablation (at most 512 classes)."""

    id = "one-hot-512-v1"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the first rows of sqrt(512) times the identity, (len(texts), 512)."""
        if len(texts) > WIDTH:
            raise ValueError(f"one_hot: {len(texts)} classes, at most {WIDTH} fit; use another text_encoder")
        return np.eye(len(texts), WIDTH, dtype=np.float32) * np.float32(WIDTH**0.5)


class RandomTextEncoder:
    """Rows of length near sqrt(512) drawn from the text's own hash: distinct but unrelated, for ablation."""

    id = "random-512-v1"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), 512) float32 rows of standard normal numbers."""
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
            rows.append(np.random.default_rng(seed).standard_normal(WIDTH))
        return np.stack(rows).astype(np.float32)


class OpenClipTextEncoder:
    """The text tower of an open_clip model.

    model: an open_clip model name whose text width is 512. pretrained: a tag (`openai`, fetched from the hub) or the
    path of a local weight file. Raises FileNotFoundError for a path that is not there, ValueError for another width.
    """

    def __init__(self, model: str = "ViT-B-32", pretrained: str = "openai") -> None:
        self._model_name = model
        self._pretrained = pretrained
        path = Path(pretrained)
        if len(path.parts) > 1 or path.suffix:
            if not path.is_file():
                raise FileNotFoundError(f"open_clip weights {pretrained}: no such file; give a tag or an existing file")
            with path.open("rb") as stream:
                weights = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        else:
            weights = pretrained
        self.id = f"open_clip/{model}/{weights}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unnormalised text features, (len(texts), 512) float32.

        Raises RuntimeError, with what helps, for a model or tag that open_clip does not know or cannot fetch.
        """
        import open_clip  # heavy, and needed only here

        try:
            network = open_clip.create_model(self._model_name, pretrained=self._pretrained, weights_only=True).eval()
        except RuntimeError as error:
            near = ""
            if self._model_name not in open_clip.list_models():
                near = f"; {nearest_text(self._model_name, open_clip.list_models())}"
            raise RuntimeError(
                f"{self.id}: not loaded ({str(error)[:300]}){near}; without a network, give a file: "
                f"open_clip:{self._model_name}:FILE, or text_encoder hashing"
            ) from error
        with torch.inference_mode():
            features = network.encode_text(open_clip.get_tokenizer(self._model_name)(list(texts)))
        array: NDArray[np.float32] = features.float().cpu().numpy()
        if array.shape[1] != WIDTH:
            raise ValueError(f"{self.id}: text width {array.shape[1]}, expected {WIDTH}; use a model of that width")
        return array


def text_encoder(spec: str) -> TextEncoder:
    """Return the encoder a setting names: `hashing`, `one_hot`, `random` or `open_clip[:model[:tag or file]]`."""
    plain: dict[str, Callable[[], TextEncoder]] = {
        "hashing": HashingTextEncoder,
        "one_hot": OneHotTextEncoder,
        "random": RandomTextEncoder,
    }
    if spec in plain:
        return plain[spec]()
    kind, *rest = spec.split(":", 2)
    if kind != "open_clip":
        raise ValueError(
            f"text_encoder {spec!r}: expected {', '.join(plain)} or open_clip:<model>:<tag or file>; "
            f"{nearest_text(kind, [*plain, 'open_clip'])}"
        )
    return OpenClipTextEncoder(*rest)


def is_stand_in(encoder: str) -> bool:
    """Return whether an encoder id names one that never learnt what words mean: made to work offline, or to compare."""
    return encoder in {kind.id for kind in (HashingTextEncoder, OneHotTextEncoder, RandomTextEncoder)}


def same_encoder(one: str, other: str) -> bool:
    """Return whether two encoder ids mean the same weights, so that rows of both belong together."""
    return one == other or {one, other} <= _OPENAI_CLIP


def prompt_texts(prompt: str, titles: Sequence[str]) -> list[str]:
    """Return the sentence that prompt V1-V4 makes of each title, in order."""
    if prompt not in PROMPTS:
        raise ValueError(f"prompt {prompt!r}: expected one of {', '.join(PROMPTS)}")
    if not all(title.strip() for title in titles):
        raise ValueError(f"titles {list(titles)}: one is blank; give each a name, such as 'left renal vein'")
    return [PROMPTS[prompt].format(name=title.strip()) for title in titles]


def class_texts(prompt: str, names: Sequence[str]) -> list[str]:
    """Return the prompt's sentence for each class of the taxonomy, in order; names are shown by their titles."""
    return prompt_texts(prompt, [class_info(name).title for name in names])


def embed_texts(encoder: TextEncoder, texts: Sequence[str], cache_dir: Path | None = None) -> NDArray[np.float32]:
    """Return (len(texts), 512) float32, read from `cache_dir` when the same encoder saw the same sentences before.

    The cache file's name is a hash of encoder id and sentences, which stand in it with a digest of the numbers; a torn
    file or one whose numbers do not match their digest is a ValueError.
    """
    if not texts:
        return np.zeros((0, WIDTH), np.float32)
    if cache_dir is None:
        return encoder.encode(texts)
    key = hashlib.sha256(json.dumps([encoder.id, list(texts)]).encode()).hexdigest()
    path = cache_dir / f"embeddings-{key[:24]}.safetensors"
    if path.is_file():
        return _read_cached(path)
    made = encoder.encode(texts)
    cache_dir.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    about = {"encoder": encoder.id, "texts": json.dumps(list(texts)), "digest": array_digest(made)}
    save_file({"embeddings": np.ascontiguousarray(made)}, aside, about)
    aside.replace(path)
    return made


def embed_titles(
    encoder: TextEncoder, prompt: str, titles: Sequence[str], cache_dir: Path | None = None
) -> NDArray[np.float32]:
    """Return the embeddings (len(titles), 512) float32 of any names, known to the taxonomy or not, under V1-V4.

    A title is what stands in the sentence: `left renal vein`. One-hot rows say the place in `titles` and nothing else:
    whoever adds titles to others embeds all of them together.
    """
    return embed_texts(encoder, prompt_texts(prompt, titles), cache_dir)


def embed_classes(
    encoder: TextEncoder, prompt: str, names: Sequence[str], cache_dir: Path | None = None
) -> TextEmbeddings:
    """Return the embeddings of classes of the taxonomy under `prompt`, cached as those of any titles."""
    array = embed_texts(encoder, class_texts(prompt, names), cache_dir)
    return TextEmbeddings(array, encoder.id, prompt, tuple(names))


def _read_cached(path: Path) -> NDArray[np.float32]:
    again = "delete the file to compute it anew"
    try:
        with safe_open(path, framework="numpy") as stream:
            stored = (stream.metadata() or {}).get("digest", "")
            array = np.asarray(stream.get_tensor("embeddings"), dtype=np.float32)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a whole safetensors file ({error}); {again}") from error
    if array_digest(array) != stored:
        raise ValueError(f"{path}: digest {array_digest(array)[:12]}, stored {stored[:12]}; {again}")
    return array
