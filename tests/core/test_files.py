"""Reading and writing files: long ranges, fields of any length."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from livetrain.core import files
from livetrain.core.errors import UserError


def test_a_range_longer_than_the_kernel_gives_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call gives 2 GiB at most; here, 7 bytes."""
    data = bytes(range(100))
    (tmp_path / "f").write_bytes(data)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, count, offset: real(descriptor, min(count, 7), offset))
    with (tmp_path / "f").open("rb") as file:
        assert files.read_range(file.fileno(), 60, 5) == data[5:65]
        assert files.read_range(file.fileno(), 60, 90) == data[90:], "what there is"
        assert files.read_range(file.fileno(), 7, 0) == data[:7] and files.read_range(file.fileno(), 3, 200) == b""


def test_tables_may_hold_long_fields() -> None:
    assert csv.field_size_limit() > 2**30


def test_a_user_without_a_home_directory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number that no password file has."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert files.user_cache() == Path("/cache/livetrain") and files.expanded("a/~/b") == "a/~/b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    for call in (files.user_cache, lambda: files.expanded("~/run"), lambda: files.expanded("~")):
        with pytest.raises(UserError, match="this user has no home directory; set HOME"):
            call()
