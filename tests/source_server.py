"""A real HTTP server on the loopback that misbehaves by script, and one that imitates the services' answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LOGIN = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in</body></html>"


@dataclass
class Resource:
    """What lies at a path, and the faults of its next answers, in order; afterwards it is served properly."""

    body: bytes
    etag: str | None = '"v1"'
    faults: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    changed: bytes = b""


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]
Route = Callable[[Asked], Answer]


class Scripted(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.resources: dict[str, Resource] = {}
        self.routes: dict[str, Route] = {}
        self.asked: list[Asked] = []
        self.most_at_once = 0
        self.at_once = 0
        self.hold = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server, parts = self.server, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        asked = Asked(self.command, parts.path, query, dict(self.headers.items()), body)
        with server.lock:
            server.asked.append(asked)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            route = server.routes.get(parts.path)
            if route is not None:
                self._answer(*route(asked))
            elif parts.path in server.resources:
                self._serve(server.resources[parts.path])
            else:
                self._answer(404, {}, b"nothing here")
        finally:
            with server.lock:
                server.at_once -= 1

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, resource: Resource) -> None:
        with self.server.lock:
            fault, _, value = (resource.faults.pop(0) if resource.faults else "none").partition(":")
        if fault == "status":
            status, _, wait = value.partition("@")
            self._answer(int(status), {"Retry-After": wait} if wait else {}, b"not now")
        elif fault == "login":
            self._answer(200, {"Content-Type": "text/html"}, LOGIN)
        elif fault == "redirect":
            self._answer(302, {"Location": value or "/login?next=secret-token"}, b"")
        elif fault == "encoded":
            packed = gzip.compress(resource.body)
            self._answer(200, {"Content-Encoding": "gzip"}, packed)
        elif fault == "labelled":
            self._answer(200, {"Content-Encoding": "gzip"}, resource.body)
        elif fault == "wrong":
            self._answer(200, {"ETag": '"w"'}, resource.body[:1000] + bytes(len(resource.body) - 1000))
        else:
            self._send(resource, fault, value)

    def _send(self, resource: Resource, fault: str, value: str) -> None:
        if fault == "change":
            resource.body, resource.etag = resource.changed or resource.body, f'"{value or "v2"}"'
        start, status = 0, 200
        asked = self.headers.get("Range", "")
        whole = fault == "ignore" or not asked or self.headers.get("If-Range") != resource.etag
        if asked and fault == "blind":  # sends the rest of another version, as servers do that ignore If-Range
            resource.body, resource.etag, whole = resource.changed or resource.body, '"v3"', False
        if not whole:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        if status == 206 and start >= len(resource.body):
            self._answer(416, {"Content-Range": f"bytes */{len(resource.body)}"}, b"")
            return
        body = resource.body[start:]
        stated = len(body) + {"longer": 7, "shorter": -7}.get(fault, 0)
        self.send_response(status)
        self.send_header("Content-Length", str(max(0, stated)))
        if resource.etag is not None:
            self.send_header("ETag", resource.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(resource.body) - 1}/{len(resource.body)}")
        for name, text in resource.headers.items():
            self.send_header(name, text)
        self.end_headers()
        count = int(value) if fault in ("cut", "stall") else len(body)
        self.wfile.write(body[:count])
        self.wfile.flush()
        if fault == "stall":
            self.server.hold.wait(5)
        if fault == "hold":
            self.server.hold.wait(float(value))
        if fault in ("cut", "stall", "longer", "shorter"):
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Scripted]:
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{contents}
<IsTruncated>{more}</IsTruncated>{token}</ListBucketResult>"""
"""An answer of S3's ListObjectsV2."""


def as_json(value: object) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


def imitate_idc(server: Scripted, content: bytes, rows: Sequence[dict[str, object]], total: int | None = None) -> None:
    """Answer as Imaging Data Commons and its bucket do: two series a page, two objects of `content` a folder."""

    def manifest(asked: Asked) -> Answer:
        first = 2 * json.loads(asked.body)["page"]
        stated = len(rows) if total is None else total
        return as_json({"page_size": 2, "total_series": stated, "series": list(rows[first : first + 2])})

    def bucket(asked: Asked) -> Answer:
        keys = [f"{asked.query['prefix']}{name}.dcm" for name in ("a", "b")]
        contents = "".join(f"<Contents><Key>{key}</Key><Size>{len(content)}</Size></Contents>" for key in keys)
        return 200, {}, LISTING.format(contents=contents, more="false", token="").encode()

    server.routes["/v3/cohort/manifest"] = manifest
    server.routes["/idc-open-data/"] = bucket


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
