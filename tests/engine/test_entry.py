"""How a program ends: a line and a code of its own for each kind of end, and no traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from livetrain import fileio
from livetrain.engine import entry
from livetrain.engine.attempts import Attempt, decide
from livetrain.engine.step import NonFiniteLoss
from livetrain.engine.stop import Stopped
from livetrain.errors import MachineFault, UserError


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("no such file"), 2, "error: no such file"),
        (NonFiniteLoss("step 4"), 3, "error: step 4"),
        (MachineFault("disk full"), 74, "error: disk full"),
        (Stopped("stopped"), 75, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_each_end_has_its_code(error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise error

    assert entry.run(main) == code
    assert capsys.readouterr().err.splitlines() == [said]


def test_a_cluster_tries_again_after_a_fault_of_the_machine_alone() -> None:
    assert decide([Attempt(74, 10, "", 0.0)])[0] and not decide([Attempt(2, 10, "", 0.0)])[0]


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, MachineFault), (errno.EACCES, UserError)])
def test_a_full_disk_is_no_mistake_of_the_users(
    number: int, kind: type[UserError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError) as raised:
        fileio.write_text(tmp_path / "a", "b")
    assert type(raised.value) is kind
