"""Build a Config from YAML files and `key=value` overrides, and write one back as YAML.

    load_config(["configs/nuaa.yaml"], ["optim.lr=3e-4", "train.epochs=5"])

A YAML file lists only its overrides, and may build on another one (`base: other.yaml`, relative to itself); `key=value`
comes last.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from livetrain.config.augment import PRESETS
from livetrain.config.checks import check_known, check_values, keys_without_effect
from livetrain.config.folds import apply_fold, apply_leave_out
from livetrain.config.schema import Config, default_of
from livetrain.core.errors import UserError, first_line
from livetrain.core.files import expanded
from livetrain.core.progress import warn_stderr

_ONE_METHOD = "intervals are made in one way, from people and one more who was not seen"


RETIRED: dict[str, tuple[Any, str]] = {
    "verdict.interval": ("bca", _ONE_METHOD),
    "verdict.resample": ("people", _ONE_METHOD),
    "verdict.bootstrap_replicates": (2000, _ONE_METHOD),
}
"""Keys of older versions: key → (its default then, why it was removed)."""
RENAMED = {"data.nvdec_lanes": "data.nvdec_pipelines"}
"""Keys that have another name since 0.2, accepted with a warning until 0.3."""


def load_config(
    paths: Sequence[str | Path], overrides: Sequence[str], warn: Callable[[str], None] | None = None
) -> Config:
    """Defaults ← YAML files in order ← `key=value` in order.

    `warn` gets a line for each key set without effect (default: standard error). Raises UserError for a file that
    cannot be read, an unknown key (with the nearest name), a wrong type, a value that is not allowed.
    """
    parts = [part for path in paths for part in _read_yaml(Path(path))] + [_read_overrides(overrides)]
    config = _merged(parts, warn)
    if not config.data.shards and not config.data.sources:
        raise UserError("data.shards is not set; name the folder that `python -m shards build --out DIR` wrote")
    return config


def config_from(
    values: Mapping[str, Any], origin: str, overrides: Sequence[str] = (), warn: Callable[[str], None] | None = None
) -> Config:
    """Defaults ← nested `values` ← `key=value`, as a configuration that needs no shards.

    `origin` names the file that holds `values` in errors, which are those of `load_config`.
    """
    return _merged([(origin, OmegaConf.create(dict(values))), _read_overrides(overrides)], warn)


def _merged(parts: Sequence[tuple[str, DictConfig]], warn: Callable[[str], None] | None) -> Config:
    explicit: dict[str, str] = {}
    plain = [(origin, _at_home(OmegaConf.to_container(part))) for origin, part in parts]
    for origin, values in plain:
        _modernise(values, origin, warn or warn_stderr)
        for key, value in _leaves(values):
            check_known(key, origin)
            _refuse_gaps(value, origin, key)
            explicit[key] = origin
    merged = copy.deepcopy(_defaults())
    for origin, values in [_preset(plain), *plain]:
        try:
            merged.merge_with(OmegaConf.create(values))
        except OmegaConfBaseException as error:
            key = error.full_key or str(error.key)
            raise UserError(f"{origin}: {key}: {first_line(error)} (default: {default_of(key)!r})") from None
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:  # an interpolation, ${…}, of what is not there, or not of the right kind
        key = re.sub(r"\[.*", "", error.full_key or str(error.key))
        raise UserError(f"{explicit.get(key, 'configuration')}: {key}: {first_line(error)}") from None
    assert isinstance(config, Config)
    config.run_dir = config.run_dir or _default_run_dir(config.name)
    apply_fold(config.data, explicit)
    apply_leave_out(config.data)
    check_values(config, explicit)
    for line in keys_without_effect(config, explicit):
        (warn or warn_stderr)(line)
    return config


@functools.cache
def _defaults() -> DictConfig:
    """Every key at its default. To make it costs more than all else of a configuration: once a process."""
    return OmegaConf.structured(Config)


def _at_home(value: Any) -> Any:
    """`value` with a leading ~ of every text in it replaced by the home directory."""
    if isinstance(value, dict):
        return {key: _at_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_at_home(item) for item in value]
    return expanded(value) if isinstance(value, str) else value


def _modernise(values: dict[str, Any], origin: str, warn: Callable[[str], None]) -> None:
    """Take removed keys out of nested `values` and give renamed ones their new names, so that older files load.

    Each is warned about, except for removed keys at their default.
    """
    for key, (default, reason) in RETIRED.items():
        section, name = key.split(".")
        if isinstance(values.get(section), dict) and name in values[section]:
            value = values[section].pop(name)
            if value != default:
                warn(f"warning: {origin}: {key}={value} has no effect any more: {reason}")
    for key, renamed in RENAMED.items():
        section, name = key.split(".")
        if isinstance(values.get(section), dict) and name in values[section]:
            new_section, new_name = renamed.split(".")
            if new_name in values.get(new_section, {}):
                raise UserError(f"{origin}: {key} and {renamed} are the same key; leave {key} out")
            warn(f"warning: {origin}: {key} is now {renamed}; the old name will be removed")
            values.setdefault(new_section, {})[new_name] = values[section].pop(name)


def _preset(parts: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, dict[str, Any]]:
    """The values of the preset that is named last, to be merged before everything that is given."""
    sections = [values["augment"] for _, values in parts if isinstance(values.get("augment"), dict)]
    named = [str(section["preset"]) for section in sections if section.get("preset") is not None]
    return "augment.preset", {"augment": PRESETS.get(named[-1] if named else "standard", {})}


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML; `load_config` of it gives the same configuration."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested plain dicts."""
    return dataclasses.asdict(config)


def _default_run_dir(name: str) -> str:
    """runs/<name>, or runs/<name>-<W&B id> for a trial of `wandb agent`.

    Trials must not resume each other.
    """
    trial = os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""
    return str(Path("runs") / (f"{name}-{trial}" if trial else name))


def read_mapping(path: Path | str, named: str = "", missing: str = "") -> dict[str, Any]:
    """The content of a YAML file, with ~ as in a shell. named: what stands before its path in errors, a flag say.

    Raises UserError for what is no YAML or holds no keys; where there is no file, a UserError that ends in `missing`
    (what to do), or FileNotFoundError without it.
    """
    content: Any = _at_home(OmegaConf.to_container(_load_yaml(path, named, missing)))
    _refuse_gaps(content, f"{named} {path}".strip())
    return {str(key): value for key, value in content.items()}


def _refuse_gaps(value: Any, origin: str, key: str = "") -> None:
    """Raises UserError for ???, for which OmegaConf would take the default without a word."""
    if value == "???":
        raise UserError(f"{origin}: {key}: ??? stands for a value that is still to be given; give it")
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        _refuse_gaps(item, origin, f"{key}.{name}".lstrip("."))


def _load_yaml(path: Path | str, named: str, missing: str) -> DictConfig:
    where = f"{named} {path}".strip()
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        if not missing:
            raise
        raise UserError(f"{where}: no such file; {missing}") from None
    except Exception as error:  # YAML's errors have no common base that omegaconf promises
        raise UserError(f"{where}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise UserError(f"{where}: must hold `key: value` lines")
    return content


def _read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, DictConfig]]:
    """The file's content after that of the files it builds on, each with its name."""
    if path.resolve() in seen:
        raise UserError(f"{path}: `base` leads back to the file itself")
    content = _load_yaml(path, "", "the configurations that come with livetrain are in configs/")
    base = content.pop("base", None)
    before = [] if base is None else _read_yaml(path.parent / expanded(str(base)), (*seen, path.resolve()))
    return [*before, (str(path), content)]


def _read_overrides(overrides: Sequence[str]) -> tuple[str, DictConfig]:
    for item in overrides:
        if "=" not in item or item.startswith(("=", "-")):
            raise UserError(f"{item!r} is not key=value; write for example optim.lr=3e-4 (and name YAML files *.yaml)")
    try:
        # `key=` is the empty word, as a shell's user means it, not YAML's null.
        return "command line", OmegaConf.from_dotlist([f"{x}''" if x.endswith("=") else x for x in overrides])
    except Exception as error:
        raise UserError(f"command line: {' '.join(str(error).split())}") from None


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(YAML files, `key=value` overrides) of a command line, in order."""
    files = [item for item in arguments if "=" not in item and item.endswith((".yaml", ".yml"))]
    return files, [item for item in arguments if item not in files]
