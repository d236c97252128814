"""Mutants: small changes to the pure modules, each of which some test must notice.

    python -m tests.mutation [MODULE …] [--num N] [--seed S]     default: N=20 mutants of each of MODULES

A mutant is one change to one line: another comparison, the other sign, a number one larger, and/or, a condition turned
round. Each is made in a copy of the repository, where the module's own tests run until the first that fails, in a
process forked from one that has imported all libraries. Prints the share that is caught, and the survivors: a test is
missing, or the change changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import pytest

from livetrain.core.errors import UserError
from livetrain.core.machine import num_cores
from livetrain.core.progress import progress

REPO = Path(__file__).resolve().parent.parent
MODULES = {
    "livetrain/data/plan.py": "tests/data/test_plan.py tests/data/test_mixture.py tests/data/test_sources.py "
    "tests/data/test_recapture.py",
    "livetrain/data/clip_plan.py": "tests/data/test_plan.py tests/data/test_perturb.py",
    "livetrain/data/frame_choice.py": "tests/data/test_plan.py",
    "livetrain/data/permutation.py": "tests/data/test_permutation.py",
    "livetrain/data/mixture.py": "tests/data/test_mixture.py tests/data/test_sources.py",
    "livetrain/data/leaks.py": "tests/data/test_leaks.py",
    "livetrain/verdict/metrics.py": "tests/verdict/test_metrics.py tests/verdict/test_others.py",
    "livetrain/verdict/threshold.py": "tests/verdict/test_threshold.py",
    "livetrain/verdict/intervals.py": "tests/verdict/test_intervals.py tests/verdict/test_coverage.py",
    "livetrain/training/state.py": "tests/training/test_state.py",
    "livetrain/model/domain_losses.py": "tests/model/test_domain_losses.py",
    "shards/split.py": "tests/shards/test_split.py",
    "shards/labels.py": "tests/shards/test_labels.py",
    "shards/shard_plan.py": "tests/shards/test_shard_plan.py",
    "shards/build_checks.py": "tests/shards/test_build_checks.py tests/shards/test_append.py",
    "livetrain/core/columns.py": "tests/core/test_columns.py",
}
SECONDS = 240  # for the tests of one mutant; one that hangs is caught
PRELOAD = ("numpy", "scipy.stats", "sklearn.metrics", "sklearn.model_selection", "pyarrow.parquet", "torch", "timm",
           "nvidia.dali.fn", "av", "hypothesis", "omegaconf", "accelerate")  # fmt: skip

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.And: ast.Or,
    ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module's source with one change."""

    module: str
    line: int
    change: str
    source: str


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module; docstrings, annotations and messages are left alone."""
    text = (REPO / module).read_text(encoding="utf-8")
    count = sum(1 for _ in _places(ast.parse(text)))
    for number in range(count):
        tree = ast.parse(text)
        node, change, apply = list(_places(tree))[number]
        apply()
        yield Mutant(module, node.lineno, change, ast.unparse(ast.fix_missing_locations(tree)))


def _places(tree: ast.Module) -> Iterator[tuple[ast.expr, str, Callable[[], object]]]:
    """(node, change in words, what makes it) of all that can be changed within functions."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for statement in function.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
                    yield node, _words(node.ops[0]), lambda node=node: node.ops.__setitem__(0, _other(node.ops[0]))
                elif isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
                    if isinstance(node, ast.BinOp) and isinstance(node.left, ast.JoinedStr | ast.List):
                        continue  # of messages and of lists
                    yield node, _words(node.op), lambda node=node: setattr(node, "op", _other(node.op))
                elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
                    change = f"{node.value} to {node.value + 1}"
                    yield node, change, lambda node=node: setattr(node, "value", node.value + 1)
                elif isinstance(node, ast.IfExp):
                    yield node, "branches swapped", lambda node=node: _swap(node)


def _swap(node: ast.IfExp) -> None:
    node.body, node.orelse = node.orelse, node.body


def _other(operator: ast.AST) -> ast.AST:
    return SWAPS[type(operator)]()


def _words(operator: ast.AST) -> str:
    return f"{type(operator).__name__} to {SWAPS[type(operator)].__name__}"


def caught(mutants: Sequence[Mutant], copies: Sequence[Path]) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant, and whether a test of its module fails or hangs with it; as many at once as there are copies.

    The processes are forked from this one, which has imported what takes long and nothing of the repository.
    """
    left, free = deque(mutants), list(copies)
    running: dict[int, tuple[Any, Mutant, Path, float]] = {}
    while left or running:
        while left and free:
            mutant, copy = left.popleft(), free.pop()
            (copy / mutant.module).write_text(mutant.source, encoding="utf-8")
            process = multiprocessing.get_context("fork").Process(target=_run, args=(copy, MODULES[mutant.module]))
            process.start()
            running[process.sentinel] = process, mutant, copy, time.monotonic() + SECONDS
        connection.wait(list(running), timeout=1.0)
        for sentinel, (process, mutant, copy, deadline) in list(running.items()):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            shutil.copyfile(REPO / mutant.module, copy / mutant.module)
            del running[sentinel]
            free.append(copy)
            yield mutant, process.exitcode != 0


def _run(copy: Path, tests: str) -> None:
    """In a process of its own: the tests, of the code in `copy`; ends with pytest's exit code."""
    os.setsid()
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.chdir(copy)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("livetrain", "shards", "tests")]:
        del sys.modules[name]
    sys.path.insert(0, str(copy))
    sys.dont_write_bytecode = True
    os.environ["PYTHONPATH"] = str(copy)
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow", *tests.split()]
    os._exit(int(pytest.main(words)))


def survivors(modules: Sequence[str], num: int, seed: int) -> tuple[list[Mutant], int]:
    """(those that no test notices, how many were tried): at most `num` of each module, drawn with `seed`."""
    chosen = []
    for module in modules:
        every = list(mutants(module))
        chosen += random.Random(f"{seed}{module}").sample(every, min(num, len(every)))
    alive = []
    for package in PRELOAD:
        importlib.import_module(package)
    with tempfile.TemporaryDirectory() as folder, progress("mutants", len(chosen), "mutants") as advance:
        copies = [Path(folder) / str(number) / "repo" for number in range(num_cores())]
        for copy in copies:
            shutil.copytree(REPO, copy, ignore=_not_code)
        unchanged = [Mutant(m, 0, "nothing", (REPO / m).read_text(encoding="utf-8")) for m in modules]
        for mutant, fails in caught(unchanged, copies):
            if fails:
                raise UserError(f"{MODULES[mutant.module]}: fails without a mutant; mend it first")
        for mutant, fails in caught(chosen, copies):
            alive += [] if fails else [mutant]
            advance(1, f"{mutant.module}, {len(alive)} alive")
    return sorted(alive, key=lambda mutant: (mutant.module, mutant.line)), len(chosen)


def _not_code(folder: str, names: list[str]) -> set[str]:
    left_out = {".git", ".venv", "runs", "data", "wandb"} if Path(folder) == REPO else set()
    return (left_out | {"__pycache__"}) & set(names)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(MODULES))
    parser.add_argument("--num", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    alive, count = survivors(given.modules, given.num, given.seed)
    for mutant in alive:
        print(f"{mutant.module}:{mutant.line}: {mutant.change}")
    print(f"{count - len(alive)} of {count} mutants are caught")


if __name__ == "__main__":
    main()
