"""Where the bytes of a data set come from: one `Source` per file or set of files, told apart by `kind`.

Every kind has an adapter in this folder. A value that no source states is null; nothing here is guessed.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from datasets_registry.card_ids import CaseIds
from datasets_registry.card_parts import Level

Access = Literal["open", "registration", "application"]
Url = Annotated[str, Field(pattern=r"^https?://[^\s]+$")]


def _plain_path(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or not path.parts:
        raise ValueError(f"{text!r} is not a plain path below its folder")
    return text


class _Source(BaseModel):
    """What every kind of source says.

    name: the file's name in the download folder (for `tcia`, `idc`, an `s3` prefix and some `manual` ones a folder's).
    bytes, md5, sha256: of the file as served; null where nobody states them, then the first download is recorded.
    access: open, or a person must register or apply first. needed: false for files that no reader of the card asks
    for (test sets, other versions); they are fetched only when named. place: path below the unpacked root; for an
    archive the folder that its content goes into, without the one folder that may wrap it (default: the root, as
    packed), for a file its path (default: its name). encrypted: the archive needs a password. nested:
    patterns (`*.zip`) of archives inside it that are unpacked too. variants: the label variants whose readers ask for
    the file (default: all). volatile: the server packs the archive anew for each download: its digest means nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: PositiveInt | None = None
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    access: Access = "open"
    needed: bool = True
    place: str | None = None
    encrypted: bool = False
    nested: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    volatile: bool = False
    note: str | None = None
    confidence: Level | None = None

    @model_validator(mode="after")
    def _names_stay_below(self) -> _Source:
        _plain_path(self.name)
        if self.place is not None:
            _plain_path(self.place)
        if self.volatile and (self.md5 or self.sha256 or self.bytes):
            raise ValueError(f"{self.name}: volatile, yet bytes or a digest are given; one of the two is wrong")
        return self


class HttpsSource(_Source):
    """A file at a plain address. With `cases`, one file per case: `{case}` stands for the id in url, name and place."""

    kind: Literal["https"] = "https"
    url: Url
    cases: CaseIds = ()

    @model_validator(mode="after")
    def _template_fits(self) -> HttpsSource:
        for field, text in (("url", self.url), ("name", self.name)):
            if ("{case}" in text) != bool(self.cases):
                raise ValueError(f"{field} {text!r} holds {{case}} exactly when `cases` are given")
        if self.cases and (self.bytes or self.md5 or self.sha256):
            raise ValueError(f"{self.name}: one size or digest cannot describe {len(self.cases)} files")
        return self


class ZenodoSource(_Source):
    """A file of a Zenodo record; `file` is its name there where it differs from `name`."""

    kind: Literal["zenodo"] = "zenodo"
    record: Annotated[str, Field(pattern=r"^\d+$")]
    file: str | None = None


class TciaSource(_Source):
    """All series of a TCIA collection, one zip each from the public NBIA service.

    `place` may hold {patient}, {study} and {series}.
    """

    kind: Literal["tcia"] = "tcia"
    collection: str
    modality: str | None = None


class IdcSource(_Source):
    """All series of a collection of Imaging Data Commons, object by object from its public buckets.

    collection: its `collection_id` there, in lower case with underscores. `place` may hold {patient}, {study} and
    {series}.
    """

    kind: Literal["idc"] = "idc"
    collection: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    modality: str | None = None


class S3Source(_Source):
    """An object (`key`) of a public bucket, or all objects under `prefix`. bucket: its https address."""

    kind: Literal["s3"] = "s3"
    bucket: Url
    key: str | None = None
    prefix: str | None = None

    @model_validator(mode="after")
    def _one_way(self) -> S3Source:
        if (self.key is None) == (self.prefix is None):
            raise ValueError(f"{self.name}: give either key or prefix")
        return self


class SynapseSource(_Source):
    """A file of Synapse: its own id (`entity`), or the `folder` that holds it under its name."""

    kind: Literal["synapse"] = "synapse"
    entity: Annotated[str, Field(pattern=r"^syn\d+$")] | None = None
    folder: Annotated[str, Field(pattern=r"^syn\d+$")] | None = None
    page: Url | None = None

    @model_validator(mode="after")
    def _one_way(self) -> SynapseSource:
        if (self.entity is None) == (self.folder is None):
            raise ValueError(f"{self.name}: give either entity or folder")
        return self


class GdriveSource(_Source):
    """A shared file of Google Drive: its own id (`file`), or the `folder` that holds it under its name."""

    kind: Literal["gdrive"] = "gdrive"
    file: str | None = None
    folder: str | None = None
    resource_key: str | None = None
    page: Url | None = None

    @model_validator(mode="after")
    def _one_way(self) -> GdriveSource:
        if (self.file is None) == (self.folder is None):
            raise ValueError(f"{self.name}: give either file or folder")
        return self


class ManualSource(_Source):
    """A file or folder that a person fetches. steps: what to do, in order, besides what follows from the card."""

    kind: Literal["manual"] = "manual"
    page: Url | None = None
    account: str | None = None
    steps: tuple[str, ...] = ()


Source = Annotated[
    HttpsSource | ZenodoSource | TciaSource | IdcSource | S3Source | SynapseSource | GdriveSource | ManualSource,
    Field(discriminator="kind"),
]
