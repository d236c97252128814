"""Servers on this machine that shards are fetched from: one that misbehaves as planned, and moto's S3."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the files in the server's folder, ranges included."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        # Google's API quotes the slashes of an object's name: …/o/demo%2Fdataset.json?alt=media
        url = urllib.parse.urlsplit(self.path)
        name = urllib.parse.unquote(url.path).rpartition("/")[2]
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        body, status = path.read_bytes(), 200
        if "/o/" in url.path and "alt=media" not in url.query:
            self._describe(name, len(body))
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked and self.server.knows_ranges:
            first, last = int(asked[1]), int(asked[2])
            if first >= len(body):
                self.send_error(416)
                return
            body, status = body[first : last + 1], 206
        fault = self.server.arrived(name) if with_body else None
        if fault is not None:
            fault(self, body)
            return
        self.start(status, len(body), len(path.read_bytes()))
        if with_body:
            self.wfile.write(body)

    def _describe(self, name: str, num_bytes: int) -> None:
        """Google's description of an object."""
        answer = json.dumps({"name": name, "size": str(num_bytes), "updated": "2026-01-01T00:00:00Z"}).encode()
        self.start(200, len(answer), len(answer))
        self.wfile.write(answer)

    def start(self, status: int, length: int, total: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes */{total}")
        self.end_headers()


class FileServer(ThreadingHTTPServer):
    """A folder behind HTTP. `plan` makes the next requests for a file fail; `requests` lists the names asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.knows_ranges = True
        self.requests: list[str] = []
        self.watch: Callable[[], None] = lambda: None
        self._faults: dict[str, list[Fault]] = {}
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data"

    def plan(self, name: str, *faults: Fault) -> None:
        """The next GETs of the file meet these faults, one each; those after them are answered."""
        self._faults.setdefault(name, []).extend(faults)

    def heal(self) -> None:
        self._faults.clear()

    def arrived(self, name: str) -> Fault | None:
        self.watch()
        with self._changed:
            self.requests.append(name)
            self._changed.notify_all()
            faults = self._faults.get(name)
            return faults.pop(0) if faults else None

    def wait_for(self, condition: Callable[[list[str]], bool]) -> None:
        """Until the requests so far fulfil `condition`; a minute is a failure."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.requests), timeout=60), self.requests

    def shards_asked_for(self) -> list[str]:
        return [name for name in self.requests if name.endswith(".tar")]

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


def status(code: int) -> Fault:
    """An answer with that status."""
    return lambda handler, body: handler.send_error(code)


def truncated(handler: Handler, body: bytes) -> None:
    """Half of the bytes that the header promises, then the end."""
    handler.start(200, len(body), len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def short(handler: Handler, body: bytes) -> None:
    """Half of the bytes, and a header that is content with it."""
    handler.start(206, len(body) // 2, len(body))
    handler.wfile.write(body[: len(body) // 2])


def garbled(handler: Handler, body: bytes) -> None:
    """As many bytes, but others."""
    handler.start(206, len(body), len(body))
    handler.wfile.write(bytes(byte ^ 1 for byte in body))


def reset(handler: Handler, body: bytes) -> None:
    """A connection reset in the middle."""
    handler.start(200, len(body), len(body))
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def held(until: threading.Event) -> Fault:
    """The first half at once, the rest when the event is set."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.start(206, len(body), len(body))
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        until.wait(60)
        handler.wfile.write(body[len(body) // 2 :])

    return fault


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[FileServer]:
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def s3(bucket: str) -> Iterator[str]:
    """moto's server with an empty bucket, and the environment in which it is found; its address."""
    boto3 = pytest.importorskip("boto3")
    with moto_server() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield address


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """The address of moto's S3-compatible server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
