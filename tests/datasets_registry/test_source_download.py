"""One file against a server that cuts, stalls, lies, changes its mind and shows login pages."""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from source_server import Asked, Resource, Scripted, md5, serving, sha256

from datasets_registry.sources.download import Fetched, download
from datasets_registry.sources.errors import DownloadFailed
from datasets_registry.sources.http import make_client, public_url, retry_after_s
from datasets_registry.sources.remote import DownloadOptions, Location, RemoteFile, Session
from datasets_registry.sources.spec import HttpsSource
from imaging.errors import BadInput

BODY = gzip.compress(random.Random(5).randbytes(5000), mtime=0)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with serving() as running:
        yield running


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    options = DownloadOptions(
        lock_folder=tmp_path / "locks", timeout_s=0.3, retries=3, backoff_s=0.01, sync_bytes=256, retry_after_max_s=2
    )
    with make_client(options.timeout_s) as client:
        yield Session(client, options)


def remote(url: str, name: str = "scan.nii.gz", **known: object) -> RemoteFile:
    source = HttpsSource(name=name, url=url)
    return RemoteFile(name=name, source=source, origin=public_url(url), locate=lambda: Location(url), **known)  # type: ignore[arg-type]


def get(server: Scripted, session: Session, folder: Path, name: str = "scan.nii.gz", **known: object) -> Fetched:
    return download(remote(f"{server.url}/f", name, **known), folder / name, session)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "locks")


HEALING = [
    ["cut:1000"],
    ["cut:0", "cut:10", "cut:1500"],
    ["cut:2000", "ignore"],
    ["stall:700"],
    ["status:503"],
    ["status:429@0"],
    ["status:503", "cut:500", "status:500"],
    ["encoded"],
    ["cut:600", "encoded"],
    ["labelled"],
    ["cut:900", "change:v2"],
    ["cut:900", "blind"],
]


@pytest.mark.parametrize("faults", HEALING, ids=["+".join(faults) for faults in HEALING])
def test_file_is_right_after_faults_that_heal(
    server: Scripted, session: Session, tmp_path: Path, faults: list[str]
) -> None:
    server.resources["/f"] = Resource(BODY, faults=list(faults))
    fetched = get(server, session, tmp_path, sha256=sha256(BODY))
    assert (tmp_path / "scan.nii.gz").read_bytes() == BODY
    assert (fetched.digests.bytes, fetched.digests.md5) == (len(BODY), md5(BODY))
    assert left_over(tmp_path) == ["scan.nii.gz"]


def test_rest_is_asked_for_with_range_and_if_range(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["cut:1000"])
    get(server, session, tmp_path)
    first, second = (asked.headers for asked in server.asked)
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == ("bytes=1000-", '"v1"')
    assert first["User-Agent"].startswith("ct-label-factory/")
    assert first["Accept-Encoding"] == "identity"


def test_another_version_in_the_middle_starts_again(server: Scripted, session: Session, tmp_path: Path) -> None:
    other = gzip.compress(random.Random(6).randbytes(5000), mtime=0)
    for fault in ("change:v2", "blind"):
        server.resources["/f"] = Resource(BODY, faults=["cut:3000", fault], changed=other)
        get(server, session, tmp_path)
        assert (tmp_path / "scan.nii.gz").read_bytes() == other


def test_without_a_validator_a_cut_file_starts_from_zero(server: Scripted, session: Session, tmp_path: Path) -> None:
    for etag in (None, 'W/"weak"'):
        server.asked.clear()
        server.resources["/f"] = Resource(BODY, etag=etag, faults=["cut:3000"])
        get(server, session, tmp_path, sha256=sha256(BODY))
        assert all("Range" not in asked.headers for asked in server.asked)


def test_stated_length_that_is_too_long_ends_with_both_values(
    server: Scripted, session: Session, tmp_path: Path
) -> None:
    server.resources["/f"] = Resource(BODY, faults=["longer"] * 20)
    with pytest.raises(DownloadFailed, match="in a row"):
        get(server, session, tmp_path)
    assert not (tmp_path / "scan.nii.gz").exists()


def test_stated_length_that_is_too_long_once_heals_when_the_digest_is_known(
    server: Scripted, session: Session, tmp_path: Path
) -> None:
    server.resources["/f"] = Resource(BODY, faults=["longer"])
    get(server, session, tmp_path, sha256=sha256(BODY))
    assert (tmp_path / "scan.nii.gz").read_bytes() == BODY


def test_stated_length_that_is_too_short_is_refused(server: Scripted, session: Session, tmp_path: Path) -> None:
    for known in ({"sha256": sha256(BODY)}, {"bytes": len(BODY)}):
        server.resources["/f"] = Resource(BODY, faults=["shorter"])
        with pytest.raises(BadInput, match=str(len(BODY) - 7)):
            get(server, session, tmp_path, **known)
        assert left_over(tmp_path) == []


def test_zip_cut_with_an_agreeing_length_is_refused(server: Scripted, session: Session, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "x" * 500)
    server.resources["/f"] = Resource(packed.getvalue()[:-40])
    with pytest.raises(BadInput, match="without the closing record") as caught:
        get(server, session, tmp_path, "a.zip")
    assert caught.value.code == "truncated"
    server.resources["/f"] = Resource(packed.getvalue())
    get(server, session, tmp_path, "a.zip")


@pytest.mark.parametrize("fault", ["login", "redirect"])
@pytest.mark.parametrize("name", ["a.zip", "a.nii.gz", "a.7z", "a.tar", "a.tar.xz", "a.dcm", "a.nii", "a.bin"])
def test_login_page_in_place_of_a_file(
    server: Scripted, session: Session, tmp_path: Path, fault: str, name: str
) -> None:
    server.resources["/f"] = Resource(BODY, faults=[fault])
    server.routes["/login"] = lambda _: (200, {}, b"  <HTML><body>sign in</body></HTML>")
    with pytest.raises(BadInput, match="HTML, probably a login page") as caught:
        get(server, session, tmp_path, name)
    assert caught.value.code == "html"
    assert "secret-token" not in str(caught.value)
    assert left_over(tmp_path) == []


def test_other_kind_of_file_than_the_name_says(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY)
    with pytest.raises(BadInput, match="1f 8b") as caught:
        get(server, session, tmp_path, "a.zip")
    assert caught.value.code == "wrong_kind"


@pytest.mark.parametrize(("status", "told"), [(401, "login"), (403, "refused"), (404, "not there"), (410, "withdrawn")])
def test_final_statuses_are_asked_once(
    server: Scripted, session: Session, tmp_path: Path, status: int, told: str
) -> None:
    server.resources["/f"] = Resource(BODY, faults=[f"status:{status}"] * 5)
    with pytest.raises(DownloadFailed, match=rf"{status}.*{told}"):
        get(server, session, tmp_path)
    assert len(server.asked) == 1
    assert left_over(tmp_path) == []


def test_giving_up_says_how_often_it_tried(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["status:503"] * 9)
    with pytest.raises(DownloadFailed, match="status 503, after 4 attempts in a row"):
        get(server, session, tmp_path)
    assert len(server.asked) == 4


def test_attempts_that_bring_bytes_do_not_count(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["cut:300"] * 12)
    get(server, session, tmp_path, sha256=sha256(BODY))


def test_server_names_the_wait(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["status:429@1"])
    started = time.monotonic()
    get(server, session, tmp_path)
    assert 1 <= time.monotonic() - started < 2
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    server.resources["/f"] = Resource(BODY, faults=[f"status:503@{soon}"])
    (tmp_path / "scan.nii.gz").unlink()
    get(server, session, tmp_path)
    server.resources["/f"] = Resource(BODY, faults=["status:429@3600"])
    with pytest.raises(DownloadFailed, match=r"wait 3600 s; .*RETRY_AFTER_MAX_S \(2 s\)"):
        get(server, session, tmp_path, "other.nii.gz")


def test_retry_after_as_seconds_and_as_date() -> None:
    now = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)
    assert retry_after_s("120") == 120
    assert retry_after_s("Sun, 22 Nov 2026 10:01:30 GMT", now) == 90
    assert retry_after_s("Sun, 22 Nov 2026 09:00:00 GMT", now) == 0
    assert retry_after_s("soon") is None
    assert retry_after_s(None) is None


def test_wrong_digest_names_both_and_keeps_nothing(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY)
    with pytest.raises(BadInput) as caught:
        get(server, session, tmp_path, md5="0" * 32)
    assert md5(BODY) in caught.value.found
    assert "0" * 32 in caught.value.expected
    assert left_over(tmp_path) == []


def test_pieces_that_do_not_fit_are_fetched_whole_once_more(server: Scripted, session: Session, tmp_path: Path) -> None:
    other = BODY[:2000] + bytes(len(BODY) - 2000)
    server.resources["/f"] = Resource(other)

    def swap(asked: Asked) -> tuple[int, dict[str, str], bytes]:  # same ETag, another content: a broken mirror
        server.routes.pop("/f")
        server.resources["/f"].body = BODY
        rest = {"Content-Range": f"bytes 3000-{len(BODY) - 1}/{len(BODY)}", "ETag": '"v1"'}
        return 206, rest, BODY[3000:]

    def cut_then_swap(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        server.routes["/f"] = swap
        return 200, {"Content-Length": str(len(other)), "ETag": '"v1"', "Connection": "close"}, other[:3000]

    server.routes["/f"] = cut_then_swap
    get(server, session, tmp_path, sha256=sha256(BODY))
    assert (tmp_path / "scan.nii.gz").read_bytes() == BODY


def test_size_is_compared_before_the_bytes_come(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY)
    with pytest.raises(BadInput, match=f"found {len(BODY)} bytes, expected 17 bytes"):
        get(server, session, tmp_path, bytes=17)


def test_full_disk_is_seen_before_the_first_byte(
    server: Scripted, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.resources["/f"] = Resource(BODY)
    usage = type("usage", (), {"free": 100})
    monkeypatch.setattr("datasets_registry.sources.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=f"{len(BODY)} bytes are needed and 100 are free"):
        get(server, session, tmp_path)
    assert left_over(tmp_path) == []


def test_nothing_listens(session: Session, tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    with pytest.raises(DownloadFailed, match="connection lost"):
        download(remote(f"{url}/f"), tmp_path / "scan.nii.gz", session)


def test_redirects_in_a_circle(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["redirect:/f"] * 50)
    with pytest.raises(DownloadFailed, match="redirects in a circle"):
        get(server, session, tmp_path)


def test_secrets_of_an_address_are_in_no_message_note_or_log(
    server: Scripted, session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"http://user:pass@{server.url.removeprefix('http://')}/f?id=7&X-Amz-Signature=hush#part"
    server.resources["/f"] = Resource(BODY, faults=["cut:700", "status:403"])
    with pytest.raises(DownloadFailed) as caught:
        download(remote(url), tmp_path / "scan.nii.gz", session)
    note = (tmp_path / "scan.nii.gz.part.json").read_text()
    for text in (str(caught.value), note, caplog.text):
        assert "hush" not in text
        assert "pass" not in text
    assert "id=7" in str(caught.value)


def test_what_arrived_is_kept_for_the_next_run(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["cut:1000", "status:404"])
    with pytest.raises(DownloadFailed, match="404"):
        get(server, session, tmp_path)
    assert json.loads((tmp_path / "scan.nii.gz.part.json").read_text())["durable"] == 1000
    get(server, session, tmp_path, sha256=sha256(BODY))
    assert server.asked[-1].headers["Range"] == "bytes=1000-"


def test_note_of_another_address_is_not_followed(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY, faults=["cut:1000", "status:404"])
    with pytest.raises(DownloadFailed, match="404"):
        get(server, session, tmp_path)
    server.resources["/g"] = Resource(BODY[::-1])
    download(remote(f"{server.url}/g", "scan.bin"), tmp_path / "scan.bin", session)
    server.resources["/h"] = Resource(BODY)
    download(remote(f"{server.url}/h"), tmp_path / "scan.nii.gz", session)
    assert "Range" not in server.asked[-1].headers
    assert (tmp_path / "scan.nii.gz").read_bytes() == BODY


def test_at_most_two_connections_to_a_host(server: Scripted, session: Session, tmp_path: Path) -> None:
    def slow(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        time.sleep(0.05)
        return 200, {}, BODY

    server.routes["/f"] = slow
    threads = [
        threading.Thread(target=get, args=(server, session, tmp_path, f"{number}.nii.gz")) for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(tmp_path.glob("*.nii.gz"))) == 6
    assert server.most_at_once == 2


def test_stop_ends_a_download_between_blocks(server: Scripted, session: Session, tmp_path: Path) -> None:
    server.resources["/f"] = Resource(BODY)
    session.stop.set()
    with pytest.raises(DownloadFailed, match="stopped"):
        get(server, session, tmp_path)


CHILD = """
import sys
from pathlib import Path
from datasets_registry.sources.download import download
from datasets_registry.sources.http import make_client
from datasets_registry.sources.remote import DownloadOptions, Location, RemoteFile, Session
from datasets_registry.sources.spec import HttpsSource
url, target = sys.argv[1], Path(sys.argv[2])
options = DownloadOptions(lock_folder=target.parent / "locks", timeout_s=30, sync_bytes=1000)
with make_client(30) as client:
    file = RemoteFile("big.bin", HttpsSource(name="big.bin", url=url), url, lambda: Location(url))
    download(file, target, Session(client, options))
"""


def test_killed_in_the_middle_then_resumed(server: Scripted, session: Session, tmp_path: Path) -> None:
    body = random.Random(7).randbytes(300_000)
    server.resources["/f"] = Resource(body, faults=["stall:200000"])
    child = subprocess.Popen([sys.executable, "-c", CHILD, f"{server.url}/f", str(tmp_path / "big.bin")])
    note = tmp_path / "big.bin.part.json"
    deadline = time.monotonic() + 20
    while not (note.exists() and json.loads(note.read_text())["durable"] >= 190_000):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.hold.set()
    assert not (tmp_path / "big.bin").exists()
    durable = json.loads(note.read_text())["durable"]
    with (tmp_path / "big.bin.part").open("r+b") as part:  # what was not forced to the disk may be anything
        part.seek(durable)
        part.write(b"\0" * 5000)
    get(server, session, tmp_path, "big.bin", sha256=sha256(body))
    assert server.asked[-1].headers["Range"] == f"bytes={durable}-"
    assert (tmp_path / "big.bin").read_bytes() == body
