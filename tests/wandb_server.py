"""A W&B server on loopback, as far as runs need one: it keeps what the client sends, and answers like the real one.

with serve() as server:
    …                                # with server.environment in the environment
    server.runs["id"].history        # the rows that were logged
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Run:
    """What the server knows of a run. history: rows by number, as the client numbers them. exit_codes: of each end;
    preempting: whether the client said so.
    """

    name: str
    project: str
    config: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    preempting: bool = False
    num_starts: int = 0


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, Run] = {}
        self.lock = threading.Lock()
        self.unknown: set[str] = set()  # operations that were answered with nothing

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_BASE_URL": f"http://127.0.0.1:{self.server_port}", "WANDB_API_KEY": "x" * 40}

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        if operation == "Viewer":
            return {
                "viewer": {
                    "id": "u",
                    "entity": "team",
                    "username": "me",
                    "email": "",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        if operation == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {
                "model": {"id": "p", "name": variables["project"], "entity": _ENTITY, "bucket": run and _status(run)}
            }
        if operation == "UpsertBucket":
            return self._upsert(variables)
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "CreateRunFiles":
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}
        if operation == "ArtifactType":
            return {"project": None}
        if operation == "CreateArtifact":  # there already, so nothing is uploaded
            sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}
        self.unknown.add(operation)
        return {}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name, project = variables["name"], variables.get("project") or variables.get("model") or "p"
        is_new = name not in self.runs
        run = self.runs.setdefault(name, Run(name, project))
        if variables.get("config"):
            run.config = json.loads(variables["config"])
        run.num_starts += 1
        bucket = {
            "id": f"id-{name}", "name": name, "displayName": variables.get("displayName") or name, "description": "",
            "config": json.dumps(run.config), "sweepName": None, "historyLineCount": len(run.history),
            "project": {"id": "p", "name": project, "entity": _ENTITY},
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """A message of the file stream: lines of history and summary, and how a run ended."""
        run = self.runs.setdefault(name, Run(name, "?"))
        for file, content in (sent.get("files") or {}).items():
            for offset, line in enumerate(content.get("content", [])):
                if "history" in file:
                    run.history[content["offset"] + offset] = json.loads(line)
                elif "summary" in file:
                    run.summary = json.loads(line)
        run.preempting |= bool(sent.get("preempting"))
        if sent.get("complete"):
            run.exit_codes.append(int(sent.get("exitcode", -1)))


_ENTITY = {"id": "e", "name": "team"}


def _status(run: Run) -> dict[str, Any]:
    last = [json.dumps(row) for row in run.history.values()][-1:]
    return {
        "id": f"id-{run.name}", "name": run.name, "summaryMetrics": json.dumps(run.summary), "displayName": run.name,
        "logLineCount": 0, "historyLineCount": len(run.history), "eventsLineCount": 0, "historyTail": json.dumps(last),
        "eventsTail": "[]", "config": json.dumps(run.config), "tags": [], "notes": "", "wandbConfig": '{"t": 1}',
    }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        found: dict[str, Any] = {}
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        with self.server.lock:
            if self.path == "/graphql":
                asked = json.loads(body)
                operation = asked.get("operationName") or re.findall(r"\w+", asked["query"])[1]
                found = {"data": self.server.answer(operation, asked.get("variables") or {})}
            elif stream:
                self.server.stream(stream[1], json.loads(body))
        text = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.do_POST()


@contextlib.contextmanager
def serve() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
