"""HTTP manners shared by the engine and the adapters: who we are, what heals, how long to wait, what may be shown."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import httpx

from datasets_registry.sources.errors import DownloadFailed, PassingFault
from datasets_registry.sources.host_slots import host_slot
from datasets_registry.sources.remote import Location, Session

SHOWN_PARAMETERS = frozenset({"id", "export", "Collection", "SeriesInstanceUID", "list-type", "prefix"})
"""Query parameters that identify a file; every other one may be a token and is never shown."""

HEALING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that another attempt may heal; all others from 400 on are final."""

Result = TypeVar("Result")


def make_client(timeout_s: float) -> httpx.Client:
    """Return a client that names itself, follows redirects and gives up on a connection silent for `timeout_s`."""
    # httpx logs every address with its query at INFO, and a signed address is a password.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    try:
        release = version("ct-label-factory")
    except PackageNotFoundError:
        release = "0"
    return httpx.Client(
        timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 30.0)),
        follow_redirects=True,
        headers={"User-Agent": f"ct-label-factory/{release}"},
    )


def public_url(url: str) -> str:
    """Return `url` without user, password, fragment and every parameter that is not known to be harmless."""
    parts = urlsplit(url)
    shown = urlencode([(key, value) for key, value in parse_qsl(parts.query) if key in SHOWN_PARAMETERS])
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, shown, ""))


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Return the seconds that a Retry-After header asks for, given as seconds or as an HTTP date; None without one."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def refuse_status(response: httpx.Response, name: str, how_to_log_in: str) -> NoReturn:
    """Raise what a status of 400 or more means: a passing fault, or the end with the reason."""
    status = response.status_code
    if status in HEALING:
        raise PassingFault(f"status {status}", retry_after_s(response.headers.get("Retry-After")))
    remedy = {
        401: f"a login is needed: {how_to_log_in}",
        403: f"access is refused: {how_to_log_in}",
        404: "the file is not there (any more); look at the data set's page and correct the card",
        410: "the file was withdrawn; look at the data set's page and correct the card",
    }.get(status, "the server refuses the request; look at the data set's page")
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
    raise DownloadFailed(name, public_url(str(response.url)), f"status {status} {phrase}".rstrip(), remedy)


def with_retries(
    session: Session, name: str, address: str, attempt: Callable[[], Result], progressed: Callable[[], bool]
) -> Result:
    """Return what `attempt` returns, trying again after passing faults; `progressed` tells whether bytes were gained.

    Raises DownloadFailed after `retries` attempts in a row that gained nothing, or when a server asks to wait too long.
    """
    options, failures = session.options, 0
    while True:
        try:
            return attempt()
        except PassingFault as fault:
            failures = 1 if progressed() else failures + 1
            if failures > options.retries:
                raise DownloadFailed(
                    name, address, f"{fault.reason}, after {failures} attempts in a row", "try again later"
                ) from None
            wait_s = _wait_s(session, failures, fault, name, address)
        if session.stop.wait(wait_s):
            raise DownloadFailed(name, address, "stopped", "run the command again to go on")


def _wait_s(session: Session, failures: int, fault: PassingFault, name: str, address: str) -> float:
    options = session.options
    if fault.wait_s is not None:
        if fault.wait_s > options.retry_after_max_s:
            raise DownloadFailed(
                name,
                address,
                f"{fault.reason}, and the server asks to wait {fault.wait_s:.0f} s",
                f"run again later, or raise CTFACTORY_DOWNLOAD_RETRY_AFTER_MAX_S ({options.retry_after_max_s:.0f} s)",
            )
        return fault.wait_s
    # Jitter keeps many clients that failed together from coming back together.
    return min(options.backoff_max_s, options.backoff_s * 2.0 ** (failures - 1)) * random.uniform(0.5, 1.0)


def transport_fault(error: httpx.TransportError, timeout_s: float) -> PassingFault:
    """Return what a broken connection means, in words."""
    if isinstance(error, httpx.ReadTimeout):
        return PassingFault(f"no byte for {timeout_s:g} s")
    return PassingFault(f"connection lost ({type(error).__name__})")


def ask(
    session: Session,
    location: Location,
    name: str,
    how_to_log_in: str,
    *,
    method: str = "GET",
    parameters: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """Return the whole answer of a service to a small question, with the engine's patience."""

    def attempt() -> httpx.Response:
        try:
            with host_slot(session, location.url):
                response = session.client.request(
                    method, location.url, params=parameters, headers=dict(location.headers), json=body
                )
        except httpx.TransportError as error:
            raise transport_fault(error, session.options.timeout_s) from None
        if response.is_error:
            refuse_status(response, name, how_to_log_in)
        return response

    return with_retries(session, name, public_url(location.url), attempt, lambda: False)


def ask_json(
    session: Session,
    location: Location,
    name: str,
    how_to_log_in: str,
    *,
    method: str = "GET",
    parameters: Mapping[str, str] | None = None,
    body: Mapping[str, Any] | None = None,
) -> Any:
    """Return the JSON that a service answers. Raises DownloadFailed where it answers something else."""
    response = ask(session, location, name, how_to_log_in, method=method, parameters=parameters, body=body)
    try:
        return response.json()
    except ValueError:
        kind = response.headers.get("Content-Type", "no type")
        raise DownloadFailed(
            name, public_url(str(response.url)), f"{kind} instead of JSON", "the service may be down or have changed"
        ) from None
