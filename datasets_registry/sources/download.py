"""Fetch one file: resume after a cut, digest while streaming, write aside, and name only what is right.

Resuming asks for the rest with Range and If-Range (RFC 9110, sections 13.1.5 and 14.2); a server that answers with the
whole file, another version or another place makes the download start again from zero.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from datasets_registry.sources.content import HEAD_BYTES, require_content, require_whole_zip
from datasets_registry.sources.decoding import plain_blocks
from datasets_registry.sources.errors import DownloadFailed, PassingFault
from datasets_registry.sources.host_slots import host_slot
from datasets_registry.sources.http import public_url, refuse_status, transport_fault, with_retries
from datasets_registry.sources.partial import Digests, PartialFile, Version
from datasets_registry.sources.remote import Progress, RemoteFile, Session
from imaging.errors import BadInput


@dataclass(frozen=True)
class Fetched:
    """A file that now lies under its name. etag: the server's, where it gave one."""

    digests: Digests
    etag: str | None


def download(
    remote: RemoteFile,
    target: Path,
    session: Session,
    *,
    progress: Progress | None = None,
    approve: Callable[[Digests], None] | None = None,
) -> Fetched:
    """Fetch `remote` to `target`, which appears whole and checked, or not at all.

    approve: called with the digests before the file gets its name; it refuses by raising BadInput. Raises BadInput
    for wrong content (nothing is kept), DownloadFailed when the server does not give it (what arrived is kept for the
    next run), OSError when the disk is full.
    """
    part = PartialFile(target, remote.origin, session.options.sync_bytes)
    discard = False
    try:
        run = _Download(remote, part, session, progress or _unheard)
        etag = with_retries(session, remote.name, remote.origin, run.attempt, run.progressed)
        digests = part.digests()
        if approve is not None:
            approve(digests)
        part.publish(target)
    except BadInput:
        discard = True
        raise
    finally:
        part.close(discard=discard)
    return Fetched(digests, etag)


class _Download:
    """One download over all its attempts."""

    def __init__(self, remote: RemoteFile, part: PartialFile, session: Session, progress: Progress) -> None:
        self._remote = remote
        self._part = part
        self._session = session
        self._progress = progress
        self._address = remote.origin
        self._content_type = ""
        self._pieces = 1 if part.offset else 0
        self._furthest = part.offset

    def progressed(self) -> bool:
        """Return whether bytes came that no earlier attempt had; going round in circles is no progress."""
        gained = self._part.furthest > self._furthest
        self._furthest = max(self._furthest, self._part.furthest)
        return gained

    def attempt(self) -> str | None:
        """Go on from what there is to the end, check the whole, and return the server's ETag."""
        part = self._part
        location = self._remote.locate()
        headers = {**location.headers, "Accept-Encoding": "identity"}
        validator = part.version.validator if part.version is not None and part.offset else None
        if validator is not None:
            headers |= {"Range": f"bytes={part.offset}-", "If-Range": validator}
        try:
            with (
                host_slot(self._session, location.url),
                self._session.client.stream("GET", location.url, headers=headers) as response,
            ):
                self._address = public_url(str(response.url))
                self._content_type = response.headers.get("Content-Type", "")
                self._receive(response, asked_for_rest=validator is not None)
                etag: str | None = response.headers.get("ETag")
        except httpx.TooManyRedirects:
            raise DownloadFailed(
                self._remote.name, self._remote.origin, "redirects in a circle", self._remote.how_to_log_in
            ) from None
        except httpx.TransportError as error:
            raise transport_fault(error, self._session.options.timeout_s) from None
        self._require_right()
        return etag

    def _receive(self, response: httpx.Response, *, asked_for_rest: bool) -> None:
        part, remote = self._part, self._remote
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and asked_for_rest:
            self._accept_as_complete(response)
            return
        if response.is_error:
            refuse_status(response, remote.name, remote.how_to_log_in)
        if response.status_code == httpx.codes.PARTIAL_CONTENT and asked_for_rest:
            self._require_same_version(response)
        elif response.status_code == httpx.codes.OK:
            total = _whole_length(response)
            encoded = response.headers.get("Content-Encoding", "identity") != "identity"
            part.restart(Version(remote.origin, None if encoded else _validator(response), None if encoded else total))
            self._pieces = 0
        else:
            raise DownloadFailed(
                remote.name, self._address, f"status {response.status_code}", "look at the data set's page"
            )
        total = part.version.total if part.version is not None else None
        self._require_expected_size(total)
        self._require_space(total)
        self._pieces += 1
        self._write(plain_blocks(response, remote.name), total)
        if total is not None and part.offset < total:
            raise PassingFault(f"connection ended after {part.offset} of {total} bytes")

    def _write(self, blocks: Iterator[bytes], total: int | None) -> None:
        part, checked = self._part, self._part.offset >= HEAD_BYTES
        limit = total if total is not None else self._remote.bytes
        for block in blocks:
            if self._session.stop.is_set():
                raise DownloadFailed(self._remote.name, self._address, "stopped", "run the command again to go on")
            try:
                part.append(block)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(
                        error.errno, f"{part.path}: the disk is full after {part.offset} bytes; free space and go on"
                    ) from None
                raise
            if limit is not None and part.offset > limit:
                found = part.offset
                part.restart(None)
                raise PassingFault(f"{found} bytes and more, though {limit} were stated")
            if not checked and part.offset >= HEAD_BYTES:
                self._require_content()
                checked = True
            self._progress(part.offset, limit)

    def _require_content(self) -> None:
        remote = self._remote
        require_content(remote.name, self._part.head(), self._address, self._content_type, remote.how_to_log_in)

    def _require_same_version(self, response: httpx.Response) -> None:
        """Raise PassingFault, with everything thrown away, unless the rest of the same bytes is coming."""
        part = self._part
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        validator = _validator(response)
        known = part.version
        if (
            span is not None
            and known is not None
            and int(span[1]) == part.offset
            and (span[2] == "*" or known.total in (None, int(span[2])))
            and validator in (None, known.validator)
        ):
            return
        part.restart(None)
        raise PassingFault("the server sent another part or another version of the file than asked for")

    def _accept_as_complete(self, response: httpx.Response) -> None:
        """Nothing is left to send: fine if that agrees with what was stated before, or with a known digest."""
        part = self._part
        size = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
        stated = part.version.total if part.version is not None else None
        if size is not None and int(size[1]) == part.offset and (stated == part.offset or self._digest_known_good()):
            return
        held = size[1] if size is not None else "fewer"
        part.restart(None)
        raise PassingFault(f"the server stated {stated} bytes, but holds {held}")

    def _digest_known_good(self) -> bool:
        digests, remote = self._part.digests(), self._remote
        return (remote.sha256 or remote.md5) is not None and not _differences(remote, digests)

    def _require_expected_size(self, total: int | None) -> None:
        expected = self._remote.bytes
        if total is not None and expected is not None and total != expected:
            raise BadInput(
                "wrong_size",
                f"{self._remote.name} from {self._address}",
                f"{total} bytes",
                f"{expected} bytes",
                "the file is another one than the card describes, or a page in its place; look at the data set's page",
            )

    def _require_space(self, total: int | None) -> None:
        size = total if total is not None else self._remote.bytes
        if size is None:
            return
        free, needed = shutil.disk_usage(self._part.path.parent).free, size - self._part.offset
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"{self._part.path}: {needed} bytes are needed and {free} are free; free space or set "
                "CTFACTORY_RAW_ROOT to a larger disk",
            )

    def _require_right(self) -> None:
        """Raise BadInput unless the finished file is what its name, the card and the service say."""
        part, remote = self._part, self._remote
        part.sync()
        if part.offset == 0:
            raise BadInput("empty_file", f"{remote.name} from {self._address}", "0 bytes", "a file", "try again later")
        self._require_content()
        digests = part.digests()
        wrong = _differences(remote, digests)
        if wrong and self._pieces > 1:
            part.restart(None)
            raise PassingFault(f"put together from {self._pieces} pieces, the file has another {', '.join(wrong)}")
        if wrong:
            raise BadInput(
                "wrong_digest",
                f"{remote.name} from {self._address}",
                ", ".join(f"{kind} {getattr(digests, kind)}" for kind in ("bytes", *wrong) if kind != "bytes")
                + f" ({digests.bytes} bytes)",
                ", ".join(f"{kind} {getattr(remote, kind)}" for kind in wrong),
                "the server gives another file than the card describes; look at the data set's page, and change the "
                "card only for a reason you can name",
            )
        require_whole_zip(remote.name, part.path)
        if remote.check is not None:
            remote.check(part.path)


def _unheard(done: int, total: int | None) -> None:
    """Take a report of progress that nobody wants."""
    del done, total


def _differences(remote: RemoteFile, digests: Digests) -> list[str]:
    """Return which of bytes, md5, sha256 are known and differ."""
    return [
        kind
        for kind in ("bytes", "md5", "sha256")
        if getattr(remote, kind) is not None and getattr(remote, kind) != getattr(digests, kind)
    ]


def _whole_length(response: httpx.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _validator(response: httpx.Response) -> str | None:
    """Return what If-Range may carry: a strong ETag, or else the date of the last change."""
    etag: str | None = response.headers.get("ETag")
    if etag is not None:
        return None if etag.startswith("W/") else etag
    changed: str | None = response.headers.get("Last-Modified")
    return changed
