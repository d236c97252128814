"""Names of files, and atomic writes: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from livetrain.core.errors import MachineFault, UserError

Read = TypeVar("Read")

csv.field_size_limit(2**31 - 1)  # Python's own limit, 128 KiB, would refuse tables whose fields hold more


def is_url(where: str | Path) -> bool:
    """Whether `where` names something behind a protocol (s3://, gs://, https://, file:// …), not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(where)) is not None


def expanded(path: str) -> str:
    """`path` with ~ before its first slash replaced by the home directory: shells leave it within `key=~/…`.

    Raises UserError where this user has none.
    """
    if path != "~" and not path.startswith("~/"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:
        raise UserError(f"{path}: this user has no home directory; set HOME, or name another folder") from None


def user_cache() -> Path:
    """$XDG_CACHE_HOME/livetrain, or ~/.cache/livetrain. Raises UserError where there is neither."""
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")) / "livetrain"


def read_range(descriptor: int, num_bytes: int, offset: int) -> bytes:
    """`num_bytes` of an open file from `offset` on, fewer at its end. One call of the kernel gives 2 GiB at most."""
    first = os.pread(descriptor, num_bytes, offset)
    if len(first) == num_bytes or not first:
        return first
    parts, position = [first], offset + len(first)
    while position < offset + num_bytes and (part := os.pread(descriptor, offset + num_bytes - position, position)):
        parts.append(part)
        position += len(part)
    return b"".join(parts)


# Faults of the machine or its network, not of the file: too many open files, a full disk, a disk or server that fails.
MACHINE_FAULTS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOMEM, errno.ETIMEDOUT}
)
RETRY_PAUSES = (0.1, 0.5, 2.0)  # seconds


def patiently(read: Callable[[], Read], what: object) -> Read:
    """What `read()` returns, called again after a while where the machine is at fault (MACHINE_FAULTS).

    Raises MachineFault, naming `what`, where it stays at fault: no file may be called damaged for that. Other OSErrors
    pass.
    """
    for pause in (*RETRY_PAUSES, None):
        try:
            return read()
        except OSError as error:
            if error.errno not in MACHINE_FAULTS:
                raise
            if pause is None:
                raise MachineFault(
                    f"{what}: {error.strerror}, {len(RETRY_PAUSES) + 1} times in a row. That is this machine's or its "
                    "file system's fault, not the file's: see to it (dmesg, ulimit -n, df), then start the same "
                    "command again"
                ) from error
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


def _fault(error: OSError) -> type[UserError]:
    return MachineFault if error.errno in MACHINE_FAULTS else UserError


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed onto `path`, on failure removed.

    Raises UserError when the folder cannot be written (missing, read-only); MachineFault when the disk is full or
    fails.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
    except OSError as error:
        raise _fault(error)(
            f"cannot write {target}: {error.strerror or error}; choose a folder you can write to"
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise _fault(error)(
            f"cannot write {target}: {error.strerror or error}; free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(tensors: Mapping[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file that whoever may read files here may read: the library's own are for their owner alone.

    Tensors that share memory (a layer in two places) are stored once for each name, which loads as it was.
    """
    from safetensors.torch import save_file

    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        apart[name] = tensor.clone() if tensor.numel() and tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    save_file(apart, path, metadata=metadata)
    path.chmod(0o666 & ~_umask())


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically. NaN is refused (ValueError): JSON has none."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingFile(io.RawIOBase):
    """A new file to write from start to end, with the SHA-256 of what was written: no second pass to know it."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("wb", buffering=1 << 20)  # noqa: SIM115 (closed by close)
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def fsync_folder(folder: Path) -> None:
    """Make renames within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
