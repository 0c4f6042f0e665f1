"""What an adapter says about one file, and how the engine is asked to behave."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from datasets_registry.sources.spec import Source

Progress = Callable[[int, int | None], None]
"""Called with (bytes so far, bytes in all or None)."""


@dataclass(frozen=True)
class Location:
    """An address that serves the file now; it may hold secrets and is never written down."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteFile:
    """One file to fetch.

    name: path below the download folder. origin: its address without secrets, for messages and the ledger. locate:
    returns where it lies now, asked again before every attempt, since signed addresses expire. bytes, md5, sha256: as
    the card or the service states them. check: refuses a finished file (BadInput) before it gets its final name.
    """

    name: str
    source: Source
    origin: str
    locate: Callable[[], Location]
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    place: str | None = None
    volatile: bool = False
    check: Callable[[Path], None] | None = None
    how_to_log_in: str = "open the address in a browser to see what it asks for"


@dataclass(frozen=True)
class Endpoints:
    """Base addresses of the services; tests point them at a local server.

    nbia: tried in this order; v4 answers without a login since 2025, v1 is its predecessor (TCIA's maintainers in
    RBVI/ChimeraX issue 201, 2025-10). s3: address of a public bucket by its name.
    """

    zenodo: str = "https://zenodo.org/api"
    nbia: tuple[str, ...] = (
        "https://services.cancerimagingarchive.net/nbia-api/services/v4",
        "https://services.cancerimagingarchive.net/nbia-api/services/v1",
    )
    idc: str = "https://api.imaging.datacommons.cancer.gov/v3"
    s3: str = "https://{bucket}.s3.amazonaws.com"
    synapse_repo: str = "https://repo-prod.prod.sagebase.org/repo/v1"
    synapse_file: str = "https://repo-prod.prod.sagebase.org/file/v1"
    gdrive: str = "https://drive.google.com"


@dataclass(frozen=True)
class DownloadOptions:
    """How patient the engine is.

    timeout_s: without a byte for so long, a connection counts as stalled. retries: attempts in a row that bring
    nothing new before giving up. backoff_s: wait before the first of them; doubles, with jitter. retry_after_max_s:
    the longest wait a server may ask for. per_host: connections to one host, over all threads and processes that
    share lock_folder. sync_bytes: how often what has arrived is forced to the disk.
    """

    lock_folder: Path
    timeout_s: float = 60.0
    retries: int = 5
    backoff_s: float = 1.0
    backoff_max_s: float = 60.0
    retry_after_max_s: float = 600.0
    per_host: int = 2
    sync_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class Session:
    """What every request of one fetch shares. stop: set to end all of them early."""

    client: httpx.Client
    options: DownloadOptions
    endpoints: Endpoints = Endpoints()
    synapse_token: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
