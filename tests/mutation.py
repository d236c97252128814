"""Mutants: small changes to the pure modules, each of which some test must notice.

    python -m tests.mutation [MODULE …] [--num N] [--seed S]     default: N=20 mutants of each of MODULES

A mutant is one change to one line: another comparison, the other sign, a number one larger, and/or, a condition turned
round. Each is made in a copy of the repository, where the module's own tests run until the first that fails. Prints the
share that is caught, and the survivors: a test is missing, or the change changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from livetrain.core.errors import UserError
from livetrain.core.progress import progress

REPO = Path(__file__).resolve().parent.parent
MODULES = {
    "livetrain/data/plan.py": "tests/data/test_plan.py tests/data/test_face_crop.py tests/data/test_recapture.py",
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
}
SECONDS = 240  # for the tests of one mutant; one that hangs is caught

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


def is_caught(mutant: Mutant, copy: Path) -> bool:
    """Whether a test of the module fails, or hangs, with the mutant in `copy`."""
    path = copy / mutant.module
    usual = path.read_text(encoding="utf-8")
    path.write_text(mutant.source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow"]
    try:
        done = subprocess.run(
            [*command, *MODULES[mutant.module].split()], cwd=copy, capture_output=True, timeout=SECONDS,
            env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(usual, encoding="utf-8")
    return done.returncode != 0


def survivors(modules: list[str], num: int, seed: int) -> tuple[list[Mutant], int]:
    """(those that no test notices, how many were tried): at most `num` of each module, drawn with `seed`."""
    chosen = []
    for module in modules:
        every = list(mutants(module))
        chosen += random.Random(f"{seed}{module}").sample(every, min(num, len(every)))
    alive = []
    with tempfile.TemporaryDirectory() as folder, progress("mutants", len(chosen), "mutants") as advance:
        copy = Path(folder) / "repo"
        shutil.copytree(REPO, copy, ignore=_not_code)
        for module in modules:
            source = (REPO / module).read_text(encoding="utf-8")
            if is_caught(Mutant(module, 0, "nothing", source), copy):
                raise UserError(f"{MODULES[module]}: fails without a mutant; mend it first")
        for mutant in chosen:
            if not is_caught(mutant, copy):
                alive.append(mutant)
            advance(1, f"{mutant.module}, {len(alive)} alive")
    return alive, len(chosen)


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
