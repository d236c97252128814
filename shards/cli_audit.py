"""The verb `audit` of shards/cli.py."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from livetrain.core.errors import UserError
from shards.cli_engine import add_engine, engine_from


def add_audit(verbs: Any, local: Callable[[str], Path]) -> None:
    """Add the verb. local: the type of a path that is no URL."""
    parser = verbs.add_parser("audit", help="find copies, people under two names, shortcuts (extras: audit, faces)")
    parser.set_defaults(verb=run)
    parser.add_argument("folders", type=local, nargs="+", metavar="DIR", help="shard folders, compared with each other")
    parser.add_argument(
        "--out", type=local, required=True, metavar="HTML", help="page to write, with .json and .csv beside it"
    )
    parser.add_argument(
        "--fix", type=local, metavar="DIR", help="also write a label file without copies and with people joined there"
    )
    parser.add_argument("--no-faces", action="store_true", help="do not look for faces (three times as fast)")
    parser.add_argument(
        "--embedding", default="", metavar="MODEL", help="a timm model for more candidates of copies (default none)"
    )
    parser.add_argument("--weights", type=local, metavar="FILE", help="weights of --embedding (default: timm's)")
    add_engine(parser, "changes no finding")


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; the exit code."""
    from shards.audit.run_audit import AuditOptions, audit

    if arguments.out.suffix != ".html":
        raise UserError(f"--out {arguments.out}: give a name that ends in .html")
    if arguments.weights and not arguments.embedding:
        raise UserError("--weights has no effect without --embedding; name the model")
    options = AuditOptions(not arguments.no_faces, arguments.embedding, str(arguments.weights or ""), arguments.fix)
    for line in audit(arguments.folders, arguments.out, options, engine=engine_from(arguments)):
        print(line)
    return 0
