"""Check whether this machine is fit for a run.

    livetrain doctor [--shards DIR] [--run-dir DIR] [--nodes] [--json]

Each check says ok, warn, fail or skip, what it saw, and what to do. Exit code 0: nothing failed; 1: something did.

  --shards DIR   also read clips from these shards, at random, and say how fast that was
  --run-dir DIR  where runs are written (default: runs)
  --nodes        within a SLURM job: run on each of its nodes through srun, and compare their versions and clocks
  --json         one JSON list of findings instead of lines
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from livetrain.core.arguments import Parser
from livetrain.core.errors import first_line
from livetrain.jobs import doctor_checks
from livetrain.jobs.doctor_checks import Finding


def examine(checks: Sequence[tuple[str, Callable[[], Finding]]], tell: Callable[[Finding], None]) -> list[Finding]:
    """Run the checks in order; one that breaks is a failure, not a traceback."""
    found = []
    for name, check in checks:
        try:
            finding = check()
        except Exception as error:  # a check must never end the others
            seen = f"{type(error).__name__}: {first_line(error)}"
            finding = Finding(name, "fail", seen, "the check itself broke: look at what it names")
        found.append(finding)
        tell(finding)
    return found


def format_line(finding: Finding) -> str:
    """A finding for the terminal, its advice on a line of its own."""
    line = f"{finding.level:<5} {finding.check:<14} {finding.seen}"
    return line + (f"\n{'':<21}→ {finding.advice}" if finding.advice else "")


def parser() -> Parser:
    """The command line of `livetrain doctor`."""
    parser = Parser("doctor", __doc__)
    parser.add_argument("--shards", type=Path)
    parser.add_argument("--run-dir", type=Path, default=Path("runs"))
    parser.add_argument("--nodes", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns the exit code."""
    if list(arguments) == ["--facts"]:
        print(json.dumps(doctor_checks.facts_of_this_node()))
        return 0
    options = parser().parse(arguments)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("versions", doctor_checks.check_versions),
        ("bytecode", doctor_checks.check_bytecode),
        ("driver", doctor_checks.check_driver),
        ("nvdec", doctor_checks.check_nvdec),
        ("dali", doctor_checks.check_dali),
        ("all-reduce", doctor_checks.check_all_reduce),
        ("disk", lambda: doctor_checks.check_disk(options.run_dir)),
        ("shared memory", doctor_checks.check_shared_memory),
        ("open files", doctor_checks.check_open_files),
        ("compiler", doctor_checks.check_compiler),
        ("clock", doctor_checks.check_clock),
        ("wandb", doctor_checks.check_wandb),
    ]
    if options.shards:
        checks.append(("shards", lambda: doctor_checks.check_shards(options.shards)))
    if options.nodes:
        checks.append(("nodes", doctor_checks.check_nodes))
    found = examine(checks, (lambda finding: None) if options.json else lambda f: print(format_line(f), flush=True))
    failed = [finding for finding in found if finding.level == "fail"]
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        warned = sum(finding.level == "warn" for finding in found)
        print(f"{len(found)} checks: {len(failed)} failed, {warned} to look at")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
