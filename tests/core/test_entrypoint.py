"""How a program ends: a line and a code of its own for each kind of end, and no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from livetrain.core import entrypoint, files
from livetrain.core.errors import MachineFault, NonFiniteLoss, Stopped, UserError
from livetrain.jobs import launch
from livetrain.jobs.requeue import Attempt, decide


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

    assert entrypoint.run(main) == code
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
        files.write_text(tmp_path / "a", "b")
    assert type(raised.value) is kind


def test_the_process_that_failed_first_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 fails, rank 0 a moment later because of it; torchrun knows whole seconds alone."""

    def first() -> int:
        raise ZeroDivisionError("the cause")

    def second() -> int:
        raise MachineFault("lost the others")

    failures = {}
    for rank, main in ((1, first), (0, second)):
        path = tmp_path / f"{rank}.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
        with contextlib.suppress(ZeroDivisionError):
            entrypoint.run(main)
        failures[rank] = ProcessFailure(local_rank=rank, pid=1, exitcode=1, error_file=str(path))
    failures = dict(sorted(failures.items()))
    capsys.readouterr()
    rank, failure = min(failures.items(), key=lambda item: launch._when(item[1]))
    assert rank == 1
    launch._tell_of_the_first(rank, failure)
    said = capsys.readouterr().err
    assert said.startswith("error: rank 1 failed first") and said.rstrip().endswith("ZeroDivisionError: the cause")
    silent = ProcessFailure(local_rank=2, pid=1, exitcode=1, error_file=str(tmp_path / "none"))
    assert launch._when(silent) > launch._when(failures[0]), "one that left nothing comes last"


def test_processes_say_the_same_mistake_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, message in enumerate(("no such folder", "no such folder", "rank 2 cannot read it", "no such folder")):
        (tmp_path / str(rank)).mkdir()  # as torchrun's agent lays them out
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))

        def main(message: str = message) -> int:
            raise UserError(message)

        assert entrypoint.run(main) == 2
        assert "no such" in (tmp_path / "0" / "error.json").read_text()
    assert capsys.readouterr().err.splitlines() == ["error: no such folder", "error: rank 2 cannot read it"]
