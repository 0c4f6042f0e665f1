"""Fetch: the files of a card come to the raw zone, checked and unpacked; what needs a person is said step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from datasets_registry.archives.extract import MARKER
from datasets_registry.archives.kinds import is_archive_name
from datasets_registry.archives.limits import UnpackLimits
from datasets_registry.archives.unpack import unpack
from datasets_registry.cards import Card, load_card
from datasets_registry.sources.download import download
from datasets_registry.sources.errors import FilesMissing
from datasets_registry.sources.host_slots import only_one
from datasets_registry.sources.http import make_client
from datasets_registry.sources.ledger import LEDGER, Ledger
from datasets_registry.sources.placed import expands, placed_files, require_placed
from datasets_registry.sources.raw_zone import Arrival, RawZone, arrivals_below
from datasets_registry.sources.remote import DownloadOptions, Endpoints, Progress, RemoteFile, Session
from datasets_registry.sources.resolve import list_files
from datasets_registry.sources.spec import Source
from datasets_registry.sources.steps import missing_steps, reason_to_ask
from tasks.prefect_task import as_task
from tasks.progress import ByteProgress, report_progress
from tasks.settings import Settings

BARS = 8
"""A source of more files than this shows one bar that counts files."""


@dataclass(frozen=True)
class FetchedFile:
    """One file of a source: what became of it. bytes: as it lies in the download folder."""

    name: str
    outcome: Literal["downloaded", "placed", "known"]
    bytes: int


@dataclass(frozen=True)
class FetchReport:
    """What a fetch did. root: the folder for the reader. ready: sources that were there in full before."""

    card_id: str
    root: Path
    files: tuple[FetchedFile, ...]
    unpacked: tuple[str, ...]
    ready: tuple[str, ...]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every source was in the root already."""
        return not self.files and not self.unpacked


@dataclass(frozen=True)
class _Ready:
    """A checked file in the download folder, on its way to the root."""

    source: Source
    path: Path
    place: str | None
    file: FetchedFile


def fetch(
    card_id: str,
    settings: Settings,
    *,
    variant: str | None = None,
    only: Sequence[str] = (),
    endpoints: Endpoints | None = None,
) -> FetchReport:
    """Bring the files of a card to the raw zone and return what was done, with the folder for its reader.

    variant: the label variant whose files are wanted (default: the card's). only: names of sources, optional ones
    too, instead of all that are needed. A second run finds everything and asks no server. Raises FilesMissing with the
    steps for a person before anything is downloaded; BadInput for wrong content; DownloadFailed, naming every file
    that did not come, after the others have.
    """
    card = load_card(card_id)
    chosen = choose_sources(card, variant, only)
    zone = RawZone(settings.raw_folder / card.id)
    with only_one(zone.folder / ".lock", f"a fetch of {card.id}"):
        ready = tuple(source.name for source in chosen if zone.has(source))
        pending = [source for source in chosen if source.name not in ready]
        if not pending:
            return FetchReport(card.id, zone.root, (), (), ready)
        _require_possible(card, pending, zone, settings)
        zone.downloads.mkdir(parents=True, exist_ok=True)
        if zone.interrupted:
            zone.forget_unpacking()
        checked = _bring(card, pending, zone, settings, endpoints or Endpoints())
        unpacked: list[str] = []
        for source in pending:
            arrivals: list[Arrival] = []
            for item in checked:
                if item.source is source:
                    arrivals += _arrivals(item, card, zone, settings, unpacked)
            zone.add(source, arrivals)
        zone.forget_unpacking()
    return FetchReport(card.id, zone.root, tuple(item.file for item in checked), tuple(unpacked), ready)


def choose_sources(card: Card, variant: str | None, only: Sequence[str]) -> list[Source]:
    """Return the sources to fetch. Raises KeyError for a name or variant that the card does not know."""
    named = {source.name: source for source in card.sources}
    unknown = [name for name in only if name not in named]
    if unknown:
        raise KeyError(f"card {card.id}: no source {', '.join(unknown)}; known: {', '.join(named) or 'none'}")
    if only:
        return [named[name] for name in dict.fromkeys(only)]
    chosen_variant = card.with_variant(variant or card.label_variant).label_variant
    wanted = [
        source
        for source in card.sources
        if source.needed and (not source.variants or chosen_variant in source.variants)
    ]
    if not wanted:
        raise ValueError(f"card {card.id} names no files to fetch; give the folder that holds them with --source")
    return wanted


def download_options(settings: Settings) -> DownloadOptions:
    """Return how patient the settings want the download engine to be."""
    return DownloadOptions(
        lock_folder=settings.raw_folder / ".locks",
        timeout_s=settings.download_timeout_s,
        retries=settings.download_retries,
        retry_after_max_s=settings.download_retry_after_max_s,
        per_host=settings.download_parallel_per_host,
    )


def _require_possible(card: Card, pending: Sequence[Source], zone: RawZone, settings: Settings) -> None:
    """Raise before anything is fetched when a person has to act first."""
    missing = []
    for source in pending:
        reason = reason_to_ask(
            source,
            terms_accepted=card.id in settings.terms_accepted,
            synapse_token=settings.synapse_token is not None,
        )
        if reason is not None and not placed_files(zone.downloads, source.name):
            missing.append((source, reason))
    if missing:
        zone.downloads.mkdir(parents=True, exist_ok=True)
        raise FilesMissing(missing_steps(card, missing, zone.downloads))
    encrypted = [source for source in pending if source.encrypted]
    if encrypted and card.id not in settings.archive_passwords:
        raise FilesMissing(
            f"{card.id}: {encrypted[0].name} is encrypted and no password is set; set "
            f'CTFACTORY_ARCHIVE_PASSWORDS=\'{{"{card.id}": "..."}}\'. {encrypted[0].note or ""}'.rstrip()
        )


def _bring(
    card: Card, pending: Sequence[Source], zone: RawZone, settings: Settings, endpoints: Endpoints
) -> list[_Ready]:
    """Return every file of the pending sources, checked, in the download folder."""
    ledger = Ledger(zone.downloads / LEDGER)
    options = download_options(settings)
    token = settings.synapse_token.get_secret_value() if settings.synapse_token is not None else None
    stop = threading.Event()
    with make_client(options.timeout_s) as client:
        session = Session(client, options, endpoints, token, stop)
        work: list[Callable[[], _Ready]] = []
        for source in pending:
            by_hand = [] if expands(source) else placed_files(zone.downloads, source.name)
            for path in by_hand:
                work.append(_placed_job(source, path, zone, ledger))
            if not by_hand:
                work += _remote_jobs(card, source, list_files(source, session), zone, ledger, session)
        return _run_all(work, settings.download_parallel, stop)


def _placed_job(source: Source, path: Path, zone: RawZone, ledger: Ledger) -> Callable[[], _Ready]:
    name = path.relative_to(zone.downloads).as_posix()
    whole = name == source.name
    # A folder that a person placed keeps its own name in the root; a file may have a place of its own.
    place = source.place if whole else f"{source.place or source.name}/{name.removeprefix(source.name + '/')}"

    def job() -> _Ready:
        known = require_placed(source, name, path, ledger)
        return _Ready(source, path, place, FetchedFile(name, "known" if known else "placed", path.stat().st_size))

    return job


def _remote_jobs(
    card: Card, source: Source, remotes: Sequence[RemoteFile], zone: RawZone, ledger: Ledger, session: Session
) -> list[Callable[[], _Ready]]:
    done = _Counter(f"fetch {card.id}", len(remotes)) if len(remotes) > BARS else None

    def job(remote: RemoteFile) -> _Ready:
        target = zone.downloads / remote.name
        if target.is_file():
            stated = source.model_copy(update={"bytes": remote.bytes, "md5": remote.md5, "sha256": remote.sha256})
            known = require_placed(stated, remote.name, target, ledger)
            outcome: Literal["downloaded", "placed", "known"] = "known" if known else "placed"
        else:
            progress: Progress | None = None if done is not None else ByteProgress(f"fetch {remote.name}")
            fetched = download(
                remote,
                target,
                session,
                progress=progress,
                approve=lambda digests: ledger.require_same(remote.name, digests),
            )
            ledger.record(
                remote.name,
                target,
                fetched.digests,
                how="downloaded",
                url=remote.origin,
                etag=fetched.etag,
                volatile=remote.volatile,
            )
            outcome = "downloaded"
        if done is not None:
            done.count()
        return _Ready(source, target, remote.place, FetchedFile(remote.name, outcome, target.stat().st_size))

    return [partial(job, remote) for remote in remotes]


class _Counter:
    """Counts finished files of a source with many."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._lock = threading.Lock()

    def count(self) -> None:
        with self._lock:
            self._done += 1
            report_progress(self._what, self._done, self._total, "files")


def _run_all(work: Sequence[Callable[[], _Ready]], parallel: int, stop: threading.Event) -> list[_Ready]:
    """Return all results in order. One that fails lets the others finish; then the failures are raised as one."""
    with ThreadPoolExecutor(parallel, thread_name_prefix="fetch") as pool:
        futures = [pool.submit(job) for job in work]
        try:
            failures = [error for future in futures if (error := future.exception()) is not None]
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if len(failures) > 1:
        told = "\n".join(f"  - {error}" for error in failures[:20])
        more = f"\n  and {len(failures) - 20} more" if len(failures) > 20 else ""
        raise OSError(f"{len(failures)} of {len(work)} files were not fetched:\n{told}{more}") from failures[0]
    if failures:
        raise failures[0]
    return [future.result() for future in futures]


def _arrivals(item: _Ready, card: Card, zone: RawZone, settings: Settings, unpacked: list[str]) -> list[Arrival]:
    """Return where the files of one download belong in the root; an archive is unpacked beside it first."""
    name = item.file.name
    if not is_archive_name(name):
        return [Arrival(item.path, PurePosixPath(item.place or name), movable=False)]
    folder = zone.unpacking / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    password = settings.archive_passwords.get(card.id)
    unpack(
        item.path,
        folder,
        limits=replace(
            UnpackLimits(),
            max_bytes=settings.unpack_max_bytes,
            max_ratio=settings.unpack_max_ratio,
            max_members=settings.unpack_max_members,
        ),
        password=None if password is None else password.get_secret_value(),
        password_setting="CTFACTORY_ARCHIVE_PASSWORDS",
        nested=item.source.nested,
        progress=ByteProgress(f"unpack {name}"),
    )
    unpacked.append(name)
    return arrivals_below(folder, item.place, skip=MARKER)


fetch_task = as_task(fetch, "fetch")
