"""Where a run starts, and which settings may change between its attempts.

From its own newest checkpoint, from one that is named, or from nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from livetrain.checkpoint import folders
from livetrain.checkpoint.folders import CheckpointReader
from livetrain.config import Config, known_keys, to_yaml, value_of
from livetrain.core.errors import UserError
from livetrain.core.files import file_sha256, write_text
from livetrain.data import Dataset
from livetrain.distributed import collectives
from livetrain.tracking.run_dir import RunDir

# Keys that may differ between the attempts of one run silently. Where the data set is may change, not what it is.
FREE_KEYS = (
    "resume",
    "run.fork",
    "dry_run",
    "profile",
    "data.shards",
    "data.sources",
    "data.cache_",
    "data.max_lost_percent",
    "data.download_ahead",
    "data.retries",
    "data.on_outage",
    "data.outage_minutes",
    "data.range_mb",
    "data.nvdec_pipelines",
    "data.decode_memory_mb",
    "eval.robustness",
    "ddp.bucket_mb",
    "ddp.bucket_view",
    "ddp.static_graph",
    "run_dir",
    "tracking.",
    "data.threads",
    "data.prefetch",
    "train.log_every",
    "train.save_every_minutes",
    "train.keep_last",
    "train.keep_every_steps",
    "train.hang_timeout_seconds",
)
# Keys that may not, without run.fork: with another value it is another run. Other changes are reported.
SAME_KEYS = ("seed", "train.global_batch", "data.", "model.", "optim.name", "optim.layer_decay")
NOT_SAME_KEYS = (
    "data.decoder",
    "data.on_error",
    "data.allow_leak",
    "data.dev_split",
    "data.test_split",
    "model.pretrained",
    "model.weights",
    "model.compile",
    "model.grad_checkpointing",
    "model.channels_last",
    "model.sync_bn",
)


def find_start(config: Config, dataset: Dataset, warn: Callable[[str], None]) -> CheckpointReader | None:
    """The checkpoint that `resume` asks for, or None for a fresh start: as the first process finds it, for all.

    Raises UserError, also where the run directory's own is of another run (see `check_changes`); MachineFault on a
    process that does not see what the first one found.
    """
    found: list[CheckpointReader] = []

    def decide() -> tuple[str, str] | None:
        saved = _find_start(config, dataset, warn)
        if saved is None:
            return None
        found.append(saved)
        return str(saved.path), file_sha256(saved.path / folders.MANIFEST)

    decision = collectives.decide_on_rank_zero(decide)
    if decision is None or found:
        return found[0] if found else None
    path = Path(decision[0])
    collectives.await_manifest(path, decision[1])
    return folders.open_checked(path)


def _find_start(config: Config, dataset: Dataset, warn: Callable[[str], None]) -> CheckpointReader | None:
    folder = RunDir(Path(config.run_dir)).checkpoints
    if config.resume == "never":
        if folders.list_steps(folder):
            raise UserError(
                f"{folder} holds checkpoints and resume=never; choose another name or run_dir, or remove the folder"
            )
        return None
    # A run that began at a given checkpoint and was stopped resumes from its own: the same command does both.
    own = folders.newest(folder, warn)
    if own is not None:
        check_changes(config, dataset, own, warn)
    if config.resume == "auto" or own is not None:
        return own
    path = Path(config.resume)
    if not path.is_dir():
        raise UserError(f"resume={config.resume}: no such folder; it takes auto, never, or a checkpoint's folder")
    return folders.load(path)


def check_changes(config: Config, dataset: Dataset, own: CheckpointReader, warn: Callable[[str], None]) -> None:
    """Name the options that differ from those that the run, of which `own` is a checkpoint, began with.

    Raises UserError, the same on all processes, where they or the data make it another run and run.fork is not set.
    """
    run = RunDir(Path(config.run_dir))
    if not run.config.exists():
        return
    changed = _changed(run.load_config(), config)
    others = [f"{key} was {old!r} and is {new!r}" for key, (old, new) in changed.items() if _makes_another_run(key)]
    if own.outline["state"].get("data", dataset.fingerprint) != dataset.fingerprint:
        others.append("the data are not those it was trained on: other clips, labels or splits")
    if others and not config.run.fork:
        raise UserError(
            f"{config.run_dir} holds another run: {'; '.join(others)}. Choose another name or run_dir, or resume from "
            "its newest checkpoint anyway with run.fork=true"
        )
    for key, (old, new) in changed.items():
        warn(f"warning: {key} was {old!r} when this run began and is {new!r} now")


def refuse_another(config: Config, dataset: Dataset | None = None) -> None:
    """Raise UserError where the run directory holds a run with other settings or data.

    Finished or not; the error names what differs. Commands that skip finished runs (cv, sweep, arrays) must not take
    them for runs that were never made.
    """
    run = RunDir(Path(config.run_dir))
    if not run.config.exists():
        return
    changed = _changed(run.load_config(), config)
    named = [f"{key} was {old!r} and is {new!r}" for key, (old, new) in changed.items() if key != "name"]
    own = folders.newest(run.checkpoints, lambda line: None) if dataset else None
    if dataset and own and own.outline["state"].get("data", dataset.fingerprint) != dataset.fingerprint:
        named.append("the data are not those it was trained on: other clips, labels or splits")
    if named:
        raise UserError(
            f"{config.run_dir} holds a run with other settings: {'; '.join(named)}. Remove it, or choose another "
            "run_dir"
        )


def _changed(before: Config, config: Config) -> dict[str, tuple[Any, Any]]:
    """Key → (old, new) of the keys that differ and are not free to."""
    values = {key: (value_of(before, key), value_of(config, key)) for key in known_keys()}
    return {key: (old, new) for key, (old, new) in values.items() if old != new and not key.startswith(FREE_KEYS)}


def _makes_another_run(key: str) -> bool:
    return key.startswith(SAME_KEYS) and not key.startswith(NOT_SAME_KEYS)


def write_config(config: Config) -> None:
    """Write the resolved configuration into the run directory."""
    write_text(RunDir(Path(config.run_dir)).config, to_yaml(config))
