"""The run directory: what is in it, and what a run that starts in it goes on from.

config.yaml  environment.json  metrics.jsonl  checkpoints/  scores/<split>.csv  verdict.json  report.html  wandb/
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from livetrain.config import Config, known_keys, load_config, to_yaml, value_of
from livetrain.engine import checkpoint
from livetrain.engine.checkpoint import Checkpoint
from livetrain.errors import UserError
from livetrain.fileio import write_text

CHECKPOINTS, METRICS, CONFIG, ENVIRONMENT = "checkpoints", "metrics.jsonl", "config.yaml", "environment.json"
VERDICT, REPORT = "verdict.json", "report.html"

# Keys that may differ between the attempts of one run without a word.
FREE_KEYS = (
    "resume",
    "dry_run",
    "profile",
    "eval.robustness",
    "ddp.bucket_mb",
    "ddp.bucket_view",
    "ddp.static_graph",
    "run_dir",
    "tracking.",
    "data.threads",
    "data.prefetch",
    "train.log_every",
    "train.keep_last",
    "train.keep_every_steps",
    "train.hang_timeout_seconds",
)


def find_start(config: Config, warn: Callable[[str], None]) -> Checkpoint | None:
    """The checkpoint that `resume` asks for, or None for a fresh start. Raises UserError."""
    folder = Path(config.run_dir) / CHECKPOINTS
    if config.resume == "never":
        if checkpoint.list_steps(folder):
            raise UserError(
                f"{folder} holds checkpoints and resume=never; choose another name or run_dir, or remove the folder"
            )
        return None
    # A run that began at a given checkpoint and was stopped goes on from its own: the same command does both.
    own = checkpoint.newest(folder, warn)
    if config.resume == "auto" or own is not None:
        return own
    path = Path(config.resume)
    if not path.is_dir():
        raise UserError(f"resume={config.resume}: no such folder; it takes auto, never, or a checkpoint's folder")
    return checkpoint.load(path)


def warn_changes(config: Config, warn: Callable[[str], None]) -> None:
    """Name the options that differ from those the run began with."""
    path = Path(config.run_dir) / CONFIG
    if not path.exists():
        return
    before = load_config([path], [], warn=lambda line: None)
    for key in known_keys():
        old, new = value_of(before, key), value_of(config, key)
        if old != new and not key.startswith(FREE_KEYS):
            warn(f"warning: {key} was {old!r} when this run began and is {new!r} now")


def write_config(config: Config) -> None:
    """Write the resolved configuration into the run directory."""
    write_text(Path(config.run_dir) / CONFIG, to_yaml(config))
