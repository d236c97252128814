"""Whether W&B shows what a run logged.

    livetrain sync-check RUN

Compares metrics.jsonl with what W&B wrote beside it (run_dir/wandb/*/run-*.wandb: one file an attempt, online or
offline), figure by figure and step by step. A step that was logged again after a restart is one step in metrics.jsonl,
and must be one in W&B.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from livetrain.core.arguments import Parser
from livetrain.core.errors import UserError
from livetrain.tracking.metrics_log import read_metrics
from livetrain.tracking.run_dir import RunDir

HEADER_BYTES, BLOCK_BYTES = 7, 32768
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass(frozen=True)
class Comparison:
    """Log lines in metrics.jsonl, those of them that W&B lacks, has more than once, or has with other figures."""

    num_lines: int
    missing: list[tuple[str, int]]
    doubled: list[tuple[str, int]]
    differing: list[tuple[str, int]]

    @property
    def same(self) -> bool:
        """Nothing to tell."""
        return not (self.missing or self.doubled or self.differing)


def compare(run_dir: Path) -> Comparison:
    """metrics.jsonl against the W&B files of all attempts. Raises UserError when either is not there."""
    lines = {(record["kind"], record["step"]): record for record in read_metrics(RunDir(run_dir).metrics)}
    if not lines:
        raise UserError(f"{RunDir(run_dir).metrics} holds no figures; is {run_dir} a run directory?")
    files = sorted({path.resolve() for path in run_dir.glob("wandb/*/run-*.wandb")})  # latest-run is a link to one
    if not files:
        raise UserError(f"{run_dir}/wandb holds no W&B files: the run had tracking.wandb=disabled, or W&B failed")
    shown: dict[tuple[str, int], dict[str, Any]] = {}
    count: Counter[tuple[str, int]] = Counter()
    for path in files:
        for figures in history(path):
            kinds = {name.partition("/")[0] for name in figures if "/" in name} - {"verdict"}
            for kind in kinds & {kind for kind, _ in lines}:
                key = (kind, int(figures["step"]))
                count[key] += 1
                shown[key] = {name.partition("/")[2]: value for name, value in figures.items() if "/" in name}
    return Comparison(
        len(lines),
        sorted(lines.keys() - shown.keys()),
        sorted(key for key, number in count.items() if number > 1),
        sorted(key for key in lines.keys() & shown.keys() if _differ(lines[key], shown[key])),
    )


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The figures of each call of `run.log` in a .wandb file; what a kill cut off is left out."""
    from wandb.proto import wandb_internal_pb2

    make_record: Any = wandb_internal_pb2.Record  # type: ignore[attr-defined]  # made when protobuf is imported

    for data in _records(path.read_bytes()):
        record = make_record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def format_text(found: Comparison) -> str:
    """The comparison for a terminal."""
    if found.same:
        return f"W&B shows all {found.num_lines} log lines of metrics.jsonl, each once, with the same figures"
    lines = []
    for what, keys in (("lacks", found.missing), ("doubles", found.doubled), ("differs in", found.differing)):
        if keys:
            named = ", ".join(f"{kind} {step}" for kind, step in keys[:8])
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            lines.append(f"W&B {what} {len(keys)} of {found.num_lines} log lines: {named}{more}")
    return "\n".join(lines)


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a file in LevelDB's log format, after W&B's own header.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    position, whole = HEADER_BYTES, b""
    while position + HEADER_BYTES <= len(data):
        left = BLOCK_BYTES - position % BLOCK_BYTES
        if left < HEADER_BYTES:
            position += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        part = data[position + HEADER_BYTES : position + HEADER_BYTES + size]
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(part) < size:
            return
        whole = part if kind in (WHOLE, FIRST) else whole + part
        position += HEADER_BYTES + size
        if kind in (WHOLE, LAST):
            yield whole


def _differ(line: dict[str, Any], shown: dict[str, Any]) -> bool:
    figures = {name: value for name, value in line.items() if name not in ("kind", "step", "epoch")}
    return any(name not in shown or shown[name] != value for name, value in figures.items())


def parser() -> Parser:
    """The command line of `livetrain sync-check`."""
    parser = Parser("sync-check", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    return parser


def main(arguments: list[str]) -> int:
    """`livetrain sync-check`. Returns the exit code: 1 where something differs."""
    found = compare(parser().parse(arguments).run)
    print(format_text(found))
    return 0 if found.same else 1
