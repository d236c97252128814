"""Files below a URL (s3://, gs://, https://, whatever fsspec knows), read block by block, each block until it is whole.

fsspec and its back ends find credentials and end points as they always do (AWS and Google environment variables and
files, `FSSPEC_…` variables, ~/.config/fsspec). Their own retries are turned off where they can be (gcsfs's cannot):
`data.retries` counts, and a wait doubles from one attempt to the next.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from livetrain.core.errors import UserError, first_line

BLOCK_BYTES = 16 << 20  # one request: long enough that its latency (about 50 ms) costs little, and little to do again
BACKOFF_SECONDS = 0.5  # before the first retry
MAX_BACKOFF_SECONDS = 30.0
CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0  # a connection that sends nothing for so long is given up

T = TypeVar("T")


class RemoteError(OSError):
    """A remote file cannot be read, and retries did not help. The message names its URL."""


@dataclass(frozen=True)
class Entry:
    """A file of a listing: its size, and what changes when the file does."""

    num_bytes: int
    version: str


class Url(str):
    """A URL without a slash at its end; `/` appends a name as it does with a Path."""

    __slots__ = ()

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self}/{name}")


Folder = Path | Url  # of files here, or in a bucket


class Remote:
    """The files of one folder at `url`.

    Each failed request is sent up to `retries` times again, and for `outage_seconds` after it failed first, whichever
    is longer. Threads may share it.
    """

    def __init__(self, url: str, retries: int, outage_seconds: float = 0.0) -> None:
        """Connects to nothing yet. Raises UserError for a URL that cannot be used, or a package that is missing."""
        self.url = Url(url.rstrip("/"))
        self._retries, self._outage_seconds = retries, outage_seconds
        self._files, self._root = _file_system(self.url)
        self._stop = threading.Event()

    def read(self, name: str, parse: Callable[[bytes], T]) -> T:
        """A small file as `parse` understands it; its ValueError means damage, which is retried. Raises RemoteError."""
        return self._try(name, lambda: parse(self._files.cat_file(f"{self._root}/{name}")))

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where the server does not say. Raises RemoteError."""
        size = self._try(name, lambda: self._files.info(f"{self._root}/{name}"))["size"]
        return None if size is None else int(size)

    def blocks(self, name: str, num_bytes: int) -> Iterator[bytes]:
        """The `num_bytes` of a file in order. A truncated block is requested again. Raises RemoteError."""
        done = 0
        while done < num_bytes:
            block = self.range(name, done, min(done + BLOCK_BYTES, num_bytes), num_bytes)
            yield block
            done += len(block)

    def listing(self) -> dict[str, Entry]:
        """All files, by their names below the folder; none where there is no such folder. Raises RemoteError."""

        def fetch() -> dict[str, Entry]:
            self._files.invalidate_cache()
            found = self._files.find(self._root, detail=True)
            return {name.removeprefix(f"{self._root}/"): _entry(about) for name, about in found.items()}

        return self._try("", fetch)

    def put(self, path: Path, name: str) -> None:
        """Upload a file: it is whole or not there. Raises RemoteError."""

        def send() -> None:
            self._files.put_file(str(path), f"{self._root}/{name}")
            self._files.invalidate_cache()
            arrived, sent = self._files.info(f"{self._root}/{name}")["size"], path.stat().st_size
            if arrived != sent:
                raise ValueError(f"{arrived} bytes arrived of {sent}")

        self._try(name, send)

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is none to remove. Raises RemoteError."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(f"{self._root}/{name}")

        self._try(name, remove)

    def interrupt(self) -> None:
        """Ends the waits between attempts, with a RemoteError there; later calls wait again."""
        before, self._stop = self._stop, threading.Event()
        before.set()

    def range(self, name: str, start: int, end: int, num_bytes: int) -> bytes:
        """The bytes start … end-1 of a file of `num_bytes`; all of it from a server that knows no ranges, for start 0.

        Raises RemoteError.
        """

        def fetch() -> bytes:
            data: bytes = self._files.cat_file(f"{self._root}/{name}", start=start, end=end)
            # Simple HTTP servers know no ranges and send everything, whatever was asked for.
            if start == 0 and len(data) == num_bytes:
                return data
            if len(data) == num_bytes != end - start:
                data = data[start:end]
            if len(data) != end - start:
                raise ValueError(f"{len(data)} bytes came instead of {end - start}")
            return data

        return self._try(name, fetch)

    def _try(self, name: str, fetch: Callable[[], T]) -> T:
        stop, began = self._stop, 0.0
        for attempt in itertools.count():
            try:
                return fetch()
            except Exception as error:  # the back ends' errors have no common base
                reason = _reason(error)
                if _is_final(error):
                    raise RemoteError(f"{self.url / name}: {reason}") from error
                began = began or time.monotonic()
                # What comes and is wrong will not be right in an hour.
                waits = not isinstance(error, ValueError) and time.monotonic() < began + self._outage_seconds
                if attempt >= self._retries and not waits:
                    times = "once" if attempt == 0 else f"{attempt + 1} times"
                    raise RemoteError(f"{self.url / name}: {reason} (tried {times})") from error
            # Processes that failed together must not come back together.
            delay = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt) * random.uniform(0.5, 1.5)
            print(f"warning: {self.url / name}: {reason}; again in {delay:.1f} s", file=sys.stderr, flush=True)
            if stop.wait(delay):
                raise RemoteError(f"{self.url / name}: {reason} (given up: the data set was closed)")
        raise AssertionError("unreachable")


def _entry(about: Mapping[str, Any]) -> Entry:
    """Of what fsspec's back ends say of a file, each in its own words."""
    words = ("ETag", "etag", "md5Hash", "updated", "LastModified", "mtime", "created")
    version = next((str(about[word]) for word in words if about.get(word)), "")
    return Entry(int(about["size"]), version.strip('"'))


def _file_system(url: Url) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the folder's name in it."""
    import fsspec

    protocol = url.partition("://")[0]
    if protocol in ("http", "https") and ("?" in url or "#" in url):
        raise UserError(f"{url}: the URL of a folder has no ? or #; names of files are appended to it")
    try:
        files = fsspec.filesystem(protocol, skip_instance_cache=True, **_options(protocol))
    except ImportError as error:
        raise UserError(
            f"{url} needs a package that is missing ({error}): pip install livetrain[remote], or "
            "launch/setup.sh --extra remote"
        ) from None
    except ValueError as error:
        raise UserError(f"{url}: {first_line(error)}; data.shards takes s3://, gs://, https:// and folders") from None
    except Exception as error:  # credentials that cannot be read, an option in fsspec's configuration that is wrong
        raise UserError(f"{url}: {_reason(error)}") from None
    if protocol in ("s3", "s3a"):
        files.retries = 1
    return files, files._strip_protocol(str(url))


def _options(protocol: str) -> dict[str, Any]:
    """Options of the back end: no retries of its own, and a timeout; fsspec's configuration overrides them."""
    from fsspec.config import conf

    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):
        limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS}
        options["config_kwargs"] = {**limits, "retries": {"total_max_attempts": 1}}
    elif protocol in ("http", "https", "gs", "gcs"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        if protocol in ("gs", "gcs"):
            options["requests_timeout"] = timeout
        else:
            # Proxies as curl finds them. A server that compresses would send other bytes than were stored.
            identity = {"Accept-Encoding": "identity"}
            options["client_kwargs"] = {"timeout": timeout, "trust_env": True, "headers": identity}
    configured = conf.get(protocol, {})
    return {
        name: {**value, **configured.get(name, {})} if isinstance(value, dict) else configured.get(name, value)
        for name, value in options.items()
    }


# Names, because importing the packages only to name their exceptions would make them required.
_CREDENTIAL_ERRORS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "SSOTokenLoadError",
    "UnauthorizedSSOTokenError",
    "DefaultCredentialsError",
    "RefreshError",
}


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: what is asked for is not there, or not for us."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return True
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in (408, 416, 425, 429)  # 416: a file that is still too short
    return type(error).__name__ in _CREDENTIAL_ERRORS or _is_forbidden(error)


def _is_forbidden(error: Exception) -> bool:
    """Gcsfs tells a 403 as a plain OSError with this word."""
    return str(error).startswith("Forbidden")


def _status(error: Exception) -> int | None:
    """The HTTP status in an aiohttp, gcsfs or botocore error, also where s3fs made an OSError of it."""
    response = getattr(error.__cause__ or error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    # In this order: aiohttp has a `code` too, and warns of it.
    value = getattr(error, "status", None) or metadata.get("HTTPStatusCode") or getattr(error, "code", None)
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        return int(value)
    return None


def _reason(error: Exception) -> str:
    """The error in words; bare names of exceptions and of files say too little."""
    if isinstance(error, FileNotFoundError):
        return "no such file or bucket"
    if isinstance(error, TimeoutError):
        return "timed out"
    status = getattr(error, "status", None)
    reason = f"HTTP {status} {getattr(error, 'message', '')}".strip() if isinstance(status, int) else first_line(error)
    denied = isinstance(error, PermissionError) or _status(error) in (401, 403) or _is_forbidden(error)
    if denied or type(error).__name__ in _CREDENTIAL_ERRORS:
        return f"{'access denied: ' if denied else ''}{reason}; check your credentials"
    return reason
