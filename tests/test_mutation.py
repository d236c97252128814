"""What passes means something: tests notice small changes to the pure modules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_nine_of_ten_mutants_are_caught() -> None:
    command = [sys.executable, "-m", "tests.mutation", "--num", "8"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^(\d+) of (\d+) mutants are caught$", done.stdout, re.MULTILINE)
    assert found and int(found[1]) >= 0.9 * int(found[2]), done.stdout
