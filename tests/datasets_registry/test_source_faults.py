"""For any sequence of faults: the right file under its name, or a clear failure and no file under that name."""

from __future__ import annotations

import gzip
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_server import Resource, Scripted, serving, sha256

from datasets_registry.sources.download import download
from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import make_client
from datasets_registry.sources.remote import DownloadOptions, Location, RemoteFile, Session
from datasets_registry.sources.spec import HttpsSource
from imaging.errors import BadInput

BODY = gzip.compress(random.Random(5).randbytes(4000), mtime=0)
NAME = "scan.nii.gz"

ODD_ANSWERS = (
    *("none", "ignore", "longer", "shorter", "blind", "change:v2", "change:v3", "login", "redirect:/f", "encoded"),
    *("labelled", "wrong", "status:503", "status:429@0", "status:500", "status:404", "status:403", "status:302"),
)

places = st.integers(min_value=0, max_value=len(BODY))
faults = st.one_of(
    places.map(lambda place: f"cut:{place}"),
    st.sampled_from(ODD_ANSWERS),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with make_client(2) as one:
        yield one


@settings(max_examples=50, deadline=None)
@given(script=st.lists(faults, max_size=6), etag=st.sampled_from(['"v1"', None, 'W/"v1"']), runs=st.integers(1, 3))
def test_right_digest_or_nothing_under_the_name(
    server: Scripted, client: httpx.Client, script: list[str], etag: str | None, runs: int
) -> None:
    server.resources["/f"] = Resource(BODY, etag=etag, faults=list(script))
    url = f"{server.url}/f"
    remote = RemoteFile(NAME, HttpsSource(name=NAME, url=url), url, lambda: Location(url), sha256=sha256(BODY))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / NAME
        options = DownloadOptions(Path(folder) / "locks", timeout_s=2, retries=3, backoff_s=0.001, sync_bytes=512)
        for _ in range(runs):
            try:
                download(remote, target, Session(client, options))
            except (BadInput, DownloadFailed):
                assert not target.exists()
            else:
                assert target.read_bytes() == BODY
                assert not list(Path(folder).glob("*.part*"))
                break


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(places, max_size=8))
def test_cuts_alone_always_heal(server: Scripted, client: httpx.Client, cuts: list[int]) -> None:
    server.resources["/f"] = Resource(BODY, faults=[f"cut:{place}" for place in cuts])
    url = f"{server.url}/f"
    remote = RemoteFile(NAME, HttpsSource(name=NAME, url=url), url, lambda: Location(url))
    with tempfile.TemporaryDirectory() as folder:
        options = DownloadOptions(Path(folder) / "locks", timeout_s=2, retries=9, backoff_s=0.001)
        download(remote, Path(folder) / NAME, Session(client, options))
        assert (Path(folder) / NAME).read_bytes() == BODY
